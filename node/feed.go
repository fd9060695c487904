package node

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Bounds of what is held for entries that no seal covers yet, and of the stamps of when findings came.
const (
	maxUnsealed = 8192 // findings; an author signs at most 64 between two seals
	maxHeard    = 8192
	// followerQueue is what a channel holds; what a reader may fall behind beyond that lies in the window anyway.
	followerQueue = 64
)

// feed is what the ledger brought, decoded once: findings and receipts for those who ask, and for the roles that follow.
// All but follow is called from within the ledger and never blocks.
type feed struct {
	name     func(identity.DID) string
	findings *window[*event.Finding] // as they came, sealed or not: for people
	sealed   *window[*roles.Heard]   // as a composite signature came to cover them: for what acts
	receipts *window[*event.Receipt]
	entries  *window[*ledger.Entry]

	mu       sync.Mutex
	unsealed map[ledger.Feed][]unsealed
	held     int
	heard    map[string]uint64 // finding id → CLOCK_BOOTTIME
	order    []string          // of heard, oldest first
	lost     atomic.Uint64     // unsealed findings there was no room for
	behind   atomic.Uint64     // followers cut off
}

type unsealed struct {
	seq uint64
	h   *roles.Heard
}

func newFeed(size int, name func(identity.DID) string) *feed {
	return &feed{
		name: name, findings: newWindow[*event.Finding](size), sealed: newWindow[*roles.Heard](size),
		receipts: newWindow[*event.Receipt](size), entries: newWindow[*ledger.Entry](entriesKept),
		unsealed: map[ledger.Feed][]unsealed{}, heard: map[string]uint64{},
	}
}

// take decodes a stored entry. live is false for what was stored before this peer was in sync.
func (f *feed) take(e *ledger.Entry, live bool) error {
	f.entries.add(e)
	switch e.Kind {
	case ledger.KindFinding:
		x, err := ledger.DecodeFinding(e)
		if err != nil {
			return err
		}
		x.Host = f.name(e.Author)
		f.findings.add(&x)
		f.hear(e, &roles.Heard{Finding: x, At: bpf.BootTime(), Live: live})
	case ledger.KindReceipt:
		x, err := ledger.DecodeReceipt(e)
		if err != nil {
			return err
		}
		x.Host = f.name(e.Author)
		f.receipts.add(&x)
	}
	return nil
}

// hearNameless takes an anonymous finding, which a ring signed and, with its carrier's entry, a composite key.
func (f *feed) hearNameless(x event.Finding, live bool) {
	f.findings.add(&x)
	h := &roles.Heard{Finding: x, At: bpf.BootTime(), Live: live}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stamp(h)
	f.sealed.add(h)
}

// settle puts what was read again, feed by feed, into the order of its time.
func (f *feed) settle() {
	f.findings.sort(func(a, b *event.Finding) int { return cmp.Compare(a.Time, b.Time) })
	f.sealed.sort(func(a, b *roles.Heard) int { return cmp.Compare(a.Time, b.Time) })
	f.receipts.sort(func(a, b *event.Receipt) int { return cmp.Compare(a.Time, b.Time) })
}

// hear stamps a finding and hands it on as soon as a composite signature covers it: nothing acts on what is not sealed.
func (f *feed) hear(e *ledger.Entry, h *roles.Heard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stamp(h)
	switch {
	case e.Sealed():
		f.sealed.add(h)
	case f.held >= maxUnsealed:
		f.lost.Add(1)
	default:
		f.held++
		f.unsealed[e.Feed()] = append(f.unsealed[e.Feed()], unsealed{e.Seq, h})
	}
}

// stamp remembers when a finding came. The caller holds mu.
func (f *feed) stamp(h *roles.Heard) {
	if len(f.order) >= maxHeard {
		delete(f.heard, f.order[0])
		f.order = f.order[1:]
	}
	f.heard[h.ID] = h.At
	f.order = append(f.order, h.ID)
}

// seal hands on what is sealed now: entries of one feed up to and with number through.
func (f *feed) seal(of ledger.Feed, through uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	waiting := f.unsealed[of]
	n := 0
	for n < len(waiting) && waiting[n].seq <= through {
		f.sealed.add(waiting[n].h)
		n++
	}
	f.held -= n
	if n == len(waiting) {
		delete(f.unsealed, of)
	} else {
		f.unsealed[of] = waiting[n:]
	}
}

// follow gives every sealed finding of since and later, and then what comes. The channel is closed when ctx ends, or
// when its reader fell further behind than the window reaches back.
func (f *feed) follow(ctx context.Context, since time.Time, buffer int) <-chan roles.Heard {
	ch := make(chan roles.Heard, min(max(buffer, 1), followerQueue))
	from := since.UnixNano()
	if since.IsZero() {
		from = 0
	}
	go func() {
		defer close(ch)
		err := f.sealed.strict(ctx, func(h *roles.Heard) error {
			if h.Time < from {
				return nil
			}
			select {
			case ch <- *h:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil && ctx.Err() == nil {
			f.behind.Add(1)
		}
	}()
	return ch
}

// heardAt is when the last of these findings reached this host; 0 where none did in this life.
func (f *feed) heardAt(ids []string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var at uint64
	for _, id := range ids {
		at = max(at, f.heard[id])
	}
	return at
}

// waiting is how many findings no seal covers yet.
func (f *feed) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held
}
