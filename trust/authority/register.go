package authority

import (
	"cmp"
	"slices"

	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// word is one operator's grant (of a role, of an exemption) as it counts against revocations.
type word struct {
	fact
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
	granted map[identity.DID][]word   // by operator, newest first
	revoked map[identity.DID][]uint64 // by operator: numbers, as keep leaves them
}

func (r *register) grant(w word) {
	if r.granted == nil {
		r.granted = make(map[identity.DID][]word)
	}
	words := r.granted[w.by]
	i, found := slices.BinarySearchFunc(words, w.seq, func(x word, seq uint64) int { return cmp.Compare(seq, x.seq) })
	if found || i >= maxWords {
		return
	}
	words = slices.Insert(slices.Clone(words), i, w)
	r.granted[w.by] = words[:min(len(words), maxWords)]
}

func (r *register) revoke(op identity.DID, seq uint64) {
	if r.revoked == nil {
		r.revoked = make(map[identity.DID][]uint64)
	}
	r.revoked[op] = keep(r.revoked[op], seq, func(x uint64) uint64 { return x })
}

// keep inserts x into a list sorted by number, and of more than maxWords drops one from the middle: the first and the last
// half stay, whatever the order of arrival. So no later word can push an early one out.
func keep[T any](list []T, x T, number func(T) uint64) []T {
	i, found := slices.BinarySearchFunc(list, number(x), func(a T, n uint64) int { return cmp.Compare(number(a), n) })
	if found {
		return list
	}
	list = slices.Insert(slices.Clone(list), i, x)
	if len(list) > maxWords {
		list = slices.Delete(list, maxWords/2, maxWords/2+1)
	}
	return list
}

// latest is the last number in list, as keep leaves it, that counts. Where only dropped ones may, the highest that they
// could have is taken: a revocation may not be lost.
func latest(list []uint64, counts func(uint64) bool) (uint64, bool) {
	for i, n := range slices.Backward(list) {
		if counts(n) {
			if i == maxWords/2-1 && len(list) == maxWords {
				return list[i+1] - 1, true
			}
			return n, true
		}
	}
	return 0, false
}

// stands reports whether no revocation in r is unknown to w.
func (r *register) stands(w *word, f *frost) bool {
	for op, list := range r.revoked {
		seq, ok := latest(list, func(n uint64) bool { return f.counts(op, n) })
		if ok && !w.knows(op, seq) {
			return false
		}
	}
	return true
}

// best is the grant with the latest end of those that count; extra are grants from elsewhere (a member's invite). f says
// which do not.
func (r *register) best(f *frost, extra ...word) (word, bool) {
	var best word
	found := false
	consider := func(w word) {
		if !f.allows(w.fact) || !r.stands(&w, f) {
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
			if f.allows(w.fact) {
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
