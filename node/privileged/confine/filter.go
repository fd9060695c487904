package confine

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrUnsupported says that this kernel, or the architecture this is built for, has no such means.
var ErrUnsupported = errors.New("not to be had here")

// Offsets in struct seccomp_data (linux/seccomp.h). Of an argument the low half is read, on the little-endian architectures
// that this is built for: the kernel takes these arguments as 32 bits.
const (
	atNumber   = 0
	atArch     = 4
	atArgument = 16
)

const (
	load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	least = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	has   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	give  = unix.BPF_RET | unix.BPF_K
)

const (
	allow  = unix.SECCOMP_RET_ALLOW
	refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	// absent is for calls that a program asks for and does without where they are not.
	absent = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// condition is what one call may be made with.
type condition struct {
	call     uint32
	argument uint32
	any      []uint32 // values the argument may have
	none     []uint32 // values it may not have
	bits     uint32   // that must be set, at least one of them
	without  uint32   // bits that must not be
}

// program makes a filter: calls of another architecture's table end the process; those in conditions are allowed as they
// say; those in allowed and missing as those words say; of all others is what otherwise says.
func program(conditions []condition, allowed, refused, missing []uint32, otherwise uint32) []unix.SockFilter {
	p := []unix.SockFilter{
		{Code: load, K: atArch},
		{Code: equal, K: auditArch, Jt: 1},
		{Code: give, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: atNumber},
	}
	if foreignCalls != 0 {
		p = append(p, unix.SockFilter{Code: least, K: foreignCalls, Jf: 1}, unix.SockFilter{Code: give, K: absent})
	}
	for _, c := range conditions {
		body := []unix.SockFilter{{Code: load, K: atArgument + 8*c.argument}}
		if c.without != 0 {
			body = append(body, unix.SockFilter{Code: has, K: c.without, Jf: 1}, unix.SockFilter{Code: give, K: refuse})
		}
		for _, v := range c.none {
			body = append(body, unix.SockFilter{Code: equal, K: v, Jf: 1}, unix.SockFilter{Code: give, K: refuse})
		}
		for _, v := range c.any {
			body = append(body, unix.SockFilter{Code: equal, K: v, Jf: 1}, unix.SockFilter{Code: give, K: allow})
		}
		last := unix.SockFilter{Code: give, K: refuse}
		switch {
		case c.bits != 0:
			body = append(body, unix.SockFilter{Code: has, K: c.bits, Jf: 1}, unix.SockFilter{Code: give, K: allow})
		case c.any == nil:
			last.K = allow
		}
		body = append(body, last)
		// The body ends in an answer: who jumps over it still has the call's number at hand.
		p = append(append(p, unix.SockFilter{Code: equal, K: c.call, Jf: uint8(len(body))}), body...)
	}
	for _, list := range []struct {
		calls  []uint32
		answer uint32
	}{{allowed, allow}, {refused, refuse}, {missing, absent}} {
		for _, call := range list.calls {
			p = append(p, unix.SockFilter{Code: equal, K: call, Jf: 1}, unix.SockFilter{Code: give, K: list.answer})
		}
	}
	return append(p, unix.SockFilter{Code: give, K: otherwise})
}

// enforce puts a filter on every thread of this process. It needs no_new_privs or CAP_SYS_ADMIN.
func enforce(p []unix.SockFilter) error {
	if auditArch == 0 {
		return fmt.Errorf("seccomp on %s: %w", runtime.GOARCH, ErrUnsupported)
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(p)
	switch {
	case errno == unix.ENOSYS || errno == unix.EINVAL:
		return fmt.Errorf("seccomp: %w: %w", ErrUnsupported, errno)
	case errno != 0:
		return fmt.Errorf("seccomp: %w", errno)
	case thread != 0:
		return fmt.Errorf("seccomp: thread %d has a filter of its own", thread)
	}
	return nil
}
