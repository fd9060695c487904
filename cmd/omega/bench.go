package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/modules/indicator"
	"github.com/omega-mesh/omega/modules/pack"
	"github.com/omega-mesh/omega/modules/sigma"
	"github.com/omega-mesh/omega/modules/wasm"
	"github.com/omega-mesh/omega/node"
	"github.com/omega-mesh/omega/node/drill"
	"github.com/omega-mesh/omega/node/journal"
	"github.com/omega-mesh/omega/node/rollout"
	"github.com/omega-mesh/omega/node/testnet"
	"github.com/omega-mesh/omega/roles/sentinel"
	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/learn"
	"github.com/omega-mesh/omega/sim/planner"
	"github.com/omega-mesh/omega/sim/serve"
	"github.com/omega-mesh/omega/sim/world"
	"github.com/omega-mesh/omega/swarm"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/audit"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/policy"
)

// benchmarks are the figures of every package that has some.
func benchmarks() []event.Benchmark {
	return slices.Concat(bpf.Benchmarks(), ledger.Benchmarks(), composite.Benchmarks(), audit.Benchmarks(), authority.Benchmarks(), policy.Benchmarks(), swarm.Benchmarks(), sentinel.Benchmarks(), node.Benchmarks(), journal.Benchmarks(), testnet.Benchmarks(), drill.Benchmarks(),
		cage2.Benchmarks(), planner.Benchmarks(), learn.Benchmarks(), world.Benchmarks(), serve.Benchmarks(),
		wasm.Benchmarks(), sigma.Benchmarks(), indicator.Benchmarks(), rollout.Benchmarks(), node.ModuleBenchmarks(), pack.Benchmarks())
}

func newBenchCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "bench [NAME]", Short: "The performance figures of this build on this machine",
		Long:    "Measure the performance figures of this build on this machine, each beside its budget. NAME selects those that begin with it.",
		Example: "  omega bench\n  omega bench ledger --json\n  omega bench sensor                the sentinel's whole budget; some minutes, as root", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ran, over, failed := 0, 0, 0
			for _, b := range benchmarks() {
				if len(args) == 1 && !strings.HasPrefix(b.Name, args[0]) && (b.Also == "" || !strings.HasPrefix(b.Also, args[0])) {
					continue
				}
				if err := cmd.Context().Err(); err != nil {
					return err
				}
				ran++
				a.progress("measuring " + b.Name)
				value, err := b.Measure()
				if err != nil {
					failed++
					a.progress(fmt.Sprintf("%s cannot be measured here: %v", b.Name, err))
					continue
				}
				ratio, within := value/b.Limit, value <= b.Limit
				if b.HigherIsBetter {
					within = value >= b.Limit
				}
				if b.Limit == 0 { // nothing is allowed, and nothing can be in proportion to that
					ratio = value
				}
				if !within {
					over++
				}
				ratio = math.Round(ratio*1000) / 1000
				if a.json {
					if err := a.emit(map[string]any{"name": b.Name, "value": value, "unit": b.Unit, "limit": b.Limit, "ratio": ratio, "within": within}); err != nil {
						return err
					}
					continue
				}
				mark := "within"
				if !within {
					mark = "OVER"
				}
				fmt.Fprintf(a.out, "%-36s %14.4g %-12s limit %-10.4g ratio %-8.3g %s\n", b.Name, value, b.Unit, b.Limit, ratio, mark)
			}
			if ran == 0 {
				return fail(exitNotFound, "no such benchmark: %q", args[0])
			}
			a.progress(fmt.Sprintf("%d measured, %d over their budget, %d not measurable here", ran-failed, over, failed))
			return nil
		},
	}
}
