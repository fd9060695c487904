package world

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/swarm/event"
)

// Summary is what many runs of a scenario came to.
type Summary struct {
	Scenario string  `json:"scenario"`
	Runs     int     `json:"runs"`
	Seed     uint64  `json:"seed"`
	Loss     float64 `json:"loss"` // mean
	CI95     float64 `json:"ci95"` // half the width of its 95 % interval
	Taken    float64 `json:"taken"`
	Rooted   float64 `json:"rooted"`
	Caught   float64 `json:"caught"`
	Blocks   float64 `json:"blocks"`
	Harmed   float64 `json:"harmed"` // users' logons refused, a run
	Logons   float64 `json:"logons"`
}

// MaxRuns bounds Many.
const MaxRuns = 1_000_000

// Stream is the random stream of run i of a seed: what Many uses, so that one of its runs can be repeated alone.
func Stream(seed uint64, i int) rng.Source { return rng.Derive(seed, uint64(i)) }

// Many runs a scenario n times on all cores and gives the means. The result depends on the seed alone.
func Many(ctx context.Context, s *Scenario, n int, seed uint64) (*Summary, error) {
	if n < 1 || n > MaxRuns {
		return nil, fmt.Errorf("%d runs; from 1 to %d", n, MaxRuns)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	results := make([]Result, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				w, err := New(s, Stream(seed, i))
				if err != nil {
					failed.Store(&err)
					return
				}
				results[i] = w.Run(time.Duration(s.Duration))
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return summarise(s, results, seed), nil
}

// summarise gives the means of a scenario's runs.
func summarise(s *Scenario, results []Result, seed uint64) *Summary {
	n := len(results)
	sum := &Summary{Scenario: s.Name, Runs: n, Seed: seed}
	k := float64(n)
	for _, r := range results { // in their order, so that the sums have one rounding
		sum.Loss += r.Loss
		sum.Taken += float64(r.Taken)
		sum.Rooted += float64(r.Rooted)
		sum.Caught += float64(r.Caught)
		sum.Blocks += float64(r.Blocks)
		sum.Harmed += float64(r.HarmedLogons)
		sum.Logons += float64(r.Logons)
	}
	for _, p := range []*float64{&sum.Loss, &sum.Taken, &sum.Rooted, &sum.Caught, &sum.Blocks, &sum.Harmed, &sum.Logons} {
		*p /= k
	}
	if n > 1 {
		v := 0.0
		for _, r := range results {
			d := r.Loss - sum.Loss
			v += float64(d * d)
		}
		sum.CI95 = 1.96 * math.Sqrt(v/(k-1)/k)
	}
	return sum
}

// Benchmarks are this package's performance figures for `omega bench`.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{{
		Name: "sim/world/day-10000-hosts", Unit: "s", Limit: 2,
		Measure: func() (float64, error) {
			w, err := New(large(10_000), rng.New(1))
			if err != nil {
				return 0, err
			}
			begin := time.Now()
			w.Run(24 * time.Hour)
			return time.Since(begin).Seconds(), nil
		},
	}}
}

// large is a network of n hosts in forty zones under one attacker, with users everywhere.
func large(n int) *Scenario {
	s := &Scenario{Name: "large", Duration: Duration(24 * time.Hour), Response: Response{Immunity: Duration(50 * time.Millisecond)}}
	const zones = 40
	for i := range n {
		h := Host{Name: fmt.Sprintf("h%d", i), Zone: fmt.Sprintf("z%d", i%zones), Value: 1, Escalate: 0.3, Detect: 0.02, FalseRate: 1e-5,
			Services: []Service{{Name: "ssh", Port: 22}, {Name: "http", Port: 80, Exploit: 0.2}}}
		if i%100 == 0 {
			h.Decoys = []uint16{2323}
		}
		s.Hosts = append(s.Hosts, h)
		s.Users = append(s.Users, User{Host: h.Name, To: []string{fmt.Sprintf("h%d", (i*7+1)%n)}, Each: Duration(time.Hour)})
	}
	for z := range zones {
		s.Links = append(s.Links, Link{From: fmt.Sprintf("z%d", z), To: fmt.Sprintf("z%d", (z+1)%zones)})
	}
	s.Links = append(s.Links, Link{From: "internet", To: "z1"})
	s.Attackers = []Attacker{{Name: "one", Zone: "internet", Pace: Duration(time.Minute)}}
	return s
}
