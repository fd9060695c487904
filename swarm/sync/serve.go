package sync

import (
	"context"
	"fmt"
	"io"

	"github.com/omega-mesh/omega/swarm/wire"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Source is what is asked of the ledger to answer others.
type Source interface {
	Heads() []ledger.Head
	Range(author identity.DID, chain ledger.Chain, from uint64, maxEntries, maxBytes int) ([][]byte, error)
	// Base is where a trimmed feed begins; nil for the others.
	Base(ledger.Feed) *ledger.Base
}

// Served is what became of a request.
type Served struct {
	Sent   int  // entries
	Behind bool // the asking peer has entries that this one lacks
}

// Serve answers one request on rw. extend is called before each frame, to move the stream's deadline.
func Serve(ctx context.Context, rw io.ReadWriter, src Source, asker identity.DID, extend func()) (Served, error) {
	var s Served
	extend()
	b, err := wire.Read(rw, MaxRequest)
	if err != nil {
		return s, fmt.Errorf("sync: request: %w", err)
	}
	kind, wants, err := decodeRequest(b)
	if err != nil {
		return s, err
	}
	have := make(map[ledger.Feed]uint64, len(wants))
	for _, w := range wants {
		have[w.Feed] = w.Have
	}
	heads := src.Heads()
	end := done{}
	known := make(map[ledger.Feed]uint64, len(heads))
	for _, h := range heads {
		known[ledger.Feed{Author: h.Author, Chain: h.Chain}] = h.Seq + 1
		end.Entries += h.Seq + 1
	}
	for _, w := range wants {
		if w.Have > known[w.Feed] {
			end.Behind = true
		}
	}
	s.Behind = end.Behind
	budget := SessionBytes
	for _, h := range order(heads, asker) {
		f := ledger.Feed{Author: h.Author, Chain: h.Chain}
		from, asked := have[f]
		if kind == kindOnly && !asked {
			continue
		}
		if base := src.Base(f); base != nil && from < base.First {
			raw, err := base.Encode()
			if err != nil {
				return s, fmt.Errorf("sync: base: %w", err)
			}
			if budget -= len(raw); budget < 0 {
				end.More = true
				break
			}
			extend()
			if err := wire.Write(rw, append([]byte{kindBase}, raw...)); err != nil {
				return s, err
			}
			from = base.First
		}
		for from <= h.Seq && !end.More {
			if err := ctx.Err(); err != nil {
				return s, fmt.Errorf("sync: %w", err)
			}
			raws, err := src.Range(f.Author, f.Chain, from, RunEntries, RunBytes)
			if err != nil {
				return s, fmt.Errorf("sync: read feed: %w", err)
			}
			if len(raws) == 0 {
				break
			}
			frame := encodeRun(raws)
			if budget -= len(frame); budget < 0 {
				end.More = true
				break
			}
			extend()
			if err := wire.Write(rw, frame); err != nil {
				return s, err
			}
			from += uint64(len(raws))
			s.Sent += len(raws)
		}
	}
	extend()
	return s, wire.Write(rw, end.encode())
}

// order puts what others depend on first: the asking peer's own feeds, which it must know before it signs, after the
// authority chains, which say whose feeds stand; the activity chains last.
func order(heads []ledger.Head, asker identity.DID) []ledger.Head {
	out := make([]ledger.Head, 0, len(heads))
	for pass := range 3 {
		for _, h := range heads {
			p := 2
			switch {
			case h.Chain == ledger.Authority:
				p = 0
			case h.Author == asker:
				p = 1
			}
			if p == pass {
				out = append(out, h)
			}
		}
	}
	return out
}
