package anonymous

import (
	"errors"
	"fmt"
	"sync"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// ErrBody is wrapped where the body of an entry is not what its kind wants.
var ErrBody = errors.New("anonymous: not a valid body")

// KeyLabel is what a member's secret is derived from its identity under (identity.Identity.Derive).
const KeyLabel = "omega/anonymous/1"

// keyBody is the body of a KindAnonymousKey entry: the composite signature of the entry certifies the key, the proof keeps
// a member from giving out another's.
type keyBody struct {
	Key        []byte `cbor:"1,keyasint"` // 32 bytes
	Possession []byte `cbor:"2,keyasint"` // PossessionSize bytes
}

// maxKeyBody bounds one before it is parsed.
const maxKeyBody = 256

// EncodeKey is the body of the entry by which member gives out k.
func EncodeKey(swarm trust.SwarmID, member identity.DID, k *Key) ([]byte, error) {
	proof, err := k.Possess(swarm, member)
	if err != nil {
		return nil, err
	}
	return canonical.Marshal(keyBody{Key: k.public[:], Possession: proof})
}

// DecodeKey reads the key that an entry gives out, and verifies that its author holds it.
func DecodeKey(e *ledger.Entry) (PublicKey, error) {
	var b keyBody
	if e.Kind != ledger.KindAnonymousKey {
		return PublicKey{}, fmt.Errorf("%s: %w", e.Kind, ErrBody)
	}
	if err := canonical.Unmarshal(e.Body, &b, maxKeyBody); err != nil {
		return PublicKey{}, fmt.Errorf("%w: %w", ErrBody, err)
	}
	if len(b.Key) != pointSize {
		return PublicKey{}, fmt.Errorf("a key of %d bytes: %w", len(b.Key), ErrBody)
	}
	if err := VerifyPossession(e.Swarm, e.Author, PublicKey(b.Key), b.Possession); err != nil {
		return PublicKey{}, err
	}
	return PublicKey(b.Key), nil
}

// Registry holds the key of each member, as its authority chain gives it out: one for each key the member has had, and of
// several the first, so that nobody makes itself more slots by more keys. It is safe for concurrent use.
type Registry struct {
	mu     sync.RWMutex
	given  map[identity.DID]given
	owners map[PublicKey]identity.DID
}

type given struct {
	key      PublicKey
	rotation uint32 // number of the identity's key that certified it
	seq      uint64
}

// NewRegistry makes one that knows nobody.
func NewRegistry() *Registry {
	return &Registry{given: make(map[identity.DID]given), owners: make(map[PublicKey]identity.DID)}
}

// Learn takes a verified entry of any author, in any order; whether that is a member is asked when its key is used.
func (r *Registry) Learn(e *ledger.Entry) error {
	r.mu.RLock()
	old, known := r.given[e.Author]
	full := !known && len(r.given) >= trust.MaxMembers
	r.mu.RUnlock()
	switch {
	case full:
		return fmt.Errorf("anonymous: keys of %d members: %w", trust.MaxMembers, ErrFull)
	case known && (e.Rotation < old.rotation || e.Rotation == old.rotation && e.Seq >= old.seq):
		return nil
	}
	key, err := DecodeKey(e)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// Not two members have one key: each proved to hold it, so they are one who told the other, and one key has one vote.
	if owner, taken := r.owners[key]; taken && owner <= e.Author {
		return nil
	}
	if known {
		delete(r.owners, old.key)
	}
	r.given[e.Author] = given{key, e.Rotation, e.Seq}
	r.owners[key] = e.Author
	return nil
}

// Owner is the member that gave out key.
func (r *Registry) Owner(key PublicKey) (identity.DID, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	did, ok := r.owners[key]
	return did, ok
}

// Of is the key of a member.
func (r *Registry) Of(member identity.DID) (PublicKey, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	g, ok := r.given[member]
	return g.key, ok && r.owners[g.key] == member
}

// Keys are the keys of those members for whom counts holds, in no order.
func (r *Registry) Keys(counts func(identity.DID) bool) []PublicKey {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var keys []PublicKey
	for key, did := range r.owners {
		if counts(did) {
			keys = append(keys, key)
		}
	}
	return keys
}
