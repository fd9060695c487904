package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/export"
	"github.com/omega-mesh/omega/sim/learn"
	"github.com/omega-mesh/omega/sim/planner"
	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/sim/world"
)

// newSimCommand is `omega sim`: offline, it talks to no node.
func newSimCommand(a *app) *cobra.Command {
	c := group("sim", "Simulate attacks and defences, without a node", `  omega sim replay --scenario cage2 --version leaderboard recordings/
  omega sim eval --scenario cage2 --policy planner --episodes 100
  omega sim explain --scenario cage2 --red meander --step 12
  omega sim run office.yaml --runs 1000`,
		newSimReplay(a), newSimRecord(a), newSimEval(a), newSimExplain(a), newSimRun(a), newSimTrain(a), newSimServe(a), newSimBench(a),
		newSimGenerate(a), newSimImport(a), newSimExport(a), newSimPlace(a))
	c.Long = "The simulator: replay recordings, measure defenders, explain a decision, play attacks on a described network. It runs offline and talks to no node."
	return c
}

// cageFlags are the flags that say which environment and which of its versions.
type cageFlags struct {
	scenario, version string
}

func (f *cageFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.scenario, "scenario", "cage2", "the environment: cage2")
	c.Flags().StringVar(&f.version, "version", "leaderboard", "its rules: leaderboard or later")
}

func (f *cageFlags) parse() (cage2.Version, error) {
	if f.scenario != "cage2" {
		return 0, fail(exitUsage, "scenario %q: the one that is built in is cage2", f.scenario)
	}
	switch f.version {
	case "leaderboard":
		return cage2.Leaderboard, nil
	case "later":
		return cage2.Later, nil
	}
	return 0, fail(exitUsage, "version %q: want leaderboard or later", f.version)
}

// simPolicy makes a defender by its name.
func simPolicy(name string, v cage2.Version) (cage2.Policy, error) {
	switch name {
	case "planner":
		return planner.New(planner.DefaultConfig(v))
	case "trained":
		f, err := learn.Trained()
		if err != nil {
			return nil, err
		}
		return f.Defender(v)
	}
	p, err := cage2.PolicyByName(name)
	if err != nil {
		return nil, fail(exitUsage, "policy %q: want sleep, random, react, rules, planner or trained", name)
	}
	return p, nil
}

func newSimExplain(a *app) *cobra.Command {
	var f cageFlags
	var red, base, picture string
	var step int
	var seed uint64
	c := &cobra.Command{
		Use:     "explain",
		Short:   "Explain one decision of the planner: its belief, and the expected loss of every alternative",
		Example: `  omega sim explain --red meander --step 12 --seed 4`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := f.parse()
			if err != nil {
				return err
			}
			r, err := cage2.RedByName(red)
			if err != nil {
				return fail(exitUsage, "%w", err)
			}
			if step < 0 || step >= cage2.MaxSteps {
				return fail(exitUsage, "step %d; from 0 to %d", step, cage2.MaxSteps-1)
			}
			config := planner.DefaultConfig(v)
			switch base {
			case "rules":
			case "trained":
				f, err := learn.Trained()
				if err != nil {
					return err
				}
				config = planner.LearnedConfig(v, f)
			default:
				return fail(exitUsage, "base policy %q: want rules or trained", base)
			}
			p, err := planner.New(config)
			if err != nil {
				return err
			}
			w := cage2.NewWorld(v, r, false, rng.Derive(seed, uint64(r)))
			p.Begin(rng.Derive(seed, 1<<40))
			var o cage2.Observation
			for range step {
				o = w.Step(p.Act(o)).Observation
			}
			p.Act(o)
			if picture != "" {
				if err := writeFile(picture, export.Alternatives(p.Explain())); err != nil {
					return err
				}
			}
			if a.json {
				return a.emit(struct {
					Observation string `json:"observation"`
					planner.Explanation
				}{o.String(), p.Explain()})
			}
			return p.Explain().Write(a.out)
		},
	}
	f.register(c)
	c.Flags().StringVar(&red, "red", "meander", "the attacker that really plays: b_line, meander or sleep (the planner is not told)")
	c.Flags().StringVar(&base, "base", "rules", "what the planner lets go on in its simulations: rules or trained")
	c.Flags().IntVar(&step, "step", 12, "which decision of the episode, from 0")
	c.Flags().Uint64Var(&seed, "seed", 4, "seed of the episode")
	c.Flags().StringVar(&picture, "svg", "", "also draw the alternatives into this file")
	return c
}

func newSimRun(a *app) *cobra.Command {
	var seed uint64
	var runs int
	var steps, schema, actions bool
	var record string
	c := &cobra.Command{
		Use:   "run FILE",
		Short: "Play attacks on a network described in a file",
		Long: `Play the attackers, users and the swarm's response of a scenario file in virtual time. Prints what a run came to, or with
--runs the means and the 95 % interval of the loss. The same seed gives the same on every machine.`,
		Example: `  omega sim run office.yaml --runs 1000 --seed 7
  omega sim run office.yaml --steps --json
  omega sim run office.yaml --record office.jsonl && omega sim replay office.jsonl
  omega sim run --schema > scenario.schema.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if schema {
				_, err := a.out.Write(world.Schema())
				return err
			}
			if actions {
				_, err := io.WriteString(a.out, world.ActionTable())
				return err
			}
			if len(args) != 1 {
				return fail(exitUsage, "which scenario file? see `%s --help`", c.CommandPath())
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			s, err := world.Read(f)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if runs < 1 || runs > world.MaxRuns {
				return fail(exitUsage, "%d runs; from 1 to %d", runs, world.MaxRuns)
			}
			if steps {
				return a.simSteps(s, seed)
			}
			sum, err := simRuns(c.Context(), s, runs, seed, record)
			if err != nil {
				return err
			}
			if a.json {
				return a.emit(sum)
			}
			_, err = fmt.Fprintf(a.out, "%s: %d runs, seed %d\nloss          %.2f ± %.2f\nhosts taken   %.2f, as root %.2f\nsteps caught  %.2f\nsources refused everywhere %.2f\nusers' logons %.1f, of them refused %.2f\n",
				printable(s.Name), sum.Runs, sum.Seed, sum.Loss, sum.CI95, sum.Taken, sum.Rooted, sum.Caught, sum.Blocks, sum.Logons, sum.Harmed)
			return err
		},
	}
	c.Flags().Uint64Var(&seed, "seed", 1, "seed of all runs")
	c.Flags().IntVar(&runs, "runs", 100, "how many runs")
	c.Flags().StringVar(&record, "record", "", "file to write every step of every run to, for `omega sim replay`")
	c.Flags().BoolVar(&steps, "steps", false, "instead: every step of the first run")
	c.Flags().BoolVar(&actions, "actions", false, "instead: a table of every action: ATT&CK technique, what it needs, chance, time, traces")
	c.Flags().BoolVar(&schema, "schema", false, "instead: the JSON Schema of a scenario file")
	return c
}

// simSteps prints every step of the first run of a seed.
func (a *app) simSteps(s *world.Scenario, seed uint64) error {
	w, err := world.New(s, world.Stream(seed, 0))
	if err != nil {
		return err
	}
	var failed error
	w.OnStep = func(x world.Step) {
		if failed == nil {
			mark := "failed"
			switch {
			case x.Refused:
				mark = "refused"
			case x.OK:
				mark = "worked"
			}
			if x.Caught != "" {
				mark += ", caught by a " + x.Caught
			}
			failed = a.say(x, "%-16s %-10s %-8s %-5s %-15s -> %s %s", x.At.Round(time.Millisecond), x.Actor, x.Action, x.Technique, x.From, x.To, mark)
		}
	}
	w.Run(time.Duration(s.Duration))
	return failed
}

func newSimBench(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "bench", Short: "The simulator's performance figures on this machine", Args: cobra.NoArgs,
		Example: "  omega sim bench\n  omega sim bench --json",
		RunE:    func(c *cobra.Command, _ []string) error { return newBenchCommand(a).RunE(c, []string{"sim"}) },
	}
}
