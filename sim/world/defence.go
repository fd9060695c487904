package world

import "github.com/omega-mesh/omega/sim/rng"

// Hosts is how many hosts there are.
func (w *World) Hosts() int { return len(w.rooted) }

// Sources is how many addresses can be refused: those of the hosts in their order, then those of the attackers' own
// machines.
func (w *World) Sources() int { return len(w.net.address) }

// SourceAddress is the address of source i.
func (w *World) SourceAddress(i int) string { return w.net.address[i].String() }

// Refused says whether every host refuses source i now.
func (w *World) Refused(i int) bool { return w.refused[i] > w.now }

// Refuse makes every host refuse source i from now on, for the response's lifetime: a defender's own decision.
func (w *World) Refuse(i int) { w.refuse(int32(i)) }

// Again is a new world of the same scenario at its beginning, without observers; it shares what does not change.
func (w *World) Again(source rng.Source) *World { return begin(w.net, source) }

// Held is the most that any attacker holds on host h: 0 nothing, 1 a user's session, 2 root.
func (w *World) Held(h int) int {
	most := uint8(0)
	for a := range w.net.s.Attackers {
		most = max(most, w.privilege[a*len(w.rooted)+h])
	}
	return int(most)
}
