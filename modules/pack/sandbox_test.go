package pack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/swarm/event"
)

// sandbox is a host to throw away: a network namespace, a cgroup, and for each action a root folder that shows this
// machine's files and takes every change into memory. The real kernel sensor watches it.
type sandbox struct {
	t      testing.TB
	cgroup string
	dir    string
	thread chan func()
	tell   func(*event.Event)
	mu     sync.Mutex
	marks  map[string]chan struct{}
	next   int
}

// newSandbox starts one; tell is called with every event in it, which is valid during the call alone.
func newSandbox(t testing.TB, tell func(*event.Event)) *sandbox {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs, and mounts")
	}
	root := cgroup2()
	if root == "" {
		t.Skip("no cgroup2 here")
	}
	cgroup, err := os.MkdirTemp(root, "omega-pack-test-")
	if err != nil {
		t.Skipf("no cgroup of its own: %v", err)
	}
	s := &sandbox{t: t, cgroup: cgroup, dir: t.TempDir(), thread: make(chan func()), tell: tell, marks: map[string]chan struct{}{}}
	t.Cleanup(func() {
		os.WriteFile(filepath.Join(cgroup, "cgroup.kill"), []byte("1"), 0)
		for range 400 {
			if err := os.Remove(cgroup); err == nil || errors.Is(err, os.ErrNotExist) {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespaces
		for f := range s.thread {
			f()
		}
	}()
	t.Cleanup(func() { close(s.thread) })
	var k *bpf.Kernel
	if err := s.do(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			return err
		}
		k, err = bpf.Load(context.Background(), bpf.Options{Cgroup: cgroup, Interfaces: []string{"lo"}})
		return err
	}); err != nil {
		t.Skipf("no sandbox here: %v", err)
	}
	t.Cleanup(func() { k.Close() })
	for _, c := range k.Coverage() {
		if !c.OK && strings.HasPrefix(c.Name, "sensor/") && strings.Count(c.Name, "/") < 2 {
			t.Skipf("the kernel does not take %s: %s", c.Name, c.Detail)
		}
	}
	ring, err := k.Ring()
	if err != nil {
		t.Fatal(err)
	}
	r, err := bpf.OpenRing(ring)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, s.take) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, r.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// do runs f on the thread that is in the sandbox's namespaces.
func (s *sandbox) do(f func() error) error {
	done := make(chan error, 1)
	s.thread <- func() { done <- f() }
	return <-done
}

func (s *sandbox) take(e *event.Event) {
	if e.Class == event.ClassProcess && e.Activity == event.ActivityExec && strings.Contains(e.Process.Args, "pack-mark-") {
		argv := e.Process.Argv()
		s.mu.Lock()
		if c := s.marks[argv[len(argv)-1]]; c != nil {
			close(c)
			delete(s.marks, argv[len(argv)-1])
		}
		s.mu.Unlock()
		return
	}
	s.tell(e)
}

// root makes a root folder, which goes when done is called.
func (s *sandbox) root() (dir string, done func(), err error) {
	base := filepath.Join(s.dir, "o")
	dir = filepath.Join(base, "m")
	err = s.do(func() error {
		if err := os.MkdirAll(base, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", base, "tmpfs", 0, ""); err != nil {
			return err
		}
		for _, d := range []string{"u", "w", "m"} {
			if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount("overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s/u,workdir=%s/w", base, base)); err != nil {
			return fmt.Errorf("overlay: %w", err)
		}
		for _, d := range []string{"proc", "dev", "tmp", "run", "var/tmp"} {
			if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
				return err
			}
		}
		if err := errors.Join(unix.Mount("proc", filepath.Join(dir, "proc"), "proc", 0, ""), unix.Mount("tmpfs", filepath.Join(dir, "dev"), "tmpfs", 0, ""),
			unix.Mount("tmpfs", filepath.Join(dir, "tmp"), "tmpfs", 0, ""), unix.Mount("tmpfs", filepath.Join(dir, "run"), "tmpfs", 0, "")); err != nil {
			return err
		}
		for name, dev := range map[string]int{"null": 0x103, "zero": 0x105, "random": 0x108, "urandom": 0x109} {
			if err := unix.Mknod(filepath.Join(dir, "dev", name), unix.S_IFCHR|0o666, dev); err != nil {
				return err
			}
		}
		return errors.Join(os.WriteFile(filepath.Join(dir, "etc/resolv.conf"), nil, 0o644), // nobody is to be asked: it would be waited for
			os.Chmod(filepath.Join(dir, "dev/null"), 0o666), os.Chmod(filepath.Join(dir, "tmp"), 0o1777), os.Mkdir(filepath.Join(dir, "dev/shm"), 0o1777),
			os.Mkdir(filepath.Join(dir, "run/lock"), 0o755), os.Symlink("/proc/self/fd", filepath.Join(dir, "dev/fd")))
	})
	done = func() {
		s.do(func() error { return unix.Unmount(base, unix.MNT_DETACH) })
	}
	if err != nil {
		done()
	}
	return dir, done, err
}

// run starts a program inside root, waits for it, and for all its events.
func (s *sandbox) run(root string, uid uint32, args ...string) (string, error) {
	out, err := s.start(root, uid, args...)
	s.mu.Lock()
	s.next++
	mark := fmt.Sprintf("pack-mark-%d", s.next)
	seen := make(chan struct{})
	s.marks[mark] = seen
	s.mu.Unlock()
	if _, merr := s.start("/", 0, "/bin/true", mark); merr != nil {
		return out, merr
	}
	select {
	case <-seen:
	case <-time.After(20 * time.Second):
		return out, errors.New("its events did not come")
	}
	return out, err
}

func (s *sandbox) start(root string, uid uint32, args ...string) (string, error) {
	var out strings.Builder
	err := s.do(func() error {
		cgroup, err := os.Open(s.cgroup)
		if err != nil {
			return err
		}
		defer cgroup.Close()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = "/", &out, &out
		cmd.Env = []string{"PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), Setsid: true}
		if root != "/" {
			cmd.SysProcAttr.Chroot = root
		}
		if uid != 0 {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
		}
		cmd.WaitDelay = 5 * time.Second // what it left running holds its output open
		if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			return err
		}
		return nil
	})
	return out.String(), err
}

// place copies a program of this machine into root under other names.
func place(root, program string, names ...string) error {
	for _, name := range names {
		name = filepath.Join(root, resolved(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		os.Remove(name)
		in, err := os.Open(program)
		if err != nil {
			return err
		}
		out, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
		if err == nil {
			_, err = io.Copy(out, in)
			err = errors.Join(err, out.Close())
		}
		if err = errors.Join(err, in.Close()); err != nil {
			return err
		}
	}
	return nil
}

// resolved is a path whose folder's links are those of this machine: /bin/x lies in /usr/bin on most.
func resolved(name string) string {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(name)); err == nil {
		return filepath.Join(dir, filepath.Base(name))
	}
	return name
}

// cgroup2 is where the unified hierarchy is mounted; empty where it is not.
func cgroup2() string {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 2 && words[2] == "cgroup2" {
			return words[1]
		}
	}
	return ""
}
