package anonymous

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/omega-mesh/omega/trust"
)

// Errors of Spent.Take.
var (
	// ErrSpent: the author said something else in that slot already.
	ErrSpent = errors.New("anonymous: slot used before")
	// ErrKnown: the very same was said already; another carried it.
	ErrKnown = errors.New("anonymous: report known")
	// ErrEpoch: of the future, or too old to be told from a repetition.
	ErrEpoch = errors.New("anonymous: not of this time")
	// ErrFull: more of that epoch than are remembered.
	ErrFull = errors.New("anonymous: too many reports")
)

// Spent remembers the tags of the last trust.AnonymousWindow epochs, so that a slot counts once. It is safe for concurrent
// use. Of two reports in one slot peers may have taken different ones, by which came first; none takes both.
type Spent struct {
	mu     sync.Mutex
	epochs map[Epoch]map[Tag][64]byte // the digest of what was said
}

// NewSpent makes one that remembers nothing.
func NewSpent() *Spent { return &Spent{epochs: make(map[Epoch]map[Tag][64]byte)} }

// Take uses the slot of r, which verified, up; now is this peer's clock. It tells reports apart by tag and content, never
// by the signature's bytes, of which an author can make any number. Errors: ErrSpent, ErrKnown, ErrEpoch, ErrFull.
func (s *Spent) Take(swarm trust.SwarmID, r *Report, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.look(swarm, r, now); err != nil {
		return err
	}
	tags := s.epochs[r.Epoch]
	if tags == nil {
		tags = make(map[Tag][64]byte)
		s.epochs[r.Epoch] = tags
	}
	tags[r.Tag] = r.said(swarm)
	return nil
}

// Look says what Take would, and uses nothing up.
func (s *Spent) Look(swarm trust.SwarmID, r *Report, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.look(swarm, r, now)
}

func (s *Spent) look(swarm trust.SwarmID, r *Report, now time.Time) error {
	latest, present := EpochOf(now.Add(trust.MaxClockSkew)), EpochOf(now)
	if r.Epoch > latest || r.Epoch+trust.AnonymousWindow <= present {
		return fmt.Errorf("epoch %d at %d: %w", r.Epoch, present, ErrEpoch)
	}
	for e := range s.epochs {
		if e+trust.AnonymousWindow <= present {
			delete(s.epochs, e)
		}
	}
	tags := s.epochs[r.Epoch]
	switch before, used := tags[r.Tag]; {
	case used && before == r.said(swarm):
		return ErrKnown
	case used:
		return fmt.Errorf("epoch %d, slot %d: %w", r.Epoch, r.Slot, ErrSpent)
	case len(tags) >= trust.MaxSpent:
		return fmt.Errorf("epoch %d has %d: %w", r.Epoch, len(tags), ErrFull)
	}
	return nil
}

// said is the digest of what a report says. The ring is not part of it: the same words over another are no second report.
func (r *Report) said(swarm trust.SwarmID) [64]byte {
	return hashParts(domainReport, swarm[:], slotBytes(r.Epoch, r.Slot), r.Tag[:], r.Body)
}
