package cage2

import (
	"testing"

	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are this package's performance figures for `omega bench`.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{{
		Name: "sim/cage2/steps", Unit: "steps/s", Limit: 4_000_000, HigherIsBetter: true,
		Measure: func() (float64, error) { return 1e9 / event.PerOperation(stepBenchmark(BLine, false)), nil },
	}, {
		Name: "sim/cage2/allocations", Unit: "a step", Limit: 0,
		Measure: func() (float64, error) {
			return float64(testing.Benchmark(stepBenchmark(BLine, false)).AllocsPerOp()), nil
		},
	}}
}

// stepBenchmark plays uniformly random actions, a new episode every 100 steps, and builds the observation every step.
func stepBenchmark(red Red, green bool) func(*testing.B) {
	return func(b *testing.B) {
		b.ReportAllocs()
		source := rng.New(1)
		var w World
		var o Observation
		for i := range b.N {
			if i%100 == 0 {
				w = NewWorld(Leaderboard, red, green, rng.New(source.Uint64()))
			}
			o ^= w.Step(Action(source.Below(uint32(Actions)))).Observation
		}
		if o>>ObservationBits != 0 {
			b.Fatal("an observation has more than 52 bits")
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "steps/s")
	}
}
