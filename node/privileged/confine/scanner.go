package confine

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// enclosed are the calls of a program that computes: Go's runtime and C's, and the descriptors it was given. A table, never changed.
var enclosed = []uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_FCNTL, unix.SYS_FSTAT, unix.SYS_SENDMSG, unix.SYS_RECVMSG,
	unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MREMAP, unix.SYS_BRK,
	unix.SYS_FUTEX, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_MEMBARRIER, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETCPU,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY,
	unix.SYS_SETITIMER, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE,
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETRUSAGE, unix.SYS_GETRANDOM, unix.SYS_UNAME,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
}

// Enclosed leaves this process, on every thread and for life, its memory, its threads, and the descriptors it has: it opens no
// file, makes no socket and no process, signals nobody, and makes no memory executable. pid is its own. What is refused ends
// with EPERM. no_new_privs must be set. It returns how many calls are left.
func Enclosed(pid int) (int, error) {
	conditions := []condition{
		{call: unix.SYS_CLONE, argument: 0, bits: unix.CLONE_THREAD, without: unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET},
		{call: unix.SYS_TGKILL, argument: 0, any: []uint32{uint32(pid)}},
		{call: unix.SYS_PRCTL, argument: 0, any: []uint32{prSetVMA, unix.PR_SET_NAME}},
		{call: unix.SYS_MMAP, argument: 2, without: unix.PROT_EXEC},
		{call: unix.SYS_MPROTECT, argument: 2, without: unix.PROT_EXEC},
	}
	if err := enforce(program(conditions, enclosed, nil, probed, refuse)); err != nil {
		return 0, err
	}
	return len(enclosed) + len(conditions), nil
}

// ThisThread leaves the calling thread, and all that it executes, nothing of the file system but to read and execute what lies at
// paths and below. A path that is not there is passed over. It is for a thread that starts a process and ends: unlike what
// stands on a whole process, a build with cgo can do this. no_new_privs must be set, or the caller have CAP_SYS_ADMIN. It
// returns the version of Landlock's interface.
func ThisThread(paths ...string) (int, error) {
	abi, handled, scoped, err := landlock()
	if err != nil {
		return 0, err
	}
	var places []place
	defer func() {
		for _, p := range places {
			unix.Close(p.at)
		}
	}()
	for _, path := range paths {
		at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("landlock: %s: %w", path, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(at, &st); err != nil {
			unix.Close(at)
			return 0, fmt.Errorf("landlock: %s: %w", path, err)
		}
		may := uint64(unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			may |= unix.LANDLOCK_ACCESS_FS_READ_DIR
		}
		places = append(places, place{at, may})
	}
	set, err := ruleset(handled, scoped, places)
	if err != nil {
		return 0, err
	}
	defer unix.Close(set)
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(set), 0, 0); errno != 0 {
		return 0, fmt.Errorf("landlock: %w", errno)
	}
	return abi, nil
}
