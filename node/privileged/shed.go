package privileged

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// shed are the capabilities that nothing here needs once the kernel half is loaded: what puts code into the kernel or reads
// it raw, sets the clock, makes devices, writes audit records, or ends the machine. A table, never changed.
var shed = [...]uint{
	unix.CAP_LINUX_IMMUTABLE, unix.CAP_NET_BROADCAST, unix.CAP_NET_RAW, unix.CAP_IPC_OWNER, unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO,
	unix.CAP_SYS_CHROOT, unix.CAP_SYS_PACCT, unix.CAP_SYS_BOOT, unix.CAP_SYS_TIME, unix.CAP_SYS_TTY_CONFIG, unix.CAP_MKNOD, unix.CAP_LEASE,
	unix.CAP_AUDIT_WRITE, unix.CAP_AUDIT_CONTROL, unix.CAP_MAC_OVERRIDE, unix.CAP_MAC_ADMIN, unix.CAP_SYSLOG, unix.CAP_WAKE_ALARM,
	unix.CAP_BLOCK_SUSPEND, unix.CAP_AUDIT_READ, unix.CAP_CHECKPOINT_RESTORE,
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
