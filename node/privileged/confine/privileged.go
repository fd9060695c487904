package confine

import (
	"golang.org/x/sys/unix"
)

// unneeded are calls that neither the privileged half, nor the half and the self-test that it executes, ever makes: what
// ends, replaces or reconfigures the machine, sets its clock, reads another process's memory or takes its descriptors,
// opens files past their folders, or has the kernel do work in ways that were exploited before. A table, never changed.
//
// Left are bpf(), perf_event_open() and mounts of file systems of its own, which new interfaces need; and what the self-test does
// once to prove that it is seen: seccomp would refuse it before any sensor saw it.
var unneeded = []uint32{
	unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_VHANGUP,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
	unix.SYS_QUOTACTL, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT, unix.SYS_PERSONALITY, unix.SYS_INIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_PROCESS_VM_READV, unix.SYS_PIDFD_GETFD, unix.SYS_PROCESS_MADVISE, unix.SYS_KCMP, unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_USERFAULTFD, unix.SYS_FANOTIFY_INIT, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_NFSSERVCTL,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_MEMFD_SECRET, unix.SYS_MBIND, unix.SYS_SET_MEMPOLICY, unix.SYS_VMSPLICE,
}

// Privileged takes from this process, and from all that it executes, the calls that none of them makes. It needs
// CAP_SYS_ADMIN, or no_new_privs. It returns how many were taken.
func Privileged() (int, error) {
	calls := append(append([]uint32{}, unneeded...), unneededHere...)
	if err := enforce(program(nil, nil, calls, nil, allow)); err != nil {
		return 0, err
	}
	return len(calls), nil
}
