package bpf

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// lived is a process as it really was, for the tree to be held against.
type lived struct {
	key    event.ProcessKey
	parent *lived // who forked it, whatever became of that one
	exe    string
	at     int
}

// descends says whether name is what p or one of those it comes from ever ran: a process has the name it was forked with, too.
func (p *lived) descends(name string) bool {
	for ; p != nil; p = p.parent {
		if p.exe == name {
			return true
		}
	}
	return false
}

// TestCrowdKeepsItsLineage has 100,000 processes live, whose pids are used again within a millisecond, and takes a part of the
// records away. What the tree says of a parent or of an ancestor is true or not said at all, and what is not said is counted.
func TestCrowdKeepsItsLineage(t *testing.T) {
	const crowd, pids = 100_000, 110_000
	for _, c := range []struct {
		name     string
		keep     float64 // of the records
		limit    int
		churn    int
		complete bool
	}{
		{"all of it seen", 1, maxProcesses, 20_000, true},
		{"a fifth lost", 0.8, maxProcesses, 20_000, false},
		{"more than there is room for", 1, crowd / 2, 10_000, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			before := sizes(t).heap
			tree := newProcessTree(c.limit)
			free := rng.Perm(pids)
			var clock uint64 = 1e9 + 1
			var serial, told, unknown, orphans int
			root := &lived{key: event.ProcessKey{PID: 1 << 20, Start: clock}, exe: "/sbin/init"}
			all := []*lived{root}
			parents := map[*lived]*lived{}
			observe := func(p *lived, a event.Activity) {
				if rng.Float64() > c.keep {
					return
				}
				e := event.Event{Class: event.ClassProcess, Activity: a, Process: event.Process{Key: p.key, Inode: 1}}
				parent := parents[p]
				if parent != nil && parent != root && parents[parent] == nil {
					parent, parents[p] = root, root // its own has ended: the kernel has given it another
				}
				if parent != nil {
					e.Process.Parent = parent.key
				}
				if a == event.ActivityExec {
					e.Process.Exe = p.exe
				}
				tree.Observe(&e)
				if parent == nil {
					return
				}
				told++
				if e.Process.ParentExe == "" {
					unknown++
					if a != event.ActivityExit {
						orphans++
					}
				} else if !parent.descends(e.Process.ParentExe) || c.complete && e.Process.ParentExe != parent.exe {
					t.Fatalf("%+v: its parent %+v is said to run %q", p, parent, e.Process.ParentExe)
				}
				for name := range strings.SplitSeq(e.Process.Ancestors, "\x00") {
					if name != "" && !p.descends(name) {
						t.Fatalf("%+v: %q is said to be above it", p, name)
					}
				}
			}
			observe(root, event.ActivityExec)
			anybody := func() *lived { return all[rng.IntN(len(all))] }
			fork := func(parent *lived) *lived {
				clock += rng.Uint64N(1_000_000)
				p := &lived{key: event.ProcessKey{PID: uint32(free[len(free)-1] + 2), Start: clock}, parent: parent, exe: parent.exe, at: len(all)}
				free = free[:len(free)-1]
				all, parents[p] = append(all, p), parent
				observe(p, event.ActivityFork)
				if rng.IntN(4) > 0 {
					serial++
					p.exe = fmt.Sprintf("/bin/%d", serial)
					observe(p, event.ActivityExec)
				}
				return p
			}
			exit := func(p *lived) {
				observe(p, event.ActivityExit)
				delete(parents, p)
				last := all[len(all)-1]
				all[p.at], last.at = last, p.at
				all = all[:len(all)-1]
				free = append(free, int(p.key.PID)-2) // the next to be born has it
			}
			for len(all) < crowd {
				fork(anybody())
			}
			for range c.churn {
				exit(all[1+rng.IntN(len(all)-1)])
				parent := fork(anybody())
				child := fork(parent)
				exit(parent)
				fork(anybody())
				exit(fork(child))
				exit(all[1+rng.IntN(len(all)-1)])
			}
			after := sizes(t).heap
			t.Logf("%d live, %d in the tree, %d forgotten; of %d events %d without their parent's name; %d MiB",
				len(all), tree.Len(), tree.Lost(), told, unknown, (after-before)>>20)
			if c.complete && (tree.Len() != len(all) || tree.Lost() != 0) {
				t.Errorf("%d of %d processes, %d forgotten", tree.Len(), len(all), tree.Lost())
			}
			if tree.Len() > c.limit || int(tree.made) > c.limit+1 {
				t.Errorf("%d processes in %d nodes, of at most %d", tree.Len(), int(tree.made), c.limit)
			}
			if c.limit < crowd && tree.Lost() == 0 {
				t.Error("there was no room, and nobody was forgotten")
			}
			if tree.Orphans() != uint64(orphans) {
				t.Errorf("%d parents were not known, and %d counted", orphans, tree.Orphans())
			}
			runtime.KeepAlive(tree)
		})
	}
}

func buildCrowd(t *testing.T) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc")
	}
	out := filepath.Join(t.TempDir(), "crowd")
	if b, err := exec.Command(gcc, "-O1", "-static", "-o", out, "testdata/crowd.c").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return out
}

// A pid that is another's at once lends nothing of who had it before, nor does who has it now become an ancestor of the
// other's children.
func TestReusedPidHasItsOwnLineage(t *testing.T) {
	a, _ := twoHosts(t)
	binary := buildCrowd(t)
	dir := t.TempDir()
	for _, name := range []string{"first", "second"} {
		if out, err := exec.Command("cp", binary, filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	k := a.load(Options{})
	find := a.watch(k)
	out, err := a.run(t.Context(), binary, "reuse", dir)
	if err != nil {
		t.Skip("this kernel gives no process a pid of one's choice: ", err, out)
	}
	number, err := strconv.ParseUint(strings.TrimSpace(out), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	pid := uint32(number)
	exec := func(what, exe string, args ...string) event.Process {
		t.Helper()
		return find(what, func(e *event.Event) bool {
			return e.Activity == event.ActivityExec && e.Process.Exe == exe && (len(args) == 0 || e.Process.Args == strings.Join(args, "\x00")) && (len(args) > 0 || e.Process.Key.PID == pid)
		}).Process
	}
	old, usurper := exec("the first", first), exec("the second", second)
	if old.Key == usurper.Key || old.ParentExe != binary || usurper.ParentExe != binary {
		t.Errorf("first %+v\nsecond %+v", old, usurper)
	}
	t.Logf("pid %d was used again after %s", pid, time.Duration(usurper.Key.Start-old.Key.Start))
	born := find("the second's birth", func(e *event.Event) bool { return e.Activity == event.ActivityFork && e.Process.Key == usurper.Key }).Process
	if born.Exe != binary {
		t.Errorf("the second was born as %q", born.Exe)
	}
	kid := find("the first's child", func(e *event.Event) bool { return e.Activity == event.ActivityFork && e.Process.Parent == old.Key }).Process
	// By path /bin/true may be elsewhere.
	grandchild := find("the child's own", func(e *event.Event) bool {
		return e.Activity == event.ActivityExec && e.Process.Args == "/bin/true\x00of-firsts-child"
	}).Process
	if grandchild.Parent != kid.Key || grandchild.ParentExe != first || strings.Contains(grandchild.Ancestors, second) {
		t.Errorf("of the first's child %+v\nthere came %+v", kid, grandchild)
	}
	heir := find("the second's child", func(e *event.Event) bool {
		return e.Activity == event.ActivityExec && e.Process.Args == "/bin/true\x00of-second"
	}).Process
	if heir.Parent != usurper.Key || heir.ParentExe != second || strings.Contains(heir.Ancestors, first) || !strings.Contains(heir.Ancestors, binary) {
		t.Errorf("of the second %+v\nthere came %+v", usurper, heir)
	}
}

// crowdSize is how many processes this machine has room for, at most the 100,000 of the budget; without SOAK_FOR few of them.
func crowdSize(t *testing.T) int {
	t.Helper()
	n := 100_000
	for _, file := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Skip("how many processes there may be is not to be read:", err)
		}
		limit, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		n = min(n, limit*3/4)
	}
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	const each = 48 << 10 // of a process that shares its memory: task, kernel stack, and what hangs on them
	n = min(n, int(info.Freeram*uint64(info.Unit)/2/each))
	if os.Getenv("SOAK_FOR") == "" {
		n = min(n, 2_000)
	}
	return n
}

// TestSeesACrowd has as many processes live as the machine has room for (with SOAK_FOR; else 2,000): all are seen being born,
// known to a sensor that comes later, and seen to end, each with its parent, or counted as lost; and the memory has a bound.
func TestSeesACrowd(t *testing.T) {
	a, _ := twoHosts(t)
	binary := buildCrowd(t)
	n := crowdSize(t)
	if n < 1000 {
		t.Skipf("the limits leave room for %d processes", n)
	}
	const foremen = 20
	born := a.tally(t, a.load(Options{}))
	dir, err := os.Open(a.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(binary, fmt.Sprint(n), fmt.Sprint(foremen))
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Cloneflags: syscall.CLONE_NEWPID}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Skip("no namespace of pids is to be had:", err)
	}
	var ended sync.Once
	end := func() { ended.Do(func() { stdin.Close(); cmd.Wait() }) }
	defer end()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if made, _ := strconv.Atoi(strings.TrimSpace(line)); made != n {
		t.Skipf("the limits leave room for %d processes of %d (%v)", made, n, err)
	}
	want := uint64(n + foremen + 1)                              // and the first,
	born.settle(t, "births", event.ActivityFork, "fork", want-1) // who was born of this test, outside

	later := a.load(Options{})
	found := a.tally(t, later)
	if err := later.TellBefore(t.Context()); err != nil {
		t.Fatal(err)
	}
	found.settle(t, "those that were there", event.ActivityExec, "exec", want)
	if d := found.s.Drops()[LineageDrops+"parent_unknown"]; d != 0 {
		t.Errorf("of %d that were there the parent was not known", d)
	}
	if got := found.s.Tree().Len(); got < int(want) || got > maxProcesses {
		t.Errorf("%d processes in the tree, with %d in this crowd", got, want)
	}
	end()
	born.settle(t, "ends", event.ActivityExit, "exit", want)
	found.settle(t, "ends, told to the later one", event.ActivityExit, "exit", want)
	for pid := range found.pids {
		if _, ok := found.s.Tree().Lookup(pid); ok && found.lost(t)["exit"] == 0 {
			t.Fatalf("process %d ended and is still in the tree", pid)
		}
	}
}

// tally counts what a sensor says of the crowd.
type tally struct {
	k    *Kernel
	s    *RingSensor
	heap uint64

	mu     sync.Mutex
	counts map[event.Activity]uint64
	wrong  int // said to have another parent
	pids   map[uint32]bool
}

func (h *host) tally(t *testing.T, k *Kernel) *tally {
	t.Helper()
	ring, err := k.Ring()
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenRing(ring)
	if err != nil {
		t.Fatal(err)
	}
	c := &tally{k: k, s: s, heap: sizes(t).heap, counts: map[event.Activity]uint64{}, pids: map[uint32]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func(e *event.Event) {
			if e.Class != event.ClassProcess {
				return
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.counts[e.Activity]++
			c.pids[e.Process.Key.PID] = true
			if name := filepath.Base(e.Process.ParentExe); e.Activity == event.ActivityExec && name != "crowd" && !strings.HasSuffix(name, ".test") {
				c.wrong++
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return c
}

func (c *tally) lost(t *testing.T) map[string]uint64 {
	t.Helper()
	drops, err := c.k.Drops()
	if err != nil {
		t.Fatal(err)
	}
	return drops
}

// settle waits until want of an activity are told or counted as lost, and holds the books to it.
func (c *tally) settle(t *testing.T, what string, a event.Activity, class string, want uint64) {
	t.Helper()
	var told, lost uint64
	wrong := 0
	for range 1000 { // the reader looks every 50 ms at most; a crowd needs its time to end
		c.mu.Lock()
		told, wrong = c.counts[a], c.wrong
		c.mu.Unlock()
		if lost = c.lost(t)[class]; told+lost >= want {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	heap := sizes(t).heap
	t.Logf("%s: %d told and %d lost of %d; %d in the tree, heap %d to %d MiB", what, told, lost, want, c.s.Tree().Len(), c.heap>>20, heap>>20)
	if told+lost != want {
		t.Errorf("%s: %d told and %d lost of %d", what, told, lost, want)
	}
	if wrong > 0 && lost == 0 {
		t.Errorf("%s: %d have a parent that is not theirs", what, wrong)
	}
	if heap > c.heap+100<<20 {
		t.Errorf("%s: the heap grew from %d to %d MiB", what, c.heap>>20, heap>>20)
	}
}
