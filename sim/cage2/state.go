package cage2

import "math/bits"

// Version is which rules hold. The published leaderboard belongs to Leaderboard; two fixes made a few days after its
// publication made the environment harder for the defender. A score means nothing without its version.
type Version uint8

const (
	// Leaderboard is the reference as of 2022-08-12: red never forgets a port it once saw, and a mail server that was
	// ever restored can no longer be exploited.
	Leaderboard Version = iota
	// Later is the reference from 2022-08-19 on.
	Later
)

// String is "leaderboard" or "later".
func (v Version) String() string {
	if v == Later {
		return "later"
	}
	return "leaderboard"
}

// MaxSteps bounds an episode: the session counters are bytes, and red opens at most one session a step.
const MaxSteps = 250

// sessions counts red's sessions on one host, a byte a SessionKind.
type sessions uint32

func (s sessions) count(k SessionKind) uint32 { return uint32(s>>(8*k)) & 0xff }
func one(k SessionKind) sessions              { return 1 << (8 * k) }

// State is the whole world, without the attacker's mind: a flat value. Copying it is a checkpoint.
type State struct {
	sessions [Hosts]sessions
	memory   [Hosts]ports // the open ports red remembers; 0: never scanned
	open     [Hosts]ports // what listens now, decoys included
	sockets  [Hosts]uint8 // how many sockets that is
	decoys   [Hosts]uint8 // bit d: a decoy of kind d runs

	remembered Observation // the two compromise bits a host, which the monitor keeps between steps
	root       set         // hosts where a session is root or SYSTEM
	files      set         // hosts where a malware file lies
	mailLost   set         // hosts whose mail server lost its version in the backup (Leaderboard)
	knownAddr  set         // addresses red knows
	knownHost  set         // hostnames red knows
	knownNet   uint8       // subnets red knows

	version     Version
	otLearned   bool // red knows the OT service
	otDown      bool // the OT service is stopped
	otImmune    bool // Op_Server0 was restored: by a defect of its backup Impact no longer has an effect
	scanNothing bool // red's last scan did not reach its target
}

// NewState is the world at step 0: red sits on User0 as SYSTEM and knows its subnet.
func NewState(v Version) State {
	s := State{
		open:      openPorts,
		sockets:   socketCount,
		root:      1 << User0,
		knownAddr: 1 << User0,
		knownHost: 1 << User0,
		knownNet:  1 << User,
		version:   v,
	}
	s.sessions[User0] = one(Root)
	return s
}

// Result is what one step gave. Reward is in tenths: the reference rounds to one decimal, and integers add up exactly.
type Result struct {
	Observation Observation
	Reward      int16
	BlueOK      bool // for Sleep and Monitor: true
	RedOK       bool // false also for Sleep and for moves on what red does not know
}

// Step plays one step with the chances given: blue acts, then green scans host green (NoScan: sleeps), then red moves;
// each sees the state the one before left.
func (s *State) Step(blue Action, green Host, red Move) Result {
	b := s.blue(blue)
	ok, t := s.red(red)
	activity := s.observe(blue, b, green, Host(red.Target), t)
	return Result{Observation: s.remembered | activity, Reward: s.reward(blue), BlueOK: b.ok, RedOK: ok}
}

// NoScan is the host green scans when it sleeps.
const NoScan = Hosts

// deed is what became of blue's action.
type deed struct {
	ok     bool
	placed Host // where a decoy was started, Hosts: nowhere
	found  Host // where a malware file was found, Hosts: nowhere
}

func (s *State) blue(a Action) deed {
	v, h := a.Split()
	done := deed{ok: true, placed: Hosts, found: Hosts}
	switch v {
	case VerbSleep, VerbMonitor:
		return done
	case Analyse:
		if s.files>>h&1 == 1 {
			done.found = h
		}
		return done
	case Remove:
		s.sessions[h] &^= 0xff << (8 * Detected)
		return done
	case Restore:
		s.restore(h)
		return done
	}
	spec := &decoySpecs[Decoy(v-DecoyApache)]
	if spec.hosts>>h&1 == 0 || s.open[h]&spec.needs != 0 {
		done.ok = false
		return done
	}
	s.open[h] |= spec.opens
	s.sockets[h]++
	s.decoys[h] |= 1 << (v - DecoyApache)
	done.placed = h
	return done
}

func (s *State) restore(h Host) {
	s.sessions[h] = 0
	s.open[h] = openPorts[h]
	s.sockets[h] = socketCount[h]
	s.decoys[h] = 0
	bit := set(1) << h
	s.root &^= bit
	s.files &^= bit
	switch h {
	case User0: // the session red started with survives
		s.sessions[h] = one(Root)
		s.root |= bit
	case OpServer0:
		s.otDown = false
		s.otImmune = true
	case User3, User4:
		if s.version == Leaderboard {
			s.mailLost |= bit
		}
	}
}

// reachable says whether red, which acts from User0, can send packets to h's subnet.
func (s *State) reachable(n Subnet) bool {
	return n != Operational || s.sessions[Enterprise0]|s.sessions[Enterprise1]|s.sessions[Enterprise2] != 0
}

// traffic is the connection events a step leaves on one host.
type traffic struct {
	events  uint16
	ports   ports
	reverse bool // one event went out to port 4444, from a local port of its own
}

// red applies red's move and says whether it worked and what traffic it left on its target.
func (s *State) red(m Move) (ok bool, t traffic) {
	s.scanNothing = false
	switch m.Kind {
	case Sweep:
		n := Subnet(m.Target)
		if n >= subnets || s.knownNet>>n&1 == 0 || !s.reachable(n) {
			return false, t
		}
		s.knownAddr |= subnetHosts[n]
		return true, t
	case MoveSleep:
		return false, t
	}
	h := Host(m.Target)
	if h >= Hosts {
		return false, t
	}
	switch m.Kind {
	case Scan:
		if s.knownAddr>>h&1 == 0 {
			return false, t
		}
		if !s.reachable(subnetOf(h)) {
			s.scanNothing = true
			return true, t
		}
		if s.version == Leaderboard {
			s.memory[h] |= s.open[h]
		} else {
			s.memory[h] = s.open[h]
		}
		return true, traffic{events: uint16(s.sockets[h]), ports: s.open[h]}
	case ExploitMove:
		if s.knownAddr>>h&1 == 0 || m.Exploit >= exploits || s.memory[h] == 0 || !s.reachable(subnetOf(h)) {
			return false, t
		}
		return s.exploit(h, m)
	case EscalateMove:
		return s.escalate(h, m.Pick), t
	case ImpactMove:
		if h != OpServer0 || s.knownHost>>h&1 == 0 || s.sessions[h] == 0 || !s.otLearned {
			return false, t
		}
		s.otDown = s.otDown || !s.otImmune
		return true, t
	}
	return false, t
}

func (s *State) exploit(h Host, m Move) (bool, traffic) {
	x := m.Exploit
	t := traffic{ports: x.port()}
	bit := set(1) << h
	got := service[h][x]
	switch {
	case got == noService:
		if !s.decoyAnswers(h, x) {
			return false, traffic{}
		}
		t.events = 2
		if x == SSHBruteForce {
			t.events = 10
		}
		return false, t
	case x == SSHBruteForce:
		if got == noLogin {
			t.events = 10
			return false, t
		}
		t.events = 11
		s.sessions[h] += one(ByLogin)
		s.knownHost |= bit
		return true, t
	case x == HarakaRCE && s.mailLost&bit != 0:
		t.events = 1
		return false, t
	}
	t.events = 1
	if m.Detected {
		t.events, t.reverse = 2, true
	}
	switch {
	case got == asRoot:
		s.sessions[h] += one(Root)
		s.root |= bit
	case m.Detected:
		s.sessions[h] += one(Detected)
	default:
		s.sessions[h] += one(Hidden)
	}
	s.files |= bit
	s.knownHost |= bit
	return true, t
}

// answering is, for each exploit, the kinds of decoy that pass for the service it wants.
var answering = func() (a [exploits]uint8) {
	for d, spec := range decoySpecs {
		a[spec.answers] |= 1 << d
	}
	return a
}()

func (s *State) decoyAnswers(h Host, x Exploit) bool { return s.decoys[h]&answering[x] != 0 }

func (s *State) escalate(h Host, pick SessionKind) bool {
	bit := set(1) << h
	if s.knownHost&bit == 0 || s.sessions[h] == 0 {
		return false
	}
	if s.root&bit == 0 {
		if pick >= Root || s.sessions[h].count(pick) == 0 {
			pick = s.anySession(h)
		}
		s.sessions[h] += one(Root) - one(pick)
		s.root |= bit
		s.files |= bit
	}
	s.knownNet |= 1 << subnetOf(h)
	if next := leadsTo(h); next < Hosts {
		s.knownAddr |= 1 << next
	}
	if h == OpServer0 {
		s.otLearned = true
	}
	return true
}

// anySession is the first kind of user session there is on h; used where a caller's pick does not exist.
func (s *State) anySession(h Host) SessionKind {
	for k := ByLogin; k < Root; k++ {
		if s.sessions[h].count(k) > 0 {
			return k
		}
	}
	return ByLogin
}

// reward is the step's reward in tenths.
func (s *State) reward(blue Action) int16 {
	r := bits.OnesCount16(s.root&cheapHosts) + 10*bits.OnesCount16(s.root&valuedHosts)
	if s.otDown {
		r += 100
	}
	if blue >= Do(Restore, 0) && int(blue) < Actions {
		r += 10
	}
	return int16(-r)
}

// Privilege is red's standing on h: 0 none, 1 user, 2 root or SYSTEM.
func (s *State) Privilege(h Host) int {
	switch {
	case s.root>>h&1 == 1:
		return 2
	case s.sessions[h] != 0:
		return 1
	}
	return 0
}

// ServiceDown says whether the OT service on Op_Server0 is stopped.
func (s *State) ServiceDown() bool { return s.otDown }

// Version is which rules this world follows.
func (s *State) Version() Version { return s.version }
