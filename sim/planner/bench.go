package planner

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are this package's performance figures for `omega bench`.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{{
		Name: "sim/planner/decision-p50", Unit: "ms", Limit: 10,
		Measure: func() (float64, error) {
			p, err := New(DefaultConfig(cage2.Leaderboard))
			if err != nil {
				return 0, err
			}
			times := make([]time.Duration, 0, 400)
			for i, red := range []cage2.Red{cage2.BLine, cage2.Meander, cage2.BLine, cage2.Meander} {
				w := cage2.NewWorld(cage2.Leaderboard, red, false, rng.Derive(7, uint64(i)))
				p.Begin(rng.Derive(8, uint64(i)))
				var o cage2.Observation
				for range 100 {
					a := p.Act(o)
					times = append(times, p.took)
					o = w.Step(a).Observation
				}
			}
			if len(times) == 0 {
				return 0, fmt.Errorf("no decision was timed")
			}
			slices.Sort(times)
			return float64(times[len(times)/2].Nanoseconds()) / 1e6, nil
		},
	}}
}

// decisionBenchmark measures decisions over episodes against both attackers.
func decisionBenchmark(b *testing.B) {
	b.ReportAllocs()
	p, err := New(DefaultConfig(cage2.Leaderboard))
	if err != nil {
		b.Fatal(err)
	}
	var w cage2.World
	var o cage2.Observation
	b.ResetTimer()
	for i := range b.N {
		if i%100 == 0 {
			red := []cage2.Red{cage2.BLine, cage2.Meander}[i/100%2]
			w = cage2.NewWorld(cage2.Leaderboard, red, false, rng.Derive(7, uint64(i)))
			p.Begin(rng.Derive(8, uint64(i)))
			o = 0
		}
		o = w.Step(p.Act(o)).Observation
	}
}
