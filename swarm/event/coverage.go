package event

import "time"

// Coverage is what one host can see and stop, by its own word and its own proof: what every peer and analyst must know
// before silence is read as peace. What is signed is all but Peer and Host.
type Coverage struct {
	Peer       string      `cbor:"-"`                    // DID of the author
	Host       string      `cbor:"-"`                    // its name in the swarm
	Time       int64       `cbor:"1,keyasint"`           // Unix nanoseconds by the author's clock
	Components []Component `cbor:"2,keyasint,omitempty"` // at most MaxComponents
	Gaps       []Gap       `cbor:"3,keyasint,omitempty"` // what did not load, attach or open, at most MaxComponents
	Drops      []Drop      `cbor:"4,keyasint,omitempty"` // what was seen by the kernel and lost on the way, at most MaxComponents
	Ended      bool        `cbor:"5,keyasint,omitempty"` // the agent ended in good order: its silence means nothing
	Mode       string      `cbor:"6,keyasint,omitempty"` // observe, enforce or panic
}

// MaxComponents bounds each list of a Coverage.
const MaxComponents = 64

// Component is one data component of ATT&CK (attack.mitre.org/datasources).
type Component struct {
	Name  string `cbor:"1,keyasint"`
	Sees  bool   `cbor:"2,keyasint"`
	Stops bool   `cbor:"3,keyasint"`
	// Proof is what the self-test says: "seen", "partly", "missed", or "untested" where it cannot do such a thing.
	Proof string `cbor:"4,keyasint"`
	Lost  string `cbor:"5,keyasint,omitempty"`
}

// Gap is one part that this host lacks.
type Gap struct {
	Name string `cbor:"1,keyasint"`
	Lost string `cbor:"2,keyasint"`
}

// Drop is a count of lost records of one kind since the agent started.
type Drop struct {
	Name  string `cbor:"1,keyasint"`
	Count uint64 `cbor:"2,keyasint"`
}

// When is Time as a time.Time in UTC.
func (c *Coverage) When() time.Time { return time.Unix(0, c.Time).UTC() }
