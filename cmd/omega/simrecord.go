package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/replay"
	"github.com/omega-mesh/omega/sim/world"
)

// errMismatch ends a replay that found differences: they are printed already.
var errMismatch = errors.New("the model and the recordings differ")

func newSimReplay(a *app) *cobra.Command {
	var f cageFlags
	c := &cobra.Command{
		Use:   "replay DIR|FILE",
		Short: "Replay recordings and compare every step with the model",
		Long: `Replay recordings and compare every step with the model: CAGE-2's episodes (what "omega sim record" wrote, or the reference
environment) under the rules of --version, and runs of a described network (what "omega sim run --record" wrote), which carry
their scenario. A folder's *.jsonl files are replayed in the order of their names. Any difference ends with exit code 1.`,
		Example: `  omega sim replay --scenario cage2 --version leaderboard recordings/leaderboard
  omega sim replay --scenario cage2 --version later --json recordings/later
  omega sim replay office.jsonl`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			v, err := f.parse()
			if err != nil {
				return err
			}
			r, err := simReplay(c.Context(), args[0], v)
			if err != nil {
				return err
			}
			out := a.out
			if a.json {
				err = a.emit(r)
			} else {
				_, err = fmt.Fprintf(out, "%d episodes, %d steps, %d mismatches\n", r.Episodes, r.Steps, r.Mismatches)
				if r.First != nil {
					fmt.Fprintf(out, "first: %s line %d, step %d: %s is %s in the recording, %s in the model\n",
						r.First.File, r.First.Line, r.First.Step, r.First.Field, r.First.Want, r.First.Got)
				}
			}
			if err == nil && r.Mismatches > 0 {
				err = errMismatch
			}
			return err
		},
	}
	f.register(c)
	return c
}

func newSimRecord(a *app) *cobra.Command {
	var f cageFlags
	var red, policy, file string
	var seed uint64
	var steps, episodes int
	var green bool
	c := &cobra.Command{
		Use:     "record",
		Short:   "Play episodes and write them as a recording",
		Example: `  omega sim record --red meander --policy rules --seed 7 --out meander.jsonl`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			v, err := f.parse()
			if err != nil {
				return err
			}
			r, err := cage2.RedByName(red)
			if err != nil {
				return fail(exitUsage, "%w", err)
			}
			p, err := simPolicy(policy, v)
			if err != nil {
				return err
			}
			var out io.Writer = a.out
			if file != "-" {
				to, err := os.Create(file)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, to.Close()) }()
				out = to
			}
			recorder := cage2.Recorder{Version: v, Red: r, Green: green, Policy: policy, Steps: steps}
			for i := range episodes {
				if err := c.Context().Err(); err != nil {
					return err
				}
				if err := recorder.Record(out, p, seed+uint64(i)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.register(c)
	c.Flags().StringVar(&red, "red", "b_line", "the attacker: b_line, meander, sleep or random")
	c.Flags().StringVar(&policy, "policy", "rules", "the defender: sleep, random, react, rules or planner")
	c.Flags().StringVar(&file, "out", "-", "file to write (-: standard output)")
	c.Flags().Uint64Var(&seed, "seed", 1, "seed of the first episode; the next has the next")
	c.Flags().IntVar(&steps, "steps", 100, "steps an episode, at most 250")
	c.Flags().IntVar(&episodes, "episodes", 1, "how many episodes")
	c.Flags().BoolVar(&green, "green", false, "let users scan hosts")
	return c
}

// simReplay replays a recording, or every *.jsonl file of a folder. What a file is, its first bytes say.
func simReplay(ctx context.Context, path string, v cage2.Version) (*replay.Report, error) {
	files, err := replay.Files(path)
	if err != nil {
		return nil, err
	}
	report := &replay.Report{}
	for _, name := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := simReplayFile(ctx, name, v, report); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return report, nil
}

func simReplayFile(ctx context.Context, name string, v cage2.Version, report *replay.Report) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	if head, _ := in.Peek(8); bytes.Equal(head, []byte(`{"world"`)) {
		return world.Replay(ctx, in, filepath.Base(name), report)
	}
	return cage2.Replay(in, v, filepath.Base(name), report)
}

// simRuns runs a scenario, and records every step into a file where one is named.
func simRuns(ctx context.Context, s *world.Scenario, runs int, seed uint64, file string) (sum *world.Summary, err error) {
	if file == "" {
		return world.Many(ctx, s, runs, seed)
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriter(f)
	if sum, err = world.Record(ctx, out, s, runs, seed, 0); err != nil {
		return nil, err
	}
	return sum, out.Flush()
}
