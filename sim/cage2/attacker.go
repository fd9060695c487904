package cage2

import (
	"fmt"

	"github.com/omega-mesh/omega/sim/rng"
)

// Red is which scripted attacker plays.
type Red uint8

const (
	SleepRed  Red = iota // does nothing
	BLine                // knows the layout and goes straight for Op_Server0
	Meander              // takes every host it can find, network by network
	RandomRed            // any move on anything it knows, sometimes on what it does not
	reds
)

var redNames = [reds]string{"sleep", "b_line", "meander", "random"}

// String is the name used on the command line.
func (r Red) String() string {
	if r < reds {
		return redNames[r]
	}
	return "unknown"
}

// RedByName reads what String writes; the recordings' "bline" and "randred" are taken too.
func RedByName(name string) (Red, error) {
	switch name {
	case "bline":
		return BLine, nil
	case "randred":
		return RandomRed, nil
	}
	for i, n := range redNames {
		if n == name {
			return Red(i), nil
		}
	}
	return 0, fmt.Errorf("red agent %q: want sleep, b_line, meander or random", name)
}

// Mind is a scripted attacker's memory: a flat value, like State.
type Mind struct {
	red  Red
	last MoveKind
	host Host // the target of the last move, where it was a host
	ok   bool // the last move worked

	// B_line: a counter into its plan, which of its plan's moves it has made before, and the two hosts it chose.
	at    uint8
	done  uint16
	user  Host
	entry Host

	// Meander: what it has swept, scanned, exploited (by address), escalated and won (by name).
	swept                                uint8
	scanned, exploited, escalated, owned set
}

// NewMind is an attacker before its first move.
func NewMind(r Red) Mind { return Mind{red: r} }

// Red is which attacker this is.
func (a *Mind) Red() Red { return a.red }

// Choose is the attacker's next move, from what it knows at the end of the last step. Its Exploit, Detected and Pick
// are not yet decided: see State.Resolve.
func (a *Mind) Choose(s *State, r *rng.Source) Move {
	if a.red == SleepRed {
		return Move{}
	}
	var kind MoveKind
	var targets uint32
	if a.red == RandomRed {
		kind, targets = randomMove(s, r)
	} else {
		kind, targets = a.options(s)
	}
	m := Move{Kind: kind}
	if targets != 0 {
		m.Target = uint8(r.Bit(targets))
	}
	a.commit(m)
	return m
}

// Follow takes a recorded move as the attacker's own and says whether this attacker could have made it.
func (a *Mind) Follow(s *State, m Move) bool {
	could := true
	switch a.red {
	case SleepRed:
		could = m.Kind == MoveSleep
	case BLine, Meander:
		kind, targets := a.options(s)
		could = kind == m.Kind && (targets == 0 || targets>>m.Target&1 == 1)
	}
	a.commit(m)
	return could
}

// options is what the attacker does next and on which targets, each as likely. It draws the attacker's conclusions
// from its last move, so it is asked once a step.
func (a *Mind) options(s *State) (MoveKind, uint32) {
	if a.red == BLine {
		return a.bline(s)
	}
	a.digest()
	return a.meander(s)
}

// commit remembers the move made.
func (a *Mind) commit(m Move) {
	a.last, a.host = m.Kind, Host(m.Target)
	bit := set(1) << (m.Target & 15)
	switch a.red {
	case BLine:
		if a.at == 1 {
			a.user = Host(m.Target)
			a.entry = leadsTo(a.user)
		}
		a.done |= 1 << a.at
	case Meander:
		switch m.Kind {
		case Sweep:
			a.swept |= uint8(bit)
		case Scan:
			a.scanned |= bit
		case EscalateMove:
			a.escalated |= bit
		case ExploitMove:
			a.exploited |= bit
		}
	}
}

// Learn tells the attacker how its move went.
func (a *Mind) Learn(ok bool) { a.ok = ok }

// afterFailure is where B_line goes on after its move number i failed.
var afterFailure = [15]uint8{0, 1, 2, 2, 2, 2, 5, 5, 5, 5, 9, 9, 9, 12, 13}

func (a *Mind) bline(s *State) (MoveKind, uint32) {
	if a.ok {
		a.at = min(a.at+1, 14)
	} else {
		a.at = afterFailure[a.at]
	}
	// Its first exploit of Op_Server0 needs what the scan before it returned; where the scan came back empty it starts
	// over as if its first move had just worked.
	if a.at == 12 && a.done>>12&1 == 0 && s.scanNothing {
		a.at = 1
	}
	if a.at == 1 && a.done>>1&1 == 0 {
		return Scan, uint32(userHosts &^ (1 << User0))
	}
	step := blinePlan[a.at]
	target := step.target
	switch target {
	case chosenUser:
		target = uint8(a.user)
	case chosenEntry:
		target = uint8(a.entry)
	}
	return step.kind, 1 << target
}

// Two targets of B_line's plan depend on its one choice.
const (
	chosenUser  uint8 = 30 // the user host it picked
	chosenEntry uint8 = 31 // the Enterprise host that one leads to
)

var blinePlan = [15]struct {
	kind   MoveKind
	target uint8
}{
	{Sweep, uint8(User)},
	{Scan, chosenUser},
	{ExploitMove, chosenUser},
	{EscalateMove, chosenUser},
	{Scan, chosenEntry},
	{ExploitMove, chosenEntry},
	{EscalateMove, chosenEntry},
	{Sweep, uint8(Enterprise)},
	{Scan, uint8(Enterprise2)},
	{ExploitMove, uint8(Enterprise2)},
	{EscalateMove, uint8(Enterprise2)},
	{Scan, uint8(OpServer0)},
	{ExploitMove, uint8(OpServer0)},
	{EscalateMove, uint8(OpServer0)},
	{ImpactMove, uint8(OpServer0)},
}

// digest is Meander drawing its conclusions from its last move.
func (a *Mind) digest() {
	bit := set(1) << (a.host & 15)
	switch {
	case a.last == ExploitMove && a.ok:
		a.owned |= bit
	case a.last == ExploitMove:
		a.exploited &^= bit
		// It takes the failure for a lost foothold and gives up the whole network before it.
		lost := a.escalated & operationalHosts
		if lost == 0 {
			lost = a.escalated & enterpriseServers
		}
		a.escalated &^= lost
		a.exploited &^= lost & a.owned
	case (a.last == EscalateMove || a.last == ImpactMove) && !a.ok:
		a.escalated &^= bit
		a.exploited &^= bit & a.owned
	}
}

func (a *Mind) meander(s *State) (MoveKind, uint32) {
	if a.escalated>>OpServer0&1 == 1 {
		return ImpactMove, 1 << OpServer0
	}
	if n := uint32(s.knownNet &^ a.swept); n != 0 {
		return Sweep, n & -n
	}
	if h := s.knownAddr &^ a.scanned; h != 0 {
		return Scan, uint32(h)
	}
	if h := s.knownHost &^ a.escalated &^ (a.owned &^ a.exploited); h != 0 {
		return EscalateMove, uint32(h)
	}
	if h := s.knownAddr &^ a.exploited; h != 0 {
		return ExploitMove, uint32(h)
	}
	return MoveSleep, 0
}

// randomUnknown is how often RandomRed takes a target from everything there is, known or not.
const randomUnknown = 0.15

// randomMove follows the frequencies of the recorded random attacker: exploits and escalations twice as often as the rest.
func randomMove(s *State, r *rng.Source) (MoveKind, uint32) {
	kind := [8]MoveKind{MoveSleep, Sweep, Scan, ImpactMove, ExploitMove, ExploitMove, EscalateMove, EscalateMove}[r.Below(8)]
	var known, all uint32
	switch kind {
	case MoveSleep:
		return kind, 0
	case Sweep:
		known, all = uint32(s.knownNet), 1<<subnets-1
	case Scan, ExploitMove:
		known, all = uint32(s.knownAddr), uint32(allHosts)
	default:
		known, all = uint32(s.knownHost), uint32(allHosts)
	}
	if r.Chance(randomUnknown) {
		known = all
	}
	return kind, known
}

// The chances of the rules.
const (
	chanceFavourite = 0.75 // red throws the exploit it ranks highest
	chanceDetected  = 0.95 // a new session's opening is seen
)

// available is the set of exploits that red's memory of h's ports allows.
func (s *State) available(h Host) uint32 {
	m := s.memory[h]
	if m&(port443|port80) == 0 {
		m &^= port3390 // SQL injection goes through the web server
	}
	return uint32(m & 0xff)
}

// Resolve lets the chances in m fall, after blue has acted: which exploit, whether it is seen, which session is raised.
func (s *State) Resolve(m *Move, r *rng.Source) {
	h := Host(m.Target)
	switch m.Kind {
	case ExploitMove:
		m.Exploit = NoExploit
		open := s.available(h)
		if open == 0 {
			return
		}
		m.Exploit = Exploit(r.Bit(open & -open))
		if rest := open & (open - 1); rest != 0 {
			other := r.Bit(rest)
			if !r.Chance(chanceFavourite) {
				m.Exploit = Exploit(other)
			}
		}
		if got := service[h][m.Exploit]; got == asService || got == asRoot {
			m.Detected = r.Chance(chanceDetected)
		}
	case EscalateMove:
		if s.root>>h&1 == 1 || s.sessions[h] == 0 {
			return
		}
		n := s.sessions[h]
		k := r.Below(n.count(ByLogin) + n.count(Hidden) + n.count(Detected))
		for m.Pick = ByLogin; m.Pick < Detected && k >= n.count(m.Pick); m.Pick++ {
			k -= n.count(m.Pick)
		}
	}
}
