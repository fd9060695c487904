package witness

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/tlog"
)

// Errors of a Registry.
var (
	// ErrUnknown: a witness that certified no key, or not that one.
	ErrUnknown = errors.New("witness: no such key is certified")
	// ErrFewer: not enough of those that count cosigned.
	ErrFewer = errors.New("witness: too few cosignatures")
)

// maxKeys is the most keys of one witness: each rotation of its identity brings another, and the oldest goes. It is far
// more than a host rotates while anything it cosigned is kept, or an export would call that a fault.
const maxKeys = 32

// Registry knows the witnesses' keys and judges cosignatures. It is safe for concurrent use.
type Registry struct {
	swarm trust.SwarmID
	state func() *authority.State

	mu   sync.RWMutex
	keys map[identity.DID][]*tlog.VerifyKey
}

// NewRegistry makes an empty one. state gives the fold as it stands.
func NewRegistry(swarm trust.SwarmID, state func() *authority.State) *Registry {
	return &Registry{swarm: swarm, state: state, keys: make(map[identity.DID][]*tlog.VerifyKey)}
}

// Learn takes a verified KindWitness entry; others change nothing. Keys of strangers are kept for when they are members:
// the ledger lets in no entry of others.
func (r *Registry) Learn(e *ledger.Entry) error {
	if e.Kind != ledger.KindWitness {
		return nil
	}
	k, err := DecodeKey(e)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.keys[e.Author]
	r.keys[e.Author] = append(slices.Clone(have[max(0, len(have)+1-maxKeys):]), k) // readers go on with the old slice
	return nil
}

// Key is that of the witness by which s verifies over c: any it ever certified. That is for words whose author a member's
// own signature names, as in a KindCosign entry, and for what is read as history.
func (r *Registry) Key(c tlog.Checkpoint, s tlog.Cosignature) (*tlog.VerifyKey, error) {
	return verified(r.keysOf(identity.DID(s.Witness)), c, s)
}

// Newest says that s verifies by the newest key of its witness. A cosignature that travels by itself counts by that alone:
// whoever stole a key that was rotated since can sign what they like with it, and date it as they like.
func (r *Registry) Newest(c tlog.Checkpoint, s tlog.Cosignature) error {
	keys := r.keysOf(identity.DID(s.Witness))
	_, err := verified(keys[max(0, len(keys)-1):], c, s)
	return err
}

// keysOf are the keys of a witness, in the order in which it certified them.
func (r *Registry) keysOf(did identity.DID) []*tlog.VerifyKey {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[did]
}

func verified(keys []*tlog.VerifyKey, c tlog.Checkpoint, s tlog.Cosignature) (*tlog.VerifyKey, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("%.80q: %w", s.Witness, ErrUnknown)
	}
	for _, k := range slices.Backward(keys) {
		if k.Verify(c, s) == nil {
			return k, nil
		}
	}
	return nil, fmt.Errorf("witness: %.80q: %w", s.Witness, tlog.ErrCosignature)
}

// Backed says whether enough members that count cosigned a base, each with its newest key; ErrFewer where not.
func (r *Registry) Backed(b *ledger.Base) error { return r.backed(b, r.Newest) }

// WasBacked says so of a base that is history, as in an export: by any key that the witnesses ever certified, since a
// base may be older than a rotation.
func (r *Registry) WasBacked(b *ledger.Base) error {
	return r.backed(b, func(c tlog.Checkpoint, s tlog.Cosignature) error {
		_, err := r.Key(c, s)
		return err
	})
}

func (r *Registry) backed(b *ledger.Base, verify func(tlog.Checkpoint, tlog.Cosignature) error) error {
	count, need := accepted(r.state().Members(), b.Feed)
	signed := b.Signed()
	good := make(map[identity.DID]bool)
	for _, s := range b.Cosigned {
		did := identity.DID(s.Witness)
		if good[did] || !slices.Contains(count, did) {
			continue
		}
		if verify(signed, s) == nil {
			good[did] = true
		}
	}
	if len(good) < need || need == 0 {
		return fmt.Errorf("%s at %d: %d of %d: %w", signed.Origin, b.First, len(good), need, ErrFewer)
	}
	return nil
}
