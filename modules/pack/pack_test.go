package pack

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
)

// Every rule says what it is, why it matters and what to do, under an id that its file follows from.
func TestRulesSayWhatTheyAre(t *testing.T) {
	rules, err := Rules()
	if err != nil {
		t.Fatal(err)
	}
	techniques, kinds := map[string]bool{}, map[modules.Kind]int{}
	for _, r := range rules {
		kinds[r.Kind]++
		dir, name := path.Split(strings.TrimSuffix(strings.TrimPrefix(r.File, "rules/"), ".yml"))
		if want := "omega." + strings.TrimSuffix(dir, "/") + "." + name; r.ID != want || r.Tactic != strings.TrimSuffix(dir, "/") {
			t.Errorf("%s: id %q, tactic %q", r.File, r.ID, r.Tactic)
		}
		if r.Title == "" || len(r.Reason) < 30 || len(r.Response) < 10 || len(r.FalsePositives) == 0 || len(r.Attack) == 0 || len(r.Components) == 0 {
			t.Errorf("%s: %+v", r.ID, r)
		}
		if !slices.Contains([]string{"low", "medium", "high", "critical"}, r.Level) {
			t.Errorf("%s: level %q", r.ID, r.Level)
		}
		for _, id := range r.Attack {
			if techniques[id] = true; Technique(id) == "" {
				t.Errorf("%s: %s has no name", r.ID, id)
			}
		}
		if text, err := r.Text(); err != nil || !strings.Contains(text, "id: "+r.ID) {
			t.Errorf("%s: %v", r.ID, err)
		}
	}
	t.Logf("%d techniques and sub-techniques, %d rules: %v", len(techniques), len(rules), kinds)
	if len(techniques) < 60 || kinds[modules.KindWASM] < 2 || kinds[modules.KindLua] < 2 {
		t.Error("the pack is smaller than it says")
	}
}

// What is read beside the caller is there at the first event, and a module's trouble stays its own.
func TestBegin(t *testing.T) {
	p := Begin()
	defer p.Close(t.Context())
	var rules []string
	e := &event.Event{Class: event.ClassFile, Activity: event.ActivityFileCreate, Process: event.Process{Key: event.ProcessKey{PID: 7}, Exe: "/usr/bin/bash"}, File: event.File{Path: "/etc/ld.so.preload"}}
	if err := p.Detect(t.Context(), []*event.Event{e}, func(f event.Finding) { rules = append(rules, f.RuleID) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rules, []string{"omega.persistence.preload"}) {
		t.Errorf("found %v", rules)
	}
}
