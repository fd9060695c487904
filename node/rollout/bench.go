package rollout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	"github.com/omega-mesh/omega/modules/runner"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
)

// Benchmarks are the figures of modules in a live node that `omega bench modules` shows.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{
		{Name: "modules/exchange-pause", Unit: "ms", Limit: 1, Measure: func() (float64, error) { return measureExchange(20, 20_000) }},
	}
}

// measureExchange is the longest that one of some events takes while two versions are exchanged under them without a
// pause. What else the machine does delays events as well, so it is the least of several rounds.
func measureExchange(rounds, events int) (float64, error) {
	ctx := context.Background()
	r, err := runner.New(ctx, "", runner.Services{})
	if err != nil {
		return 0, err
	}
	var versions [2][]*running
	for i := range versions {
		b, err := bundle.New(modules.Manifest{Name: "bench", Version: fmt.Sprintf("%d.0.0", i), Kind: modules.KindLua, ABI: 1}, []byte("function detect(e) end"), nil)
		if err != nil {
			return 0, err
		}
		m, err := r.Load(ctx, b)
		if err != nil {
			return 0, errors.Join(err, r.Close(ctx))
		}
		versions[i] = []*running{newRunning(m, authority.Deployment{})}
	}
	set := NewSet()
	least := time.Duration(1 << 62)
	batch := []*event.Event{{Class: event.ClassProcess, Activity: event.ActivityExec, Process: event.Process{Exe: "/bin/x"}}}
	for range rounds {
		var wg sync.WaitGroup
		var over atomic.Bool
		var exchanged atomic.Uint32
		wg.Go(func() {
			for ; !over.Load() && err == nil; exchanged.Add(1) {
				err = set.exchange(ctx, versions[exchanged.Load()%2])
			}
		})
		longest := time.Duration(0)
		for i := 0; i < events || exchanged.Load() == 0; i++ {
			began := time.Now()
			if err := set.Detect(ctx, batch, func(event.Finding) {}); err != nil {
				return 0, err
			}
			longest = max(longest, time.Since(began))
		}
		over.Store(true)
		wg.Wait()
		least = min(least, longest)
	}
	return float64(least) / 1e6, errors.Join(err, set.exchange(ctx, nil), r.Close(ctx))
}
