package learn

import (
	"context"
	"errors"
	"fmt"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
)

// Options say how a population is trained. The result depends on them alone, not on the number of cores.
type Options struct {
	Seed          uint64 `json:"seed"`
	Steps         int64  `json:"steps"`          // of the defender, in all
	Rounds        int    `json:"rounds"`         // how many attackers are learned, each against the defenders so far
	AttackerSteps int64  `json:"attacker_steps"` // of each
	Leg           int64  `json:"leg"`            // steps between two measurements and checkpoints
	Hidden        int    `json:"hidden"`         // width of both hidden layers
	Episodes      int    `json:"episodes"`       // an attacker, of a measurement
	Hyper         Hyper  `json:"hyper"`
}

// DefaultOptions are those the published weights were trained with.
func DefaultOptions() Options {
	return Options{Seed: 1, Steps: 24 << 20, Rounds: 3, AttackerSteps: 2 << 20, Leg: 1 << 19, Hidden: 64, Episodes: 200, Hyper: DefaultHyper()}
}

// Validate says what is wrong with o.
func (o Options) Validate() error {
	const most = 1 << 40
	switch iteration := int64(o.Hyper.Worlds) * int64(o.Hyper.Horizon); {
	case o.Rounds < 0 || o.Rounds > MaxAttackers:
		return fmt.Errorf("learn: %d rounds; from 0 to %d", o.Rounds, MaxAttackers)
	case o.Leg < 1 || o.Leg > most || o.Steps < 1 || o.Steps > most || o.AttackerSteps < 1 || o.AttackerSteps > most:
		return errors.New("learn: steps, attacker steps and leg must be from 1 to 2^40")
	case iteration > 1<<24:
		return fmt.Errorf("learn: %d samples an iteration; at most 2^24", iteration)
	case o.Episodes < 1 || o.Episodes > 100_000:
		return fmt.Errorf("learn: %d episodes a measurement; from 1 to 100,000", o.Episodes)
	}
	return o.Hyper.Validate()
}

// position is where a training stands: everything but the networks.
type position struct {
	Options   Options   `json:"options"`
	Stage     int       `json:"stage"` // even: the defender learns; odd: attacker Stage/2 does
	InStage   int64     `json:"in_stage"`
	Legs      uint64    `json:"legs"`
	Steps     int64     `json:"steps"`     // of the defender
	Defenders []float64 `json:"defenders"` // the mixture
	Attackers []float64 `json:"attackers"`
	Best      float64   `json:"best"`
	Curve     []Point   `json:"curve"`
}

// Point is one measurement of the defender.
type Point struct {
	Steps       int64   `json:"steps"`
	Leaderboard float64 `json:"leaderboard"` // total of the nine settings, by the leaderboard's rules
	Later       float64 `json:"later"`
	Worst       float64 `json:"worst"` // mean of 100 steps against the worst of the attackers learned so far; 0: none yet
}

// Training makes a defender and a population of attackers by policy-space response oracles (Lanctot et al., "A unified
// game-theoretic approach to multiagent reinforcement learning", NIPS 2017). The defender first learns against the
// scripts; then, in turn, an attacker learns a best response to the mixture of the defenders so far, and the defender
// goes on against the scripts and the mixture of the attackers so far. It advances in legs: every leg begins all its
// worlds anew, so a training that was stopped and resumed between two legs gives the same bytes.
type Training struct {
	at        position
	learner   *Learner   // the defender's
	attacker  *Learner   // the attacker's of an odd stage
	defenders []*Network // the defender at the end of each of its stages
	attackers []*Network
	best      *Network
}

// NewTraining begins one.
func NewTraining(o Options) (*Training, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	l, err := NewLearner(o.Hyper, DefenderSizes(), o.Hidden, o.Hidden, mixSeed(o.Seed, 0))
	if err != nil {
		return nil, err
	}
	return &Training{at: position{Options: o}, learner: l, best: l.Policy.clone()}, nil
}

func mixSeed(seed, i uint64) uint64 {
	s := rng.Derive(seed, i)
	return s.Uint64()
}

// Done says whether nothing is left to train.
func (t *Training) Done() bool { return t.at.Stage > 2*t.at.Options.Rounds }

// Curve is the measurements so far.
func (t *Training) Curve() []Point { return t.at.Curve }

// Options are what the training was begun with.
func (t *Training) Options() Options { return t.at.Options }

// Progress is one iteration's report with who learned.
type Progress struct {
	Learns string `json:"learns"` // defender, or attacker-1 and so on
	Report
}

// The share of the defender's steps that it spends against the scripts alone, and the share of the worlds of later
// stages in which it faces learned attackers.
const (
	alone        = 0.4
	facesLearned = 0.25
	sleeps       = 0.03 // of the worlds have the attacker that does nothing
)

func (t *Training) stageSteps() int64 {
	o := &t.at.Options
	switch {
	case t.at.Stage%2 == 1:
		return o.AttackerSteps
	case o.Rounds == 0:
		return o.Steps
	case t.at.Stage == 0:
		return int64(alone * float64(o.Steps))
	}
	return int64((1 - alone) * float64(o.Steps) / float64(o.Rounds))
}

func attackerName(i int) string { return fmt.Sprintf("learned-%d", i+1) }

// Leg trains one leg and measures; progress, which may be nil, is called after each iteration. Where a network exploded
// the last good one is kept, the leg ends there, and the error is ErrExploded: the caller may go on with the next leg.
// Where ctx ends the training is as it was before the leg.
func (t *Training) Leg(ctx context.Context, progress func(Progress)) error {
	if t.Done() {
		return errors.New("learn: the training is done")
	}
	before, err := t.Checkpoint()
	if err != nil {
		return err
	}
	err = t.leg(ctx, progress)
	if err == nil || errors.Is(err, ErrExploded) {
		return err
	}
	back, failed := Resume(before)
	if failed != nil {
		return errors.Join(err, failed)
	}
	*t = *back
	return err
}

func (t *Training) leg(ctx context.Context, progress func(Progress)) error {
	o := &t.at.Options
	t.at.Legs++
	seed := mixSeed(o.Seed, t.at.Legs)
	attacks := t.at.Stage%2 == 1
	l, name := t.learner, "defender"
	if attacks {
		if t.attacker == nil {
			var err error
			if t.attacker, err = t.newAttacker(); err != nil {
				return err
			}
		}
		l, name = t.attacker, attackerName(t.at.Stage/2)
		l.Play(func() Game { return &Offence{Versions: versions(), Defenders: t.weighedDefenders()} }, seed)
	} else {
		l.Play(func() Game { return &Defence{Versions: versions(), Opponents: t.opponents()} }, seed)
	}
	total := t.stageSteps()
	var exploded error
	for end := min(total, t.at.InStage+o.Leg); t.at.InStage < end; {
		far := float64(t.at.InStage) / float64(total)
		if !attacks {
			far = float64(t.at.Steps) / float64(o.Steps)
		}
		r, err := l.Iterate(ctx, min(1, far))
		t.at.InStage += int64(o.Hyper.Worlds * o.Hyper.Horizon)
		if !attacks {
			t.at.Steps += int64(o.Hyper.Worlds * o.Hyper.Horizon)
		}
		if errors.Is(err, ErrExploded) {
			exploded = err
			break
		}
		if err != nil {
			return err
		}
		if progress != nil {
			progress(Progress{name, r})
		}
	}
	if !attacks {
		if err := t.measure(ctx); err != nil {
			return err
		}
	}
	if t.at.InStage >= total {
		if err := t.endStage(ctx); err != nil {
			return err
		}
	}
	return exploded
}

func (t *Training) newAttacker() (*Learner, error) {
	o := &t.at.Options
	return NewLearner(o.Hyper, AttackerSizes(), o.Hidden, o.Hidden, mixSeed(o.Seed, 1<<32+uint64(t.at.Stage)))
}

func versions() []cage2.Version { return []cage2.Version{cage2.Leaderboard, cage2.Later} }

func (t *Training) opponents() []Opponent {
	learned := 0.0
	if len(t.attackers) > 0 {
		learned = facesLearned
	}
	scripts := (1 - learned - sleeps) / 2
	all := []Opponent{{Red: cage2.BLine, Weight: scripts}, {Red: cage2.Meander, Weight: scripts}, {Red: cage2.SleepRed, Weight: sleeps}}
	for i, n := range t.attackers {
		// Half by the mixture, half evenly: none is forgotten because the present mixture does not play it.
		all = append(all, Opponent{Learned: n, Index: i, Weight: learned * (0.5*t.at.Attackers[i] + 0.5/float64(len(t.attackers)))})
	}
	return all
}

func (t *Training) weighedDefenders() (all []Defender) {
	for i, n := range t.defenders {
		all = append(all, Defender{Network: n, Weight: t.at.Defenders[i]})
	}
	return all
}

// measure adds a point to the curve, and keeps the defender where it is the best of the last stage.
func (t *Training) measure(ctx context.Context) error {
	o := &t.at.Options
	now := t.learner.Policy.rounded() // as it will be published
	p := Point{Steps: t.at.Steps}
	seed := mixSeed(o.Seed, 1<<33)
	for i, total := range []*float64{&p.Leaderboard, &p.Later} {
		v := versions()[i]
		s, err := cage2.Evaluate(ctx, cage2.Evaluation{New: func() (cage2.Policy, error) { return NewPolicy(now, v), nil }, Version: v, Episodes: o.Episodes, Seed: seed})
		if err != nil {
			return err
		}
		*total = s.Total
	}
	for i, a := range t.attackers {
		d, err := Face(ctx, NewPolicy(now, cage2.Leaderboard), cage2.Leaderboard, a, i, o.Episodes, seed)
		if err != nil {
			return err
		}
		p.Worst = min(p.Worst, d.Mean)
	}
	t.at.Curve = append(t.at.Curve, p)
	last := t.at.Stage == 2*o.Rounds && t.at.Steps*4 >= o.Steps*3
	if score := p.Leaderboard + p.Later; !last || t.at.Best == 0 || score > t.at.Best {
		t.best = now
		if last {
			t.at.Best = score
		}
	}
	return nil
}

// endStage adds what was learned to the population and solves the game between its two sides.
func (t *Training) endStage(ctx context.Context) error {
	if t.at.Stage%2 == 1 {
		t.attackers = append(t.attackers, t.attacker.Policy.rounded())
		t.attacker = nil
	} else {
		t.defenders = append(t.defenders, t.learner.Policy.rounded())
	}
	t.at.Stage++
	t.at.InStage = 0
	payoff := make([][]float64, len(t.defenders))
	for i, d := range t.defenders {
		payoff[i] = make([]float64, len(t.attackers))
		for j, a := range t.attackers {
			for _, v := range versions() {
				duel, err := Face(ctx, NewPolicy(d, v), v, a, j, max(1, t.at.Options.Episodes/2), mixSeed(t.at.Options.Seed, 1<<34))
				if err != nil {
					return err
				}
				payoff[i][j] += duel.Mean / 2
			}
		}
	}
	if len(t.attackers) == 0 {
		t.at.Defenders, t.at.Attackers = []float64{1}, nil
		return nil
	}
	t.at.Defenders, t.at.Attackers = Mixture(payoff, 10_000)
	return nil
}

// Weights are the published part: the best defender and the learned attackers, as halves.
func (t *Training) Weights() *File {
	f := &File{Header: Header{Seed: t.at.Options.Seed, Steps: t.at.Steps}}
	f.Put(defenderName, t.best, true)
	for i, n := range t.attackers {
		f.Put(attackerName(i), n, true)
	}
	return f
}

const defenderName = "defender"
