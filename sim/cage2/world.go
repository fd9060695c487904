package cage2

import "github.com/omega-mesh/omega/sim/rng"

// World is a State with an attacker and chance: what a defender plays against. It is a flat value too: copying it is a
// branch that has the same future until the actions differ.
type World struct {
	State
	Mind  Mind
	Rand  rng.Source
	Green bool // scan a random host every second step, as a user would (the leaderboard has no such user)
	Steps int
}

// NewWorld begins an episode.
func NewWorld(v Version, r Red, green bool, source rng.Source) World {
	return World{State: NewState(v), Mind: NewMind(r), Rand: source, Green: green}
}

// greenHosts are those green may scan.
const greenHosts = userHosts | enterpriseServers

// Step plays one step and gives what blue sees, the reward in tenths, and the truth that blue is not told.
// Past MaxSteps it does nothing and repeats the last observation with no reward.
func (w *World) Step(blue Action) Result {
	r, _, _ := w.step(blue)
	return r
}

func (w *World) step(blue Action) (Result, Host, Move) {
	if w.Steps >= MaxSteps {
		return Result{Observation: w.remembered}, NoScan, Move{}
	}
	w.Steps++
	m := w.Mind.Choose(&w.State, &w.Rand)
	green := w.greenScan()
	r := w.play(blue, green, &m)
	return r, green, m
}

// greenScan is whom the scripted user scans in this step, NoScan where it sleeps.
func (w *World) greenScan() Host {
	if w.Green && w.Rand.Uint64()>>63 == 0 {
		return Host(w.Rand.Bit(uint32(greenHosts)))
	}
	return NoScan
}

// play lets the chances in red's move fall and carries the step out.
func (w *World) play(blue Action, green Host, m *Move) Result {
	did := w.blue(blue)
	w.Resolve(m, &w.Rand)
	ok, t := w.red(*m)
	w.Mind.Learn(ok)
	activity := w.observe(blue, did, green, Host(m.Target), t)
	return Result{Observation: w.remembered | activity, Reward: w.reward(blue), BlueOK: did.ok, RedOK: ok}
}

// Sessions counts red's sessions on h by kind, as the truth has them.
func (s *State) Sessions(h Host, k SessionKind) int { return int(s.sessions[h].count(k)) }

// CanPlace says whether decoy d can be started on h now.
func (s *State) CanPlace(d Decoy, h Host) bool {
	spec := &decoySpecs[d]
	return spec.hosts>>h&1 == 1 && s.open[h]&spec.needs == 0
}

// Running says whether a decoy of kind d runs on h.
func (s *State) Running(d Decoy, h Host) bool { return s.decoys[h]>>d&1 == 1 }

// Remember overwrites what the monitor remembers with the compromise bits of o: a planner that has lost track of the
// attacker puts what it did see into the states it goes on with.
func (s *State) Remember(o Observation) {
	const compromise = 0xcccccccccccc<<4 | 0xc
	s.remembered = o & compromise
}
