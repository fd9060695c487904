// Package place says where decoys, sensors and patches are worth most in a described network. It samples attackers' days
// on the attack graph (when each host would fall, and when a decoy or sensor on each would have told), searches the
// placement with the least loss on those days, exactly where that can be done and by simulated annealing where not, lets
// it race those that come near it in the simulator, and measures the winner there, before and after, with common random
// numbers.
//
// The sampled day is simpler than the simulator's: an attacker does at once whatever can be begun, and is out when it is
// first caught. It only ranks placements; the losses that are reported are the simulator's.
package place

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/sim/world"
)

// Bounds of a request.
const (
	MaxItems   = 100 // of each kind
	MaxSamples = 4000
)

// Options say what there is to place, and how hard to look.
type Options struct {
	Decoys, Sensors, Patches int
	SensorRate               float64 // detection rate of a new sensor; 0: 0.5
	Samples                  int     // days sampled on the attack graph; 0: 400, fewer on networks of over 20,000 hosts and attackers
	Runs                     int     // of the simulator, before and after; 0: 1000
	Seed                     uint64
	Method                   Method // "": exact where it can be done

	lookups int // that an exact search may take; 0: exactLookups
}

// Method is how a placement was searched.
type Method string

// The methods.
const (
	Exact     Method = "exact"
	Annealing Method = "annealing"
)

// ErrTooLarge is of a network on which the best placement was asked for but cannot be found in good time.
var ErrTooLarge = errors.New("too large for an exact search")

// Decoy is one placed.
type Decoy struct {
	Host string `json:"host"`
	Port uint16 `json:"port"`
}

// Patch closes the holes of a package, or of a service, on one host.
type Patch struct {
	Host    string   `json:"host"`
	Package string   `json:"package"`
	Holes   []string `json:"holes,omitempty"`
	host    int
	port    uint16 // of the service whose own hole it is; 0: the vulnerabilities of Package
}

// Mean is a mean loss with half the width of its 95 % interval.
type Mean struct {
	Loss float64 `json:"loss"`
	CI95 float64 `json:"ci95"`
}

// Result is a placement and what it is worth.
type Result struct {
	Scenario string   `json:"scenario"`
	Method   Method   `json:"method"`
	Samples  int      `json:"samples"`
	Raced    int      `json:"raced"` // placements that then ran against one another in the simulator
	Decoys   []Decoy  `json:"decoys"`
	Sensors  []string `json:"sensors"`
	Patches  []Patch  `json:"patches"`
	Runs     int      `json:"runs"`
	Seed     uint64   `json:"seed"`
	Before   Mean     `json:"before"`
	After    Mean     `json:"after"`
	Saved    Mean     `json:"saved"` // of the differences run by run
	// Placed is the scenario with all of it in place.
	Placed *world.Scenario `json:"-"`
}

func (o *Options) validate(s *world.Scenario) error {
	for _, n := range []int{o.Decoys, o.Sensors, o.Patches} {
		if n < 0 || n > MaxItems {
			return fmt.Errorf("%d to place; from 0 to %d of a kind", n, MaxItems)
		}
	}
	switch {
	case o.Decoys+o.Sensors+o.Patches == 0:
		return errors.New("nothing to place: ask for decoys, sensors or patches")
	case o.Samples < 0 || o.Samples > MaxSamples:
		return fmt.Errorf("%d samples; from 1 to %d", o.Samples, MaxSamples)
	case o.Runs < 0 || o.Runs > world.MaxRuns || o.Runs == 1:
		return fmt.Errorf("%d runs; from 2 to %d", o.Runs, world.MaxRuns)
	case !(o.SensorRate >= 0 && o.SensorRate <= 1):
		return fmt.Errorf("sensor rate %v; from 0 to 1", o.SensorRate)
	case o.Method != "" && o.Method != Exact && o.Method != Annealing:
		return fmt.Errorf("method %q; exact or annealing", o.Method)
	case len(s.Attackers) == 0:
		return errors.New("the scenario has no attacker: there is nothing to place anything against")
	case s.Response.Immunity == 0 && o.Patches == 0:
		return errors.New("the swarm of this scenario only watches (response.immunity is absent): no decoy or sensor changes the loss")
	}
	return s.Validate()
}

// Place finds a placement. The result depends on the scenario and the options alone, not on the number of cores.
func Place(ctx context.Context, s *world.Scenario, o Options) (*Result, error) {
	if err := o.validate(s); err != nil {
		return nil, err
	}
	if o.SensorRate == 0 {
		o.SensorRate = 0.5
	}
	if o.Runs == 0 {
		o.Runs = 1000
	}
	if o.Samples == 0 {
		const cells = 8_000_000 // of the tables of the sampled days
		o.Samples = max(20, min(400, cells/(len(s.Hosts)*len(s.Attackers))))
	}
	search := &search{s: s, o: o}
	r := &Result{Scenario: s.Name, Samples: o.Samples, Runs: o.Runs, Seed: o.Seed, Decoys: []Decoy{}, Sensors: []string{}, Patches: []Patch{}}
	patches, chosen, method, err := search.run(ctx)
	if err != nil {
		return nil, err
	}
	r.Method = method
	r.Patches = append(r.Patches, patches...)
	base := patched(s, patches)
	m := newModel(base, o.Seed, o.SensorRate)
	if o.Decoys+o.Sensors > 0 {
		b, err := search.board(ctx, patches)
		if err != nil {
			return nil, err
		}
		if chosen, r.Raced, err = search.race(ctx, b, patches, chosen); err != nil {
			return nil, err
		}
	}
	for _, h := range sorted(chosen.decoys) {
		r.Decoys = append(r.Decoys, Decoy{s.Hosts[h].Name, m.trap[h]})
	}
	for _, h := range sorted(chosen.sensors) {
		r.Sensors = append(r.Sensors, s.Hosts[h].Name)
	}
	r.Placed = search.placed(base, m, chosen)
	r.Before, r.After, r.Saved, err = compare(ctx, s, r.Placed, o.Runs, o.Seed)
	return r, err
}

// compare runs two scenarios with the same streams of chance, which are not those of the search.
func compare(ctx context.Context, before, after *world.Scenario, runs int, seed uint64) (b, a, saved Mean, err error) {
	without, err := losses(ctx, before, runs, ^seed)
	if err != nil {
		return b, a, saved, err
	}
	with, err := losses(ctx, after, runs, ^seed)
	if err != nil {
		return b, a, saved, err
	}
	difference := make([]float64, runs)
	for i := range difference {
		difference[i] = without[i] - with[i]
	}
	return mean(without), mean(with), mean(difference), nil
}

// losses are those of so many runs of the simulator, on all cores.
func losses(ctx context.Context, s *world.Scenario, runs int, seed uint64) ([]float64, error) {
	first, err := world.New(s, rng.Source{})
	if err != nil {
		return nil, err
	}
	all := make([]float64, runs)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runs, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= runs || ctx.Err() != nil {
					return
				}
				all[i] = first.Again(world.Stream(seed, i)).Run(time.Duration(s.Duration)).Loss
			}
		})
	}
	workers.Wait()
	return all, ctx.Err()
}

func mean(v []float64) Mean {
	n := float64(len(v))
	sum, squares := 0.0, 0.0
	for _, x := range v {
		sum += x
	}
	for _, x := range v {
		d := x - sum/n
		squares += float64(d * d)
	}
	return Mean{sum / n, 1.96 * math.Sqrt(squares/(n-1)/n)}
}

// search is one request at work.
type search struct {
	s *world.Scenario
	o Options
}

// Effort of a search.
const (
	exactLookups = 400_000 // of an item on all days, in one exact search
	exactPatches = 200     // combinations of patches that are all tried
	maxPatches   = 60      // candidates, those on the hosts that fall most often
	maxHosts     = 600     // candidates for decoys and for sensors, those that save most alone; over it no search is exact
	moves        = 6000    // of annealing
)

// run chooses the patches, and the decoys and sensors that go best with them.
func (x *search) run(ctx context.Context) ([]Patch, set, Method, error) {
	if x.o.Patches == 0 {
		best, _, method, err := x.inner(ctx, nil)
		return nil, best, method, err
	}
	candidates := patchesOf(x.s)
	bare := func(chosen []Patch) (float64, error) {
		b, err := x.board(ctx, chosen)
		if err != nil {
			return 0, err
		}
		return b.loss(set{}), nil
	}
	exact := true
	if len(candidates) > maxPatches {
		exact = false
		var err error
		if candidates, err = x.worst(ctx, candidates); err != nil {
			return nil, set{}, "", err
		}
	}
	n := min(x.o.Patches, len(candidates))
	if exact = exact && combinations(len(candidates), n) <= exactPatches && x.o.Method != Annealing; exact {
		var patches []Patch
		var best set
		least, method := math.Inf(1), Exact
		err := each(len(candidates), n, func(index []int) error {
			var chosen []Patch
			for _, i := range index {
				chosen = append(chosen, candidates[i])
			}
			found, loss, how, err := x.inner(ctx, chosen)
			if err == nil && loss < least {
				patches, best, least = chosen, found, loss
			}
			if how != Exact {
				method = how
			}
			return err
		})
		return patches, best, method, err
	}
	if x.o.Method == Exact {
		return nil, set{}, "", fmt.Errorf("%w: %d patches of %d candidates", ErrTooLarge, n, len(candidates))
	}
	source := rng.Derive(x.o.Seed, 1<<41)
	work := 6_000_000 / (len(x.s.Hosts) * x.o.Samples)
	chosen, err := annealPatches(ctx, candidates, n, max(20, min(400, work)), source, bare)
	if err != nil {
		return nil, set{}, "", err
	}
	best, _, _, err := x.inner(ctx, chosen)
	return chosen, best, Annealing, err
}

// board samples the days of the scenario with some patches in place.
func (x *search) board(ctx context.Context, chosen []Patch) (*board, error) {
	m := newModel(patched(x.s, chosen), x.o.Seed, x.o.SensorRate)
	days, err := sampleDays(ctx, m, x.o.Samples)
	if err != nil {
		return nil, err
	}
	return newBoard(m, days), nil
}

// inner places decoys and sensors with the patches given.
func (x *search) inner(ctx context.Context, chosen []Patch) (set, float64, Method, error) {
	b, err := x.board(ctx, chosen)
	if err != nil {
		return set{}, 0, "", err
	}
	nd, ns := x.o.Decoys, x.o.Sensors
	if nd+ns == 0 {
		return set{}, b.loss(set{}), Exact, nil
	}
	within := b.restrict(maxHosts)
	if x.o.Method != Annealing {
		lookups := cmp.Or(x.o.lookups, exactLookups*100/max(100, x.o.Samples))
		if !within {
			lookups = 0
		}
		best, loss, whole := b.exact(nd, ns, lookups)
		if whole {
			return best, loss, Exact, nil
		}
		if x.o.Method == Exact {
			return set{}, 0, "", fmt.Errorf("%w: %d decoys on %d hosts, %d sensors on %d", ErrTooLarge, nd, len(b.decoys), ns, len(b.sensors))
		}
	}
	best, loss, err := b.anneal(ctx, nd, ns, moves, rng.Derive(x.o.Seed, 1<<40))
	if err != nil {
		return set{}, 0, "", err
	}
	if other, l := b.greedy(nd, ns); l < loss {
		best, loss = other, l
	}
	return best, loss, Annealing, nil
}
