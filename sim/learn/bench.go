package learn

import (
	"context"
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
		Name: "sim/learn/decision-p50", Unit: "us", Limit: 2,
		Measure: medianDecision,
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

// medianDecision is the median of the mean decision of an episode, in microseconds: an episode is short enough that most
// are not interrupted by what else the machine does.
func medianDecision() (float64, error) {
	f, err := Trained()
	if err != nil {
		return 0, err
	}
	p, err := f.Defender(cage2.Leaderboard)
	if err != nil {
		return 0, err
	}
	const episodes, steps = 1000, 100
	times := make([]time.Duration, episodes)
	for i := range times {
		w := cage2.NewWorld(cage2.Leaderboard, []cage2.Red{cage2.BLine, cage2.Meander}[i%2], false, rng.Derive(7, uint64(i)))
		var o cage2.Observation
		begin := time.Now()
		p.Begin(rng.Source{})
		for range steps {
			o = w.Step(p.Act(o)).Observation
		}
		times[i] = time.Since(begin)
	}
	slices.Sort(times)
	return float64(times[episodes/2].Nanoseconds()) / 1000 / steps, nil
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
