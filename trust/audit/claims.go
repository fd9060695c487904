package audit

import (
	"fmt"

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

// maxClaims bounds what waits for the end of the file; an export has fewer than entries.
const maxClaims = 4 << 20

func (v *verifier) later(c claim) {
	if len(v.claims) < maxClaims {
		v.claims = append(v.claims, c)
	}
}

// heads compares the heads that e has seen with the feeds they are of, or leaves it for the end.
func (v *verifier) heads(e *ledger.Entry, at int64) {
	for _, s := range e.Seen {
		c := claim{point: point{ledger.Feed{Author: s.Author, Chain: s.Chain}, s.Seq}, id: [16]byte(s.Hash[:16]), by: e.Head(), at: at, cause: CauseSeen}
		if _, ok := v.past[c.feed].id(s.Seq); ok {
			v.compare(c)
		} else {
			v.later(c)
		}
	}
}

// compare holds a claim against the feed it is about. Where that part of the feed is not in the file it says nothing.
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
	if detail != "" {
		v.fault(Fault{Record: "entry", Feed: string(c.by.Author) + "/" + c.by.Chain.String(), Seq: c.by.Seq, Entry: fmt.Sprintf("%x", c.by.Hash[:16]), Offset: c.at, Cause: c.cause, Detail: detail})
	}
}
