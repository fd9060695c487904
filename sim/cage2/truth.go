package cage2

// TruthBits is how many bits AppendTruth tells apart.
const TruthBits = 13*int(Hosts) + 8*int(Hosts) + int(reds) + len(blinePlan) + 2*int(subnets) + 4

// AppendTruth appends to dst the index, below TruthBits, of every bit of the world's true state that is set: red's
// sessions, what it remembers, its script and where it stands in it. A defender is never shown this; a learner's critic
// may look at it in training, where it stands beside the game.
func (w *World) AppendTruth(dst []uint16) []uint16 {
	n := uint16(0)
	put := func(set bool) {
		if set {
			dst = append(dst, n)
		}
		n++
	}
	m := &w.Mind
	for h := range Hosts {
		bit := set(1) << h
		s := w.sessions[h]
		put(s != 0)
		put(w.root&bit != 0)
		put(s.count(ByLogin) != 0)
		put(s.count(Hidden) != 0)
		put(s.count(Detected) != 0)
		put(w.files&bit != 0)
		put(w.knownAddr&bit != 0)
		put(w.knownHost&bit != 0)
		put(m.scanned&bit != 0)
		put(m.exploited&bit != 0)
		put(m.escalated&bit != 0)
		put(m.owned&bit != 0)
		put(m.red == BLine && m.at >= 1 && m.user == h)
		for x := range exploits {
			put(w.memory[h]&x.port() != 0)
		}
	}
	for r := range reds {
		put(m.red == r)
	}
	for i := range blinePlan {
		put(m.red == BLine && int(m.at) == i)
	}
	for i := range subnets {
		put(w.knownNet>>i&1 == 1)
		put(m.swept>>i&1 == 1)
	}
	put(m.ok)
	put(w.otLearned)
	put(w.otDown)
	put(w.otImmune)
	return dst
}
