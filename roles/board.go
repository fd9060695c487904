package roles

import (
	"slices"
	"sync"

	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of a board. What is over goes first, and only then the oldest.
const (
	MaxStandings = 4096
	MaxPending   = 512
	// MaxPendingEvidence is the most findings kept with one response that waits.
	MaxPendingEvidence = 16
)

// State is how a response stands on this host.
type State string

const (
	StateActive   State = "active"   // the kernel enforces it
	StateObserved State = "observed" // observe mode: what would have been done
	StateRefused  State = "refused"  // a guard rail forbids it here
	StatePending  State = "pending"  // waits for a person
	StateRejected State = "rejected" // a person said no
	StateFailed   State = "failed"
	StateDone     State = "done" // a thing of an instant, such as a kill
	StateReleased State = "released"
	StateExpired  State = "expired"
)

// Over says that nothing more will come of a response in this state.
func (s State) Over() bool { return s != StateActive && s != StatePending && s != StateObserved }

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
	Evidence  []event.Finding // what led to it, the newest last
	Suggested event.Action    // what an approval will do
	Member    string          // DID of the member that an approval contains; empty where it is none
	Since     uint64          // CLOCK_BOOTTIME, nanoseconds
}

// Board is what this host does and what waits: sentinel and analyst write it, the API reads it. It is safe for
// concurrent use.
type Board struct {
	mu       sync.Mutex
	standing map[string]Standing
	order    []string // ids of standing, oldest first
	pending  map[string]Pending
	waiting  []string // ids of pending, oldest first
	dropped  uint64
}

// NewBoard makes an empty board.
func NewBoard() *Board {
	return &Board{standing: map[string]Standing{}, pending: map[string]Pending{}}
}

// Responses are all that the board still knows, newest first.
func (b *Board) Responses() []Standing {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Standing, 0, len(b.order))
	for _, id := range slices.Backward(b.order) {
		out = append(out, b.standing[id])
	}
	return out
}

// Response finds one by id.
func (b *Board) Response(id string) (Standing, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.standing[id]
	return s, ok
}

// Pending are those that wait, oldest first.
func (b *Board) Pending() []Pending {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Pending, 0, len(b.waiting))
	for _, id := range b.waiting {
		p := b.pending[id]
		p.Evidence = slices.Clone(p.Evidence)
		out = append(out, p)
	}
	return out
}

// Waiting finds a response that waits, by id.
func (b *Board) Waiting(id string) (Pending, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.pending[id]
	return p, ok
}

// Dropped counts what was lost to the bounds while it still mattered.
func (b *Board) Dropped() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

// Set puts s up under its response's id, in place of what stood there.
func (b *Board) Set(s Standing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := s.Response.ID
	if _, known := b.standing[id]; !known {
		if len(b.order) >= MaxStandings {
			i := max(0, slices.IndexFunc(b.order, func(id string) bool { return b.standing[id].State.Over() }))
			if !b.standing[b.order[i]].State.Over() {
				b.dropped++
			}
			delete(b.standing, b.order[i])
			b.order = slices.Delete(b.order, i, i+1)
		}
		b.order = append(b.order, id)
	}
	b.standing[id] = s
}

// Propose has p wait for a person; what waits already gains its evidence. It reports whether p is new.
func (b *Board) Propose(p Pending) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := p.Proposal.ID
	if old, known := b.pending[id]; known {
		for _, f := range p.Evidence {
			if !slices.ContainsFunc(old.Evidence, func(o event.Finding) bool { return o.ID == f.ID }) {
				old.Evidence = append(old.Evidence, f)
			}
		}
		if n := len(old.Evidence); n > MaxPendingEvidence {
			// What triggered it comes first and stays; of what came since, the newest.
			old.Evidence = slices.Delete(old.Evidence, 1, 1+n-MaxPendingEvidence)
		}
		if old.Guard == "" {
			old.Guard, old.Suggested, old.Member = p.Guard, p.Suggested, p.Member
		}
		b.pending[id] = old
		return false
	}
	if len(b.waiting) >= MaxPending {
		delete(b.pending, b.waiting[0])
		b.waiting = b.waiting[1:]
		b.dropped++
	}
	p.Evidence = slices.Clone(p.Evidence[:min(len(p.Evidence), MaxPendingEvidence)])
	b.pending[id] = p
	b.waiting = append(b.waiting, id)
	return true
}

// Withdraw takes what waits under id away, and reports whether it was there.
func (b *Board) Withdraw(id string) (Pending, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.pending[id]
	if ok {
		delete(b.pending, id)
		b.waiting = slices.DeleteFunc(b.waiting, func(w string) bool { return w == id })
	}
	return p, ok
}
