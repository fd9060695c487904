package learn

import (
	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
)

// AttackerMemory is what a learned attacker knows: what the rules tell red, its own last moves, and where they failed. A
// flat value.
type AttackerMemory struct {
	last   [lastActions]uint8
	ok     bool
	raised uint16             // hosts it escalated on and still holds
	fails  [cage2.Hosts]uint8 // exploits that failed since one last worked
	tried  [cage2.Hosts]uint8 // moves made against the host
	steps  uint8
}

// Do takes note of a move and how it went.
func (m *AttackerMemory) Do(a cage2.RedAction, ok bool) {
	m.last[1], m.last[0] = m.last[0], uint8(a)
	m.ok = ok
	m.steps = more(m.steps)
	move := a.Move()
	if move.Kind == cage2.MoveSleep || move.Kind == cage2.Sweep {
		return
	}
	h := move.Target
	m.tried[h] = more(m.tried[h])
	switch {
	case move.Kind == cage2.ExploitMove && ok:
		m.fails[h] = 0
	case move.Kind == cage2.ExploitMove:
		m.fails[h] = more(m.fails[h])
	case move.Kind == cage2.EscalateMove && ok:
		m.raised |= 1 << h
	}
}

// The inputs of an attacker: red's own view, then its memory.
const attackerInputs = cage2.RedObservationBits + lastActions*cage2.RedActions + 1 + 6*int(cage2.Hosts)

// Features appends the inputs that are set.
func (m *AttackerMemory) Features(dst []uint16, w *cage2.World) []uint16 {
	var view [(cage2.RedObservationBits + 7) / 8]byte
	w.RedObservation(view[:])
	to := newWriter(dst, attackerInputs+len(clocks))
	for i := range cage2.RedObservationBits {
		to.bit(view[i>>3]>>(i&7)&1 == 1)
	}
	for _, a := range m.last {
		to.oneOf(int(a), cage2.RedActions)
	}
	to.bit(m.ok)
	for h := range cage2.Hosts {
		to.bit(m.raised>>h&1 == 1 && w.Privilege(h) > 0)
		to.bit(m.fails[h] >= 1)
		to.bit(m.fails[h] >= 2)
		to.bit(m.fails[h] >= 4)
		to.bit(m.tried[h] >= 1)
		to.bit(m.tried[h] >= 8)
	}
	for _, c := range clocks {
		to.bit(m.steps >= c)
	}
	return to.done()
}

// Mask is what red knows enough to try, less what its own view tells it is in vain: to raise where it holds nothing or
// is root and has already looked around.
func (m *AttackerMemory) Mask(w *cage2.World) Mask {
	mask := Mask{w.RedMask()}
	for a := range cage2.RedActions {
		if move := cage2.RedAction(a).Move(); move.Kind == cage2.EscalateMove {
			h := cage2.Host(move.Target)
			if p := w.Privilege(h); p == 0 || p == 2 && m.raised>>h&1 == 1 {
				mask[0] &^= 1 << a
			}
		}
	}
	return mask
}

// AttackerSizes are those of Offence.
func AttackerSizes() Sizes {
	return Sizes{Inputs: attackerInputs + len(clocks), Truth: DefenderInputs, Choices: cage2.RedActions, Active: 60}
}

// contest is one world in which either side may be a network.
type contest struct {
	world    cage2.World
	learned  *Network // the attacker; nil: the world's own script
	index    int      // which attacker, for the critic
	memory   AttackerMemory
	scratch  []float32
	out      []float32
	p        []float32
	features []uint16
}

func (m *contest) begin(v cage2.Version, o Opponent, source rng.Source) {
	m.learned, m.index, m.memory = o.Learned, o.Index, AttackerMemory{}
	m.world = cage2.NewWorld(v, o.Red, false, source)
	if m.learned != nil && len(m.out) == 0 {
		m.scratch, m.out = m.learned.buffers()
		m.p = make([]float32, len(m.out))
	}
}

// learnedBits are the critic's inputs that tell the learned attackers apart.
const learnedBits = MaxAttackers

func (m *contest) truth(dst []uint16) []uint16 {
	dst = m.world.AppendTruth(dst)
	if m.learned != nil {
		dst = append(dst, uint16(cage2.TruthBits+m.index%learnedBits))
	}
	return dst
}

// step plays one step against the attacker. A learned one draws its move by its policy's probabilities, so that it
// cannot be foreseen.
func (m *contest) step(blue cage2.Action) cage2.Result {
	if m.learned == nil {
		return m.world.Step(blue)
	}
	m.features = m.memory.Features(m.features[:0], &m.world)
	mask := m.memory.Mask(&m.world)
	m.learned.forward(m.features, m.scratch, m.out)
	softmax(m.out, &mask, m.p)
	a := cage2.RedAction(draw(m.p, &mask, &m.world.Rand))
	r := m.world.Contest(blue, uint8(a), cage2.Scripted)
	m.memory.Do(a, r.RedOK)
	return r
}

// Offence is the attacker's seat: what the defender loses it wins.
type Offence struct {
	Versions  []cage2.Version
	Defenders []Defender // drawn by weight

	world    cage2.World
	memory   AttackerMemory
	defender *Policy
	policies []*Policy
	seen     cage2.Observation
	left     int
}

// Defender is an opponent of Offence.
type Defender struct {
	Network *Network
	Weight  float64
}

// Begin draws version, defender and length.
func (g *Offence) Begin(source rng.Source) {
	v := g.Versions[source.Below(uint32(len(g.Versions)))]
	sum := 0.0
	for _, d := range g.Defenders {
		sum += d.Weight
	}
	at := source.Float64() * sum
	chosen := len(g.Defenders) - 1
	for i, d := range g.Defenders {
		if at -= d.Weight; at < 0 {
			chosen = i
			break
		}
	}
	for len(g.policies) < len(g.Defenders) {
		g.policies = append(g.policies, NewPolicy(g.Defenders[len(g.policies)].Network, v))
	}
	g.defender = g.policies[chosen]
	g.defender.version = v
	g.defender.Begin(source)
	g.left = lengths[source.Below(uint32(len(lengths)))]
	g.world = cage2.NewWorld(v, cage2.SleepRed, false, source)
	g.memory, g.seen = AttackerMemory{}, 0
}

// Features are what red knows.
func (g *Offence) Features(dst []uint16) []uint16 { return g.memory.Features(dst, &g.world) }

// Truth is what the defender knows.
func (g *Offence) Truth(dst []uint16) []uint16 { return g.defender.memory.Features(dst) }

// Mask is what may be tried.
func (g *Offence) Mask() Mask { return g.memory.Mask(&g.world) }

// Step plays one step of the world.
func (g *Offence) Step(choice int) (float32, bool, bool) {
	r := g.world.Contest(g.defender.Act(g.seen), uint8(choice), cage2.Scripted)
	g.seen = r.Observation
	g.memory.Do(cage2.RedAction(choice), r.RedOK)
	g.left--
	return -float32(r.Reward) / 10, g.left <= 0, false
}
