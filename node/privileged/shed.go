package privileged

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/node/privileged/confine"
)

// shed are the capabilities that nothing here needs once the kernel half is loaded (quarantine of an immutable file needs
// CAP_LINUX_IMMUTABLE): what puts code into the kernel or reads
// it raw, sets the clock, makes devices, writes audit records, or ends the machine. A table, never changed.
var shed = [...]uint{
	unix.CAP_NET_BROADCAST, unix.CAP_NET_RAW, unix.CAP_IPC_OWNER, unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO,
	unix.CAP_SYS_CHROOT, unix.CAP_SYS_PACCT, unix.CAP_SYS_BOOT, unix.CAP_SYS_TIME, unix.CAP_SYS_TTY_CONFIG, unix.CAP_MKNOD, unix.CAP_LEASE,
	unix.CAP_AUDIT_WRITE, unix.CAP_AUDIT_CONTROL, unix.CAP_MAC_OVERRIDE, unix.CAP_MAC_ADMIN, unix.CAP_SYSLOG, unix.CAP_WAKE_ALARM,
	unix.CAP_BLOCK_SUSPEND, unix.CAP_AUDIT_READ, unix.CAP_CHECKPOINT_RESTORE,
}

// kept are all the others, by the names that service managers have for them: what loading the kernel half, acting, starting
// the other half, and giving a file back as it was take. A table, never changed.
var kept = [...]struct {
	number uint
	name   string
}{
	{unix.CAP_CHOWN, "CAP_CHOWN"}, {unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE"}, {unix.CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"}, {unix.CAP_FOWNER, "CAP_FOWNER"},
	{unix.CAP_FSETID, "CAP_FSETID"}, {unix.CAP_KILL, "CAP_KILL"}, {unix.CAP_SETGID, "CAP_SETGID"}, {unix.CAP_SETUID, "CAP_SETUID"}, {unix.CAP_SETPCAP, "CAP_SETPCAP"},
	{unix.CAP_LINUX_IMMUTABLE, "CAP_LINUX_IMMUTABLE"}, {unix.CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{unix.CAP_IPC_LOCK, "CAP_IPC_LOCK"}, {unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE"}, {unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}, {unix.CAP_SYS_NICE, "CAP_SYS_NICE"},
	{unix.CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE"}, {unix.CAP_SETFCAP, "CAP_SETFCAP"}, {unix.CAP_PERFMON, "CAP_PERFMON"}, {unix.CAP_BPF, "CAP_BPF"},
}

// Kept names the capabilities that a node needs from its start to its end.
func Kept() (names []string) {
	for _, c := range kept {
		names = append(names, c.name)
	}
	return names
}

// Shed gives up for good, on every thread, what this process does not need any more, and what it execs later cannot have
// it either. A build with cgo cannot reach its other threads: there it is an error, and nothing changed.
func Shed() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	for _, c := range shed {
		// The bounding set first: it takes CAP_SETPCAP, which stays.
		if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0, 0); errno != 0 && errno != unix.EINVAL {
			return fmt.Errorf("capability bounding set: %w", errno)
		}
		data[c/32].Effective &^= 1 << (c % 32)
		data[c/32].Permitted &^= 1 << (c % 32)
		data[c/32].Inheritable &^= 1 << (c % 32)
	}
	header.Pid = 0 // the calling thread, each
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		return fmt.Errorf("capabilities: %w", errno)
	}
	return nil
}

// Confine gives up for good what the privileged half does not need any more: capabilities by Shed, system calls by a filter.
// It says in a check what it could do.
func Confine() Check {
	c := Check{Name: "self/privileged", OK: true, Lost: "the half that keeps root may do more than it needs"}
	var did, failed []string
	if err := errors.Join(Unreadable(), Shed()); err != nil {
		failed = append(failed, err.Error())
	} else {
		did = append(did, fmt.Sprintf("%d capabilities given up", len(shed)))
	}
	if n, err := confine.Privileged(); err != nil {
		failed = append(failed, err.Error())
	} else {
		did = append(did, fmt.Sprintf("%d system calls given up (seccomp)", n))
	}
	c.Detail = strings.Join(append(did, failed...), "; ")
	if c.OK = len(failed) == 0; c.OK {
		c.Lost = ""
	}
	return c
}

// ConfineUnprivileged leaves the half that parses what others wrote the system calls that it needs, and the folder that is
// open as dir to write to. It says in two checks what it could do.
func ConfineUnprivileged(dir int) []Check {
	files := Check{Name: "self/landlock", OK: true}
	if abi, err := confine.WritesBelow(dir); err != nil {
		files.OK, files.Detail, files.Lost = false, err.Error(), "the half that parses may write wherever its user may"
	} else {
		files.Detail = fmt.Sprintf("version %d: the half that parses writes to the state folder alone and executes nothing", abi)
	}
	calls := Check{Name: "self/seccomp", OK: true}
	if n, err := confine.Unprivileged(); err != nil {
		calls.OK, calls.Detail, calls.Lost = false, err.Error(), "the half that parses may make every system call"
	} else {
		calls.Detail = fmt.Sprintf("the half that parses is left %d system calls", n)
	}
	return []Check{calls, files}
}

// Unreadable keeps this process's memory, which holds keys, from core files and from other processes of its user.
func Unreadable() error {
	var errs []error
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		errs = append(errs, fmt.Errorf("PR_SET_DUMPABLE: %w", err))
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		errs = append(errs, fmt.Errorf("RLIMIT_CORE: %w", err))
	}
	return errors.Join(errs...)
}
