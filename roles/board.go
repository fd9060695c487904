package roles

import (
	"github.com/omega-mesh/omega/swarm/event"
)

// State is how a response stands on this host.
type State string

const (
	StateActive   State = "active"   // the kernel enforces it
	StateObserved State = "observed" // observe mode
	StateRefused  State = "refused"  // a guard rail forbids it here
	StatePending  State = "pending"  // waits for a person
	StateRejected State = "rejected" // a person said no
	StateFailed   State = "failed"
	StateReleased State = "released"
	StateExpired  State = "expired"
)

// Standing is a response and how it stands here.
type Standing struct {
	Response event.Response
	State    State
	Guard    string // the guard rail that refused
	Detail   string
	Acted    uint64 // CLOCK_BOOTTIME, nanoseconds, when the state began
	Expires  uint64 // CLOCK_BOOTTIME, nanoseconds; 0 where nothing runs
}

// Pending is a response that waits for a person.
type Pending struct {
	Proposal  event.Response
	Guard     string          // the guard rail that held it back; empty where the policy asks
	Evidence  []event.Finding // what led to it
	Suggested event.Action    // what an approval will do
	Member    string          // DID of the member that an approval contains; empty where it is none
}

// Board is what this host does and what waits: sentinel and analyst write it, the API reads it. It is bounded: what is
// over goes first.
type Board struct{}

// NewBoard makes an empty board.
func NewBoard() *Board { return &Board{} }

// Responses are all that the board still knows, newest first.
func (b *Board) Responses() []Standing { return nil }

// Pending are those that wait, oldest first.
func (b *Board) Pending() []Pending { return nil }
