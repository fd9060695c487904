package audit

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/tlog"
)

// What an entry says of another feed may come before that feed does: such claims are kept, and compared at the end.

// point is a size of a feed.
type point struct {
	feed ledger.Feed
	size uint64
}

// history is what later entries of other feeds may be compared with.
type history struct {
	first uint64
	ids   [][16]byte  // zero where the entry is not known
	trees []tlog.Tree // authority chains: before each entry, and at the end; nil where one is missing
}

func (h *history) id(seq uint64) (id [16]byte, ok bool) {
	if h == nil || seq < h.first || seq-h.first >= uint64(len(h.ids)) {
		return id, false
	}
	id = h.ids[seq-h.first]
	return id, id != [16]byte{}
}

// claim is what an entry says of another feed, compared once all have been read.
type claim struct {
	point
	root  tlog.Hash // of checkpoints and cosignatures
	id    [16]byte  // of seen heads
	knew  tip       // as of a mention
	by    ledger.Head
	at    int64
	cause string
}

// remember keeps what the entry of that number is.
func (v *verifier) remember(seq uint64, id [16]byte) {
	h := v.hist
	for h.first+uint64(len(h.ids)) < seq && uint64(len(h.ids)) < seq-h.first && seq-h.first < 1<<32 && len(h.ids) < int(v.res.Entries)+MaxFaults {
		h.ids = append(h.ids, [16]byte{})
	}
	if h.first+uint64(len(h.ids)) == seq {
		h.ids = append(h.ids, id)
	}
	if h.trees != nil {
		tree, ok := v.audit.Tree()
		if h.trees = append(h.trees, tree); !ok {
			h.trees = nil
		}
	}
}

// mention is the most of a feed that one chain says there is.
type mention struct {
	size  uint64 // entries
	knew  tip
	by    ledger.Head
	at    int64
	cause string
}

// tip is the head of an authority chain that another chain named last. Its number alone does not say on which side of a
// rotation it is: the branch that was superseded had entries of the same numbers.
type tip struct {
	seq uint64
	id  [16]byte
}

// maxMentions is how many chains are remembered for what they say of one feed. More than that many would have to lie alike
// about it to hide what honest ones say.
const maxMentions = 16

// mentioned remembers what a verified entry says there is of another feed: of each chain the most, and of seen heads the
// last, since what it has seen only grows, except by a rotation.
func (v *verifier) mentioned(f ledger.Feed, size uint64, e *ledger.Entry, at int64, cause string) {
	m := mention{size: size, knew: v.knew[f.Author], by: e.Head(), at: at, cause: cause}
	list := v.named[f]
	least := 0
	for i, x := range list {
		if x.by.Author == m.by.Author && x.by.Chain == m.by.Chain {
			if m.size > x.size || m.cause == CauseSeen && x.cause == CauseSeen {
				list[i] = m
			}
			return
		}
		if x.size < list[least].size {
			least = i
		}
	}
	switch {
	case len(list) < maxMentions:
		v.named[f] = append(list, m)
	case list[least].size < m.size:
		list[least] = m
	}
}

// whole looks for what others say there is and the file has not: a feed that was left out, or whose end was.
func (v *verifier) whole(at int64) {
	feeds := make([]ledger.Feed, 0, len(v.named))
	for f := range v.named {
		feeds = append(feeds, f)
	}
	slices.SortFunc(feeds, func(a, b ledger.Feed) int {
		return cmp.Or(cmp.Compare(a.Chain, b.Chain), cmp.Compare(a.Author, b.Author))
	})
	for _, f := range feeds {
		var most mention
		doubt := ""
		held := v.held(f)
		for _, m := range v.named[f] {
			size, why := v.counts(f, m)
			if why != "" && m.size > held {
				doubt = why
			}
			if size > most.size {
				most = m
				most.size = size
			}
		}
		what := "what it says"
		switch most.cause {
		case CauseSeen:
			what = "has seen"
		case CauseCheckpoint:
			what = "has a checkpoint of"
		case CauseCosign:
			what = "cosigned"
		}
		switch {
		case most.size > held:
			v.fault(Fault{Record: recordFeed.String(), Feed: name(f), Seq: held, Entry: fmt.Sprintf("%x", most.by.Hash[:16]), Offset: at, Cause: CauseMissing,
				Detail: fmt.Sprintf("entries %d to %d are not in the file, and entry %d of %s %s the first %d: the file was cut, or made before all had arrived, or that entry lies",
					held, most.size-1, most.by.Seq, name(ledger.Feed{Author: most.by.Author, Chain: most.by.Chain}), what, most.size)})
		case doubt != "":
			v.note(f, fmt.Sprintf("%s names entries behind the %d in the file: that proves nothing", doubt, held))
		}
	}
	for _, m := range v.fold.State().Members() {
		for _, chain := range []ledger.Chain{ledger.Authority, ledger.Activity} {
			if f := (ledger.Feed{Author: m.DID, Chain: chain}); v.past[f] == nil && v.named[f] == nil {
				v.note(f, "not in the file, and nothing in the file says that there is one")
			}
		}
	}
}

// held is how much of a feed the file has or stands for.
func (v *verifier) held(f ledger.Feed) uint64 {
	if h := v.past[f]; h != nil {
		return h.first + uint64(len(h.ids))
	}
	return 0
}

// counts is how much of a feed a mention proves; why says whose word it is where it proves less than it says. What operators
// or the author itself took back need not be there, and whoever is out is not believed about others.
func (v *verifier) counts(f ledger.Feed, m mention) (size uint64, why string) {
	s := v.fold.State()
	size = m.size
	if n, cut := v.fold.Cut(f.Author, f.Chain); cut {
		size = min(size, n)
	}
	if m.by.Author == f.Author {
		return size, ""
	}
	if author, ok := s.Member(f.Author); ok {
		if author.Forked || author.Contest != nil {
			return 0, "who saw another branch of a feed that its author forked"
		}
		if v.unaware(f.Author, m.knew) {
			if stands, _, _ := v.fold.Stands(f); stands < size {
				size, why = stands, "who did not know of its author's last rotation"
			}
		}
	}
	if by, ok := s.Member(m.by.Author); ok && (by.Revoked || by.Forked || by.Contest != nil) {
		return 0, fmt.Sprintf("%s, who is revoked or convicted,", m.by.Author)
	}
	return size, why
}

// unaware says that did has rotated its key, and that whoever knew t of its authority chain did not know that.
func (v *verifier) unaware(did identity.DID, t tip) bool {
	m, ok := v.fold.State().Member(did)
	if !ok || m.Keys.Number() == 0 {
		return false
	}
	return !v.standing(did, t, m.Keys.Rotations[m.Keys.Number()-1].Authority)
}

// standing reports whether t is, in the authority chain of did as it stands, the entry of number from or a later one.
func (v *verifier) standing(did identity.DID, t tip, from uint64) bool {
	id, ok := v.past[ledger.Feed{Author: did, Chain: ledger.Authority}].id(t.seq)
	return ok && t.seq >= from && id == t.id
}

// note keeps what is no fault and proves nothing either.
func (v *verifier) note(f ledger.Feed, detail string) {
	if len(v.res.Notes) < MaxFaults {
		v.res.Notes = append(v.res.Notes, Note{Feed: name(f), Detail: detail})
	}
}

// knows takes over which heads of others' authority chains e's chain has seen.
func (v *verifier) knows(e *ledger.Entry) {
	for _, s := range e.Seen {
		if s.Chain == ledger.Authority {
			v.knew[s.Author] = tip{s.Seq, [16]byte(s.Hash[:16])}
		}
	}
}

// maxClaims bounds what waits for the end of the file; an export has fewer than entries.
const maxClaims = 4 << 20

func (v *verifier) later(c claim) {
	if len(v.claims) < maxClaims {
		v.claims = append(v.claims, c)
	}
}

// heads compares the heads that e has seen with the feeds they are of, or leaves it for the end.
func (v *verifier) heads(e *ledger.Entry, at int64) {
	v.knows(e)
	for _, s := range e.Seen {
		f := ledger.Feed{Author: s.Author, Chain: s.Chain}
		v.mentioned(f, s.Seq+1, e, at, CauseSeen)
		id := [16]byte(s.Hash[:16])
		if stands, ok := v.past[f].id(s.Seq); ok && stands == id {
			continue
		}
		v.later(claim{point: point{f, s.Seq}, id: id, knew: v.knew[s.Author], by: e.Head(), at: at, cause: CauseSeen})
	}
}

// compare holds a claim against the feed it is about. Where that part of the feed is not in the file it says nothing,
// and neither does it of a branch that its author has rotated or was convicted away from.
func (v *verifier) compare(c claim) {
	var detail string
	switch h := v.past[c.feed]; {
	case h == nil:
		return
	case c.cause == CauseSeen:
		if id, ok := h.id(c.size); ok && id != c.id {
			detail = fmt.Sprintf("has seen entry %x as number %d of %s, where %x stands", c.id, c.size, name(c.feed), id)
		}
	default:
		root, ok := v.roots[c.point]
		if c.feed.Chain == ledger.Authority {
			if ok = c.size < uint64(len(h.trees)); ok {
				root = h.trees[c.size].Root()
			}
		}
		if ok && root != c.root {
			detail = fmt.Sprintf("names a root of the first %d entries of %s that is not theirs", c.size, name(c.feed))
		}
	}
	if detail == "" || c.by.Author != c.feed.Author && v.unaware(c.feed.Author, c.knew) {
		return // the branch that it saw may be the one that a rotation superseded, which left the other at a number before this
	}
	size := c.size
	if c.cause == CauseSeen {
		size++
	}
	if proven, _ := v.counts(c.feed, mention{size: size, knew: c.knew, by: c.by}); proven == size {
		v.fault(Fault{Record: "entry", Feed: string(c.by.Author) + "/" + c.by.Chain.String(), Seq: c.by.Seq, Entry: fmt.Sprintf("%x", c.by.Hash[:16]), Offset: c.at, Cause: c.cause, Detail: detail})
	}
}
