package anonymous

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
)

// Errors of a Desk.
var (
	// ErrUnplaced: a ring has keys that have not come; ask again when the authority chains have moved.
	ErrUnplaced = errors.New("anonymous: a key of the ring is not known")
	// ErrBarred: this member handed on what nobody had signed, and is not listened to for the rest of the hour.
	ErrBarred = errors.New("anonymous: its carrier passes on what does not verify")
	// ErrExhausted: the slots of this hour are used up.
	ErrExhausted = errors.New("anonymous: no report left this hour")
)

// Desk is where reports are written and judged by what this peer knows of the swarm. It is safe for concurrent use.
type Desk struct {
	Keys *Registry

	swarm trust.SwarmID
	self  identity.DID
	state func() *authority.State
	spent *Spent // by everybody
	mine  *Spent // by this member, taken or still under way

	mu     sync.Mutex
	key    *Key
	barred map[identity.DID]Epoch
}

// NewDesk makes the desk of a member: state is the fold's.
func NewDesk(swarm trust.SwarmID, self identity.DID, key *Key, state func() *authority.State) *Desk {
	return &Desk{Keys: NewRegistry(), swarm: swarm, self: self, key: key, state: state, spent: NewSpent(), mine: NewSpent(), barred: make(map[identity.DID]Epoch)}
}

// Rekey goes on with another key of this member's: who knows the old one finds the author of what is signed with it. What
// is on its way with the old key stays good until the new one is given out.
func (d *Desk) Rekey(k *Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.key = k
}

func (d *Desk) own() *Key {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.key
}

// Given reports whether this member's own key is known to its own fold, and so to all in sync.
func (d *Desk) Given() bool {
	k, ok := d.Keys.Of(d.self)
	return ok && k == d.own().Public()
}

// KeyBody is the body of the KindAnonymousKey entry that gives the key out.
func (d *Desk) KeyBody() ([]byte, error) { return EncodeKey(d.swarm, d.self, d.own()) }

// Write signs a finding as one of those who meet the threshold, in the first slot of this hour that is free. Errors:
// ErrTelling, ErrRing where fewer than trust.MinRing meet it or this member does not, ErrExhausted.
func (d *Desk) Write(t Threshold, f event.Finding, now time.Time) (*Report, error) {
	f.Time -= f.Time % int64(trust.AnonymousGrain)
	body, err := EncodeClaim(t, &f)
	if err != nil {
		return nil, err
	}
	key, epoch, s := d.own(), EpochOf(now), d.state()
	keys := d.Keys.Keys(func(did identity.DID) bool { return t.Meets(s, did, epoch, now) })
	ring, err := PickRing(d.swarm, epoch, keys, key.Public())
	if err != nil {
		return nil, err
	}
	for slot := range uint8(trust.AnonymousSlots) {
		r, err := key.Sign(d.swarm, epoch, slot, ring, body)
		if err != nil {
			return nil, err
		}
		if err := d.spent.Look(d.swarm, r, now); errors.Is(err, ErrSpent) {
			continue
		} else if err != nil && !errors.Is(err, ErrKnown) {
			return nil, err
		}
		if err := d.mine.Take(d.swarm, r, now); errors.Is(err, ErrSpent) {
			continue
		} else if err != nil && !errors.Is(err, ErrKnown) {
			return nil, err
		}
		return r, nil // the very same words again are still one report
	}
	return nil, fmt.Errorf("%d: %w", trust.AnonymousSlots, ErrExhausted)
}

// Judge verifies a report that a member brought or carries, and gives the finding; the cheap questions come first. It
// does not use the slot up: see Take. Errors: ErrEpoch, ErrKnown, ErrSpent, ErrFull, ErrBody, ErrTelling, ErrUnplaced,
// ErrRing, ErrBarred, ErrSignature and those of encodings. What the carrier could have seen bars it for the hour.
func (d *Desk) Judge(r *Report, carrier identity.DID, now time.Time) (event.Finding, error) {
	if err := d.spent.Look(d.swarm, r, now); err != nil {
		return event.Finding{}, err
	}
	t, f, err := DecodeClaim(d.swarm, r)
	if err != nil {
		return event.Finding{}, err
	}
	for _, k := range r.Ring {
		if _, ok := d.Keys.Owner(k); !ok {
			return event.Finding{}, ErrUnplaced
		}
	}
	present := EpochOf(now)
	d.mu.Lock()
	until, out := d.barred[carrier]
	d.mu.Unlock()
	if out && present <= until {
		return event.Finding{}, fmt.Errorf("%s: %w", carrier.Short(), ErrBarred)
	}
	s := d.state()
	err = r.Verify(d.swarm, func(k PublicKey) bool {
		did, ok := d.Keys.Owner(k)
		return ok && t.Meets(s, did, r.Epoch, now)
	})
	if err != nil && !errors.Is(err, ErrRing) { // whether a key counts, two peers may see differently for a moment
		d.mu.Lock()
		for did, epoch := range d.barred {
			if epoch < present {
				delete(d.barred, did)
			}
		}
		d.barred[carrier] = present
		d.mu.Unlock()
	}
	if err != nil {
		return event.Finding{}, err
	}
	f.Anonymous.Carrier = string(carrier)
	return f, nil
}

// Known reports whether the very same was taken before.
func (d *Desk) Known(r *Report, now time.Time) bool {
	return errors.Is(d.spent.Look(d.swarm, r, now), ErrKnown)
}

// Take is Judge, and uses the slot up: of several reports in one slot the first that is taken counts.
func (d *Desk) Take(r *Report, carrier identity.DID, now time.Time) (event.Finding, error) {
	f, err := d.Judge(r, carrier, now)
	if err != nil {
		return f, err
	}
	if err := d.spent.Take(d.swarm, r, now); err != nil {
		return event.Finding{}, err
	}
	return f, nil
}
