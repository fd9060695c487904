package learn

import (
	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
)

// Game is one seat at one world, as a learner sees it.
type Game interface {
	// Begin starts an episode whose every chance comes from source.
	Begin(source rng.Source)
	// Features appends the inputs of the policy that are set, each below Sizes.Inputs.
	Features(dst []uint16) []uint16
	// Truth appends what the critic alone is shown, each below Sizes.Truth.
	Truth(dst []uint16) []uint16
	// Mask is what may be chosen now: at least one choice.
	Mask() Mask
	// Step plays the choice. An episode that ends by its length is not at its end: end says whether nothing more can be
	// won or lost, over whether a new one must begin.
	Step(choice int) (reward float32, over, end bool)
}

// Sizes describes the games of one kind.
type Sizes struct {
	Inputs, Truth, Choices int
	Active                 int // about how many inputs are set at once
}

// DefenderSizes are those of Defence.
func DefenderSizes() Sizes {
	return Sizes{Inputs: DefenderInputs, Truth: cage2.TruthBits + learnedBits, Choices: len(choices), Active: 90}
}

// Defence is the defender's seat. The length of an episode is drawn from the leaderboard's three, which weighs each step
// as the sum of the nine settings does; the defender is told neither the length nor the attacker.
type Defence struct {
	Versions  []cage2.Version
	Opponents []Opponent // drawn by weight

	world  contest
	memory Memory
	left   int
}

// Opponent is an attacker to train against: a script, or a learned one.
type Opponent struct {
	Red     cage2.Red
	Learned *Network // nil: the script
	Index   int      // of the learned one in its population
	Weight  float64
}

var lengths = [...]int{30, 50, 100}

// Begin draws version, opponent and length.
func (d *Defence) Begin(source rng.Source) {
	v := d.Versions[source.Below(uint32(len(d.Versions)))]
	o := pick(d.Opponents, &source)
	d.left = lengths[source.Below(uint32(len(lengths)))]
	d.world.begin(v, o, source)
	d.memory = NewMemory(v)
}

// pick draws an opponent by weight.
func pick(all []Opponent, source *rng.Source) Opponent {
	sum := 0.0
	for _, o := range all {
		sum += o.Weight
	}
	at := source.Float64() * sum
	for _, o := range all {
		if at -= o.Weight; at < 0 {
			return o
		}
	}
	return all[len(all)-1]
}

// Features are the memory's.
func (d *Defence) Features(dst []uint16) []uint16 { return d.memory.Features(dst) }

// Truth is the world's, and what a learned attacker remembers.
func (d *Defence) Truth(dst []uint16) []uint16 { return d.world.truth(dst) }

// Mask is the memory's.
func (d *Defence) Mask() Mask { return d.memory.Mask() }

// Step plays one step of the world.
func (d *Defence) Step(choice int) (float32, bool, bool) {
	a := choices[choice]
	d.memory.Do(a)
	r := d.world.step(a)
	d.memory.See(r.Observation)
	d.left--
	return float32(r.Reward) / 10, d.left <= 0, false
}
