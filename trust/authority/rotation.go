package authority

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Which keys a member has had follows from its inception and the rotations heard: of each number the one that shows the
// key committed to. Two such of one number, which only somebody with the stolen next key can bring about, end the chain
// before them, and their author waits for an operator. An entry counts if the key that signed it is the one of its place.

// keyring is what is known of one member's keys beyond its inception.
type keyring struct {
	heard     map[revealed][]*identity.Rotation // at most two of different content each
	keys      identity.Keys                     // derived, where the inception is known
	contested []*identity.Rotation              // the two that ended it
}

// revealed is a place in a chain of keys: rotations that show another key than was committed to are never in the way.
type revealed struct {
	number uint32
	key    [32]byte // identity.NextHash of it
}

// hear keeps r; false where it changes nothing.
func (k *keyring) hear(r *identity.Rotation) bool {
	at := revealed{r.Number, identity.NextHash(r.PublicKey())}
	same := k.heard[at]
	if len(same) >= 2 || slices.ContainsFunc(same, func(x *identity.Rotation) bool { return x.Hash() == r.Hash() }) {
		return false
	}
	k.heard[at] = append(same, r)
	return true
}

// derive follows the chain from the inception.
func (k *keyring) derive(inception *identity.Inception, swarm trust.SwarmID) {
	k.keys, k.contested = identity.Keys{Inception: inception}, nil
	for {
		var next []*identity.Rotation
		for _, r := range k.heard[revealed{k.keys.Number() + 1, k.keys.Next()}] {
			if r.Swarm == swarm && k.keys.Follows(r) == nil {
				next = append(next, r)
			}
		}
		switch len(next) {
		case 0:
			return
		case 1:
			k.keys = k.keys.Rotated(next[0])
		default:
			slices.SortFunc(next, func(a, b *identity.Rotation) int { x, y := a.Hash(), b.Hash(); return bytes.Compare(x[:], y[:]) })
			k.contested = next
			return
		}
	}
}

// keysOf is the history of did's key; ok is false where did is neither operator nor member.
func (f *Fold) keysOf(did identity.DID) (identity.Keys, []*identity.Rotation, bool) {
	if op, ok := f.frost.root.Inception(did); ok { // the root rotates operators
		return identity.Keys{Inception: op}, nil, true
	}
	m := f.members[did]
	if m == nil {
		return identity.Keys{}, nil, false
	}
	k := f.rings[did]
	if k == nil {
		return identity.Keys{Inception: m.inception}, nil, true
	}
	if k.keys.Inception == nil {
		k.derive(m.inception, f.genesis.SwarmID())
	}
	return k.keys, k.contested, true
}

// misplaced reports whether x was signed by another key than the one of its place: it was set aside by a rotation, or the
// rotation to its key has not come.
func (f *Fold) misplaced(x fact) bool {
	keys, _, ok := f.keysOf(x.by)
	return ok && keys.NumberAt(true, x.seq) != x.key
}

// applyRotate takes an author's word on its own key.
func (f *Fold) applyRotate(e *ledger.Entry, b *RotateBody) error {
	r := b.Rotation
	if r.DID != e.Author || r.Authority != e.Seq || r.AuthorityHead != [32]byte(e.Prev) {
		return f.void(e, "the rotation is for another place")
	}
	return f.applyRotation(r)
}

// ApplyRotation takes a rotation that the ledger could not store because another of its number stands.
func (f *Fold) ApplyRotation(r *identity.Rotation) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applyRotation(r)
}

func (f *Fold) applyRotation(r *identity.Rotation) error {
	if _, op := f.frost.root.Inception(r.DID); op {
		return fmt.Errorf("authority: an operator's key is changed by the root: %w", ErrVoid)
	}
	if r.Swarm != f.genesis.SwarmID() {
		return fmt.Errorf("authority: rotation in swarm %s: %w", r.Swarm.Short(), ErrVoid)
	}
	k := f.rings[r.DID]
	if k == nil {
		if len(f.rings) >= trust.MaxMembers {
			return fmt.Errorf("authority: rotations: %w", ErrFull)
		}
		k = &keyring{heard: make(map[revealed][]*identity.Rotation)}
	}
	// What follows the chain as it is known, or contests it, is always taken; what may follow later is bounded.
	if known, _, ok := f.keysOf(r.DID); ok && r.Number <= known.Number()+1 {
		before := identity.Keys{Inception: known.Inception, Rotations: known.Rotations[:r.Number-1]}
		if err := before.Follows(r); err != nil {
			return fmt.Errorf("authority: %w: %w", err, ErrVoid)
		}
	} else if f.strays >= trust.MaxHeld {
		return fmt.Errorf("authority: rotations that follow none: %w", ErrFull)
	} else {
		f.strays++
	}
	if !k.hear(r) {
		return nil
	}
	f.rings[r.DID] = k
	if m := f.members[r.DID]; m != nil {
		k.derive(m.inception, f.genesis.SwarmID())
	}
	f.refrost()
	if len(f.admits[r.DID]) > 0 {
		f.rebuild() // what it admitted may no longer count, or count again
	} else {
		f.publishMember(r.DID)
		f.publishOrders()
	}
	f.publishProblems() // of forks that were answered
	waiting := f.unmatched[r.DID]
	delete(f.unmatched, r.DID)
	for _, p := range waiting {
		_ = f.applyProof(p) // one that no key of its author signed waits on
	}
	return nil
}

// applyContest takes two rotations of one number, by anyone.
func (f *Fold) applyContest(b *ContestBody) error {
	return errors.Join(f.applyRotation(b.rotations[0]), f.applyRotation(b.rotations[1]))
}

// refrost derives from the proofs which forks count: those of the key that their author has now. A rotation answers what
// older keys signed twice.
func (f *Fold) refrost() {
	next := f.frost.clone()
	clear(next.forks)
	for feed, byKey := range f.forks {
		number := uint32(0)
		if keys, _, ok := f.keysOf(feed.Author); ok {
			number = keys.Number()
		}
		if seq, ok := byKey[number]; ok {
			next.forks[feed] = seq
		}
	}
	f.frost = next
}

// KeyAt is the key that signs entry seq of a feed (ledger.Rotator).
func (f *Fold) KeyAt(feed ledger.Feed, seq uint64) (*composite.PublicKey, uint32, bool) {
	keys, ok := f.publicKeys(feed.Author)
	if !ok {
		return nil, 0, false
	}
	n := keys.NumberAt(feed.Chain == ledger.Authority, seq)
	return f.open.use(keys.Of(n)), n, true
}

// publicKeys is keysOf as the last snapshot has it.
func (f *Fold) publicKeys(did identity.DID) (identity.Keys, bool) {
	s := f.State()
	if op, ok := s.root.Inception(did); ok {
		return identity.Keys{Inception: op}, true
	}
	m, ok := s.Member(did)
	if !ok {
		return identity.Keys{}, false
	}
	return m.Keys, true
}

// Rotates reports whether r is the next rotation of its author, or one it has made (ledger.Rotator).
func (f *Fold) Rotates(r *identity.Rotation) error {
	m, ok := f.State().Member(r.DID)
	if !ok || r.Swarm != f.genesis.SwarmID() {
		return fmt.Errorf("authority: of %s: %w", r.DID.Short(), identity.ErrRotation)
	}
	n := int(r.Number)
	if n > len(m.Keys.Rotations)+1 {
		return fmt.Errorf("authority: rotation %d after %d: %w", n, len(m.Keys.Rotations), identity.ErrRotation)
	}
	before := identity.Keys{Inception: m.Keys.Inception, Rotations: m.Keys.Rotations[:n-1]}
	switch err := before.Follows(r); {
	case err != nil:
		return err
	case n <= len(m.Keys.Rotations) && m.Keys.Rotations[n-1].Hash() != r.Hash(), n > len(m.Keys.Rotations) && m.Contest != nil:
		return fmt.Errorf("authority: %s, number %d: %w", m.Name, n, identity.ErrContested)
	}
	return nil
}

// Stands is how much of a feed its author's last rotation lets stand (ledger.Rotator).
func (f *Fold) Stands(feed ledger.Feed) (uint64, ledger.Hash, bool) {
	keys, ok := f.publicKeys(feed.Author)
	if !ok || keys.Number() == 0 {
		return 0, ledger.Hash{}, false
	}
	r := keys.Rotations[keys.Number()-1]
	if feed.Chain == ledger.Authority {
		return r.Authority, r.AuthorityHead, true
	}
	return r.Activity, r.ActivityHead, true
}

// RotateBody: a member goes on with the key it committed to. It proves itself.
type RotateBody struct {
	Rotation *identity.Rotation
}

// ContestBody: two rotations of one member and number, which prove that its next key was stolen. Anyone may post it.
type ContestBody struct {
	A, B []byte // records, the one with the smaller hash first

	rotations [2]*identity.Rotation
}

type contestWire struct {
	A []byte `cbor:"1,keyasint"`
	B []byte `cbor:"2,keyasint"`
}

// NewContest makes the body of two rotations of one number.
func NewContest(a, b *identity.Rotation) *ContestBody {
	if x, y := a.Hash(), b.Hash(); bytes.Compare(x[:], y[:]) > 0 {
		a, b = b, a
	}
	return &ContestBody{A: a.Encode(), B: b.Encode(), rotations: [2]*identity.Rotation{a, b}}
}

// Kind of each.
func (*RotateBody) Kind() ledger.Kind  { return ledger.KindRotate }
func (*ContestBody) Kind() ledger.Kind { return ledger.KindContest }

// Encode gives the canonical bytes.
func (b *RotateBody) Encode() ([]byte, error) { return b.Rotation.Encode(), nil }

// Encode gives the canonical bytes, or says which bound is broken.
func (b *ContestBody) Encode() ([]byte, error) {
	raw, err := canonical.Marshal(contestWire{A: b.A, B: b.B})
	if err == nil && len(raw) > trust.MaxAuthorityBody {
		err = fmt.Errorf("authority: contest of %d bytes: %w", len(raw), ErrBody)
	}
	return raw, err
}

func decodeRotate(raw []byte) (*RotateBody, error) {
	r, err := identity.DecodeRotation(raw)
	if err != nil {
		return nil, fmt.Errorf("authority: rotate: %w: %w", ErrBody, err)
	}
	return &RotateBody{Rotation: r}, nil
}

func decodeContest(raw []byte) (*ContestBody, error) {
	var w contestWire
	if err := canonical.Unmarshal(raw, &w, trust.MaxAuthorityBody); err != nil {
		return nil, fmt.Errorf("authority: contest: %w: %w", ErrBody, err)
	}
	a, err := identity.DecodeRotation(w.A)
	if err != nil {
		return nil, fmt.Errorf("authority: contest: %w: %w", ErrBody, err)
	}
	b, err := identity.DecodeRotation(w.B)
	if err != nil {
		return nil, fmt.Errorf("authority: contest: %w: %w", ErrBody, err)
	}
	if x, y := a.Hash(), b.Hash(); a.DID != b.DID || a.Number != b.Number || bytes.Compare(x[:], y[:]) >= 0 {
		return nil, fmt.Errorf("authority: contest: two rotations of one number, in the order of their hashes: %w", ErrBody)
	}
	return &ContestBody{A: w.A, B: w.B, rotations: [2]*identity.Rotation{a, b}}, nil
}
