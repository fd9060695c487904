package learn

import (
	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
)

// Policy is a trained defender: a cage2.Policy that takes the choice its network rates highest. One value serves one
// goroutine; many may share a network.
type Policy struct {
	network  *Network
	version  cage2.Version
	memory   Memory
	features []uint16
	scratch  []float32
	out      []float32
}

// NewPolicy makes a defender for the rules of v.
func NewPolicy(n *Network, v cage2.Version) *Policy {
	p := &Policy{network: n, version: v, memory: NewMemory(v), features: make([]uint16, 0, n.Inputs)}
	p.scratch, p.out = n.buffers()
	return p
}

// Begin forgets the last episode.
func (p *Policy) Begin(rng.Source) { p.memory = NewMemory(p.version) }

// Act takes in what the last step showed, chooses and takes the choice as done.
func (p *Policy) Act(o cage2.Observation) cage2.Action {
	p.See(o)
	a := p.Choose()
	p.Follow(a)
	return a
}

// See takes in what the last step showed.
func (p *Policy) See(o cage2.Observation) { p.memory.See(o) }

// Choose is what the network rates highest now. It changes nothing that the policy remembers.
func (p *Policy) Choose() cage2.Action {
	mask := p.rate()
	return choices[best(p.out, &mask)]
}

// rate lets the network speak; its outputs are in p.out.
func (p *Policy) rate() Mask {
	p.features = p.memory.Features(p.features[:0])
	p.network.forward(p.features, p.scratch, p.out)
	return p.memory.Mask()
}

// Follow takes an action as done, whoever chose it.
func (p *Policy) Follow(a cage2.Action) { p.memory.Do(a) }

// CopyFrom makes p remember what other does; both must have been made of one network.
func (p *Policy) CopyFrom(other *Policy) { p.memory = other.memory }

// Rank appends the n actions that the network rates highest, the best first.
func (p *Policy) Rank(dst []cage2.Action, n int) []cage2.Action {
	mask := p.rate()
	for range n {
		if mask.count() == 0 {
			break
		}
		i := best(p.out, &mask)
		mask[i>>6] &^= 1 << (i & 63)
		dst = append(dst, choices[i])
	}
	return dst
}
