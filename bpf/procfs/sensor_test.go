package procfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// subscribed is a connector, or the test is skipped: Linux before 6.6 gives it to root alone, and a container to nobody.
func subscribed(t *testing.T) *Connector {
	t.Helper()
	c, err := Subscribe()
	if err != nil {
		t.Skip(err)
	}
	return c
}

// log is what a running sensor told.
type log struct {
	t    *testing.T
	mu   sync.Mutex
	all  []*event.Event
	more chan struct{}
}

func run(t *testing.T, s *Sensor) *log {
	t.Helper()
	l := &log{t: t, more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func(e *event.Event) {
			l.mu.Lock()
			l.all = append(l.all, e.Clone())
			l.mu.Unlock()
			select {
			case l.more <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// await waits until match is true of an event told.
func (l *log) await(what string, match func(*event.Event) bool) *event.Event {
	l.t.Helper()
	deadline := time.After(20 * time.Second)
	for from := 0; ; {
		l.mu.Lock()
		all := l.all
		l.mu.Unlock()
		for ; from < len(all); from++ {
			if match(all[from]) {
				return all[from]
			}
		}
		select {
		case <-l.more:
		case <-deadline:
			l.t.Fatalf("%s was not told in %d events", what, len(all))
		}
	}
}

func did(pid int, a event.Activity) func(*event.Event) bool {
	return func(e *event.Event) bool {
		return e.Class == event.ClassProcess && e.Activity == a && int(e.Process.Key.PID) == pid
	}
}

// watching makes a sensor that has seen what is there already: all that comes is news to it.
func watching(t *testing.T, opt Options) *Sensor {
	s := New(opt)
	s.look(t.Context(), func(e *event.Event) { t.Errorf("what was there before is told as news: %+v", e) })
	return s
}

// Far shorter than any interval of looking: each is told of all the same.
func TestConnectorTellsOfShortProcesses(t *testing.T) {
	s := watching(t, Options{Interval: time.Hour, Connector: subscribed(t)})
	l := run(t, s)
	var pids []int
	for range 40 {
		cmd := exec.Command("/bin/true", "short")
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, cmd.Process.Pid)
	}
	for _, pid := range pids {
		fork := l.await("a fork", did(pid, event.ActivityFork))
		if int(fork.Process.Parent.PID) != os.Getpid() {
			t.Errorf("its parent is %d, not this test %d", fork.Process.Parent.PID, os.Getpid())
		}
		e := l.await("an exec", did(pid, event.ActivityExec))
		if e.Process.Exe != "" && filepath.Base(e.Process.Exe) != "true" && !strings.Contains(e.Process.Exe, "busybox") && !strings.Contains(e.Process.Exe, "coreutils") {
			t.Errorf("it ran %s", e.Process.Exe)
		}
		l.await("an exit", did(pid, event.ActivityExit))
	}
	if c := s.Coverage()[0]; c.OK || c.Lost == "" || !strings.HasPrefix(c.Detail, "proc connector") {
		t.Errorf("%+v", c)
	}
	cmd := exec.Command("/bin/sh", "-c", "exit 3")
	cmd.Run()
	if e := l.await("an exit", did(cmd.Process.Pid, event.ActivityExit)); e.Process.ExitCode != 3<<8 {
		t.Errorf("exit status %#x", e.Process.ExitCode)
	}
}

// What no connector is heard in is polled, and said.
func TestWithoutConnectorProcIsPolled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	refused := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			var c *Connector
			if c, err = Subscribe(); err == nil {
				c.File.Close()
			}
		}
		refused <- err
	}()
	err := <-refused
	if !errors.Is(err, ErrConnector) {
		t.Fatalf("in another network namespace: %v", err)
	}
	s := watching(t, Options{Refused: err})
	l := run(t, s)
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.await("its beginning", did(cmd.Process.Pid, event.ActivityExec))
	cmd.Process.Kill()
	cmd.Wait()
	l.await("its end", did(cmd.Process.Pid, event.ActivityExit))
	if c := s.Coverage()[0]; c.OK || !strings.Contains(c.Detail, err.Error()) || !strings.Contains(c.Lost, "shorter") {
		t.Errorf("%+v", c)
	}
}

// More than the queue holds, with nobody reading: it is counted, and what lives is found by reading /proc through.
func TestConnectorOverflowIsCountedAndMadeGood(t *testing.T) {
	c := subscribed(t)
	s := watching(t, Options{Interval: time.Hour, Connector: c})
	if err := unix.SetsockoptInt(int(c.File.Fd()), unix.SOL_SOCKET, unix.SO_RCVBUF, 2048); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := exec.Command("/bin/true").Run(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	s.hear(t.Context(), c, func(*event.Event) {})
	if s.Drops()["connector_overflow"] == 0 || time.Since(s.through) < resync {
		t.Errorf("%v, read through last %s ago", s.Drops(), time.Since(s.through))
	}
	l := run(t, s)
	l.await("what lives", did(cmd.Process.Pid, event.ActivityExec))
	if c := s.Coverage()[0]; !strings.Contains(c.Lost, "full") {
		t.Errorf("%+v", c)
	}
}

// A program put into a folder that was made a moment ago, then run: the file and its execution are both told of.
func TestJustWrittenProgram(t *testing.T) {
	s := watching(t, Options{Interval: time.Hour, Connector: subscribed(t)})
	l := run(t, s)
	dir, err := os.MkdirTemp("/tmp", "omega-procfs-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	deep := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(deep, 0o777); err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(deep, "tool")
	if out, err := exec.Command("cp", "/bin/sleep", tool).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	f := l.await("the file", func(e *event.Event) bool { return e.Class == event.ClassFile && e.File.Path == tool })
	var st unix.Stat_t
	if err := unix.Stat(tool, &st); err != nil || f.Activity != event.ActivityFileWrite || f.File.Inode != st.Ino || f.File.Mode&0o111 == 0 {
		t.Errorf("%+v", f)
	}
	cmd := exec.Command(tool, "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	e := l.await("its execution", did(cmd.Process.Pid, event.ActivityExec))
	if e.Process.Exe != tool || e.Process.Flags&event.FlagJustWritten == 0 {
		t.Errorf("%+v", e.Process)
	}
}

func written(t *testing.T, w *watcher) map[string]bool {
	t.Helper()
	got := map[string]bool{}
	if err := w.read(func(f writtenFile) { got[f.path] = true }); err != nil {
		t.Fatal(err)
	}
	return got
}

func put(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every way a file comes to be in a folder, and folders that come, go and are moved.
func TestEveryWayToPutAFileIsSeen(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	old := put(t, filepath.Join(root, "old"))
	w, err := newWatcher([]folder{{root, 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if w.justWritten(old) || len(written(t, w)) != 0 {
		t.Error("what lay there is told as news")
	}
	outside := put(t, filepath.Join(elsewhere, "outside"))
	wrote, moved, linked := filepath.Join(root, "wrote"), filepath.Join(root, "moved"), filepath.Join(root, "linked")
	put(t, wrote)
	if err := errors.Join(os.Rename(outside, moved), os.Link(moved, linked), os.Chmod(old, 0o700), os.Symlink(old, filepath.Join(root, "symlink"))); err != nil {
		t.Fatal(err)
	}
	got := written(t, w)
	for _, path := range []string{wrote, moved, linked, old} {
		if !got[path] || !w.justWritten(path) {
			t.Errorf("%s was not seen: %v", path, got)
		}
	}
	if got[filepath.Join(root, "symlink")] {
		t.Error("a symbolic link is no program")
	}
	// A whole folder moved in, with a file of now.
	full := filepath.Join(elsewhere, "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(full, "inside"))
	if err := os.Rename(full, filepath.Join(root, "full")); err != nil {
		t.Fatal(err)
	}
	if got := written(t, w); !got[filepath.Join(root, "full", "inside")] {
		t.Errorf("a folder moved in: %v", got)
	}
	// Moved out again, what is written there is not in the root any more.
	if err := os.Rename(filepath.Join(root, "full"), full); err != nil {
		t.Fatal(err)
	}
	written(t, w)
	put(t, filepath.Join(full, "later"))
	if got := written(t, w); len(got) != 0 || len(w.folders) != 1 {
		t.Errorf("a folder moved out: %v, %d folders are watched", got, len(w.folders))
	}
}

func TestInotifyOverflowIsCountedAndMadeGood(t *testing.T) {
	root := t.TempDir()
	w, err := newWatcher([]folder{{root, 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	raw, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Skip(err)
	}
	var most int
	if _, err := fmt.Sscan(string(raw), &most); err != nil || most > 1<<17 {
		t.Skipf("a queue of %d events (%v)", most, err)
	}
	a, b := put(t, filepath.Join(root, "a")), put(t, filepath.Join(root, "b"))
	for i := range most { // two in turn: equal neighbours would be told once
		if err := errors.Join(os.Chmod(a, os.FileMode(0o600+i%2)), os.Chmod(b, os.FileMode(0o600+i%2))); err != nil {
			t.Fatal(err)
		}
	}
	last := put(t, filepath.Join(root, "last")) // no room was left for this one
	got := map[string]bool{}
	for range 1000 {
		for path := range written(t, w) {
			got[path] = true
		}
	}
	if w.overflows.Load() == 0 || !got[last] {
		t.Errorf("overflows %d, the last file seen: %v", w.overflows.Load(), got[last])
	}
}

func TestWatchesAndMemoryAreBounded(t *testing.T) {
	root := t.TempDir()
	w, err := newWatcher([]folder{{root, 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for i := range maxWritten + 10 {
		w.note(fmt.Sprint("/f", i), &unix.Stat_t{Mode: unix.S_IFREG}, func(writtenFile) {})
	}
	if len(w.at) != maxWritten || w.justWritten("/f0") || !w.justWritten(fmt.Sprint("/f", maxWritten+9)) {
		t.Errorf("%d files are remembered", len(w.at))
	}
	w.most = 50
	for i := range w.most + 5 {
		if err := os.Mkdir(filepath.Join(root, fmt.Sprint(i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	written(t, w)
	if len(w.folders) != w.most || w.unwatched.Load() != 6 {
		t.Errorf("%d folders are watched, %d are not", len(w.folders), w.unwatched.Load())
	}
}

// Where another user's program is hidden from this one, whoever has the right is asked; and a file just written is told
// by the name it was called.
func TestCompletesWhatThisUserMayNotSee(t *testing.T) {
	key := event.ProcessKey{PID: 4242, Start: 7}
	asked := false
	s := New(Options{Lookup: func(_ context.Context, pid uint32) (event.Process, error) {
		asked = true
		return event.Process{Key: event.ProcessKey{PID: pid, Start: 7}, Exe: "/usr/bin/secret"}, nil
	}})
	defer s.Close()
	p := event.Process{Key: key, Args: "secret\x00-x"}
	if s.complete(t.Context(), &p); p.Exe != "/usr/bin/secret" {
		t.Errorf("%+v", p)
	}
	reused := event.Process{Key: event.ProcessKey{PID: 4242, Start: 8}, Args: "other"}
	if s.complete(t.Context(), &reused); reused.Exe != "" {
		t.Error("another process of that pid was taken for it")
	}
	asked = false
	kernel := event.Process{Key: key}
	if s.complete(t.Context(), &kernel); asked {
		t.Error("a kernel thread was asked about")
	}
	s.opt.Lookup = nil
	s.watch.note("/tmp/.x/tool", &unix.Stat_t{Mode: unix.S_IFREG | 0o755}, func(writtenFile) {})
	fresh := event.Process{Key: key, Args: "/tmp/.x/tool\x00--go"}
	if s.complete(t.Context(), &fresh); fresh.Exe != "/tmp/.x/tool" || fresh.Flags&event.FlagJustWritten == 0 {
		t.Errorf("%+v", fresh)
	}
	liar := event.Process{Key: key, Args: "/usr/sbin/sshd"}
	if s.complete(t.Context(), &liar); liar.Exe != "" {
		t.Errorf("taken at its word: %+v", liar)
	}
}

func FuzzConnectorMessage(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil && !errors.Is(err, errMessage) {
			t.Errorf("untyped: %v", err)
		}
		if err == nil && m.what == whatExec && m.pid != binary.NativeEndian.Uint32(b[offsetUnion+4:]) {
			t.Errorf("%+v", m)
		}
	})
}

func FuzzInotifyEvent(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			c, rest, err := parseChange(b)
			if err != nil {
				if !errors.Is(err, errChange) {
					t.Errorf("untyped: %v", err)
				}
				return
			}
			if len(rest) >= len(b) || strings.ContainsAny(c.name, "/\x00") || len(c.name) > unix.NAME_MAX+1+sizeChange {
				t.Fatalf("%q: %d bytes are left of %d", c.name, len(rest), len(b))
			}
			b = rest
		}
	})
}
