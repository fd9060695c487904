package learn

import (
	"context"
	"math"

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

// Face plays episodes of 100 steps of a defender against one learned attacker. Episode i has its own stream, from seed,
// the attacker's index and i.
func Face(ctx context.Context, d cage2.Policy, v cage2.Version, attacker *Network, index, episodes int, seed uint64) (Duel, error) {
	sums := make([]float64, episodes)
	var m contest
	for i := range sums {
		if err := ctx.Err(); err != nil {
			return Duel{}, err
		}
		source := rng.Derive(seed, 1<<48|uint64(index)<<32|uint64(i))
		m.begin(v, Opponent{Learned: attacker, Index: index}, source)
		d.Begin(rng.Derive(source.State(), 1))
		var o cage2.Observation
		for range DuelSteps {
			r := m.step(d.Act(o))
			o = r.Observation
			sums[i] += float64(r.Reward)
		}
	}
	mean, ci := cage2.Interval(episodes, func(i int) float64 { return sums[i] / 10 })
	return Duel{Attacker: attackerName(index), Steps: DuelSteps, Mean: math.Round(mean*1e9) / 1e9, CI95: ci}, nil
}

// DuelSteps is the length of a duel.
const DuelSteps = 100
