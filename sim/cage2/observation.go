package cage2

import (
	"fmt"
	"math/bits"
	"strings"
)

// Observation is the 52-bit vector blue sees, bit i for element i: four bits a host, two for this step's activity
// (none 00, scan 10, exploit 11) and two for what is remembered of its compromise (no 00, unknown 10, user 01,
// privileged 11).
type Observation uint64

// ObservationBits is the length of the vector.
const ObservationBits = 4 * int(Hosts)

// Activity is what the monitor made of a host's traffic in this step.
type Activity uint8

// Compromise is what blue believes of a host.
type Compromise uint8

// Values are the two bits as they stand in the vector, the first being the lower.
const (
	ActivityNone    Activity = 0
	ActivityScan    Activity = 1
	ActivityExploit Activity = 3

	CompromiseNo         Compromise = 0
	CompromiseUnknown    Compromise = 1
	CompromiseUser       Compromise = 2
	CompromisePrivileged Compromise = 3
)

// Activity is this step's activity on h.
func (o Observation) Activity(h Host) Activity { return Activity(o >> (4 * h) & 3) }

// Compromise is what is remembered of h.
func (o Observation) Compromise(h Host) Compromise { return Compromise(o >> (4*h + 2) & 3) }

func (o *Observation) setCompromise(h Host, c Compromise) {
	*o = *o&^(3<<(4*h+2)) | Observation(c)<<(4*h+2)
}

// String is the vector as 52 digits.
func (o Observation) String() string {
	var b strings.Builder
	for i := range ObservationBits {
		b.WriteByte('0' + byte(o>>i&1))
	}
	return b.String()
}

// ParseObservation reads what String writes.
func ParseObservation(s string) (Observation, error) {
	if len(s) != ObservationBits {
		return 0, fmt.Errorf("observation has %d digits, want %d", len(s), ObservationBits)
	}
	var o Observation
	for i := range ObservationBits {
		switch s[i] {
		case '1':
			o |= 1 << i
		case '0':
		default:
			return 0, fmt.Errorf("observation has %q at %d, want 0 or 1", s[i], i)
		}
	}
	return o, nil
}

// Floats writes the vector into dst, which must hold 52 elements.
func (o Observation) Floats(dst []float32) {
	for i := range ObservationBits {
		dst[i] = float32(o >> i & 1)
	}
}

// observe is the monitor at the end of a step: it reads the step's traffic, forgets it, and gives the activity bits;
// the compromise bits change in s.remembered.
func (s *State) observe(blue Action, did deed, green, target Host, red traffic) Observation {
	switch v, h := blue.Split(); v {
	case Restore:
		s.remembered.setCompromise(h, CompromiseNo)
	case Remove:
		if s.remembered.Compromise(h) != CompromiseNo {
			s.remembered.setCompromise(h, CompromiseUnknown)
		}
	}
	var activity Observation
	if green < Hosts {
		t := traffic{events: uint16(s.sockets[green]), ports: s.open[green]}
		if red.events > 0 && target == green {
			t.events += red.events
			t.ports |= red.ports
			t.reverse = red.reverse
			red.events = 0
		}
		activity |= s.monitor(green, t, did.placed == green)
	}
	if red.events > 0 {
		activity |= s.monitor(target, red, did.placed == target)
	}
	if did.found < Hosts {
		s.remembered.setCompromise(did.found, CompromisePrivileged)
	}
	return activity
}

// monitor classifies one host's traffic, by the reference's rules in their order.
func (s *State) monitor(h Host, t traffic, placed bool) Observation {
	events, distinct := int(t.events), bits.OnesCount16(t.ports)
	if placed {
		events++
	}
	if t.reverse {
		distinct++
	}
	activity := ActivityNone
	switch {
	case events >= 3 && distinct >= 3:
		activity = ActivityScan
	case t.reverse, events >= 3 && distinct == 1:
		activity = ActivityExploit
	case placed: // a decoy just started explains a little traffic
	case events >= 1:
		activity = ActivityScan
	}
	if activity == ActivityExploit {
		s.remembered.setCompromise(h, CompromiseUser)
	}
	return Observation(activity) << (4 * h)
}
