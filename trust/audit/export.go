package audit

import (
	"context"
	"fmt"
	"io"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Source is what Export reads: a ledger.
type Source interface {
	Heads() []ledger.Head
	Range(author identity.DID, chain ledger.Chain, from uint64, maxEntries, maxBytes int) ([][]byte, error)
	Evidence() []*ledger.Proof
	// Base is where a feed begins that does not begin at its first entry; nil for the others.
	Base(ledger.Feed) *ledger.Base
}

// Written is what an export holds.
type Written struct {
	Feeds, Entries, Evidence uint64
}

// rangeBytes is how much of a feed is held at once.
const rangeBytes = 1 << 20

// Export writes everything src holds now to w. progress, where not nil, is told the entries so far now and then.
func Export(ctx context.Context, w io.Writer, g *authority.Genesis, src Source, progress func(entries uint64)) (Written, error) {
	out, err := newWriter(w)
	if err != nil {
		return Written{}, fmt.Errorf("audit: export: %w", err)
	}
	x := exporter{ctx: ctx, out: out, src: src, fold: authority.NewFold(g), progress: progress}
	if err := x.run(g); err != nil {
		return x.written, fmt.Errorf("audit: export: %w", err)
	}
	return x.written, nil
}

type exporter struct {
	ctx      context.Context
	out      *writer
	src      Source
	fold     *authority.Fold // says whose feeds may come next
	progress func(uint64)
	written  Written
}

func (x *exporter) run(g *authority.Genesis) error {
	if err := x.out.record(recordGenesis, g.Encode()); err != nil {
		return err
	}
	var waiting, activity []ledger.Head
	for _, h := range x.src.Heads() {
		if h.Chain == ledger.Authority {
			waiting = append(waiting, h)
		} else {
			activity = append(activity, h)
		}
	}
	// Each pass writes the chains whose authors are known by now, and learns of others.
	for progress := true; progress; {
		progress = false
		var later []ledger.Head
		for _, h := range waiting {
			if _, ok := x.fold.Key(h.Author); !ok {
				later = append(later, h)
				continue
			}
			progress = true
			if err := x.feed(h); err != nil {
				return err
			}
		}
		waiting = later
	}
	for _, h := range append(waiting, activity...) {
		if err := x.feed(h); err != nil {
			return err
		}
	}
	for _, p := range x.src.Evidence() {
		raw, err := p.Encode()
		if err != nil {
			return err
		}
		if err := x.out.record(recordEvidence, raw); err != nil {
			return err
		}
		x.written.Evidence++
	}
	end, err := canonical.Marshal(ending{x.written.Feeds, x.written.Entries, x.written.Evidence, x.out.sum.Sum(nil)})
	if err != nil {
		return err
	}
	if err := x.out.record(recordEnd, end); err != nil {
		return err
	}
	return x.out.w.Flush()
}

func (x *exporter) feed(h ledger.Head) error {
	author, err := h.Author.Bytes()
	if err != nil {
		return err
	}
	f := ledger.Feed{Author: h.Author, Chain: h.Chain}
	head := feedHead{Author: author[:], Chain: uint8(h.Chain)}
	if base := x.src.Base(f); base != nil {
		if head.Base, err = base.Encode(); err != nil {
			return err
		}
		head.First = base.First
	}
	if h.Seq >= head.First { // else it was trimmed past the head that stands: its base says how much there was
		head.Count = h.Seq + 1 - head.First
	}
	raw, err := canonical.Marshal(head)
	if err != nil {
		return err
	}
	if err := x.out.record(recordFeed, raw); err != nil {
		return err
	}
	for n := head.First; n <= h.Seq; {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		raws, err := x.src.Range(f.Author, f.Chain, n, trust.MaxRangeEntries, rangeBytes)
		if err != nil {
			return err
		}
		if len(raws) == 0 {
			return fmt.Errorf("%s chain of %s ends before entry %d: it was trimmed or revoked meanwhile; export again", f.Chain, f.Author.Short(), n)
		}
		for _, raw := range raws[:min(uint64(len(raws)), h.Seq+1-n)] {
			if err := x.entry(raw, f.Chain); err != nil {
				return err
			}
			n++
		}
		if x.progress != nil {
			x.progress(x.written.Entries)
		}
	}
	x.written.Feeds++
	return nil
}

func (x *exporter) entry(raw []byte, chain ledger.Chain) error {
	x.written.Entries++
	if chain == ledger.Authority {
		e, err := ledger.Decode(raw)
		if err != nil {
			return err
		}
		_ = x.fold.Apply(e) // what has no effect is history, too
	}
	return x.out.record(recordEntry, raw)
}
