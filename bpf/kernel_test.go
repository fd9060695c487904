package bpf

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
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
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// host is one real host in small: a network namespace and a cgroup of its own, and a veth to another one.
type host struct {
	t      *testing.T
	ns     netns.NsHandle
	cgroup string
	addr   string
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs and makes network namespaces")
	}
}

// twoHosts makes two hosts joined by a veth. Nothing of the machine's own network is touched: both ends live in new namespaces.
func twoHosts(t *testing.T) (a, b *host) {
	t.Helper()
	if testing.Short() {
		t.Skip("what the kernel does is tried once, in the run without -short: the race detector does not see it")
	}
	return twoHostsAlways(t)
}

// twoHostsAlways is for what is tried under the race detector too.
func twoHostsAlways(t *testing.T) (a, b *host) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	defer netns.Set(old)
	made := func(i int) *host {
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		h := &host{t: t, ns: ns, addr: fmt.Sprintf("10.99.0.%d", i)}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Fatal(err)
		}
		root, err := cgroupRoot()
		if err != nil {
			t.Fatal(err)
		}
		h.cgroup, err = os.MkdirTemp(root, "omega-bpf-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			os.WriteFile(filepath.Join(h.cgroup, "cgroup.kill"), []byte("1"), 0)
			for range 200 {
				if err := os.Remove(h.cgroup); err == nil || errors.Is(err, os.ErrNotExist) {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			ns.Close()
		})
		return h
	}
	a, b = made(1), made(2)
	// The thread is in b's namespace now.
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0", PeerNamespace: netlink.NsFd(int(a.ns))}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{a, b} {
		if err := netns.Set(h.ns); err != nil {
			t.Fatal(err)
		}
		name := "eth0"
		if h == a {
			name = "peer0"
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if h == a {
			if err := netlink.LinkSetName(l, "eth0"); err != nil {
				t.Fatal(err)
			}
		}
		addr, _ := netlink.ParseAddr(h.addr + "/24")
		if err := errors.Join(netlink.AddrAdd(l, addr), netlink.LinkSetUp(l)); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// do runs f on a thread inside the host's network namespace.
func (h *host) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(h.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// command is a command inside the host: its namespace and its cgroup.
func (h *host) run(ctx context.Context, name string, args ...string) (string, error) {
	var out strings.Builder
	err := h.do(func() error {
		dir, err := os.Open(h.cgroup)
		if err != nil {
			return err
		}
		defer dir.Close()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stdout, cmd.Stderr = &out, &out
		// A session of its own: started by a container's runtime, the tests may be in session 0.
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setsid: true}
		return cmd.Run()
	})
	return out.String(), err
}

// manyTracepoints are the domains that the kernel takes seconds to let go of: a test that needs none of them leaves them out.
func manyTracepoints() []string { return []string{"sensor/rights", "sensor/file", nameSelf} }

func (h *host) load(opt Options) *Kernel {
	h.t.Helper()
	opt.Cgroup, opt.Interfaces = h.cgroup, []string{"eth0"}
	if opt.without == nil {
		opt.without = manyTracepoints()
	}
	var k *Kernel
	if err := h.do(func() (err error) {
		k, err = Load(context.Background(), opt)
		return err
	}); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { k.Close() })
	for _, c := range k.Coverage() {
		if !c.OK && c.Name != "lsm" && strings.Count(c.Name, "/") < 2 { // one call that this kernel lacks costs no other
			h.t.Fatalf("%s: %s", c.Name, c.Detail)
		}
	}
	return k
}

// watch collects what the host's sensor sees until the test ends.
func (h *host) watch(k *Kernel) func(want string, match func(*event.Event) bool) *event.Event {
	h.t.Helper()
	ring, err := k.Ring()
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := OpenRing(ring)
	if err != nil {
		h.t.Fatal(err)
	}
	var mu sync.Mutex
	var seen []*event.Event
	changed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func(e *event.Event) {
			mu.Lock()
			seen = append(seen, e.Clone())
			mu.Unlock()
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
		if n := s.Drops()["garbled"]; n != 0 {
			h.t.Errorf("%d records were not understood", n)
		}
		s.Close()
	})
	return func(want string, match func(*event.Event) bool) *event.Event {
		h.t.Helper()
		deadline := time.After(5 * time.Second)
		for {
			mu.Lock()
			for _, e := range seen {
				if match(e) {
					mu.Unlock()
					return e
				}
			}
			mu.Unlock()
			select {
			case <-changed:
			case <-deadline:
				mu.Lock()
				defer mu.Unlock()
				for _, e := range seen {
					h.t.Logf("saw %s %s exe=%s args=%q parent=%s %v", e.Class, e.Activity, e.Process.Exe, e.Process.Argv(), e.Process.ParentExe, e.Network)
				}
				h.t.Fatalf("never saw %s", want)
			}
		}
	}
}

func TestSensorSeesExec(t *testing.T) {
	a, _ := twoHostsAlways(t)
	k := a.load(Options{})
	find := a.watch(k)
	dir := t.TempDir()
	ctx := t.Context()
	if out, err := a.run(ctx, "/bin/sh", "-c", "cd "+dir+" && /bin/ls -la /dev/null; exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Fatalf("%v %s", err, out)
	}
	e := find("ls", func(e *event.Event) bool {
		return e.Activity == event.ActivityExec && filepath.Base(e.Process.Exe) == "ls"
	})
	if got := strings.Join(e.Process.Argv(), " "); got != "/bin/ls -la /dev/null" {
		t.Errorf("args: %q", got)
	}
	if e.Process.CWD != dir {
		t.Errorf("cwd: %q, want %q", e.Process.CWD, dir)
	}
	if base := filepath.Base(e.Process.ParentExe); base != "sh" && base != "dash" && base != "bash" {
		t.Errorf("parent: %q", e.Process.ParentExe)
	}
	if e.Process.UID != 0 || e.Process.CgroupID == 0 || e.Process.MountNS == 0 || e.Process.Inode == 0 || e.Process.Key.Start == 0 {
		t.Errorf("identity is not whole: %+v", e.Process)
	}
	if diff := time.Since(time.Unix(0, e.Time)); diff < 0 || diff > time.Minute {
		t.Errorf("time is %s off", diff)
	}
	find("the shell's exit", func(x *event.Event) bool {
		return x.Activity == event.ActivityExit && x.Process.Key == e.Process.Parent && x.Process.ExitCode == 3
	})
}

func TestSensorFlagsWhatIsSuspicious(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{})
	find := a.watch(k)
	dir, err := os.MkdirTemp("/tmp", "omega-bpf-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(dir, "fresh")
	if out, err := a.run(t.Context(), "/bin/sh", "-c", "cp /bin/true "+fresh+" && "+fresh); err != nil {
		t.Fatal(err, out)
	}
	e := find("fresh", func(e *event.Event) bool { return e.Activity == event.ActivityExec && e.Process.Exe == fresh })
	if want := event.FlagJustWritten | event.FlagWorldWritable; e.Process.Flags&want != want {
		t.Errorf("flags %b lack %b", e.Process.Flags, want)
	}

	fd, err := unix.MemfdCreate("implant", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	body, err := os.ReadFile("/bin/true")
	if err == nil {
		_, err = unix.Write(fd, body)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := a.run(t.Context(), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)); err != nil {
		t.Fatal(err, out)
	}
	find("memfd", func(e *event.Event) bool {
		return e.Activity == event.ActivityExec && e.Process.Flags&event.FlagMemfd != 0 && strings.Contains(e.Process.Exe, "memfd:implant")
	})

	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer theirs.Close()
	if err := a.do(func() error {
		cg, err := os.Open(a.cgroup)
		if err != nil {
			return err
		}
		defer cg.Close()
		cmd := exec.Command("/bin/sh", "-c", "exit 0")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cg.Fd())}
		return cmd.Run()
	}); err != nil {
		t.Fatal(err)
	}
	find("a shell on a socket", func(e *event.Event) bool {
		const want = event.FlagStdinSocket | event.FlagStdoutSocket | event.FlagStderrSocket
		return e.Activity == event.ActivityExec && e.Process.Flags&want == want
	})
}

// listen serves one TCP port inside h, echoing what comes.
func (h *host) listen(t *testing.T) (port uint16) {
	t.Helper()
	var l net.Listener
	if err := h.do(func() (err error) {
		l, err = net.Listen("tcp", h.addr+":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				b := make([]byte, 64)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					c.Write(b[:n])
				}
			})
		}
	})
	t.Cleanup(func() { l.Close() })
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

func (h *host) dial(addr string, port uint16) (c net.Conn, err error) {
	err = h.do(func() (err error) {
		c, err = net.DialTimeout("tcp", fmt.Sprintf("%s:%d", addr, port), 400*time.Millisecond)
		return err
	})
	return c, err
}

func echo(c net.Conn) error {
	c.SetDeadline(time.Now().Add(400 * time.Millisecond))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

const id1, id2 = "000102030405060708090a0b0c0d0e0f", "100102030405060708090a0b0c0d0e0f"

func TestDenyAddressEndsNewAndEstablished(t *testing.T) {
	a, b := twoHostsAlways(t)
	k := a.load(Options{})
	find := a.watch(k)
	port, back := a.listen(t), b.listen(t)
	before, err := b.dial(a.addr, port)
	if err != nil {
		t.Fatal("before the block:", err)
	}
	defer before.Close()
	if err := echo(before); err != nil {
		t.Fatal("before the block:", err)
	}
	find("the probe", func(e *event.Event) bool {
		return e.Activity == event.ActivityProbe && e.Network.Remote.Addr().String() == b.addr && e.Network.Local.Port() == port
	})

	target := event.Target{Address: netip.MustParsePrefix("::ffff:" + b.addr + "/128")} // by its other name
	r, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: target, TTL: time.Hour})
	if err != nil || r.Outcome != event.OutcomeDone || len(r.Means) < 6 {
		t.Fatalf("%+v %v", r, err)
	}
	if c, err := b.dial(a.addr, port); err == nil {
		c.Close()
		t.Error("a new connection came in through the block")
	}
	if err := echo(before); err == nil {
		t.Error("an established connection lived on through the block")
	}
	// A process of the host itself, in its cgroup, is told no at once and is named.
	out, err := a.run(t.Context(), "/bin/bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", b.addr, back))
	if err == nil || !strings.Contains(out, "not permitted") {
		t.Errorf("connect out: %v %q", err, out)
	}
	refused := find("the refusal", func(e *event.Event) bool { return e.Activity == event.ActivityRefuse })
	if refused.Network.Remote.String() != fmt.Sprintf("%s:%d", b.addr, back) || filepath.Base(refused.Process.Exe) != "bash" {
		t.Errorf("refused %v to %s", refused.Network.Remote, refused.Process.Exe)
	}
	active := k.Active()
	if len(active) != 1 || active[0].ID != id1 || active[0].Hits == 0 {
		t.Errorf("active: %+v", active)
	}

	// A second response on the same address keeps it refused when the first is released.
	if _, err := k.Apply(t.Context(), event.Response{ID: id2, Action: event.ActionDeny, Target: target, TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Release(t.Context(), id1); err != nil {
		t.Fatal(err)
	}
	if c, err := b.dial(a.addr, port); err == nil {
		c.Close()
		t.Error("released although another response stands")
	}
	if _, err := k.Release(t.Context(), id2); err != nil {
		t.Fatal(err)
	}
	c, err := b.dial(a.addr, port)
	if err != nil {
		t.Fatal("after release:", err)
	}
	c.Close()
	if _, err := k.Release(t.Context(), id2); !errors.Is(err, ErrUnknownResponse) {
		t.Errorf("released twice: %v", err)
	}
}

// No user-space code runs between the block and its end: the kernel alone lets it go.
func TestDenyAddressExpiresByItself(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{})
	port := a.listen(t)
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(b.addr + "/32")}, TTL: 700 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if c, err := b.dial(a.addr, port); err == nil {
		c.Close()
		t.Error("not refused")
	}
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := b.dial(a.addr, port)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("the block outlived its time")
		}
	}
}

func TestContainPassesOnlyTheSwarm(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{})
	own, other, theirs := a.listen(t), a.listen(t), b.listen(t)
	if err := k.SetSwarm([]Listener{{unix.IPPROTO_TCP, own}}, []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(b.addr), theirs)}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionContain, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if c, err := b.dial(a.addr, own); err != nil {
		t.Error("the swarm's port:", err)
	} else {
		c.Close()
	}
	if c, err := b.dial(a.addr, other); err == nil {
		c.Close()
		t.Error("another port answers though the host is contained")
	}
	if c, err := a.dial(b.addr, theirs); err != nil {
		t.Error("a peer's swarm port:", err)
	} else {
		c.Close()
	}
	if _, err := k.Release(t.Context(), id1); err != nil {
		t.Fatal(err)
	}
	if c, err := b.dial(a.addr, other); err != nil {
		t.Error("after release:", err)
	} else {
		c.Close()
	}
}

func TestDenyExecStopsEveryOne(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{})
	find := a.watch(k)
	dir := t.TempDir()
	tool, marker := filepath.Join(dir, "tool"), filepath.Join(dir, "ran")
	if out, err := exec.Command("cp", "/usr/bin/touch", tool).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	r, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Path: tool}, TTL: time.Hour})
	if err != nil || !r.BeforeFirstInstruction {
		t.Fatalf("%+v %v", r, err)
	}
	// By its path alone: it is another file now.
	if out, err := exec.Command("sh", "-c", "cp $0 $0.new && mv $0.new $0", tool).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	a.stopped(t, k, tool, marker)
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Path: tool}, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	find("the kill", func(e *event.Event) bool { return e.Activity == event.ActivityKill })
	// By another name it is the same file.
	link := filepath.Join(dir, "other")
	if err := os.Link(tool, link); err != nil {
		t.Fatal(err)
	}
	if _, err := a.run(t.Context(), link, marker); err == nil {
		t.Error("it ran under another name")
	}
	// Outside the node's cgroup it is none of its business.
	if out, err := exec.Command(tool, marker).CombinedOutput(); err != nil {
		t.Error("denied outside the scope:", err, string(out))
	}
	if _, err := k.Release(t.Context(), id1); err != nil {
		t.Fatal(err)
	}
	if out, err := a.run(t.Context(), tool, marker); err != nil {
		t.Error("after release:", err, out)
	}
	// By the number of its inode and that number's generation: another file that has the number after it is not meant.
	f, err := os.Open(tool)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	generation, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS+('v'-'f')<<8) // FS_IOC_GETVERSION
	if err != nil {
		t.Log("no generations on this file system:", err)
		return
	}
	for _, c := range []struct {
		generation uint32
		denied     bool
	}{{generation, true}, {generation ^ 1, false}} {
		target := event.Target{Inode: st.Ino, Device: uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev)), Generation: c.generation}
		if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: target, TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if active := k.Active(); len(active) != 1 || active[0].Target != target {
			t.Errorf("stands: %+v, want %+v", active, target)
		}
		if c.denied { // each later one by its inode alone, by a name that is not the denied one's
			os.Remove(marker)
			a.stopped(t, k, link, marker)
		} else if _, err := a.run(t.Context(), tool, marker); err != nil {
			t.Errorf("generation %d of %d: %v", c.generation, generation, err)
		}
	}
}

// stopped starts a denied tool, which would make marker, a thousand times, and holds every one to have died before its
// first instruction.
func (h *host) stopped(t *testing.T, k *Kernel, tool, marker string) {
	t.Helper()
	const tries = "1000"
	hits := func() (n uint64) {
		for _, e := range k.Active() {
			n += e.Hits
		}
		return n
	}
	before := hits()
	// A shell starts them: it forks a small process, where this one's is large.
	out, err := h.run(t.Context(), "/bin/sh", "-c", `i=0; n=0; while [ $i -lt `+tries+` ]; do "$0" "$1" 2>&-; [ $? -gt 125 ] && n=$((n+1)); i=$((i+1)); done; echo "stopped $n" >&2`, tool, marker)
	if err != nil || !strings.Contains(out, "stopped "+tries+"\n") {
		t.Errorf("of %s: %v %.200s", tries, err, out[max(0, len(out)-200):])
	}
	if got := hits() - before; got < 1000 {
		t.Errorf("the kernel counted %d of %s", got, tries)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("one took effect before it died")
	}
}

// The first start of a file with a denied hash is killed once it was hashed; each later one, of that file and of each
// copy, before its first instruction.
func TestDenyExecByHash(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	defer func() { stop(); <-done }()
	dir := t.TempDir()
	marker := filepath.Join(dir, "ran")
	copies := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Skip("no sleep here:", err)
	}
	for _, path := range copies {
		if err := os.WriteFile(path, sleep, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{SHA256: fmt.Sprintf("%X", sha256.Sum256(sleep))}, TTL: time.Hour}
	rc, err := k.Apply(t.Context(), r)
	if err != nil || rc.BeforeFirstInstruction {
		t.Fatalf("%+v %v", rc, err)
	}
	for _, path := range copies {
		if _, err := a.run(t.Context(), path, "600"); err == nil { // until it is killed
			t.Fatal(path, "ran to its end")
		}
	}
	// They stand in the kernel now.
	for range 100 {
		for _, path := range copies {
			if _, err := a.run(t.Context(), path, "0"); err == nil {
				t.Fatal(path, "ran again")
			}
		}
	}
	k.mu.Lock()
	if e := k.enforced[id1]; e == nil || len(e.slots) != 3 {
		t.Errorf("stands: %+v, want the hash and the two inodes denied in the kernel", e)
	}
	clear(k.enforced) // as after a restart
	if err := k.countHashes(); err != nil {
		t.Error(err)
	}
	if err := k.adopt(); err != nil {
		t.Error(err)
	}
	if e := k.enforced[id1]; e == nil || len(e.slots) != 3 || e.target != (event.Target{SHA256: strings.ToLower(r.Target.SHA256)}) {
		t.Errorf("stands after a restart: %+v", e)
	}
	k.mu.Unlock()
	third := filepath.Join(dir, "c")
	if err := os.WriteFile(third, sleep, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := a.run(t.Context(), third, "600"); err == nil {
		t.Error("another copy ran to its end after a restart")
	}
	if _, err := k.Apply(t.Context(), r); err != nil { // as the ledger does
		t.Error(err)
	}
	k.mu.Lock()
	if e := k.enforced[id1]; e == nil || len(e.slots) != 4 {
		t.Errorf("stands once said again: %+v", e)
	}
	k.mu.Unlock()
	if out, err := a.run(t.Context(), "/usr/bin/touch", marker); err != nil {
		t.Error("another program:", err, out)
	}
	if _, err := k.Release(t.Context(), id1); err != nil {
		t.Fatal(err)
	}
	for _, path := range copies {
		if out, err := a.run(t.Context(), path, "0"); err != nil {
			t.Error("after release:", err, out)
		}
	}
	r.Target.SHA256 = "12"
	if _, err := k.Apply(t.Context(), r); err == nil {
		t.Error("half a hash was taken")
	}
}

// A real fork bomb, at the limit of processes of its user: each of its processes forks for as long as it lives.
func TestKillTreeEndsAForkBomb(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{})
	const bomb = "import os,resource\nresource.setrlimit(resource.RLIMIT_NPROC,(60,60))\nos.setuid(64321)\nprint(os.getpid(),flush=True)\nwhile 1:\n  try: os.fork()\n  except OSError: pass\n"
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	dir, err := os.Open(a.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("python3", "-c", bomb)
	cmd.Stdout = w
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Skip("no python here:", err)
	}
	defer cmd.Wait()
	if _, err := fmt.Fscan(r, new(int)); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		raw, err := os.ReadFile(filepath.Join(a.cgroup, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		return len(strings.Fields(string(raw)))
	}
	for count() < 50 && t.Context().Err() == nil {
		runtime.Gosched()
	}
	rc, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionKill, Target: event.Target{PID: uint32(cmd.Process.Pid), Tree: true}})
	if err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if left := count(); left != 0 {
		t.Errorf("%d of the bomb's processes live; %+v", left, rc)
	}
	if !strings.Contains(rc.Detail, "processes") {
		t.Errorf("the receipt says %q", rc.Detail)
	}
}

func TestKillTreeOutrunsForks(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{})
	find := a.watch(k)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// A shell that keeps forking children that fork.
		a.run(t.Context(), "/bin/bash", "-c", "while :; do (sleep 60 & sleep 60 & wait) & sleep 0.01; done")
	}()
	e := find("the shell", func(e *event.Event) bool {
		return e.Activity == event.ActivityExec && filepath.Base(e.Process.Exe) == "bash"
	})
	find("a grandchild", func(x *event.Event) bool {
		return x.Activity == event.ActivityExec && filepath.Base(x.Process.Exe) == "sleep"
	})
	target := event.Target{PID: e.Process.Key.PID, Start: e.Process.Key.Start + uint64(time.Hour), Tree: true}
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionKill, Target: target}); err == nil {
		t.Fatal("killed a process that is another one")
	}
	target.Start = e.Process.Key.Start
	// An innocent of the same cgroup, started by another shell, must live.
	innocent := exec.Command("/bin/sleep", "60")
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { innocent.Process.Kill(); innocent.Wait() }()
	procs := filepath.Join(a.cgroup, "cgroup.procs")
	if err := os.WriteFile(procs, fmt.Append(nil, innocent.Process.Pid), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionKill, Target: target}); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadFile(procs)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(left)); got != fmt.Sprint(innocent.Process.Pid) {
		t.Errorf("left in the cgroup: %q, want the innocent %d alone", got, innocent.Process.Pid)
	}
	<-done
	// A process outside the node's cgroup is not its to kill.
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionKill, Target: event.Target{PID: uint32(os.Getpid())}}); err == nil {
		t.Error("it killed outside its scope, and nobody is here to say so")
	}
}

// What a crashed node left pinned is found, still in force, and is gone after Cleanup.
func TestPinnedBlockOutlivesItsNode(t *testing.T) {
	a, b := twoHosts(t)
	if err := mountBPF(t); err != nil {
		t.Skip("no BPF file system can be mounted here:", err)
	}
	pins := filepath.Join("/sys/fs/bpf", filepath.Base(a.cgroup))
	port := a.listen(t)
	k := a.load(Options{PinDir: pins})
	t.Cleanup(func() { Cleanup(pins) })
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(b.addr + "/32")}, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	k.Close()
	if c, err := b.dial(a.addr, port); err == nil {
		c.Close()
		t.Error("the block died with its node")
	}
	k = a.load(Options{PinDir: pins})
	active := k.Active()
	if len(active) != 1 || active[0].ID != id1 || active[0].Target.Address.String() != b.addr+"/32" {
		t.Fatalf("adopted: %+v", active)
	}
	if _, err := k.Release(t.Context(), id1); err != nil {
		t.Fatal(err)
	}
	if c, err := b.dial(a.addr, port); err != nil {
		t.Error("after release:", err)
	} else {
		c.Close()
	}
	k.Close()
	if n, err := Cleanup(pins); err != nil || n == 0 {
		t.Errorf("cleanup: %d %v", n, err)
	}
	if _, err := os.Stat(pins); err == nil {
		t.Error("pins are left")
	}
}

func mountBPF(t *testing.T) error {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/bpf", &st); err != nil {
		return err
	}
	if st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700"); err != nil {
		return err
	}
	t.Cleanup(func() { unix.Unmount("/sys/fs/bpf", 0) })
	return nil
}

func TestFullRingIsCounted(t *testing.T) {
	a, _ := twoHostsAlways(t)
	k := a.load(Options{RingBytes: 64 << 10})
	if out, err := a.run(t.Context(), "/bin/bash", "-c", "for i in $(seq 400); do (:); done"); err != nil {
		t.Fatal(err, out)
	}
	drops, err := k.Drops()
	if err != nil {
		t.Fatal(err)
	}
	if drops["fork"] == 0 {
		t.Errorf("nobody read the ring, and nothing was counted lost: %v", drops)
	}
}
