package authority

import (
	"maps"

	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/root"
)

// frost says from which entry on what an author allows is void. It is immutable: a change makes another.
type frost struct {
	root    *root.State
	unknown map[identity.DID]uint64 // first critical entry of a kind this build does not know
	forks   map[ledger.Feed]uint64  // first number proved to be signed twice
}

func (f *frost) clone() *frost {
	next := &frost{root: f.root, unknown: maps.Clone(f.unknown), forks: maps.Clone(f.forks)}
	if next.unknown == nil {
		next.unknown = make(map[identity.DID]uint64)
	}
	if next.forks == nil {
		next.forks = make(map[ledger.Feed]uint64)
	}
	return next
}

// counts reports whether entry seq of author's authority chain is an operator's word.
func (f *frost) counts(author identity.DID, seq uint64) bool { return f.root.Counts(author, seq) }

// allows reports whether what an operator allowed there counts. What it forbids holds although it be frozen.
func (f *frost) allows(x fact) bool { return f.counts(x.by, x.seq) && !f.voids(x) }

// voids reports whether what author, member or operator, allows there is void: it signed what this build does not know,
// or signed twice, or the root is frozen.
func (f *frost) voids(x fact) bool { return f.holds(x.by, x.seq) || !f.root.Grants(x.time) }

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
