package drill

import (
	"context"
	"sync"
	"time"

	"github.com/omega-mesh/omega/node/testnet"
	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are the figures of a drill that `omega bench` shows; all come from one run, which needs root.
func Benchmarks() []event.Benchmark {
	measure := sync.OnceValues(func() (*Result, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		return Run(ctx, Options{Nodes: 5, Mode: testnet.ModeNetns})
	})
	figure := func(pick func(*Result) float64) func() (float64, error) {
		return func() (float64, error) {
			r, err := measure()
			if err != nil {
				return 0, err
			}
			return pick(r), nil
		}
	}
	return []event.Benchmark{
		{Name: "drill/immunity-p50", Unit: "ms", Limit: 20, Measure: figure(func(r *Result) float64 { return r.ImmunityMS.P50 })},
		{Name: "drill/immunity-p99", Unit: "ms", Limit: 100, Measure: figure(func(r *Result) float64 { return r.ImmunityMS.P99 })},
	}
}
