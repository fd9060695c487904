package learn

import (
	"context"
	"testing"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are this package's performance figures for `omega bench`.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{{
		Name: "sim/learn/decision", Unit: "us", Limit: 2,
		Measure: func() (float64, error) {
			if _, err := Trained(); err != nil {
				return 0, err
			}
			return event.PerOperation(decisionBenchmark) / 1000, nil
		},
	}, {
		Name: "sim/learn/training", Unit: "steps/s", Limit: 5000, HigherIsBetter: true, // 30 million in under two hours
		Measure: func() (float64, error) {
			o := DefaultOptions()
			l, err := NewLearner(o.Hyper, DefenderSizes(), o.Hidden, o.Hidden, 1)
			if err != nil {
				return 0, err
			}
			l.Play(scriptedGame, 1)
			one := event.PerOperation(func(b *testing.B) {
				for range b.N {
					if _, err := l.Iterate(context.Background(), 0); err != nil {
						b.Fatal(err)
					}
				}
			})
			return float64(o.Hyper.Worlds*o.Hyper.Horizon) / (one / 1e9), nil
		},
	}}
}

// scriptedGame is a defence against the leaderboard's scripts.
func scriptedGame() Game {
	return &Defence{Versions: versions(), Opponents: []Opponent{{Red: cage2.BLine, Weight: 1}, {Red: cage2.Meander, Weight: 1}}}
}

// decisionBenchmark measures the trained defender's decisions, with the steps of the world between them.
func decisionBenchmark(b *testing.B) {
	b.ReportAllocs()
	f, err := Trained()
	if err != nil {
		b.Fatal(err)
	}
	p, err := f.Defender(cage2.Leaderboard)
	if err != nil {
		b.Fatal(err)
	}
	var w cage2.World
	var o cage2.Observation
	for i := range b.N {
		if i%100 == 0 {
			w, o = cage2.NewWorld(cage2.Leaderboard, cage2.Meander, false, rng.Derive(7, uint64(i))), 0
			p.Begin(rng.Source{})
		}
		o = w.Step(p.Act(o)).Observation
	}
}
