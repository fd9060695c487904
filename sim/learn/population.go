package learn

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
)

// MaxAttackers bounds the learned attackers of a population.
const MaxAttackers = 8

// Mixture solves the zero-sum game in which the row player wins payoff[i][j], by regret matching (Hart and
// Mas-Colell, "A simple adaptive procedure leading to correlated equilibrium", Econometrica 2000): the average play of
// both sides approaches an equilibrium.
func Mixture(payoff [][]float64, rounds int) (rows, columns []float64) {
	m := len(payoff)
	if m == 0 {
		return nil, nil
	}
	n := len(payoff[0])
	regretR, regretC := make([]float64, m), make([]float64, n)
	rows, columns = make([]float64, m), make([]float64, n)
	x, y := make([]float64, m), make([]float64, n)
	for range rounds {
		match(regretR, x)
		match(regretC, y)
		value := 0.0
		byRow, byColumn := make([]float64, m), make([]float64, n)
		for i := range m {
			for j := range n {
				byRow[i] += payoff[i][j] * y[j]
				byColumn[j] -= payoff[i][j] * x[i]
				value += x[i] * y[j] * payoff[i][j]
			}
		}
		for i := range m {
			regretR[i] += byRow[i] - value
			rows[i] += x[i] / float64(rounds)
		}
		for j := range n {
			regretC[j] += byColumn[j] + value
			columns[j] += y[j] / float64(rounds)
		}
	}
	return rows, columns
}

// match plays in proportion to the regrets above zero, evenly where there are none.
func match(regret, play []float64) {
	sum := 0.0
	for i, r := range regret {
		play[i] = max(0, r)
		sum += play[i]
	}
	for i := range play {
		if sum > 0 {
			play[i] /= sum
		} else {
			play[i] = 1 / float64(len(play))
		}
	}
}

// Duel is what a defender lost to one attacker.
type Duel struct {
	Attacker string  `json:"attacker"`
	Steps    int     `json:"steps"`
	Mean     float64 `json:"mean"` // of the undiscounted sum of rewards
	CI95     float64 `json:"ci95"` // half the width of the 95 % interval of the mean
}

// DuelSteps is the length of a duel.
const DuelSteps = 100

// Face plays episodes of 100 steps of a defender against one learned attacker. Episode i has its own stream, from seed,
// the attacker's index and i. Users do not scan.
func Face(ctx context.Context, d cage2.Policy, v cage2.Version, attacker *Network, index, episodes int, seed uint64) (Duel, error) {
	sums := make([]int64, episodes)
	var c contest
	for i := range sums {
		if err := ctx.Err(); err != nil {
			return Duel{}, err
		}
		source := rng.Derive(seed, 1<<48|uint64(index)<<32|uint64(i))
		c.begin(v, Opponent{Learned: attacker, Index: index}, source)
		d.Begin(rng.Derive(source.State(), 1))
		var o cage2.Observation
		for range DuelSteps {
			r := c.step(d.Act(o))
			o = r.Observation
			sums[i] += int64(r.Reward)
		}
	}
	mean, ci := cage2.Interval(episodes, func(i int) float64 { return float64(sums[i]) / 10 })
	return Duel{Attacker: attackerName(index), Steps: DuelSteps, Mean: mean, CI95: ci}, nil
}

// FaceAll is a duel with each of the attackers, at once, and which of them the defender lost most to. fresh makes a
// defender for each goroutine.
func FaceAll(ctx context.Context, fresh func() (cage2.Policy, error), v cage2.Version, attackers []*Network, episodes int, seed uint64) (duels []Duel, worst Duel, err error) {
	if episodes < 1 || episodes > 1_000_000 {
		return nil, worst, fmt.Errorf("%d episodes; from 1 to 1,000,000", episodes)
	}
	duels = make([]Duel, len(attackers))
	errs := make([]error, len(attackers))
	var wg sync.WaitGroup
	for i, a := range attackers {
		wg.Go(func() {
			d, err := fresh()
			if err == nil {
				duels[i], err = Face(ctx, d, v, a, i, episodes, seed)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, worst, err
	}
	for i, d := range duels {
		if i == 0 || d.Mean < worst.Mean {
			worst = d
		}
	}
	return duels, worst, nil
}
