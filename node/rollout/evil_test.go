package rollout

import (
	"fmt"
	"os"
	"path/filepath"

	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
)

// evil is a module that means harm, and what must stop it.
type evil struct {
	name    string
	kind    modules.Kind
	payload string
	grant   []modules.Capability
	rate    uint32
	// why must stand in the finding that names its author: empty where it goes on, held to its bounds.
	why string
	// dropped says that what it found past its rate was dropped, and counted.
	dropped bool
}

func guest(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "modules", "wasm", "testdata", "guests", "evil_"+name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestEvilModules deploys one module for each way to do harm beside an honest one, and shows what stopped it and what it
// cost the events: each of them still reaches the honest module, once, and whoever wrote the other is named.
func TestEvilModules(t *testing.T) {
	wasm, lua, sigma := modules.KindWASM, modules.KindLua, modules.KindSigma
	guests := func(why string, grant []modules.Capability, names ...string) (all []evil) {
		for _, n := range names {
			all = append(all, evil{name: "wasm-" + n, kind: wasm, payload: guest(t, n), grant: grant, why: why})
		}
		return all
	}
	logs, state := []modules.Capability{modules.CapabilityLog}, []modules.Capability{modules.CapabilityState}
	const rule = "title: a\nid: %s\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {%s}, condition: s}\n"
	bomb := "title: a\nlogsource: {product: linux}\na: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ","))
	}
	slow, filter := "", "title: f\nlogsource: {product: linux}\nfilter:\n  rules: any\n  condition: not s\n  s:\n    Image:\n"
	for i := range 60 {
		slow += fmt.Sprintf(rule, fmt.Sprint(i), fmt.Sprintf("CommandLine|re: '(a+)+(a+)+(a+)+[c%d]{2}$'", i)) + "---\n"
	}
	for i := range 3000 {
		filter += fmt.Sprintf("    - v%d\n", i)
	}
	for i := range 600 {
		filter += "---\n" + fmt.Sprintf(rule, fmt.Sprint(i), "Image: x")
	}
	table := slices.Concat(
		guests("fuel", nil, "loop", "tight", "tree", "memory", "fill"),
		guests("calls open at once", nil, "recurse"),
		guests("trapped", nil, "trap", "divide", "exit"),
		guests("no list of findings", nil, "pointer", "gigabyte", "count", "event"),
		guests("fuel", logs, "host"), guests("fuel", state, "state"),
		guests("refused", nil, "grant", "import", "start", "big", "alloc", "shape"),
		[]evil{
			{name: "lua-loop", kind: lua, payload: "function detect(e) while true do end end", why: "fuel"},
			{name: "lua-start", kind: lua, payload: "while true do end", why: "fuel"},
			{name: "lua-recurse", kind: lua, payload: "function detect(e) local function f() return 1 + f() end return f() end", why: "stack"},
			{name: "lua-allocate", kind: lua, payload: "function detect(e) local t = {} while true do t[#t+1] = {1,2,3} end end", why: "fuel"},
			{name: "lua-text", kind: lua, payload: "function detect(e) local s = 'x' while true do s = s .. s end end", why: "more than 65536"},
			{name: "lua-rep", kind: lua, payload: "function detect(e) return string.rep('x', 1000000000) end", why: "longer than 65536"},
			{name: "lua-pattern", kind: lua, payload: "function detect(e) while true do (('a'):rep(4096)):match('(a*)*(a*)*b') end end", why: "fuel"},
			{name: "lua-global", kind: lua, payload: "function detect(e) os.execute('id') end", why: "os"},
			{name: "lua-throw", kind: lua, payload: "function detect(e) error(e) end", why: "the script failed"},
			{name: "lua-flood", kind: lua, payload: "function detect(e) return {rule = 'x'} end", rate: 3, dropped: true},
			{name: "sigma-bomb", kind: sigma, payload: bomb, why: "alias"},
			{name: "sigma-types", kind: sigma, payload: "title: [a]\nid: {}\nlogsource: 7\ndetection: [1, 2]\n", why: "refused"},
			{name: "sigma-twice", kind: sigma, payload: fmt.Sprintf(rule, "one", "Image: x") + "---\n" + fmt.Sprintf(rule, "one", "Image: y"), why: "also the id"},
			{name: "sigma-regex", kind: sigma, payload: fmt.Sprintf(rule, "one", "CommandLine|re: '(a+)+(a+)+(a+)+$'")},
			{name: "sigma-slow", kind: sigma, payload: slow, why: "slow"},
			{name: "sigma-repeats", kind: sigma, payload: fmt.Sprintf(rule, "one", "CommandLine|re: '(a{30}){30}(b{30}){30}(c{30}){30}'"), why: "too large"},
			{name: "sigma-filter", kind: sigma, payload: filter, why: "all rules together"},
			{name: "sigma-lookback", kind: sigma, payload: fmt.Sprintf(rule, "one", "CommandLine|re: '(a)\\1'"), why: "refused"},
			{name: "indicators-noise", kind: modules.KindIndicators, payload: strings.Repeat("\x00\xff", 1000), why: "refused"},
		})
	args := strings.Repeat("a", 2000) + "b"
	rows := []string{fmt.Sprintf("%-18s %10s %10s %10s  %s", "module", "p50", "p99", "longest", "what stopped it")}
	for _, c := range append([]evil{{name: "none"}}, table...) {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			honest := h.lua("honest", "1.0.0", "return {rule = 'seen'}", func(m *modules.Manifest) { m.Limits.FindingRate = modules.MaxFindingRate })
			h.say(&authority.DeployBody{Module: honest[:]})
			h.step()
			if c.kind != "" {
				id := h.release(c.kind, "evil", "6.6.6", c.payload, func(m *modules.Manifest) {
					m.Capabilities, m.Limits.FindingRate = c.grant, c.rate
				})
				h.say(&authority.DeployBody{Module: id[:]})
				h.step()
			}
			const events = 2000
			seen, took := 0, make([]time.Duration, 0, events)
			for i := range events {
				e := &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: int64(1+i/500) * int64(time.Minute),
					Process: event.Process{Key: event.ProcessKey{PID: uint32(i + 1)}, Exe: "/usr/bin/curl", Args: args}}
				began := time.Now()
				err := h.Detector().Detect(t.Context(), []*event.Event{e}, func(f event.Finding) {
					if f.RuleID == "module.honest.seen" {
						seen++
					}
				})
				took = append(took, time.Since(began))
				if err != nil {
					t.Fatal(err)
				}
				if i%50 == 49 {
					h.judge()
				}
			}
			if seen != events {
				t.Errorf("the honest module saw %d of %d events", seen, events)
			}
			h.step()
			what := "nothing is there"
			for _, m := range h.Modules() {
				if name, _ := m.Name(); name == "evil" {
					if what = m.Why; what == "" {
						what = "nothing: it keeps to its bounds"
					}
					if m.Counts.Dropped > 0 {
						what = fmt.Sprintf("its rate: %d findings dropped and counted", m.Counts.Dropped)
					}
					if (m.Counts.Dropped > 0) != c.dropped {
						t.Errorf("%d findings dropped", m.Counts.Dropped)
					}
				}
			}
			switch {
			case c.why != "":
				h.stopped(c.name, "evil 6.6.6", c.why)
			case len(h.told) != 0:
				t.Errorf("%+v", h.told)
			}
			slices.Sort(took)
			rows = append(rows, fmt.Sprintf("%-18s %10s %10s %10s  %s", c.name, took[events/2].Round(10), took[events*99/100].Round(10), took[events-1].Round(time.Microsecond), what))
		})
	}
	t.Log("\n" + strings.Join(rows, "\n"))
}
