package cage2

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/omega-mesh/omega/sim/rng"
)

// Setting is one of the nine settings of the leaderboard: an attacker and a length.
type Setting struct {
	Red   string  `json:"red"`
	Steps int     `json:"steps"`
	Mean  float64 `json:"mean"` // of the undiscounted sum of rewards
	CI95  float64 `json:"ci95"` // half the width of the 95 % interval of the mean
}

// Score is a defender's result. Total is the sum of the nine means; its interval takes account of the three lengths
// being prefixes of the same episodes (blue is told neither length nor attacker, so one long run gives all three).
type Score struct {
	Policy   string    `json:"policy"`
	Version  string    `json:"version"`
	Episodes int       `json:"episodes"` // a setting
	Seed     uint64    `json:"seed"`
	Settings []Setting `json:"settings"`
	Total    float64   `json:"total"`
	CI95     float64   `json:"ci95"`
}

// Evaluation says what to measure.
type Evaluation struct {
	Policy   string
	New      func() (Policy, error) // a fresh defender for each goroutine
	Version  Version
	Reds     []Red // nil: b_line, meander, sleep
	Green    bool  // the leaderboard has none
	Episodes int   // a setting, 1 to 1,000,000
	Seed     uint64
	Workers  int                 // 0: one a core. The result is the same whatever the number
	Progress func(done, all int) // nil, or called after each episode, from any goroutine
}

// Lengths are the leaderboard's episode lengths.
var lengths = [3]int{30, 50, 100}

// LeaderboardReds are the attackers of the leaderboard.
func LeaderboardReds() []Red { return []Red{BLine, Meander, SleepRed} }

// Evaluate measures a defender. Episode i of an attacker has its own random stream, derived from the seed, the attacker
// and i: the result does not depend on the number of cores.
func Evaluate(ctx context.Context, e Evaluation) (*Score, error) {
	if e.Episodes < 1 || e.Episodes > 1_000_000 {
		return nil, fmt.Errorf("%d episodes; from 1 to 1,000,000", e.Episodes)
	}
	reds := e.Reds
	if reds == nil {
		reds = LeaderboardReds()
	}
	workers := e.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	all := len(reds) * e.Episodes
	sums := make([][3]int32, all)
	var next, done atomic.Int64
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			d, err := e.New()
			if err != nil {
				errs[w] = err
				return
			}
			for {
				i := int(next.Add(1)) - 1
				if i >= all || ctx.Err() != nil {
					return
				}
				red := reds[i/e.Episodes]
				sums[i] = Play(d, e.Version, red, e.Green, rng.Derive(e.Seed, uint64(red)<<32|uint64(i%e.Episodes)))
				if n := done.Add(1); e.Progress != nil {
					e.Progress(int(n), all)
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return nil, err
	}
	s := &Score{Policy: e.Policy, Version: e.Version.String(), Episodes: e.Episodes, Seed: e.Seed}
	variance := 0.0
	for i, red := range reds {
		mine := sums[i*e.Episodes : (i+1)*e.Episodes]
		for j, n := range lengths {
			mean, ci := Interval(len(mine), func(k int) float64 { return float64(mine[k][j]) / 10 })
			s.Settings = append(s.Settings, Setting{Red: red.String(), Steps: n, Mean: mean, CI95: ci})
		}
		mean, ci := Interval(len(mine), func(k int) float64 { return float64(mine[k][0]+mine[k][1]+mine[k][2]) / 10 })
		s.Total += mean
		variance += ci * ci
	}
	s.CI95 = math.Sqrt(variance)
	return s, nil
}

// Play plays one episode of 100 steps and gives the sums of rewards, in tenths, after 30, 50 and 100 steps.
func Play(d Policy, v Version, red Red, green bool, source rng.Source) [3]int32 {
	w := NewWorld(v, red, green, source)
	d.Begin(rng.Derive(source.State(), 1))
	var sums [3]int32
	var sum int32
	var o Observation
	for t := range lengths[2] {
		r := w.Step(d.Act(o))
		o = r.Observation
		sum += int32(r.Reward)
		switch t + 1 {
		case lengths[0]:
			sums[0] = sum
		case lengths[1]:
			sums[1] = sum
		}
	}
	sums[2] = sum
	return sums
}

// Interval is the mean of n values and half the width of its 95 % interval (normal approximation; 0 for one value).
func Interval(n int, value func(int) float64) (mean, ci95 float64) {
	for i := range n {
		mean += value(i)
	}
	mean /= float64(n)
	if n < 2 {
		return mean, 0
	}
	v := 0.0
	for i := range n {
		d := value(i) - mean
		v += d * d
	}
	return mean, 1.96 * math.Sqrt(v/float64(n-1)/float64(n))
}

// PolicyByName makes the scripted defenders: sleep, random, react, rules.
func PolicyByName(name string) (Policy, error) {
	switch name {
	case "sleep":
		return Idle{}, nil
	case "random":
		return &Uniform{}, nil
	case "react":
		return React{}, nil
	case "rules":
		return &Rules{}, nil
	}
	return nil, fmt.Errorf("policy %q: want sleep, random, react or rules", name)
}
