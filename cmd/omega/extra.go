package main

import (
	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/node/testnet"
)

// extraCommands are the groups that need no node: testnets, drills, the simulator.
func extraCommands(a *app) []*cobra.Command {
	return []*cobra.Command{newTestnetCommand(a), newDrillCommand(a), newSimCommand(a)}
}

// cleanTestnets removes what dead testnets left and says how many there were.
func cleanTestnets() (int, error) {
	removed, err := testnet.Cleanup()
	return len(removed), err
}
