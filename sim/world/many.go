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
