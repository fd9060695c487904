package pack

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
)

// action is what is done for one recording: a script for sh, and programs that have to be there. A tool that would do harm,
// or is not installed, is a stand-in: a program of that name that does nothing. A service that starts programs is a shell of
// that name.
type action struct {
	rule, kind    string
	tools, shells []string
	script        string
}

// actions reads testdata/actions: "-- RULE positive|negative [tools=A,B] [shells=C] --" and a script each.
func actions(t testing.TB) (out []action) {
	t.Helper()
	names, err := filepath.Glob("testdata/actions/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal("no actions", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if head, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok && strings.HasSuffix(head, " --") {
				words := strings.Fields(strings.TrimSuffix(head, " --"))
				a := action{rule: words[0], kind: words[1]}
				for _, w := range words[2:] {
					key, list, _ := strings.Cut(w, "=")
					switch key {
					case "tools":
						a.tools = strings.Split(list, ",")
					case "shells":
						a.shells = strings.Split(list, ",")
					default:
						t.Fatalf("%s: %s", name, line)
					}
				}
				out = append(out, a)
			} else if len(out) > 0 {
				out[len(out)-1].script += line
			}
		}
	}
	return out
}

// perform does an action in a root folder of its own.
func (s *sandbox) perform(a *action) (string, error) {
	root, done, err := s.root()
	if err != nil {
		return "", err
	}
	defer done()
	if err := s.do(func() error {
		return errors.Join(place(root, "/bin/true", a.tools...), place(root, "/bin/sh", a.shells...),
			os.WriteFile(filepath.Join(root, "run/action"), []byte(a.script+"\ntrue\n"), 0o644))
	}); err != nil {
		return "", err
	}
	return s.run(root, 0, "/bin/sh", "/run/action")
}

func recordingName(rule, kind string) string {
	return filepath.Join("testdata", "recordings", rule+"."+kind+".jsonl")
}

// TestRecord makes the recordings anew: RECORD=1 all of them, or RECORD=PART those whose name has that part. The actions
// are done in a sandbox under the real kernel sensor; what would be unsafe to do is made of typed events.
func TestRecord(t *testing.T) {
	part := os.Getenv("RECORD")
	if part == "" {
		t.Skip("RECORD=1 records anew")
	}
	if part == "1" {
		part = ""
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var events []*event.Event
	s := newSandbox(t, func(e *event.Event) {
		if e.Class == event.ClassProcess && (e.Activity == event.ActivityFork || e.Activity == event.ActivityExit) {
			return // no rule is about them, and they are most of what happens
		}
		events = append(events, anonymous(e.Clone(), self))
	})
	for _, a := range actions(t) {
		if !strings.Contains(a.rule+"."+a.kind, part) {
			continue
		}
		events = nil
		out, err := s.perform(&a)
		if err != nil {
			t.Errorf("%s %s: %v: %s", a.rule, a.kind, err, out)
			continue
		}
		store(t, a.rule, a.kind, events)
	}
	for rule, kinds := range typed() {
		for kind, events := range kinds {
			if strings.Contains(rule+"."+kind, part) {
				store(t, rule, kind, events)
			}
		}
	}
}

// anonymous takes out of an event what started this test: it is of this machine, and not of what is recorded.
func anonymous(e *event.Event, self string) *event.Event {
	if e.Process.ParentExe == self {
		e.Process.ParentExe, e.Process.Ancestors = "/usr/bin/bash", ""
	}
	if i := strings.Index(e.Process.Ancestors, self); i >= 0 {
		e.Process.Ancestors = strings.TrimRight(e.Process.Ancestors[:i], "\x00")
	}
	return e
}

func store(t *testing.T, rule, kind string, events []*event.Event) {
	t.Helper()
	var b bytes.Buffer
	for _, e := range events {
		if err := bpf.WriteEvent(&b, e); err != nil {
			t.Error(err)
		}
	}
	if err := os.MkdirAll(filepath.Join("testdata", "recordings"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordingName(rule, kind), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// found gives the ids of the rules that a recording's events complete, each once, and the findings.
func found(t testing.TB, d *Detector, name string) (rules []string, findings []event.Finding, events int) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Error(err)
		return nil, nil, 0
	}
	defer f.Close()
	var batch [1]*event.Event
	r := bpf.NewRecording(f, false)
	if err := r.Run(t.Context(), func(e *event.Event) {
		events++
		batch[0] = e
		if err := d.Detect(t.Context(), batch[:], func(f event.Finding) {
			findings = append(findings, f)
			if !slices.Contains(rules, f.RuleID) {
				rules = append(rules, f.RuleID)
			}
		}); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Error(err)
	}
	if n := r.Drops(); n["malformed"]+n["too_long"] > 0 {
		t.Errorf("%s: %v", name, n)
	}
	return rules, findings, events
}

// TestRecordings: each rule finds its positive recording and nothing else does, and nothing is found in its negative one.
func TestRecordings(t *testing.T) {
	rules, err := Rules()
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(context.Background())
	total := 0
	for _, r := range rules {
		t.Run(r.ID, func(t *testing.T) {
			text, err := files.ReadFile(r.File)
			if err != nil {
				t.Fatal(err)
			}
			claimed := map[string]bool{}
			for _, id := range r.Attack {
				claimed[id] = true
			}
			for _, kind := range []string{"positive", "positive-2", "negative"} {
				if _, err := os.Stat(recordingName(r.ID, kind)); err != nil && kind == "positive-2" {
					continue // few rules take two
				}
				d := d
				if r.Kind != modules.KindSigma || bytes.Contains(text, []byte("\ncorrelation:")) { // what it remembers is of this recording alone
					if d, err = New(t.Context()); err != nil {
						t.Fatal(err)
					}
					defer d.Close(context.Background())
				}
				got, findings, n := found(t, d, recordingName(r.ID, kind))
				total += n
				var want []string
				if kind != "negative" {
					want = []string{r.ID}
				}
				if !slices.Equal(got, want) || n == 0 {
					t.Errorf("%s: found %v in %d events", kind, got, n)
				}
				for _, f := range findings {
					for _, id := range f.Attack {
						delete(claimed, id)
					}
					if len(f.Attack) == 0 || f.Title == "" || f.Severity == 0 || f.Subject == (event.Subject{}) {
						t.Errorf("it says too little: %+v", f)
					}
					if f.Subject.Address.IsValid() && f.Confidence > maxConfidence {
						t.Errorf("it is so sure of an address (%d) that it may be refused", f.Confidence)
					}
				}
			}
			if len(claimed) > 0 {
				t.Errorf("no recording shows %v, which it claims", claimed)
			}
		})
	}
	t.Logf("%d rules, %d events in their recordings", len(rules), total)
}
