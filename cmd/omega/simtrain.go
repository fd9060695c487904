package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/sim/learn"
)

func newSimTrain(a *app) *cobra.Command {
	var f cageFlags
	var out, curve, checkpoint string
	var steps, attackerSteps, minutes float64
	var resume bool
	o := learn.DefaultOptions()
	c := &cobra.Command{
		Use:   "train",
		Short: "Train a defender, and attackers against it",
		Long: `Train a defender of CAGE-2 by proximal policy optimisation, for both versions of its rules at once, and learned attackers
by policy-space response oracles. The weights that come out depend on the flags alone, not on the number of cores.
Ctrl-C, or --minutes, ends it after the last whole leg: the best weights so far are written, and with --checkpoint
the training can be resumed, with the same result as if it had not been stopped. With --json a line an iteration.`,
		Example: `  omega sim train --out my.weights --curve curve.svg
  omega sim train --seed 7 --steps 2e6 --minutes 10 --checkpoint run.ckpt --out my.weights
  omega sim train --resume --checkpoint run.ckpt --out my.weights
  omega sim eval --policy trained --weights my.weights`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.scenario != "cage2" {
				return fail(exitUsage, "scenario %q: the one that is built in is cage2", f.scenario)
			}
			if !(steps >= 1 && steps <= 1e12 && attackerSteps >= 1 && attackerSteps <= 1e12) || minutes < 0 {
				return fail(exitUsage, "--steps and --attacker-steps must be from 1 to 1e12, --minutes not negative")
			}
			o.Steps, o.AttackerSteps = int64(steps), int64(attackerSteps)
			var t *learn.Training
			var err error
			if resume {
				if checkpoint == "" {
					return fail(exitUsage, "--resume goes on from the file that --checkpoint names")
				}
				var saved *learn.File
				if saved, err = learn.LoadFile(checkpoint); err == nil {
					t, err = learn.Resume(saved)
				}
			} else if t, err = learn.NewTraining(o); err != nil {
				return fail(exitUsage, "%w", err)
			}
			if err != nil {
				return err
			}
			return a.train(c, t, out, curve, checkpoint, time.Duration(minutes*float64(time.Minute)))
		},
	}
	c.Flags().StringVar(&f.scenario, "scenario", "cage2", "the environment: cage2")
	c.Flags().StringVar(&out, "out", "cage2.weights", "file for the weights")
	c.Flags().StringVar(&curve, "curve", "", "file for a picture of the course, as SVG")
	c.Flags().StringVar(&checkpoint, "checkpoint", "", "file from which a stopped training can be resumed, written after each leg")
	c.Flags().BoolVar(&resume, "resume", false, "go on from --checkpoint, with its settings")
	c.Flags().Uint64Var(&o.Seed, "seed", o.Seed, "seed of everything that is drawn")
	c.Flags().Float64Var(&steps, "steps", float64(o.Steps), "steps of the defender, in all")
	c.Flags().IntVar(&o.Rounds, "rounds", o.Rounds, "how many attackers are learned")
	c.Flags().Float64Var(&attackerSteps, "attacker-steps", float64(o.AttackerSteps), "steps of each attacker")
	c.Flags().Int64Var(&o.Leg, "leg", o.Leg, "steps between two measurements")
	c.Flags().Float64Var(&minutes, "minutes", 0, "stop after this long (0: when all steps are done)")
	return c
}

func (a *app) train(c *cobra.Command, t *learn.Training, out, curve, checkpoint string, limit time.Duration) error {
	begin := time.Now()
	var stopped error
	if err := saveCheckpoint(t, checkpoint); err != nil { // now, rather than after the first leg's work
		return err
	}
	for !t.Done() && (limit == 0 || time.Since(begin) < limit) {
		points := len(t.Curve())
		err := t.Leg(c.Context(), func(p learn.Progress) {
			if a.json {
				_ = a.emit(p) // a reader that went away shows at the end
			}
		})
		if errors.Is(err, learn.ErrExploded) {
			a.progress(err.Error())
			continue
		}
		if c.Context().Err() != nil {
			stopped = c.Context().Err()
			break
		}
		if err != nil {
			return err
		}
		if err := saveCheckpoint(t, checkpoint); err != nil {
			return err
		}
		if all := t.Curve(); len(all) > points {
			p := all[len(all)-1]
			a.progress(fmt.Sprintf("%7.1f s  %10d steps  leaderboard %8.2f  later %8.2f  worst learned attacker %8.1f", time.Since(begin).Seconds(), p.Steps, p.Leaderboard, p.Later, p.Worst))
		}
	}
	if err := t.Weights().Save(out); err != nil {
		return err
	}
	if curve != "" {
		if err := os.WriteFile(curve, learn.CurveSVG(t.Curve()), 0o644); err != nil {
			return err
		}
	}
	if !t.Done() {
		hint := "nothing to resume from: give --checkpoint to be able to"
		if checkpoint != "" {
			hint = "go on with --resume --checkpoint " + checkpoint
		}
		a.progress(fmt.Sprintf("stopped before its end; %s has the best so far; %s", out, hint))
	}
	if stopped != nil {
		return fmt.Errorf("stopped: %w", stopped)
	}
	return nil
}

func saveCheckpoint(t *learn.Training, path string) error {
	if path == "" {
		return nil
	}
	f, err := t.Checkpoint()
	if err != nil {
		return err
	}
	return f.Save(path)
}
