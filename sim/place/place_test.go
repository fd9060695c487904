package place

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/sim/world"
)

func generated(t testing.TB, hosts int, seed uint64) *world.Scenario {
	t.Helper()
	s, err := world.Generate(hosts, seed)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func office(t testing.TB) *world.Scenario {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "world", "testdata", "office.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := world.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sampled(t testing.TB, s *world.Scenario, samples int) *board {
	t.Helper()
	m := newModel(s, 5, 0.5)
	days, err := sampleDays(context.Background(), m, samples)
	if err != nil {
		t.Fatal(err)
	}
	return newBoard(m, days)
}

// brute tries every placement of nd decoys and ns sensors.
func brute(t *testing.T, b *board, nd, ns int) float64 {
	t.Helper()
	least := math.Inf(1)
	err := each(len(b.decoys), min(nd, len(b.decoys)), func(d []int) error {
		return each(len(b.sensors), min(ns, len(b.sensors)), func(n []int) error {
			var s set
			for _, i := range d {
				s.decoys = append(s.decoys, b.decoys[i])
			}
			for _, i := range n {
				s.sensors = append(s.sensors, b.sensors[i])
			}
			least = min(least, b.loss(s))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return least
}

// Branch and bound finds what trying everything finds, and annealing saves at most two per cent less.
func TestExactAndAnnealing(t *testing.T) {
	worst := 0.0
	for seed := range uint64(6) {
		s := generated(t, 24, seed)
		for i := range s.Hosts { // nothing in place, so that there is something to gain
			s.Hosts[i].Decoys, s.Hosts[i].Detect = nil, 0
		}
		b := sampled(t, s, 60)
		for _, n := range [][2]int{{1, 0}, {3, 0}, {0, 2}, {1, 2}, {2, 1}} {
			want := brute(t, b, n[0], n[1])
			_, got, whole := b.exact(n[0], n[1], 10_000_000)
			if !whole || math.Abs(got-want) > 1e-9*(1+want) {
				t.Errorf("seed %d, %v: exact gives %v (finished %t), trying all %v", seed, n, got, whole, want)
			}
			_, annealed, err := b.anneal(context.Background(), n[0], n[1], 2000, rng.New(seed))
			if err != nil || annealed < want-1e-9*(1+want) {
				t.Fatalf("seed %d, %v: annealing gives %v, less than the least %v (%v)", seed, n, annealed, want, err)
			}
			bare := b.loss(set{})
			worst = max(worst, 1-(bare-annealed)/(bare-want))
		}
	}
	t.Logf("annealing saves at most %.2f %% less than the exact optimum", 100*worst)
	if !(worst <= 0.02) {
		t.Errorf("annealing saves %.1f %% less than the exact optimum; at most 2", 100*worst)
	}
}

// More in place never loses more on the sampled days, and what one more decoy saves never grows: both bounds rest on it.
func TestBoundsHold(t *testing.T) {
	b := sampled(t, generated(t, 60, 3), 40)
	source := rng.New(1)
	some := func(from []int, n int) []int {
		var list []int
		for range n {
			list = append(list, from[source.Below(uint32(len(from)))])
		}
		return list
	}
	for range 300 {
		small := set{some(b.decoys, 2), some(b.sensors, 2)}
		large := set{append(some(b.decoys, 2), small.decoys...), append(some(b.sensors, 2), small.sensors...)}
		if b.loss(large) > b.loss(small)+1e-9 {
			t.Fatalf("%v loses %v, its part %v loses %v", large, b.loss(large), small, b.loss(small))
		}
		small.sensors, large.sensors = nil, nil
		one := some(b.decoys, 1)
		with := func(s set) float64 { return b.loss(set{append(one, s.decoys...), nil}) }
		if b.loss(large)-with(large) > b.loss(small)-with(small)+1e-9 {
			t.Fatalf("decoy %v saves more beside %v than beside %v", one, large, small)
		}
	}
}

// What is proposed is worth something where it counts, in the simulator, and the same on any number of cores.
func TestPlace(t *testing.T) {
	s := office(t)
	for i := range s.Hosts {
		s.Hosts[i].Decoys = nil
	}
	o := Options{Decoys: 2, Runs: 300, Seed: 4}
	r, err := Place(context.Background(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Method != Exact || len(r.Decoys) != 2 || r.Saved.Loss < 3*r.Saved.CI95 || math.Abs(r.Before.Loss-r.After.Loss-r.Saved.Loss) > 1e-6 {
		t.Errorf("%+v", r)
	}
	if r.Before.Loss < 300 || r.After.Loss > 0.5*r.Before.Loss {
		t.Errorf("two decoys bring the loss from %v to %v", r.Before, r.After)
	}
	if err := r.Placed.Validate(); err != nil {
		t.Error(err)
	}
	if s.Hosts[0].Decoys != nil || s.Hosts[1].Decoys != nil {
		t.Error("the scenario given was changed")
	}
	cores := runtime.GOMAXPROCS(1)
	again, err := Place(context.Background(), s, o)
	runtime.GOMAXPROCS(cores)
	if err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("on one core %+v, %v", again, err)
	}
	o.Method = Annealing
	if a, err := Place(context.Background(), s, o); err != nil || a.Method != Annealing || a.After.Loss > r.After.Loss+2*r.After.CI95 {
		t.Errorf("annealing: %+v, %v", a, err)
	}
}

// Patching what everything goes through is found, and the patch is in the scenario that is given back.
func TestPatches(t *testing.T) {
	s := office(t)
	s.Hosts[0].Vulnerabilities = []world.Vulnerability{{ID: "A", Package: "web", Port: 80, Exploit: 0.9}, {ID: "B", Package: "web", Exploit: 0.2}, {ID: "C", Exploit: 0.01}}
	r, err := Place(context.Background(), s, Options{Patches: 3, Runs: 100})
	if err != nil {
		t.Fatal(err)
	}
	if r.Method != Exact || len(r.Patches) != 3 || r.After.Loss != 0 {
		t.Errorf("three patches close both ways in: %+v", r)
	}
	for _, p := range r.Patches {
		if p.Host != "web" && p.Host != "mail" {
			t.Errorf("%+v is patched", p)
		}
	}
	if web := r.Placed.Hosts[0]; len(web.Vulnerabilities) != 1 || web.Vulnerabilities[0].ID != "C" || web.Services[0].Exploit != 0 || len(s.Hosts[0].Vulnerabilities) != 3 {
		t.Errorf("web is %+v", web)
	}
	large := generated(t, 200, 1)
	a, err := Place(context.Background(), large, Options{Patches: 4, Runs: 4, Samples: 20})
	if err != nil || a.Method != Annealing || len(a.Patches) != 4 {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestPlaceRefuses(t *testing.T) {
	quiet, watching := office(t), office(t)
	quiet.Attackers, watching.Response = nil, world.Response{}
	for want, c := range map[string]struct {
		s *world.Scenario
		o Options
	}{
		"nothing to place":     {office(t), Options{}},
		"-1 to place":          {office(t), Options{Decoys: -1}},
		"1000000 to place":     {office(t), Options{Sensors: 1_000_000}},
		"runs; from 2":         {office(t), Options{Decoys: 1, Runs: 1}},
		"samples; from 1":      {office(t), Options{Decoys: 1, Samples: 1e9}},
		"sensor rate NaN":      {office(t), Options{Sensors: 1, SensorRate: math.NaN()}},
		"has no attacker":      {quiet, Options{Decoys: 1}},
		"only watches":         {watching, Options{Decoys: 1}},
		"method \"guess\"":     {office(t), Options{Decoys: 1, Method: "guess"}},
		"too large for an exa": {office(t), Options{Decoys: 2, Sensors: 2, Runs: 2, Method: Exact, lookups: 1}},
	} {
		if _, err := Place(context.Background(), c.s, c.o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Place(ctx, office(t), Options{Decoys: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
