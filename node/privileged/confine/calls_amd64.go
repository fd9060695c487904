package confine

import "golang.org/x/sys/unix"

const (
	auditArch    = unix.AUDIT_ARCH_X86_64
	foreignCalls = 0x40000000 // __X32_SYSCALL_BIT: the same calls under other numbers
)

// Calls that only the older architectures have: tables, never changed.
var (
	olderCalls = []uint32{unix.SYS_NEWFSTATAT, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK, unix.SYS_RENAMEAT, unix.SYS_RENAME, unix.SYS_UNLINK,
		unix.SYS_MKDIR, unix.SYS_RMDIR, unix.SYS_DUP2, unix.SYS_PIPE, unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_EPOLL_WAIT, unix.SYS_GETRLIMIT, unix.SYS_ARCH_PRCTL, unix.SYS_TIME}
	unneededHere = []uint32{unix.SYS_KEXEC_FILE_LOAD, unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB, unix.SYS_CREATE_MODULE, unix.SYS_GET_KERNEL_SYMS,
		unix.SYS_QUERY_MODULE, unix.SYS__SYSCTL, unix.SYS_SYSFS, unix.SYS_USTAT}
)
