package cage2

// RedAction is red's choice as a number, for an attacker that is no script: 0 Sleep, then Sweep of three networks, Scan,
// Exploit and Escalate of thirteen hosts each, and Impact on Op_Server0.
type RedAction uint8

// RedActions is how many there are, GreenActions how many green has: 0 sleeps, 1 + h scans host h.
const (
	firstScan     = 1 + RedAction(subnets)
	firstExploit  = firstScan + RedAction(Hosts)
	firstEscalate = firstExploit + RedAction(Hosts)
	impactAction  = firstEscalate + RedAction(Hosts)
	RedActions    = int(impactAction) + 1 // 44
	GreenActions  = 1 + int(Hosts)
)

// Move is the move that a number stands for; numbers past the last are Sleep.
func (a RedAction) Move() Move {
	switch {
	case a == 0 || int(a) >= RedActions:
		return Move{}
	case a < firstScan:
		return Move{Kind: Sweep, Target: uint8(a - 1)}
	case a < firstExploit:
		return Move{Kind: Scan, Target: uint8(a - firstScan)}
	case a < firstEscalate:
		return Move{Kind: ExploitMove, Target: uint8(a - firstExploit)}
	case a < impactAction:
		return Move{Kind: EscalateMove, Target: uint8(a - firstEscalate)}
	}
	return Move{Kind: ImpactMove, Target: uint8(OpServer0)}
}

// RedMask has bit a set where red knows enough to try RedAction a. Other moves may be made; they fail.
func (s *State) RedMask() uint64 {
	m := uint64(1) | uint64(s.knownNet)<<1
	m |= uint64(s.knownAddr)<<firstScan | uint64(s.knownAddr)<<firstExploit | uint64(s.knownHost)<<firstEscalate
	if s.knownHost>>OpServer0&1 == 1 && s.otLearned {
		m |= 1 << impactAction
	}
	return m
}

// BlueMask writes which of the 145 actions can have an effect as packed bits (action a is bit a%8 of byte a/8) into dst,
// which must hold 19 bytes: all but decoys that cannot be started, which blue knows since it started what stands there.
func (s *State) BlueMask(dst []byte) {
	clear(dst[:BlueMaskBytes])
	put := func(a Action) { dst[a>>3] |= 1 << (a & 7) }
	put(Sleep)
	put(Monitor)
	for h := range Hosts {
		put(Do(Analyse, h))
		put(Do(Remove, h))
		put(Do(Restore, h))
		for d := range decoys {
			if s.CanPlace(d, h) {
				put(PlaceDecoy(d, h))
			}
		}
	}
}

// BlueMaskBytes is the length of a packed BlueMask.
const BlueMaskBytes = (Actions + 7) / 8

// RedObservation says what red knows, as RedObservationBits bits packed like BlueMask: bit 0 whether its last move
// worked, 1 to 3 the networks it knows, 4 whether it knows the OT service; then sixteen bits a host: its address is
// known, its name, red has a user's session, red is root, and twelve for the ports it remembers as open.
// dst must hold 27 bytes.
func (w *World) RedObservation(dst []byte) {
	clear(dst[:(RedObservationBits+7)/8])
	head := uint8(digit(w.Mind.ok)) | w.knownNet<<1 | uint8(digit(w.otLearned))<<4
	dst[0] = head
	for h := range Hosts {
		bits := uint32(w.knownAddr>>h&1) | uint32(w.knownHost>>h&1)<<1 | uint32(w.root>>h&1)<<3 | uint32(w.memory[h])<<4
		if w.sessions[h]&^(0xff<<(8*Root)) != 0 {
			bits |= 1 << 2
		}
		bits <<= 5 // where the host's sixteen bits begin within their first byte
		at := 2 * h
		dst[at] |= uint8(bits)
		dst[at+1] |= uint8(bits >> 8)
		dst[at+2] |= uint8(bits >> 16)
	}
}

// RedObservationBits is the length of a RedObservation.
const RedObservationBits = 5 + 16*int(Hosts)

// Scripted in place of an agent's action lets the world's own script choose: the Mind for red, chance for green.
const Scripted = 255

// Contest plays one step in which any of the agents may be somebody else's: red is a RedAction and green 0 or 1 plus
// the host it scans, or Scripted. A red that is given its moves by number still has its chances from the world.
func (w *World) Contest(blue Action, red, green uint8) Result {
	if w.Steps >= MaxSteps {
		return Result{Observation: w.remembered}
	}
	w.Steps++
	m := RedAction(red).Move()
	if red == Scripted {
		m = w.Mind.Choose(&w.State, &w.Rand)
	}
	scanned := NoScan
	switch {
	case green == Scripted:
		scanned = w.greenScan()
	case green > 0 && int(green) < GreenActions:
		scanned = Host(green - 1)
	}
	return w.play(blue, scanned, &m)
}

// RedReward is what a step was worth to red, in tenths: blue's loss without the price that blue paid for a Restore.
func RedReward(blue Action, reward int16) int16 {
	if v, _ := blue.Split(); v == Restore {
		reward += 10
	}
	return -reward
}

// String is the move as people read it: "ExploitRemoteService User2".
func (a RedAction) String() string {
	m := a.Move()
	if m.Kind == ExploitMove { // which exploit it will be is not decided yet
		return m.Kind.String() + " " + Host(m.Target).String()
	}
	return m.String()
}
