package authority

import (
	"maps"

	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// frost says from which entry on what an author allows is void. It is immutable: a change makes another.
type frost struct {
	unknown map[identity.DID]uint64 // first critical entry of a kind this build does not know
	forks   map[ledger.Feed]uint64  // first number proved to be signed twice
}

func (f *frost) clone() *frost {
	next := &frost{unknown: maps.Clone(f.unknown), forks: maps.Clone(f.forks)}
	if next.unknown == nil {
		next.unknown = make(map[identity.DID]uint64)
	}
	if next.forks == nil {
		next.forks = make(map[ledger.Feed]uint64)
	}
	return next
}

// holds reports whether what author allows with entry seq of its authority chain is void. What it forbids holds all the
// same.
func (f *frost) holds(author identity.DID, seq uint64) bool {
	if n, ok := f.unknown[author]; ok && seq >= n {
		return true
	}
	n, ok := f.forks[ledger.Feed{Author: author, Chain: ledger.Authority}]
	return ok && seq >= n
}

// forked reports whether author is proved to have equivocated on either chain.
func (f *frost) forked(author identity.DID) bool {
	for _, c := range []ledger.Chain{ledger.Authority, ledger.Activity} {
		if _, ok := f.forks[ledger.Feed{Author: author, Chain: c}]; ok {
			return true
		}
	}
	return false
}
