package authority

import (
	"slices"

	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// word is one operator's grant (of a role, of an exemption) as it counts against revocations.
type word struct {
	by       identity.DID
	seq      uint64
	id       string
	notAfter int64 // Unix seconds; 0 for no end
	seen     []ledger.Head
}

// knows reports whether w was said with entry seq of op's authority chain in view: it is the same chain, later, or names
// a head that includes it.
func (w *word) knows(op identity.DID, seq uint64) bool {
	if w.by == op {
		return w.seq > seq
	}
	return slices.ContainsFunc(w.seen, func(h ledger.Head) bool {
		return h.Author == op && h.Chain == ledger.Authority && h.Seq >= seq
	})
}

// maxWords is how many grants of one thing by one operator are kept, newest numbers first. More than one matters only
// where the operator is found to be frozen at a number between them.
const maxWords = 32

// register is one thing that operators grant and revoke: a role of a member, a line of the allow list. Each grant counts
// unless a revocation exists that it does not know of, so concurrent ones end revoked, in any order of arrival.
type register struct {
	granted map[identity.DID][]word // by operator, newest first
	revoked map[identity.DID]uint64 // by operator: its latest revocation
}

func (r *register) grant(w word) {
	if r.granted == nil {
		r.granted = make(map[identity.DID][]word)
	}
	words := r.granted[w.by]
	i, found := slices.BinarySearchFunc(words, w.seq, func(x word, seq uint64) int {
		switch {
		case x.seq > seq:
			return -1
		case x.seq < seq:
			return 1
		}
		return 0
	})
	if found || i >= maxWords {
		return
	}
	words = slices.Insert(slices.Clone(words), i, w)
	r.granted[w.by] = words[:min(len(words), maxWords)]
}

func (r *register) revoke(op identity.DID, seq uint64) {
	if r.revoked == nil {
		r.revoked = make(map[identity.DID]uint64)
	}
	if old, ok := r.revoked[op]; !ok || seq > old {
		r.revoked[op] = seq
	}
}

// stands reports whether no revocation in r is unknown to w.
func (r *register) stands(w *word) bool {
	for op, seq := range r.revoked {
		if !w.knows(op, seq) {
			return false
		}
	}
	return true
}

// best is the grant with the latest end of those that count; extra are grants from elsewhere (a member's invite). frozen
// says from which number on an operator's grants are void.
func (r *register) best(frozen func(op identity.DID, seq uint64) bool, extra ...word) (word, bool) {
	var best word
	found := false
	consider := func(w word) {
		if frozen(w.by, w.seq) || !r.stands(&w) {
			return
		}
		switch {
		case !found:
		case best.notAfter == w.notAfter:
			if best.id <= w.id {
				return
			}
		case best.notAfter == 0 || w.notAfter != 0 && w.notAfter < best.notAfter:
			return
		}
		best, found = w, true
	}
	for _, words := range r.granted {
		// An operator's latest word that is not void is its word: a shorter renewal replaces a longer grant.
		for _, w := range words {
			if !frozen(w.by, w.seq) {
				consider(w)
				break
			}
		}
	}
	for _, w := range extra {
		consider(w)
	}
	return best, found
}
