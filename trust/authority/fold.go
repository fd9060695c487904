package authority

import (
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Fold turns authority entries into a State. It is safe for concurrent use.
type Fold struct{}

// NewFold begins with the genesis.
func NewFold(g *Genesis) *Fold { return &Fold{} }

// Apply takes an entry that the ledger has verified, in any order; one it has already, or of another chain, changes
// nothing. It keeps what depends on entries that have not come. An error says why an entry has no effect; the fold goes on.
func (f *Fold) Apply(e *ledger.Entry) error { return nil }

// ApplyProof takes a proof of equivocation, as the ledger found it or an evidence entry carried it.
func (f *Fold) ApplyProof(p *ledger.Proof) error { return nil }

// State is the snapshot after everything applied so far.
func (f *Fold) State() *State { return &State{} }

// Key is the composite key of an operator or member, revoked ones included (ledger.KeyResolver).
func (f *Fold) Key(did identity.DID) (*composite.PublicKey, bool) { return nil, false }

// Cut says how many entries of a revoked author's chain stand (ledger.Cutter).
func (f *Fold) Cut(author identity.DID, chain ledger.Chain) (entries uint64, revoked bool) {
	return 0, false
}
