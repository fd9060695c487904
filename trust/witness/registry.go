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

// maxKeys is the most keys of one witness: each rotation of its identity brings another.
const maxKeys = 8

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
	if len(r.keys[e.Author]) >= maxKeys {
		return fmt.Errorf("witness: %s: more than %d keys: %w", e.Author.Short(), maxKeys, ErrBody)
	}
	r.keys[e.Author] = append(r.keys[e.Author], k)
	return nil
}

// Key is that of the witness by which s verifies over c.
func (r *Registry) Key(c tlog.Checkpoint, s tlog.Cosignature) (*tlog.VerifyKey, error) {
	r.mu.RLock()
	keys := r.keys[identity.DID(s.Witness)]
	r.mu.RUnlock()
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

// Backed says whether enough members that count cosigned a base; ErrFewer where not.
func (r *Registry) Backed(b *ledger.Base) error {
	count, need := accepted(r.state().Members(), b.Feed)
	signed := b.Signed()
	good := make(map[identity.DID]bool)
	for _, s := range b.Cosigned {
		did := identity.DID(s.Witness)
		if good[did] || !slices.Contains(count, did) {
			continue
		}
		if _, err := r.Key(signed, s); err == nil {
			good[did] = true
		}
	}
	if len(good) < need || need == 0 {
		return fmt.Errorf("%s at %d: %d of %d: %w", signed.Origin, b.First, len(good), need, ErrFewer)
	}
	return nil
}
