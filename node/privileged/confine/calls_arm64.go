package confine

import "golang.org/x/sys/unix"

const (
	auditArch    = unix.AUDIT_ARCH_AARCH64
	foreignCalls = 0
)

// Calls that this architecture has beside those of all: tables, never changed.
var (
	olderCalls   = []uint32{unix.SYS_FSTATAT, unix.SYS_RENAMEAT, unix.SYS_GETRLIMIT}
	unneededHere = []uint32{unix.SYS_KEXEC_FILE_LOAD}
)
