package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

func newCoverageCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "coverage [PEER]", Short: "What each host can see and stop, by its own proof",
		Long: `What each host can see and stop, by data component of ATT&CK. A host proves it by doing each watched thing to itself: at
start, each hour and after a change. "seen" is proved; "partly" and "missed" are things that were done and of which no event
came; "untested" is what a process cannot do to itself, or what the kernel refused it. Without PEER: a line a host.`,
		Example: `  omega coverage
  omega coverage n3
  omega coverage --json | jq '{host, blind}'`,
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completePeer,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			in := &apiv1.CoverageRequest{}
			if len(args) == 1 {
				in.Peer = args[0]
			}
			r, err := c.Coverage(cmd.Context(), in)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, k := range r.Coverages {
				switch {
				case a.json:
					if err := a.emit(coverageObject(k)); err != nil {
						return err
					}
				case len(args) == 1:
					return a.showCoverage(k)
				default:
					sees, stops := 0, 0
					for _, x := range k.Components {
						if x.Sees {
							sees++
						}
						if x.Stops {
							stops++
						}
					}
					state := k.Mode
					if k.Ended {
						state = "ended"
					}
					rows = append(rows, []string{k.Host, state, clock(k.Time), fmt.Sprintf("%d of %d", sees, len(k.Components)), fmt.Sprint(stops), strings.Join(k.Blind, ", ")})
				}
			}
			if a.json {
				return nil
			}
			return a.table([]string{"HOST", "MODE", "SAID", "SEES", "STOPS", "BLIND TO"}, rows)
		},
	}
}

func coverageObject(k *apiv1.Coverage) map[string]any {
	components, gaps, drops := []any{}, []any{}, map[string]uint64{}
	for _, x := range k.Components {
		components = append(components, map[string]any{"name": x.Name, "sees": x.Sees, "stops": x.Stops, "proof": x.Proof, "lost": x.Lost})
	}
	for _, g := range k.Gaps {
		gaps = append(gaps, map[string]any{"name": g.Name, "lost": g.Lost})
	}
	for name, n := range k.Drops {
		drops[name] = n
	}
	return map[string]any{"peer": k.Peer, "host": k.Host, "time": stamp(k.Time), "mode": k.Mode, "ended": k.Ended, "components": components,
		"gaps": gaps, "drops": drops, "blind": list(k.Blind)}
}

func (a *app) showCoverage(k *apiv1.Coverage) error {
	var rows [][]string
	for _, x := range k.Components {
		sees, stops := "no", ""
		if x.Sees {
			sees = "yes"
		}
		if x.Stops {
			stops = "yes"
		}
		rows = append(rows, []string{x.Name, sees, stops, x.Proof, x.Lost})
	}
	if err := a.table([]string{"DATA COMPONENT", "SEES", "STOPS", "PROOF", "LOST"}, rows); err != nil {
		return err
	}
	for _, g := range k.Gaps {
		fmt.Fprintf(a.out, "gap    %-24s lost: %s\n", printable(g.Name), printable(g.Lost))
	}
	for _, name := range slices.Sorted(maps.Keys(k.Drops)) {
		n := k.Drops[name]
		fmt.Fprintf(a.out, "drop   %-24s %d\n", printable(name), n)
	}
	return nil
}
