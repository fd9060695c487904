package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/node/drill"
	"github.com/omega-mesh/omega/node/testnet"
)

// newDrillCommand runs real attack steps in a testnet.
func newDrillCommand(a *app) *cobra.Command {
	var opt drill.Options
	var mode, picture string
	var stay bool
	c := &cobra.Command{
		Use: "drill", Short: "Attack a swarm on this machine for real, and measure how it holds", Args: cobra.NoArgs,
		Long: `Build a testnet, attack it from its outsider x1 with real, harmless steps, and show what was seen, by which rule, and
how long every kernel took to refuse the attacker. Exits with 1 when a host did not.`,
		Example: `  omega drill
  omega drill --stay              # the swarm stays up to be looked at
  omega drill --json --nodes 5`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt.Mode, opt.Dir, opt.Progress = testnet.Mode(mode), a.dir, a.steps()
			opt.Color = a.colour()
			if !a.json {
				opt.Out = a.out
			}
			var cast *drill.Recording
			if picture != "" {
				cast = drill.NewRecording()
				opt.Out, opt.Color = io.MultiWriter(cast, a.out), true
			}
			if stay {
				opt.Stay = func(ctx context.Context, net *testnet.Net, _ *drill.Result) { a.stay(ctx, net) }
			}
			result, err := drill.Run(cmd.Context(), opt)
			if errors.Is(err, drill.ErrScenario) {
				return &exitError{exitUsage, err}
			}
			if result != nil && a.json {
				err = errors.Join(a.emit(result), err)
			}
			if cast != nil && err == nil {
				var svg bytes.Buffer
				if err := cast.SVG(&svg, "omega drill"); err != nil {
					return err
				}
				err = os.WriteFile(picture, svg.Bytes(), 0o644)
			}
			return testnetError(err)
		},
	}
	c.Flags().StringVar(&opt.Scenario, "scenario", "default", "which attack")
	c.Flags().IntVar(&opt.Nodes, "nodes", testnet.DefaultNodes, fmt.Sprintf("members, 2 to %d", testnet.MaxNodes))
	c.Flags().StringVar(&mode, "mode", string(testnet.ModeAuto), "auto, netns or process")
	c.Flags().BoolVar(&stay, "stay", false, "keep the swarm up until Ctrl-C")
	c.Flags().StringVar(&picture, "record", "", "also draw the terminal, as SVG that plays itself, into this file")
	c.AddCommand(helperCommand(drill.Helper))
	return c
}

// stay keeps the swarm of a drill up until Ctrl-C.
func (a *app) stay(ctx context.Context, net *testnet.Net) {
	first := net.Hosts()[0]
	a.progress("")
	a.progress("The swarm stays up until Ctrl-C. In another terminal:")
	omega := os.Args[0] // as it was called: after `make run` it is not on the PATH
	a.progress("  " + omega + " testnet status")
	a.progress("  " + omega + " --dir " + first.Dir + " responses --active")
	a.progress("  " + omega + " testnet exec " + testnet.Outsider + fmt.Sprintf(" -- curl -m 2 %s:%d", first.Addr, first.Port))
	<-ctx.Done()
	a.progress("ending the swarm")
}
