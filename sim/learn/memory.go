package learn

import (
	"slices"

	"github.com/omega-mesh/omega/sim/cage2"
)

// Memory is what a defender knows: the observation, its own deeds and what came of them, and when it saw what where. It
// is a flat value, so that copying it is a branch, like a world's.
type Memory struct {
	own  cage2.State // the world with blue's deeds alone: which decoys run
	seen cage2.Observation
	last [lastActions]cage2.Action // its own last actions, the latest first

	steps    uint8  // since the episode began; stops at 255
	scanned  uint16 // hosts on which a scan was ever seen
	attacked uint16 // hosts on which an exploit was ever seen
	restored uint16 // hosts it ever restored
	removed  uint16 // hosts it cleaned since the last exploit there
	touched  uint16 // hosts with any traffic since they were last restored: where red may sit

	scans    [cage2.Hosts]uint8 // since the host was last restored
	exploits [cage2.Hosts]uint8
	age      [cage2.Hosts]uint8 // steps since the last traffic
	clean    [cage2.Hosts]uint8 // steps since it was restored
	known    [cage2.Hosts]uint8 // decoys that red saw when it last scanned the host
	past     [history]happening // the latest first
}

// happening is what one step showed: the host with traffic (Hosts: none) and whether it was an exploit.
type happening struct {
	host    cage2.Host
	exploit bool
}

const (
	history     = 5 // happenings that are remembered one by one
	lastActions = 2
)

// NewMemory is that of a defender before its first step.
func NewMemory(v cage2.Version) Memory {
	m := Memory{own: cage2.NewState(v)}
	for h := range cage2.Hosts {
		m.age[h], m.clean[h] = 255, 255
	}
	for i := range m.past {
		m.past[i].host = cage2.Hosts
	}
	return m
}

// Do takes note of an action that the defender chose.
func (m *Memory) Do(a cage2.Action) {
	m.last[1], m.last[0] = m.last[0], a
	m.own.Step(a, cage2.NoScan, cage2.Move{})
	v, h := a.Split()
	switch v {
	case cage2.Restore:
		bit := uint16(1) << h
		m.restored |= bit
		m.removed &^= bit
		m.touched &^= bit
		m.scans[h], m.exploits[h], m.clean[h] = 0, 0, 0
	case cage2.Remove:
		m.removed |= 1 << h
	}
}

// See takes in what the step showed.
func (m *Memory) See(o cage2.Observation) {
	m.seen = o
	m.steps = more(m.steps)
	copy(m.past[1:], m.past[:history-1])
	m.past[0] = happening{host: cage2.Hosts}
	for h := range cage2.Hosts {
		m.age[h], m.clean[h] = more(m.age[h]), more(m.clean[h])
		activity := o.Activity(h)
		if activity == cage2.ActivityNone {
			continue
		}
		bit := uint16(1) << h
		m.age[h] = 0
		m.touched |= bit
		exploit := activity == cage2.ActivityExploit
		if exploit {
			m.attacked |= bit
			m.removed &^= bit
			m.exploits[h] = more(m.exploits[h])
		} else {
			m.scanned |= bit
			m.scans[h] = more(m.scans[h])
			running := uint8(0)
			for d := cage2.Apache; d <= cage2.Vsftpd; d++ {
				if m.own.Running(d, h) {
					running |= 1 << d
				}
			}
			if m.own.Version() == cage2.Leaderboard {
				running |= m.known[h]
			}
			m.known[h] = running
		}
		if m.past[0].host == cage2.Hosts || exploit {
			m.past[0] = happening{h, exploit}
		}
	}
}

func more(n uint8) uint8 { return min(n, 254) + 1 }

// The inputs, in the order in which Features numbers them.
var (
	perHost    = 5 + 4 + 3 + 2 + len(ages) + len(cleans)
	inputsSeen = int(cage2.Hosts) * perHost
	decoyCount = len(choices) - firstDecoy
	inputsPast = history * (2*int(cage2.Hosts) + 1)
	inputsLast = lastActions * (5 + int(cage2.Hosts))

	// DefenderInputs is how many inputs a defender's network has.
	DefenderInputs = inputsSeen + 2*decoyCount + inputsPast + inputsLast + len(clocks) + 2*8 + 1
)

var (
	ages   = [...]uint8{0, 1, 3, 7, 15}
	cleans = [...]uint8{1, 4, 10}
	clocks = [...]uint8{1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20}
)

// writer numbers bits and keeps those that are set, without a branch a bit: they can hardly be foretold.
type writer struct {
	dst []uint16
	at  int // how many are written
	n   uint16
}

// newWriter appends to dst, for which it makes room for as many bits as there are.
func newWriter(dst []uint16, bits int) writer {
	at := len(dst)
	return writer{dst: slices.Grow(dst, bits+1)[:at+bits+1], at: at}
}

func (w *writer) bit(set bool) {
	w.dst[w.at] = w.n
	one := 0
	if set {
		one = 1
	}
	w.at += one
	w.n++
}

func (w *writer) done() []uint16 { return w.dst[:w.at] }

// oneOf is n bits of which bit i is set.
func (w *writer) oneOf(i, n int) {
	w.dst[w.at] = w.n + uint16(i)
	w.at++
	w.n += uint16(n)
}

// upTo is a bit for each limit that x does not pass.
func (w *writer) upTo(x uint8, limits []uint8) {
	for _, l := range limits {
		w.bit(x <= l)
	}
}

// Features appends to dst the inputs that are set.
func (m *Memory) Features(dst []uint16) []uint16 {
	w := newWriter(dst, DefenderInputs)
	for h := range cage2.Hosts {
		bit := uint16(1) << h
		w.bit(m.seen.Activity(h) == cage2.ActivityScan)
		w.bit(m.seen.Activity(h) == cage2.ActivityExploit)
		w.bit(m.seen.Compromise(h) == cage2.CompromiseUnknown)
		w.bit(m.seen.Compromise(h) == cage2.CompromiseUser)
		w.bit(m.seen.Compromise(h) == cage2.CompromisePrivileged)
		w.bit(m.scanned&bit != 0)
		w.bit(m.attacked&bit != 0)
		w.bit(m.restored&bit != 0)
		w.bit(m.removed&bit != 0)
		w.bit(m.scans[h] >= 1)
		w.bit(m.scans[h] >= 2)
		w.bit(m.scans[h] >= 3)
		w.bit(m.exploits[h] >= 1)
		w.bit(m.exploits[h] >= 2)
		w.upTo(m.age[h], ages[:])
		w.upTo(m.clean[h], cleans[:])
	}
	for _, a := range choices[firstDecoy:] {
		v, h := a.Split()
		d := cage2.Decoy(v - cage2.DecoyApache)
		w.bit(m.own.Running(d, h))
		w.bit(m.known[h]>>d&1 == 1)
	}
	for _, p := range m.past {
		i := 2 * int(p.host)
		if p.exploit {
			i++
		}
		w.oneOf(i, 2*int(cage2.Hosts)+1)
	}
	for _, a := range m.last {
		v, h := a.Split()
		w.bit(v == cage2.Restore)
		w.bit(v == cage2.Remove)
		w.bit(v == cage2.Analyse)
		w.bit(v >= cage2.DecoyApache && v <= cage2.DecoyVsftpd)
		w.bit(v >= cage2.VerbSleep)
		for i := range cage2.Hosts {
			w.bit(h == i)
		}
	}
	for _, c := range clocks {
		w.bit(m.steps >= c)
	}
	users, servers := 0, 0
	for h := range cage2.Hosts {
		if m.scanned>>h&1 == 1 {
			if h >= cage2.User0 {
				users++
			} else {
				servers++
			}
		}
	}
	for i := 1; i <= 8; i++ {
		w.bit(users >= i)
		w.bit(servers >= i)
	}
	w.bit(m.own.Version() == cage2.Later)
	return w.done()
}

// Mask is what is worth trying: a decoy that would start, Restore where red could be, Remove and Analyse where something
// shows. Sleep is always allowed.
func (m *Memory) Mask() (mask Mask) {
	mask.allow(0)
	at := 1
	for _, h := range defended {
		if m.touched>>h&1 == 1 || m.seen.Compromise(h) != cage2.CompromiseNo || h == cage2.OpServer0 && m.restored>>h&1 == 0 {
			mask.allow(at)
		}
		at++
	}
	for _, h := range removable {
		if m.seen.Compromise(h) >= cage2.CompromiseUser {
			mask.allow(at)
		}
		at++
	}
	for _, h := range analysed {
		if m.touched>>h&1 == 1 && m.seen.Compromise(h) != cage2.CompromisePrivileged {
			mask.allow(at)
		}
		at++
	}
	for i, a := range choices[firstDecoy:] {
		v, h := a.Split()
		d := cage2.Decoy(v - cage2.DecoyApache)
		if m.own.CanPlace(d, h) && !m.own.Running(d, h) {
			mask.allow(firstDecoy + i)
		}
	}
	return mask
}
