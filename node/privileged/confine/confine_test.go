package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const confinedEnv = "CONFINED"

func TestMain(m *testing.M) {
	if how := os.Getenv(confinedEnv); how != "" { // this process is the child of a test
		os.Exit(confined(how, os.Args[1]))
	}
	os.Exit(m.Run())
}

// raw makes a call whose arguments do not matter: it is refused before they are looked at.
func raw(call uintptr, args ...uintptr) error {
	var a [3]uintptr
	copy(a[:], args)
	if _, _, errno := syscall.RawSyscall(call, a[0], a[1], a[2]); errno != 0 {
		return errno
	}
	return nil
}

// confined does what a half that was taken over would, and tells what came of it.
func confined(how, dir string) int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	told := map[string]string{}
	note := func(what string, err error) {
		told[what] = "done"
		var errno syscall.Errno
		if errors.As(err, &errno) {
			told[what] = unix.ErrnoName(errno)
		} else if err != nil {
			told[what] = err.Error()
		}
	}
	defer func() { _ = json.NewEncoder(os.Stdout).Encode(told) }()
	if how == "privileged" {
		_, err := Privileged()
		note("confine", err)
		note("reboot", raw(unix.SYS_REBOOT))
		note("set the clock", raw(unix.SYS_CLOCK_SETTIME))
		note("read another's memory", raw(unix.SYS_PROCESS_VM_READV))
		note("execute", exec.Command("/bin/true").Run())
		note("a program in the kernel", raw(unix.SYS_BPF, unix.BPF_PROG_LOAD, 0, 0))
		return 0
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		note("no_new_privs", err)
		return 0
	}
	if how == "landlock" {
		at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			note("open", err)
			return 0
		}
		_, err = WritesBelow(at)
		note("confine", err)
		inside, outside := filepath.Join(dir, "made"), filepath.Join(filepath.Dir(dir), "outside")
		note("write below", os.WriteFile(inside, []byte("x"), 0o600))
		note("rename below", os.Rename(inside, inside+"2"))
		note("remove below", os.Remove(inside+"2"))
		note("make a folder below", os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))
		note("write elsewhere", os.WriteFile(filepath.Join(filepath.Dir(dir), "stray"), nil, 0o600))
		note("change elsewhere", os.WriteFile(outside, []byte("x"), 0o600))
		note("remove elsewhere", os.Remove(outside))
		_, err = os.ReadFile(outside)
		note("read elsewhere", err)
		note("execute", exec.Command("/bin/true").Run())
		var wg sync.WaitGroup
		var err2 error
		wg.Go(func() { // on a thread that was there, or came after
			runtime.LockOSThread()
			err2 = os.WriteFile(filepath.Join(filepath.Dir(dir), "stray"), nil, 0o600)
		})
		wg.Wait()
		note("write elsewhere by another thread", err2)
		return 0
	}
	if how == "enclosed" {
		pipe := make([]int, 2)
		note("pipe", unix.Pipe2(pipe, 0))
		_, err := Enclosed(os.Getpid())
		note("confine", err)
		_, err = unix.Write(pipe[1], []byte("x"))
		note("use what it has", err)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() { runtime.LockOSThread(); _ = make([]byte, 1<<20) })
		}
		wg.Wait()
		_, err = os.ReadFile(filepath.Join(filepath.Dir(dir), "outside"))
		note("read a file", err)
		note("make a file", os.WriteFile(filepath.Join(dir, "made"), nil, 0o600))
		note("look at a file", raw(unix.SYS_STATX))
		note("a socket", raw(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0))
		note("execute", raw(unix.SYS_EXECVE))
		note("a process", raw(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0))
		note("kill", raw(unix.SYS_KILL, uintptr(os.Getppid()), 0))
		note("signal another", raw(unix.SYS_TGKILL, uintptr(os.Getppid()), uintptr(os.Getppid()), 0))
		note("trace", raw(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1))
		note("a file in memory", raw(unix.SYS_MEMFD_CREATE))
		note("raise a limit", raw(unix.SYS_PRLIMIT64))
		note("ask a device", raw(unix.SYS_IOCTL))
		_, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		note("memory", err)
		_, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		note("memory to execute", err)
		page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err == nil {
			err = unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC)
		}
		note("make memory executable", err)
		return 0
	}
	if how == "thread" { // what it executes is what counts: it tells for it
		self, err := os.Executable()
		if err != nil {
			note("executable", err)
			return 0
		}
		_, err = ThisThread(self, "/nowhere", "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null")
		note("confine", err)
		cmd := exec.Command(self, dir)
		cmd.Env = append(os.Environ(), confinedEnv+"=executed")
		out, err := cmd.Output()
		if err != nil {
			note("execute itself", err)
			return 0
		}
		_ = json.Unmarshal(out, &told)
		note("confine", nil)
		return 0
	}
	if how == "executed" {
		_, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "outside"))
		note("read elsewhere", err)
		_, err = os.ReadFile("/proc/self/status")
		note("read proc", err)
		_, err = os.ReadDir("/usr/lib")
		note("read libraries", err)
		note("write elsewhere", os.WriteFile(filepath.Join(dir, "made"), nil, 0o600))
		note("remove elsewhere", os.Remove(filepath.Join(filepath.Dir(dir), "outside")))
		copied := filepath.Join(filepath.Dir(dir), "program") // it lies where nothing may be executed
		note("execute elsewhere", exec.Command(copied).Run())
		return 0
	}
	_, err := Unprivileged()
	note("confine", err)
	// What a node does all day.
	var wg sync.WaitGroup
	for range 32 { // threads of their own
		wg.Go(func() { runtime.LockOSThread(); raw(unix.SYS_SCHED_YIELD) })
	}
	wg.Wait()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	note("listen", err)
	if err == nil {
		c, err := net.Dial("tcp", l.Addr().String())
		note("dial", err)
		if err == nil {
			c.Close()
		}
		l.Close()
	}
	_, err = net.Interfaces()
	note("interfaces", err)
	path := filepath.Join(dir, "file")
	note("write", os.WriteFile(path, []byte("x"), 0o600))
	note("rename", os.Rename(path, path+"2"))
	note("remove", os.RemoveAll(path+"2"))
	_, err = os.ReadDir("/proc/self/task")
	note("list", err)
	// What it never does.
	note("execute", exec.Command("/bin/true").Run())
	note("execve", raw(unix.SYS_EXECVE))
	note("a process", raw(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0))
	note("a process that shares its memory", raw(unix.SYS_CLONE, uintptr(unix.CLONE_VM|unix.CLONE_VFORK|unix.SIGCHLD), 0, 0))
	note("a user namespace", raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER))
	note("trace", raw(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1))
	note("kill", raw(unix.SYS_KILL, uintptr(os.Getppid()), 0))
	note("signal another", raw(unix.SYS_TGKILL, uintptr(os.Getppid()), uintptr(os.Getppid()), 0))
	note("signal itself", raw(unix.SYS_TGKILL, uintptr(os.Getpid()), uintptr(unix.Gettid()), 0))
	note("a program in the kernel", raw(unix.SYS_BPF))
	note("a raw socket", raw(unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW, 0))
	note("a cipher of the kernel's", raw(unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0))
	note("io_uring", raw(unix.SYS_IO_URING_SETUP, 1))
	note("a file in memory", raw(unix.SYS_MEMFD_CREATE))
	note("mount", raw(unix.SYS_MOUNT))
	note("keys", raw(unix.SYS_KEYCTL))
	note("be readable again", raw(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1))
	note("type into a terminal", raw(unix.SYS_IOCTL, 0, ioctlSTI))
	return 0
}

// try has another process confined in a way, and returns what came of what it tried.
func try(t *testing.T, how string) map[string]string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "outside"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "program"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), confinedEnv+"="+how)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var told map[string]string
	if err := json.Unmarshal(out, &told); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if told["confine"] != "done" {
		t.Skip("not to be had here: ", told["confine"])
	}
	return told
}

func compare(t *testing.T, told, want map[string]string) {
	t.Helper()
	for what, how := range want {
		if told[what] != how {
			t.Errorf("%s: %s, want %s", what, told[what], how)
		}
	}
	for what, how := range told {
		if _, ok := want[what]; !ok {
			t.Errorf("%s: %s, and nothing was expected", what, how)
		}
	}
}

func TestTheHalfThatParsesIsLeftFilesAndSockets(t *testing.T) {
	const done, no, absent = "done", "EPERM", "ENOSYS"
	compare(t, try(t, "unprivileged"), map[string]string{
		"confine": done, "listen": done, "dial": done, "interfaces": done, "write": done, "rename": done, "remove": done, "list": done, "signal itself": done,
		"execute": no, "execve": no, "a process": no, "a process that shares its memory": no, "a user namespace": no, "trace": no, "kill": no, "signal another": no, "a program in the kernel": no, "a raw socket": no,
		"a cipher of the kernel's": no, "io_uring": absent, "a file in memory": no, "mount": no, "keys": no, "be readable again": no, "type into a terminal": no,
	})
}

func TestTheHalfThatParsesWritesToItsStateAlone(t *testing.T) {
	const done, no = "done", "EACCES"
	compare(t, try(t, "landlock"), map[string]string{
		"confine": done, "write below": done, "rename below": done, "remove below": done, "make a folder below": done, "read elsewhere": done,
		"write elsewhere": no, "change elsewhere": no, "remove elsewhere": no, "execute": no, "write elsewhere by another thread": no,
	})
}

func TestWhatScansIsLeftItsMemory(t *testing.T) {
	const done, no = "done", "EPERM"
	compare(t, try(t, "enclosed"), map[string]string{
		"pipe": done, "confine": done, "use what it has": done, "memory": done,
		"read a file": no, "make a file": no, "look at a file": no, "a socket": no, "execute": no, "a process": no, "kill": no, "signal another": no, "trace": no,
		"a file in memory": no, "raise a limit": no, "ask a device": no, "memory to execute": no, "make memory executable": no,
	})
}

func TestWhatIsExecutedReadsLibrariesAlone(t *testing.T) {
	const done, no = "done", "EACCES"
	compare(t, try(t, "thread"), map[string]string{
		"confine": done, "read libraries": done,
		"read elsewhere": no, "read proc": no, "write elsewhere": no, "remove elsewhere": no, "execute elsewhere": no,
	})
}

func TestTheHalfThatKeepsRootGivesUpCalls(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: without it a filter needs no_new_privs")
	}
	told := try(t, "privileged")
	if bpf := told["a program in the kernel"]; bpf == "ENOSYS" {
		t.Errorf("bpf(): %s", bpf)
	}
	delete(told, "a program in the kernel") // how it fails says nothing: its arguments are none
	compare(t, told, map[string]string{"confine": "done", "reboot": "EPERM", "set the clock": "EPERM", "read another's memory": "EPERM", "execute": "done"})
}

// Each way through a filter ends in an answer, and no jump leads out of it: the kernel would refuse it whole.
func TestFiltersEndInAnAnswer(t *testing.T) {
	p := program([]condition{{call: 7, argument: 1, any: []uint32{1, 2}, none: []uint32{3}, bits: 4, without: 8}}, []uint32{1}, []uint32{2}, []uint32{3}, refuse)
	for i, f := range p {
		if f.Code == give || f.Code == load {
			continue
		}
		if far := i + 1 + int(max(f.Jt, f.Jf)); far >= len(p) {
			t.Errorf("instruction %d jumps to %d of %d", i, far, len(p))
		}
	}
	if p[len(p)-1].Code != give {
		t.Error("the filter does not end in an answer")
	}
	if n := len(needed) + len(olderCalls) + len(probed); 2*n > 4000 {
		t.Error(fmt.Sprint(n, " calls are more than a filter holds"))
	}
}
