package main

import (
	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/sim/world"
)

func newSimGenerate(a *app) *cobra.Command {
	var hosts int
	var seed uint64
	c := &cobra.Command{
		Use: "generate", Short: "Make up a network of any size as a scenario file, on standard output", Args: cobra.NoArgs,
		Long: `Make up a company's network: a demilitarised zone, offices, farms of servers, administrators; accounts whose secrets are
reused, people with working hours, holes, sensors, a few decoys and one attacker. The same seed gives the same file.`,
		Example: "  omega sim generate --hosts 500 --seed 7 > company.yaml\n  omega sim run company.yaml --runs 20",
		RunE: func(*cobra.Command, []string) error {
			s, err := world.Generate(hosts, seed)
			if err != nil {
				return fail(exitUsage, "%w", err)
			}
			return s.Write(a.out)
		},
	}
	c.Flags().IntVar(&hosts, "hosts", 100, "how many hosts")
	c.Flags().Uint64Var(&seed, "seed", 1, "seed of everything made up")
	return c
}
