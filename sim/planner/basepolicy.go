package planner

import (
	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/learn"
	"github.com/omega-mesh/omega/sim/rng"
)

// Base is the policy that goes on after a candidate in every simulation. It is copied for each of them, so it keeps
// little and its CopyFrom allocates nothing.
type Base interface {
	// Begin forgets the last episode.
	Begin(rng.Source)
	// See takes in what a step showed.
	See(cage2.Observation)
	// Choose is what it would do now; it changes nothing.
	Choose() cage2.Action
	// Follow takes an action as done, whoever chose it.
	Follow(cage2.Action)
	// CopyFrom makes it what other is, which was made by the same maker.
	CopyFrom(other Base)
	// Propose appends the actions that it finds worth a simulation, its own choice first.
	Propose(dst []cage2.Action) []cage2.Action
}

// NewRules makes the heuristic defender as base: some 20 ns a step.
func NewRules() Base { return new(rules) }

type rules struct {
	policy cage2.Rules
	seen   cage2.Observation
}

func (r *rules) Begin(s rng.Source)      { r.policy.Begin(s); r.seen = 0 }
func (r *rules) See(o cage2.Observation) { r.seen = o }
func (r *rules) Follow(a cage2.Action)   { r.policy.Follow(a) }
func (r *rules) CopyFrom(other Base)     { *r = *other.(*rules) }
func (r *rules) Choose() cage2.Action {
	p := r.policy
	return p.Act(r.seen)
}

// Propose is its choice alone: the planner's own candidates are the rest.
func (r *rules) Propose(dst []cage2.Action) []cage2.Action { return append(dst, r.Choose()) }

// Learned makes bases of trained weights: some microseconds a step, so that fewer simulations are affordable; in return
// the candidates are those that the network rates highest.
func Learned(f *learn.File) func(v cage2.Version) (Base, error) {
	return func(v cage2.Version) (Base, error) {
		p, err := f.Defender(v)
		if err != nil {
			return nil, err
		}
		return learned{p}, nil
	}
}

// LearnedConfig is the effort that a learned base allows within the planner's budget of time.
func LearnedConfig(v cage2.Version, f *learn.File) Config {
	c := DefaultConfig(v)
	c.Base, c.Narrow = Learned(f), true
	c.Rollouts, c.Rounds, c.Depth = 16, 3, 10
	return c
}

type learned struct{ *learn.Policy }

func (l learned) CopyFrom(other Base) { l.Policy.CopyFrom(other.(learned).Policy) }

// proposals is how many of the network's choices are simulated.
const proposals = 6

func (l learned) Propose(dst []cage2.Action) []cage2.Action { return l.Policy.Rank(dst, proposals) }
