package selftest

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

func TestMain(m *testing.M) {
	if Is() {
		os.Exit(Perform(os.Stdout))
	}
	os.Exit(m.Run())
}

// TestPerform: a real run does what it says, and needs no rights for most of it.
func TestPerform(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{Name, "secret"}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	raw, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	list, err := Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	done := map[event.Activity]bool{}
	for _, a := range list {
		t.Logf("%-20s %s", a.Activity, a.Refused)
		done[a.Activity] = a.Refused == ""
	}
	for _, a := range []event.Activity{event.ActivityExec, event.ActivityFork, event.ActivityExit, event.ActivityFileCreate, event.ActivityFileWrite, event.ActivityFileRename,
		event.ActivityFileUnlink, event.ActivityFileChmod, event.ActivityListen, event.ActivityConnect, event.ActivityAccept, event.ActivityMemfdCreate, event.ActivityMemoryExecutable} {
		if !done[a] {
			t.Errorf("%s was not done", a)
		}
	}
}

func ofProcess(a event.Activity, pid, parent uint32, args ...string) *event.Event {
	return &event.Event{Class: event.ClassProcess, Activity: a, Process: event.Process{Key: event.ProcessKey{PID: pid, Start: uint64(pid)},
		Parent: event.ProcessKey{PID: parent, Start: uint64(parent)}, Args: strings.Join(args, "\x00")}}
}

// TestWatchTakesItsOwnAlone: neither the name nor the secret makes a process the node's own.
func TestWatchTakesItsOwnAlone(t *testing.T) {
	w := NewWatch("secret", 10)
	for _, e := range []*event.Event{
		ofProcess(event.ActivityExec, 20, 10, "bash", "secret"),
		ofProcess(event.ActivityExec, 21, 10, Name, "guess"),
		ofProcess(event.ActivityExec, 22, 11, Name, "secret"), // somebody read it in /proc
		ofProcess(event.ActivityFork, 23, 10, Name, "secret"),
		{Class: event.ClassFile, Activity: event.ActivityFileWrite},
	} {
		if w.Take(e) {
			t.Errorf("taken: %+v", e.Process)
		}
	}
	if !w.Take(ofProcess(event.ActivityExec, 30, 10, Name, "secret")) {
		t.Fatal("its own is not taken")
	}
	if w.Take(ofProcess(event.ActivityExec, 31, 10, Name, "secret")) {
		t.Error("a second one is taken")
	}
	if !w.Take(ofProcess(event.ActivityFork, 32, 30)) || !w.Take(ofProcess(event.ActivityExit, 32, 30)) || !w.Take(ofProcess(event.ActivityPtrace, 30, 10)) {
		t.Error("what its own do is not taken")
	}
	p := w.Judge([]Attempt{{Activity: event.ActivityExec}, {Activity: event.ActivityPtrace}, {Activity: event.ActivityFork, Refused: "no"},
		{Activity: event.ActivityMount, Refused: "no"}, {Activity: event.ActivityFileWrite}, {Activity: 255}}, nil)
	for a, want := range map[event.Activity]State{event.ActivityExec: Seen, event.ActivityPtrace: Seen, event.ActivityFork: Seen, event.ActivityMount: Untested, event.ActivityFileWrite: Missed} {
		if p[a] != want {
			t.Errorf("%s is %s, want %s", a, p[a], want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`[{"Activity":2,"Refused":"operation not permitted"}]`))
	f.Add([]byte(`[{"Activity":255}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := Decode(raw)
		if err == nil {
			closed := make(chan struct{})
			close(closed)
			NewWatch("s", 1).Judge(list, closed)
		}
	})
}
