package confine

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// place is a folder or file, by its descriptor, and what may be done there (LANDLOCK_ACCESS_FS_…).
type place struct {
	at  int
	may uint64
}

// landlock asks the kernel for the version of its interface, and what of the file system that one handles (landlock(7)).
// Signals are not scoped: until Linux 6.15 that kept the threads of one process from signalling each other, which Go's
// scheduler lives by; the system call filter does it instead.
func landlock() (abi int, handled, scoped uint64, err error) {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, 0, 0, fmt.Errorf("landlock: %w: %w", ErrUnsupported, errno)
	}
	abi = int(n)
	handled = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1 // the thirteen of version 1
	if abi >= 2 {
		handled |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		handled |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		handled |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 6 {
		scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	return abi, handled, scoped, nil
}

// ruleset makes a set of rules; the caller closes it.
func ruleset(handled, scoped uint64, places []place) (int, error) {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handled, Scoped: scoped}
	size := unsafe.Offsetof(attr.Quiet_access_fs)
	set, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return 0, fmt.Errorf("landlock: %w", errno)
	}
	for _, p := range places {
		rule := unix.LandlockPathBeneathAttr{Allowed_access: p.may & handled, Parent_fd: int32(p.at)}
		if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, set, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
			unix.Close(int(set))
			return 0, fmt.Errorf("landlock: %w", errno)
		}
		runtime.KeepAlive(&rule)
	}
	return int(set), nil
}

// restrict puts every thread of this process under a set of rules, for life. It needs no_new_privs or CAP_SYS_ADMIN.
func restrict(handled, scoped uint64, places []place) error {
	set, err := ruleset(handled, scoped, places)
	if err != nil {
		return err
	}
	defer unix.Close(set)
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(set), 0, 0); errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	return nil
}
