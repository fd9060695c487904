package testnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
)

// The test binary plays the omega binary: the reaper is it with the hidden command, and so are these.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "testnet" && os.Args[2] == "helper" {
		os.Exit(Helper(os.Args[3:]))
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "test-hold":
			os.Exit(hold())
		case "test-dial":
			os.Exit(dial(os.Args[2]))
		case "test-exec":
			os.Exit(execIn(os.Args[2], os.Args[3], os.Args[4:]))
		}
	}
	if os.Getenv(inReaper) != "" {
		os.Exit(3)
	}
	goleak.VerifyTestMain(m)
}

// hold keeps a bare testnet until SIGINT, as `omega testnet up` does.
func hold() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	n, err := Up(ctx, Options{Nodes: 2, Bare: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// A process that would live on if nothing ended it.
	host, _ := n.Host("n1")
	sleeper := exec.Command("sleep", "1000")
	if err := n.Start(host, sleeper); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(n.State().ID, sleeper.Process.Pid)
	<-ctx.Done()
	if err := n.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func dial(addr string) int {
	c, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(c.LocalAddr())
	c.Close()
	return 0
}

func execIn(id, host string, argv []string) int {
	s, err := Find(id)
	if err == nil {
		var h *Host
		if h, err = s.Host(host); err == nil {
			err = Exec(s, h, argv)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 99
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := cgroupRoot(); err != nil {
		t.Skip(err)
	}
}

// footprint is everything on the machine that a testnet of this id could leave, and the machine's own interfaces.
func footprint(t *testing.T, id string) string {
	t.Helper()
	var out []string
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		out = append(out, "link "+l.Name)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		out = append(out, "route "+r.String())
	}
	root, err := cgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{netnsDir, root, Registry()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.Contains(e.Name(), id) {
				out = append(out, filepath.Join(dir, e.Name()))
			}
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, prefix(id)) {
			out = append(out, "mount "+line)
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func TestHostsReachOneAnotherAndNothingStays(t *testing.T) {
	needRoot(t)
	before := footprint(t, "------")
	n, err := Up(t.Context(), Options{Nodes: 2, Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	id := n.State().ID
	if links := footprint(t, "------"); links != before {
		t.Errorf("the machine's own interfaces or routes changed:\n%s\nbefore:\n%s", links, before)
	}
	from, _ := n.Host("x1")
	to, _ := n.Host("n2")
	for _, addr := range []netip.Addr{to.Addr, to.Addr6} {
		l := listen(t, to, addr)
		accepted := make(chan string, 1)
		go func() {
			c, err := l.Accept()
			if err == nil {
				accepted <- c.RemoteAddr().(*net.TCPAddr).IP.String()
				c.Close()
			}
			close(accepted)
		}()
		var errOut bytes.Buffer
		cmd := exec.Command(os.Args[0], "test-dial", l.Addr().String())
		cmd.Stderr = &errOut
		if err := n.Start(from, cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			l.Close()
			t.Fatalf("x1 does not reach n2 at %s: %v: %s", addr, err, errOut.String())
		}
		if got, want := <-accepted, []string{from.Addr.String(), from.Addr6.String()}; !slices.Contains(want, got) {
			t.Errorf("n2 sees x1 as %s, want one of %v", got, want)
		}
		l.Close()
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if after := footprint(t, id); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
}

// listen opens a listener inside a host.
func listen(t *testing.T, h *Host, addr netip.Addr) net.Listener {
	t.Helper()
	ns, err := os.Open(h.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var l net.Listener
	if err := inside(ns, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestExecRunsInsideAndPassesTheExitCode(t *testing.T) {
	needRoot(t)
	n, err := Up(t.Context(), Options{Nodes: 1, Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	h, _ := n.Host("n1")
	cmd := exec.Command(os.Args[0], "test-exec", n.State().ID, "n1", "/bin/sh", "-c",
		"cat; cat /proc/self/cgroup; readlink /proc/self/ns/net; echo $OMEGA_DIR; exit 7")
	cmd.Stdin = strings.NewReader("from stdin\n")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Fatalf("exit %v, want code 7", err)
	}
	ns, err := os.Stat(h.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	inode := fmt.Sprintf("net:[%d]", ns.Sys().(*syscall.Stat_t).Ino)
	for _, want := range []string{"from stdin\n", "/" + prefix(n.State().ID) + "/n1\n", inode + "\n", h.Dir + "\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("missing %q in\n%s", want, out)
		}
	}
}

func TestNothingStaysHoweverTheHolderEnds(t *testing.T) {
	needRoot(t)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			id, sleeper, holder := startHolder(t)
			before := footprint(t, "------")
			if !strings.Contains(footprint(t, id), id) {
				t.Fatal("the holder made nothing")
			}
			if err := holder.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			err := holder.Wait()
			if sig != syscall.SIGKILL && err != nil {
				t.Errorf("the holder ended with %v", err)
			}
			awaitGone(t, id, before)
			if sleeper.Alive() {
				t.Error("a process of the testnet lives on")
			}
		})
	}
}

func TestDownEndsAnotherProcessesTestnet(t *testing.T) {
	needRoot(t)
	id, _, holder := startHolder(t)
	s, err := Find(id)
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- holder.Wait() }()
	if err := Down(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("the holder ended with %v", err)
	}
	if _, err := Find(id); !errors.Is(err, ErrNone) {
		t.Errorf("Find after Down: %v, want ErrNone", err)
	}
}

// With the reaper killed as well nothing is removed; the next start, or cleanup, does it.
func TestCleanupRemovesWhatDeadTestnetsLeft(t *testing.T) {
	needRoot(t)
	id, sleeper, holder := startHolder(t)
	before := footprint(t, "------")
	killReaper(t, id)
	holder.Process.Kill()
	holder.Wait()
	if !strings.Contains(footprint(t, id), netnsDir) {
		t.Fatal("without a reaper the namespaces should still be there")
	}
	removed, err := Cleanup()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(removed, id) {
		t.Errorf("Cleanup removed %v, not %s", removed, id)
	}
	if after := footprint(t, id); after != before {
		t.Errorf("left behind:\n%s", after)
	}
	if sleeper.Alive() {
		t.Error("a process of the testnet lives on")
	}
}

func TestAddedHostIsOnTheBridgeAndNoMember(t *testing.T) {
	needRoot(t)
	n, err := Up(t.Context(), Options{Nodes: 1, Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	h, err := Add(n.State(), "n6")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Add(n.State(), "n6"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a second n6: %v, want ErrInvalid", err)
	}
	if _, err := Add(n.State(), "../n7"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a host named ../n7: %v, want ErrInvalid", err)
	}
	s, err := Find(n.State().ID)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Host("n6"); err != nil || again.Member || again.Addr != h.Addr {
		t.Errorf("the state says %+v, %v", again, err)
	}
	first, _ := n.Host("n1")
	l := listen(t, first, first.Addr)
	defer l.Close()
	cmd := exec.Command(os.Args[0], "test-exec", s.ID, "n6", os.Args[0], "test-dial", l.Addr().String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("n6 does not reach n1: %v: %s", err, out)
	}

	// A partition cuts it off; healing lets it back.
	if err := Partition(s, h); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(os.Args[0], "test-exec", s.ID, "n6", os.Args[0], "test-dial", l.Addr().String()).Run(); err == nil {
		t.Error("n6 reaches n1 through a partition")
	}
	if err := Heal(s, h); err != nil {
		t.Fatal(err)
	}
	// The kernel still asks for n1's hardware address as it did while nobody could answer: a connect within these
	// three seconds may be told that there is no route.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out, err := exec.Command(os.Args[0], "test-exec", s.ID, "n6", os.Args[0], "test-dial", l.Addr().String()).CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("n6 does not reach n1 after healing: %v: %s", err, out)
		}
	}
}

// A binary that takes the reaper's command line for something else must be found out before anything is made.
func TestBinaryThatIsNoReaperIsFoundOut(t *testing.T) {
	for _, binary := range []string{"/bin/true", "/bin/echo", "/nowhere"} {
		if n, err := Up(t.Context(), Options{Nodes: 1, Mode: ModeProcess, Bare: true, Binary: binary}); err == nil {
			n.Close()
			t.Errorf("%s was taken for a reaper", binary)
		}
	}
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all { // others may run testnets at the same time
		if s.Keeper.PID == os.Getpid() {
			t.Errorf("testnet %s is left", s.ID)
		}
	}
	t.Setenv(inReaper, "1")
	if n, err := Up(t.Context(), Options{Nodes: 1, Mode: ModeProcess, Bare: true}); err == nil {
		n.Close()
		t.Error("a reaper made a testnet")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, opt := range map[string]Options{
		"too many nodes": {Nodes: MaxNodes + 1},
		"negative":       {Nodes: -1},
		"no such mode":   {Mode: "vm"},
		"folder in use":  {Dir: full, Mode: ModeProcess},
		"path too long":  {Dir: filepath.Join(t.TempDir(), strings.Repeat("x", 100)), Mode: ModeProcess},
	} {
		opt.Bare = true
		if n, err := Up(t.Context(), opt); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
			if n != nil {
				n.Close()
			}
		}
	}
	if _, err := os.Stat(filepath.Join(full, "precious")); err != nil {
		t.Error("a refused folder was touched")
	}
}

func TestProcessModeEndsItsProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hosts")
	n, err := Up(t.Context(), Options{Nodes: 2, Mode: ModeProcess, Bare: true, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if len(n.State().Unforced) == 0 {
		t.Error("process mode does not say what it cannot enforce")
	}
	h, _ := n.Host("n2")
	if h.NetNS != "" || !h.Addr.IsLoopback() {
		t.Errorf("n2 is %+v, want a loopback address and no namespace", h)
	}
	cmd := exec.Command("sleep", "1000")
	if err := n.Start(h, cmd); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a process outlived the testnet")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the hosts' folder is left: %v", err)
	}
}

func TestStateOfALiarIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "abcdef")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	many, _ := json.Marshal(State{ID: "abcdef", Dir: "/run", Hosts: make([]*Host, MaxHosts+1)})
	for name, raw := range map[string][]byte{
		"another id": []byte(`{"id":"fedcba"}`),
		"no JSON":    []byte("omega"),
		"too large":  bytes.Repeat([]byte(" "), maxStateFile+1),
		"many hosts": many,
	} {
		if err := os.WriteFile(filepath.Join(dir, stateFile), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := load(dir); err == nil {
			t.Errorf("%s: loaded as %+v", name, s)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add([]byte(`{"id":"abcdef","mode":"netns","dir":"/run/omega-testnet/abcdef","hosts":[{"name":"n1","addr":"10.77.0.11","pid":-1}]}`))
	f.Add([]byte(`{"id":"abcdef","dir":"/","hosts":[null]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := decodeState(raw, "abcdef")
		if err != nil {
			return
		}
		for _, h := range s.Hosts {
			if again, err := s.Host(h.Name); err != nil || again.Name != h.Name {
				t.Fatalf("host %q is not found again: %v", h.Name, err)
			}
			_ = (Process{PID: h.PID, Start: h.Start}).Alive()
		}
		s.Members()
	})
}

func FuzzUntilClosed(f *testing.F) {
	f.Add([]byte("12 34\n-1 x\n\n99999999999999999999 1\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got := untilClosed(bytes.NewReader(raw)); len(got) > 64*MaxHosts {
			t.Fatalf("%d processes", len(got))
		}
	})
}

// startHolder starts a process that holds a bare testnet, and returns its id and a process that runs on its n1.
func startHolder(t *testing.T) (string, Process, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "test-hold")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	var id string
	var pid int
	if _, err := fmt.Fscan(out, &id, &pid); err != nil {
		t.Fatalf("the holder did not start: %v", err)
	}
	p, err := processOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	return id, p, cmd
}

func killReaper(t *testing.T, id string) {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{"omega", "testnet", "helper", "reap", id, ""}, "\x00")
	for _, e := range entries {
		if raw, _ := os.ReadFile(e); string(raw) == want {
			var pid int
			fmt.Sscanf(e, "/proc/%d/", &pid)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no reaper runs")
}

func awaitGone(t *testing.T, id, want string) {
	t.Helper()
	deadline := time.After(removeTimeout)
	for {
		got := footprint(t, id)
		if got == want {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("left behind:\n%s\nwant:\n%s", got, want)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
