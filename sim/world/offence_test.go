package world

import (
	"testing"

	"github.com/omega-mesh/omega/sim/rng"
)

// The orders that are open to an attacker are those its script chooses among: an attacker that is given, at every turn,
// the order its script would have taken comes to the same.
func TestScriptChoosesAmongOpenOrders(t *testing.T) {
	tried := map[string]int{}
	for seed := range uint64(6) {
		w, err := New(crowded(t, 20, seed), rng.New(seed))
		if err != nil {
			t.Fatal(err)
		}
		for w.Now() < 1<<45 {
			open := [2]map[string]bool{{}, {}}
			for a := range open {
				w.OpenOrders(a, func(n int) { open[a][w.OrderName(n)] = true })
			}
			w.OnStep = func(s Step) {
				for a, x := range w.net.s.Attackers {
					if s.Actor == x.Name {
						if tried[s.Action]++; !open[a][s.Action+" "+s.To] {
							t.Fatalf("seed %d: the script takes a step that is not among the open orders %v: %+v", seed, open[a], s)
						}
					}
				}
			}
			if !w.advance(w.end) {
				break
			}
		}
	}
	for k := range Sweep + 1 {
		if tried[k.String()] == 0 {
			t.Errorf("no attacker tried to %s: %v", k, tried)
		}
	}
}

// An order is carried out once, at the attacker's next turn, and what is not open comes to nothing.
func TestOrder(t *testing.T) {
	w := start(t, office(t), 1)
	var did []string
	w.OnStep = func(s Step) {
		if s.Actor == w.net.s.Attackers[0].Name {
			did = append(did, s.Action+" "+s.To)
		}
	}
	names := map[string]int{}
	for n := range w.Orders() {
		names[w.OrderName(n)] = n
	}
	if len(names) != w.Orders() || w.OrderName(0) != "wait" {
		t.Fatalf("%d names of %d orders", len(names), w.Orders())
	}
	for _, order := range []string{"wait", "exploit web", "sweep dmz", "scan web", "loot web"} {
		w.Order(0, names[order])
		for turns := w.result.Steps; w.result.Steps < turns+3; {
			if !w.advance(w.end) {
				t.Fatal("the day is over")
			}
		}
	}
	if len(did) != 2 || did[0] != "sweep dmz" || did[1] != "scan web" {
		t.Errorf("%q", did)
	}
	branch := w.Clone()
	branch.Order(0, names["exploit web"])
	if w.ordered[0] != 0 {
		t.Error("a branch's order is felt by the other")
	}
}
