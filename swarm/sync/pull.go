package sync

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/omega-mesh/omega/swarm/wire"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// maxDeferred is the most bytes of runs kept because their author's admission is still to come.
const maxDeferred = 8 << 20

// Sink is what is asked of the ledger to take what others send.
type Sink interface {
	Heads() []ledger.Head
	Head(author identity.DID, chain ledger.Chain) (ledger.Head, bool)
	IngestBatch(ctx context.Context, raws [][]byte) (int, error)
	IngestBase(ctx context.Context, raw []byte) (ledger.Feed, error)
}

// Pulled is what came of a request.
type Pulled struct {
	Stored  int    // entries
	Entries uint64 // how many the other has, of all feeds
	More    bool   // it stopped at its bound: ask again
	Behind  bool   // it lacks some that this peer has
	Refused error  // the first refusal by the ledger; nil if all stood
	Fault   bool   // one of the refusals is proof that the sender passes on what cannot stand
}

// Pull asks for everything this peer lacks.
func Pull(ctx context.Context, rw io.ReadWriter, sink Sink, extend func()) (Pulled, error) {
	var wants []Want
	for _, h := range sink.Heads() {
		wants = append(wants, Want{Feed: ledger.Feed{Author: h.Author, Chain: h.Chain}, Have: h.Seq + 1})
	}
	return pull(ctx, rw, sink, kindAll, wants, extend)
}

// PullFeed asks for one feed from entry back on, or from where this peer's own copy ends if that is earlier: from further
// back than that, it asks for a branch that this peer has not seen.
func PullFeed(ctx context.Context, rw io.ReadWriter, sink Sink, f ledger.Feed, back uint64, extend func()) (Pulled, error) {
	w := Want{Feed: f}
	if h, ok := sink.Head(f.Author, f.Chain); ok {
		w.Have = min(h.Seq+1, back)
	}
	return pull(ctx, rw, sink, kindOnly, []Want{w}, extend)
}

func pull(ctx context.Context, rw io.ReadWriter, sink Sink, kind byte, wants []Want, extend func()) (Pulled, error) {
	var p Pulled
	b, err := encodeRequest(kind, wants)
	if err != nil {
		return p, err
	}
	extend()
	if err := wire.Write(rw, b); err != nil {
		return p, err
	}
	in := intake{sink: sink, stopped: make(map[ledger.Feed]bool)}
	for total := 0; total <= SessionBytes+MaxRun; total += len(b) {
		extend()
		if b, err = wire.Read(rw, MaxRun); err != nil {
			return in.end(ctx, p), fmt.Errorf("sync: answer: %w", err)
		}
		if len(b) > 0 && b[0] == kindDone {
			d, err := decodeDone(b)
			if err != nil {
				return in.end(ctx, p), err
			}
			p = in.end(ctx, p)
			p.Entries, p.More, p.Behind = d.Entries, d.More, d.Behind
			return p, nil
		}
		if len(b) > 0 && b[0] == kindBase {
			if err := in.base(ctx, b[1:]); err != nil {
				return in.end(ctx, p), err
			}
			continue
		}
		raws, err := decodeRun(b)
		if err != nil {
			return in.end(ctx, p), err
		}
		if err := in.take(ctx, raws); err != nil {
			return in.end(ctx, p), err
		}
	}
	return in.end(ctx, p), fmt.Errorf("sync: more than %d bytes in one answer: %w", SessionBytes, ErrMessage)
}

// intake feeds runs to the ledger. A feed that the ledger refused is passed over for the rest of the answer: its quota
// or its gap will not change by what follows.
type intake struct {
	sink     Sink
	stopped  map[ledger.Feed]bool
	deferred [][][]byte
	size     int
	stored   int
	refused  error
	fault    bool
}

// base has the ledger begin a feed where the sender does, if it has to: where the base is refused, what follows of the
// feed would only leave a gap.
func (in *intake) base(ctx context.Context, raw []byte) error {
	in.settle(ctx) // its author's admission and its witnesses' keys may be among what was put off
	f, err := in.sink.IngestBase(ctx, raw)
	if err == nil || errors.Is(err, ledger.ErrDuplicate) {
		return nil
	}
	in.stopped[f] = true
	in.refuse(err)
	if errors.Is(err, ledger.ErrStorage) || errors.Is(err, ledger.ErrClosed) || ctx.Err() != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// take gives one run to the ledger. It fails only where going on is pointless.
func (in *intake) take(ctx context.Context, raws [][]byte) error {
	first, err := ledger.Decode(raws[0])
	if err != nil {
		in.refuse(err)
		return fmt.Errorf("sync: %w", err)
	}
	if in.stopped[first.Feed()] {
		return nil
	}
	n, err := in.sink.IngestBatch(ctx, raws)
	in.stored += n
	if err == nil || errors.Is(err, ledger.ErrDuplicate) {
		return nil
	}
	var r *ledger.RejectError
	if errors.As(err, &r) && r.Cause == ledger.CauseUnknownAuthor {
		size := 0
		for _, raw := range raws {
			size += len(raw)
		}
		if in.size += size; in.size <= maxDeferred {
			in.deferred = append(in.deferred, raws)
			return nil
		}
	}
	in.stopped[first.Feed()] = true
	in.refuse(err)
	if errors.Is(err, ledger.ErrStorage) || errors.Is(err, ledger.ErrClosed) || ctx.Err() != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

func (in *intake) refuse(err error) {
	if in.refused == nil {
		in.refused = err
	}
	in.fault = in.fault || Fault(err)
}

// settle tries what was put off again for as long as that helps: each pass may admit the author of another.
func (in *intake) settle(ctx context.Context) {
	for len(in.deferred) > 0 {
		again, before := in.deferred, in.stored
		in.deferred, in.size = nil, 0
		for _, raws := range again {
			if in.take(ctx, raws) != nil {
				break
			}
		}
		if in.stored == before {
			return
		}
	}
}

// end is what came of it all.
func (in *intake) end(ctx context.Context, p Pulled) Pulled {
	in.settle(ctx)
	if in.refused == nil && len(in.deferred) > 0 {
		in.refused = &ledger.RejectError{Cause: ledger.CauseUnknownAuthor}
	}
	p.Stored, p.Refused, p.Fault = in.stored, in.refused, in.fault
	return p
}

// Fault reports whether a refusal proves that whoever passed the entry on did wrong: an honest peer checks these before
// it stores or forwards anything, and no difference in clock or knowledge explains them.
func Fault(err error) bool {
	var r *ledger.RejectError
	if !errors.As(err, &r) {
		return false
	}
	switch r.Cause {
	case ledger.CauseMalformed, ledger.CauseOversize, ledger.CauseSignature, ledger.CauseSwarm, ledger.CauseKind:
		return true
	}
	return false
}
