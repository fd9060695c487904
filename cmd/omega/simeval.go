package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/learn"
	"github.com/omega-mesh/omega/sim/planner"
)

func newSimEval(a *app) *cobra.Command {
	var f cageFlags
	var policy, base, weights string
	var episodes, duels, workers int
	var seed uint64
	c := &cobra.Command{
		Use:   "eval",
		Short: "Measure a defender over the nine settings of the leaderboard, and against learned attackers",
		Long: `Measure a defender over the leaderboard's nine settings: 30, 50 and 100 steps against the attackers b_line, meander and
sleep; and then over 100 steps against each of the attackers that nobody scripted, learned against the trained
defender and its predecessors: the defender's worst case among them is reported. Each mean has the half-width of its
95 % interval. The result depends on the seed, not on the number of cores.`,
		Example: `  omega sim eval --scenario cage2 --policy planner --episodes 100 --seed 153
  omega sim eval --policy trained --episodes 1000 --version later --json
  omega sim eval --policy planner --base trained
  omega sim eval --policy trained --weights my.weights`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := f.parse()
			if err != nil {
				return err
			}
			if duels < 0 {
				return fail(exitUsage, "--duels %d; 0 leaves the learned attackers out", duels)
			}
			trained, err := learn.Trained()
			if weights != "" {
				trained, err = learn.LoadFile(weights)
			}
			if err != nil {
				return err
			}
			if base != "rules" && (base != "trained" || policy != "planner") {
				return fail(exitUsage, "--base %s: the planner's base policy is rules or trained", base)
			}
			fresh := func() (cage2.Policy, error) {
				switch {
				case policy == "trained":
					return trained.Defender(v)
				case base == "trained":
					return planner.New(planner.LearnedConfig(v, trained))
				}
				return simPolicy(policy, v)
			}
			if _, err := fresh(); err != nil {
				return err
			}
			attackers, err := trained.Attackers()
			if err != nil {
				return err
			}
			begin := time.Now()
			s, err := cage2.Evaluate(c.Context(), cage2.Evaluation{Policy: policy, New: fresh, Version: v, Episodes: episodes, Seed: seed, Workers: workers})
			if err != nil {
				return err
			}
			result := evaluation{Score: s}
			if duels > 0 {
				if err := result.face(c.Context(), fresh, v, attackers, duels, seed); err != nil {
					return err
				}
			}
			if a.json {
				return a.emit(result)
			}
			out := a.out
			fmt.Fprintf(out, "%-10s %5s %9s %7s\n", "red", "steps", "mean", "ci95")
			for _, x := range s.Settings {
				fmt.Fprintf(out, "%-10s %5d %9.2f %7.2f\n", x.Red, x.Steps, x.Mean, x.CI95)
			}
			fmt.Fprintf(out, "%-16s %9.2f %7.2f   (%s, %s rules, %d episodes a setting, seed %d, %.1f s)\n",
				"total", s.Total, s.CI95, s.Policy, s.Version, s.Episodes, s.Seed, time.Since(begin).Seconds())
			for _, x := range result.Learned {
				fmt.Fprintf(out, "%-10s %5d %9.2f %7.2f\n", x.Attacker, x.Steps, x.Mean, x.CI95)
			}
			if result.Worst != nil {
				_, err = fmt.Fprintf(out, "%-16s %9.2f %7.2f   (%s, %d episodes)\n", "worst case", result.Worst.Mean, result.Worst.CI95, result.Worst.Attacker, duels)
			}
			return err
		},
	}
	f.register(c)
	c.Flags().StringVar(&policy, "policy", "planner", "the defender: sleep, random, react, rules, planner or trained")
	c.Flags().StringVar(&base, "base", "rules", "what the planner lets go on in its simulations: rules or trained")
	c.Flags().StringVar(&weights, "weights", "", "file of weights for trained and for the learned attackers (default: the built-in ones)")
	c.Flags().IntVar(&episodes, "episodes", 100, "episodes a setting")
	c.Flags().IntVar(&duels, "duels", 100, "episodes against each learned attacker (0: leave them out)")
	c.Flags().IntVar(&workers, "workers", 0, "goroutines for the nine settings (0: one a core)")
	c.Flags().Uint64Var(&seed, "seed", 153, "seed of all episodes")
	return c
}

// evaluation is what `omega sim eval` prints.
type evaluation struct {
	*cage2.Score
	Learned []learn.Duel `json:"learned,omitempty"` // against the attackers that nobody scripted
	Worst   *learn.Duel  `json:"worst,omitempty"`   // the one of them that cost most
}

func (e *evaluation) face(ctx context.Context, fresh func() (cage2.Policy, error), v cage2.Version, attackers []*learn.Network, episodes int, seed uint64) error {
	if len(attackers) == 0 {
		return nil
	}
	duels, worst, err := learn.FaceAll(ctx, fresh, v, attackers, episodes, seed)
	if err != nil {
		return err
	}
	e.Learned, e.Worst = duels, &worst
	return nil
}
