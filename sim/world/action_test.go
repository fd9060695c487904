package world

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

// The table of actions in sim/README.md is the code's; UPDATE=1 puts it there anew.
func TestActionTableIsCurrent(t *testing.T) {
	path := filepath.Join("..", "README.md")
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(ActionTable(), "\n")
	if os.Getenv("UPDATE") != "" {
		text := string(readme)
		from := strings.Index(text, head)
		if from < 0 {
			t.Fatal("no table of actions to replace")
		}
		end := from + strings.Index(text[from:], "\n\n") + 1
		if err := os.WriteFile(path, []byte(text[:from]+ActionTable()+text[end:]), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !strings.Contains(string(readme), "\n"+ActionTable()+"\n") {
		t.Error("sim/README.md has another table of actions: run the test with UPDATE=1")
	}
}

// Every action shows the events that the table names, and no others; every attack has a technique.
func TestActionsShowWhatTheTableSays(t *testing.T) {
	s := office(t)
	shown := map[string]map[string]bool{}
	done := map[string]bool{}
	for seed := range uint64(60) {
		w := start(t, s, seed)
		var pending []string
		w.OnEvent = func(_ string, e *event.Event) { pending = append(pending, e.Class.String()+" "+e.Activity.String()) }
		w.OnStep = func(x Step) {
			name := x.Action
			if x.Refused { // what the actuator shows, whatever the action would have been
				name = Refuse.String()
			}
			done[x.Action] = true
			for _, p := range pending {
				if shown[name] == nil {
					shown[name] = map[string]bool{}
				}
				shown[name][p] = true
			}
			pending = pending[:0]
		}
		w.Run(1 << 62)
	}
	for a := range actions {
		if !done[a.String()] {
			t.Errorf("%s never happens", a)
		}
		for e := range shown[a.String()] {
			if !strings.Contains(kindOf(a).shows, e) {
				t.Errorf("%s shows %s, the table says %q", a, e, kindOf(a).shows)
			}
		}
		if (len(shown[a.String()]) == 0) != (kindOf(a).shows == "") {
			t.Errorf("%s shows %v, the table says %q", a, shown[a.String()], kindOf(a).shows)
		}
		if attack := a < UserLogon; attack != (a.Technique() != "") {
			t.Errorf("%s has technique %q", a, a.Technique())
		}
	}
}
