package selftest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// Is says whether this process was started to perform. main must ask before anything else, and end with Perform's result.
func Is() bool { return len(os.Args) > 1 && os.Args[0] == Name }

// childArgument makes the process that performs start itself again, to be a child that waits.
const childArgument = "child"

// most is how long a run may take: what hangs ends with its process.
const most = 20 * time.Second

// exitChild is what the child ends with, to see that exit codes come through.
const exitChild = 7

// Perform does everything there is to see, writes what came of it to out as JSON, and gives the exit code.
func Perform(out io.Writer) int {
	if len(os.Args) > 2 && os.Args[2] == childArgument {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it, or is gone
		return exitChild
	}
	stop := time.AfterFunc(most, func() { os.Exit(3) })
	defer stop.Stop()
	runtime.LockOSThread() // what one thread does is one process's doing
	r := &run{}
	r.files()
	r.network()
	r.processes()
	r.rights()
	r.memory()
	r.ioUring()
	if err := json.NewEncoder(out).Encode(r.attempts); err != nil {
		return 1
	}
	return 0
}

// Decode reads what Perform wrote, at most 16 KiB.
func Decode(raw []byte) ([]Attempt, error) {
	if len(raw) > 16<<10 {
		return nil, fmt.Errorf("self-test: a report of %d bytes", len(raw))
	}
	var list []Attempt
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("self-test: %w", err)
	}
	if len(list) > maxAttempts {
		return nil, fmt.Errorf("self-test: a report of %d attempts", len(list))
	}
	return list, nil
}

type run struct{ attempts []Attempt }

func (r *run) did(a event.Activity, err error) {
	t := Attempt{Activity: a}
	if err != nil {
		t.Refused = err.Error()[:min(len(err.Error()), 128)]
	}
	r.attempts = append(r.attempts, t)
}

// processes starts a child, looks into it and ends it. That this process was itself executed is the first attempt.
func (r *run) processes() {
	r.did(event.ActivityExec, nil)
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{Name, "", childArgument}
	hold, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	r.did(event.ActivityFork, err)
	if err != nil {
		return
	}
	pid := cmd.Process.Pid
	err = unix.PtraceAttach(pid)
	r.did(event.ActivityPtrace, err)
	if err == nil {
		var status unix.WaitStatus
		_, _ = unix.Wait4(pid, &status, unix.WALL, nil)
		_ = unix.PtraceDetach(pid)
		// What it stopped for may have been another signal, with the attachment's own SIGSTOP still to come: it would wait for
		// ever. A SIGCONT takes that back.
		_ = unix.Kill(pid, unix.SIGCONT)
	}
	// One byte to an address that nothing is mapped at: refused by the memory, not by the rights.
	b := []byte{0}
	_, err = unix.ProcessVMWritev(pid, []unix.Iovec{{Base: &b[0], Len: 1}}, []unix.RemoteIovec{{Base: 8, Len: 1}}, 0)
	if errors.Is(err, unix.EFAULT) {
		err = nil
	}
	r.did(event.ActivityProcessWrite, err)
	hold.Close()
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() == exitChild {
		err = nil
	}
	r.did(event.ActivityExit, err)
}

// files makes, changes and removes one file in a folder of its own.
func (r *run) files() {
	dir, err := os.MkdirTemp("", "omega-self-test-")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	path, other := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	r.did(event.ActivityFileCreate, err)
	if err != nil {
		return
	}
	_, err = unix.Write(fd, []byte("self-test\n"))
	unix.Close(fd)
	if err == nil {
		if fd, err = unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0); err == nil {
			_, err = unix.Write(fd, []byte("again\n"))
			unix.Close(fd)
		}
	}
	r.did(event.ActivityFileWrite, err)
	r.did(event.ActivityFileChmod, unix.Chmod(path, 0o640))
	r.did(event.ActivityFileChown, unix.Chown(path, os.Getuid(), os.Getgid()))
	r.did(event.ActivityFileSetXattr, unix.Setxattr(path, "user.omega.selftest", []byte("1"), 0))
	r.did(event.ActivityFileLink, unix.Symlink(path, other))
	r.did(event.ActivityFileRename, unix.Rename(path, filepath.Join(dir, "c")))
	r.did(event.ActivityFileUnlink, unix.Unlink(other))
	r.did(event.ActivityMount, unix.Mount("none", dir, "tmpfs", 0, ""))
	_ = unix.Unmount(dir, 0) // refused wherever the mount was
}

// network speaks to itself, and asks a resolver that need not be there for a name that cannot be (RFC 6761).
func (r *run) network() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	here := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	err = unix.Bind(fd, here)
	r.did(event.ActivityBind, err)
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	r.did(event.ActivityListen, err)
	if err != nil {
		return
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return
	}
	out, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(out, at)
	}
	r.did(event.ActivityConnect, err)
	if err == nil {
		var in int
		in, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC)
		r.did(event.ActivityAccept, err)
		if err == nil {
			_, _ = unix.Write(out, []byte("self-test\n"))
			unix.Close(in)
		}
	}
	unix.Close(out)
	r.did(event.ActivityClose, err)

	udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		here.Port = 53
		err = unix.Sendto(udp, question(), 0, here)
		unix.Close(udp)
	}
	r.did(event.ActivityDNSQuery, err)
}

// question asks for the address of self-test.omega.invalid (RFC 1035).
func question() []byte {
	q := []byte{0x0e, 0x6a, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, label := range []string{"self-test", "omega", "invalid"} {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, 1, 0, 1)
}

// rights asks for what this process may not have. The raw calls concern this thread alone, which ends with the process.
func (r *run) rights() {
	call := func(a event.Activity, number uintptr, args ...uintptr) {
		var six [6]uintptr
		copy(six[:], args)
		_, _, e := syscall.RawSyscall6(number, six[0], six[1], six[2], six[3], six[4], six[5])
		var err error
		if e != 0 {
			err = e
		}
		r.did(a, err)
	}
	uid, gid := uintptr(os.Getuid()), uintptr(os.Getgid())
	call(event.ActivitySetUID, unix.SYS_SETRESUID, uid, uid, uid)
	call(event.ActivitySetGID, unix.SYS_SETRESGID, gid, gid, gid)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err == nil {
		r.did(event.ActivityCapSet, unix.Capset(&header, &data[0]))
	}
	call(event.ActivityKeyctl, unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2), 0) // KEY_SPEC_SESSION_KEYRING is -3
	call(event.ActivityUnshare, unix.SYS_UNSHARE, unix.CLONE_NEWUTS)
	call(event.ActivityBPF, unix.SYS_BPF, unix.BPF_PROG_LOAD, 0, 0)
	call(event.ActivityModuleLoad, unix.SYS_FINIT_MODULE, ^uintptr(0), 0, 0)
	ns, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		call(event.ActivitySetNS, unix.SYS_SETNS, uintptr(ns), unix.CLONE_NEWUTS)
		unix.Close(ns)
	}
}

// memory makes memory without a file, and some that may be executed.
func (r *run) memory() {
	fd, err := unix.MemfdCreate("omega-self-test", unix.MFD_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	r.did(event.ActivityMemfdCreate, err)
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		err = unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC)
		_ = unix.Munmap(page)
	}
	r.did(event.ActivityMemoryExecutable, err)
}

// ioUring hands the kernel one request to open a file that is not there (io_uring(7)).
func (r *run) ioUring() {
	r.did(event.ActivityIOUring, openByRing("/proc/self/omega-self-test"))
}

// Of linux/io_uring.h.
const (
	ringOpenAt   = 18
	ringGetEvent = 1
	offRings     = 0
	offEntries   = 0x10000000
	entrySize    = 64
)

type ringOffsets struct{ head, tail, mask, entries, flags, dropped, array, reserved uint32 }

type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	reserved                                             [3]uint32
	sq                                                   ringOffsets
	sqUser                                               uint64
	cq                                                   ringOffsets
	cqUser                                               uint64
}

func openByRing(path string) error {
	var p ringParams
	fd, _, e := syscall.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return e
	}
	defer unix.Close(int(fd))
	size := int(max(p.sq.array+4*p.sqEntries, p.cq.array+16*p.cqEntries)) + 4096
	ring, err := unix.Mmap(int(fd), offRings, size&^4095, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(ring)
	entries, err := unix.Mmap(int(fd), offEntries, int(p.sqEntries)*entrySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(entries)
	name := append([]byte(path), 0)
	entry := (*struct {
		opcode, flags uint8
		prio          uint16
		fd            int32
		off, addr     uint64
		length, how   uint32
	})(unsafe.Pointer(&entries[0]))
	dir := unix.AT_FDCWD
	entry.opcode, entry.fd, entry.addr, entry.how = ringOpenAt, int32(dir), uint64(uintptr(unsafe.Pointer(&name[0]))), unix.O_RDONLY
	*(*uint32)(unsafe.Pointer(&ring[p.sq.array])) = 0
	*(*uint32)(unsafe.Pointer(&ring[p.sq.tail]))++
	_, _, e = syscall.Syscall6(unix.SYS_IO_URING_ENTER, fd, 1, 1, ringGetEvent, 0, 0)
	runtime.KeepAlive(name)
	if e != 0 {
		return e
	}
	return nil
}
