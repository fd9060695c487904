package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/sim/place"
	"github.com/omega-mesh/omega/sim/world"
)

// readScenario reads and checks a scenario file.
func readScenario(path string) (*world.Scenario, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := world.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// create writes a file by f, and removes what a failure left of it.
func create(path string, f func(*os.File) error) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f(out), out.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func newSimPlace(a *app) *cobra.Command {
	var o place.Options
	var method, file string
	c := &cobra.Command{
		Use: "place FILE", Short: "Where decoys, sensors and patches are worth most in a described network", Args: cobra.ExactArgs(1),
		Long: `Search where decoys, sensors and patches are worth most, and measure the loss with and without them. Attackers' days are
sampled on the attack graph and the best placement for these days is searched: exactly where the network is small enough
(branch and bound), by simulated annealing otherwise. The losses printed are the simulator's, over runs with common random
numbers, each with the half-width of its 95 % interval. The same seed gives the same on any number of cores.`,
		Example: `  omega sim place office.yaml --decoys 3
  omega sim place office.yaml --decoys 0 --patches 2 --json
  omega sim place company.yaml --decoys 10 --sensors 20 --runs 200 --out placed.yaml`,
		RunE: func(c *cobra.Command, args []string) error {
			s, err := readScenario(args[0])
			if err != nil {
				return err
			}
			o.Method = place.Method(method)
			if method == "auto" {
				o.Method = ""
			}
			a.progress(fmt.Sprintf("searching on %d hosts, then running the simulator %d times before and after", len(s.Hosts), o.Runs))
			r, err := place.Place(c.Context(), s, o)
			if errors.Is(err, place.ErrTooLarge) {
				return fmt.Errorf("%w; use --method annealing", err)
			}
			if err != nil && c.Context().Err() == nil {
				return fail(exitUsage, "%s: %w", args[0], err)
			}
			if err != nil {
				return err
			}
			if file != "" {
				if err := create(file, func(f *os.File) error { return r.Placed.Write(f) }); err != nil {
					return err
				}
			}
			if a.json {
				return a.emit(r)
			}
			return a.placement(r)
		},
	}
	c.Flags().IntVar(&o.Decoys, "decoys", 3, "how many decoys to place")
	c.Flags().IntVar(&o.Sensors, "sensors", 0, "how many sensors to place")
	c.Flags().IntVar(&o.Patches, "patches", 0, "how many packages to patch, each on one host")
	c.Flags().Float64Var(&o.SensorRate, "sensor-rate", 0.5, "chance that a new sensor catches a step of an attack")
	c.Flags().IntVar(&o.Runs, "runs", 1000, "runs of the simulator, before and after")
	c.Flags().IntVar(&o.Samples, "samples", 0, "days sampled on the attack graph (default 400, fewer on large networks)")
	c.Flags().Uint64Var(&o.Seed, "seed", 1, "seed of the search and of the runs")
	c.Flags().StringVar(&method, "method", "auto", "how to search: auto, exact or annealing")
	c.Flags().StringVar(&file, "out", "", "also write the scenario with all of it in place to this file")
	return c
}

// placement tells a person what to place and what it is worth.
func (a *app) placement(r *place.Result) error {
	lines := []string{fmt.Sprintf("%s: the best placement found (%s search on %d sampled days, %d raced in the simulator, seed %d)", r.Scenario, r.Method, r.Samples, r.Raced, r.Seed)}
	for _, d := range r.Decoys {
		lines = append(lines, fmt.Sprintf("decoy   %s port %d", d.Host, d.Port))
	}
	for _, s := range r.Sensors {
		lines = append(lines, "sensor  "+s)
	}
	for _, p := range r.Patches {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("patch   %s on %s: %s", p.Package, p.Host, strings.Join(p.Holes, " "))))
	}
	lines = append(lines,
		fmt.Sprintf("loss without  %8.2f ± %.2f", r.Before.Loss, r.Before.CI95),
		fmt.Sprintf("loss with     %8.2f ± %.2f   (%d runs each, the same chances)", r.After.Loss, r.After.CI95, r.Runs),
		fmt.Sprintf("saved         %8.2f ± %.2f", r.Saved.Loss, r.Saved.CI95))
	for _, l := range lines {
		if _, err := fmt.Fprintln(a.out, printable(l)); err != nil {
			return err
		}
	}
	return nil
}
