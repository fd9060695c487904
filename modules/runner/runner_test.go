package runner

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	"github.com/omega-mesh/omega/swarm/event"
)

func load(t *testing.T, kind modules.Kind, payload string, edit func(*modules.Manifest)) (*Module, error) {
	t.Helper()
	r, err := New(t.Context(), "", Services{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	m := modules.Manifest{Name: "test", Version: "1.0.0", Kind: kind, ABI: 1}
	if edit != nil {
		edit(&m)
	}
	b, err := bundle.New(m, []byte(payload), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.Load(t.Context(), b)
}

func batch(n int) []*event.Event {
	var out []*event.Event
	for i := range n {
		out = append(out, &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: int64(i) * int64(time.Second), Process: event.Process{Key: event.ProcessKey{PID: uint32(i + 1)}, Exe: "/usr/bin/curl"}})
	}
	return out
}

func TestModulesOfEachKindRun(t *testing.T) {
	for kind, payload := range map[modules.Kind]string{
		modules.KindLua:   "function detect(e) if e.exe:endswith('/curl') then return {rule = 'curl'} end end",
		modules.KindSigma: "title: Curl\nid: curl\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {Image|endswith: /curl}, condition: s}\n",
	} {
		m, err := load(t, kind, payload, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		if err := m.Detect(t.Context(), batch(5), func(f event.Finding) {
			if n++; f.RuleID != "module.test.curl" {
				t.Errorf("%s: %s", kind, f.RuleID)
			}
		}); err != nil || n != 5 {
			t.Errorf("%s: %d findings, %v", kind, n, err)
		}
		if c := m.Counts(); c.Events != 5 || c.Findings != 5 || c.Traps != 0 {
			t.Errorf("%s: %+v", kind, c)
		}
	}
	if _, err := load(t, modules.KindIndicators, "x", nil); !errors.Is(err, modules.ErrRefused) {
		t.Errorf("a kind without an engine: %v", err)
	}
}

// A trap costs one event; the third costs the module.
func TestThirdTrapDisables(t *testing.T) {
	m, err := load(t, modules.KindLua, "function detect(e) if e.pid % 2 == 0 then error('no') end return {rule = 'odd'} end", nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = m.Detect(t.Context(), batch(20), func(event.Finding) { n++ })
	if !errors.Is(err, ErrDisabled) || n != 3 {
		t.Fatalf("%d findings, %v", n, err)
	}
	c := m.Counts()
	if !c.Disabled || c.Traps != 3 || c.Events != 6 || c.Last == nil {
		t.Errorf("%+v", c)
	}
	if err := m.Detect(t.Context(), batch(1), func(event.Finding) { t.Error("it goes on") }); !errors.Is(err, ErrDisabled) {
		t.Error(err)
	}
}

// What floods is held to its rate, and what was dropped is counted.
func TestRateOfFindings(t *testing.T) {
	m, err := load(t, modules.KindLua, "function detect(e) return {rule = 'all'} end", func(m *modules.Manifest) { m.Limits.FindingRate = 10 })
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := m.Detect(t.Context(), batch(90), func(event.Finding) { n++ }); err != nil { // a minute and a half
		t.Fatal(err)
	}
	if c := m.Counts(); n != 20 || c.Dropped != 70 {
		t.Errorf("%d findings, %d dropped", n, c.Dropped)
	}
}
