package node

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Bounds of what is held for entries that no seal covers yet.
const (
	maxUnsealed   = 8192 // findings; an author signs at most 64 between two seals
	maxHeard      = 8192 // stamps of when a finding came
	followerQueue = 1024 // findings on their way to one role
)

// feed is what the ledger brought, decoded once: findings and receipts for those who ask, and for the roles that follow.
type feed struct {
	name     func(identity.DID) string
	findings *window[*event.Finding]
	receipts *window[*event.Receipt]
	entries  *window[*ledger.Entry]

	mu        sync.Mutex
	unsealed  map[ledger.Feed][]unsealed
	held      int
	heard     map[string]uint64 // finding id → CLOCK_BOOTTIME
	order     []string          // of heard, oldest first
	followers map[*follower]struct{}
	lost      atomic.Uint64 // unsealed findings pushed out, and findings a follower had no room for
}

type unsealed struct {
	seq uint64
	f   *event.Finding
}

// follower is one role's queue.
type follower struct{ ch chan event.Finding }

func newFeed(size int, name func(identity.DID) string) *feed {
	return &feed{
		name: name, findings: newWindow[*event.Finding](size), receipts: newWindow[*event.Receipt](size), entries: newWindow[*ledger.Entry](entriesKept),
		unsealed: map[ledger.Feed][]unsealed{}, heard: map[string]uint64{}, followers: map[*follower]struct{}{},
	}
}

// take decodes a stored entry. live is false while the past is read again: then nobody is told, and nothing waits.
func (f *feed) take(e *ledger.Entry, live bool) (*event.Finding, *event.Receipt, error) {
	if live {
		f.entries.add(e)
	}
	switch e.Kind {
	case ledger.KindFinding:
		x, err := ledger.DecodeFinding(e)
		if err != nil {
			return nil, nil, err
		}
		x.Host = f.name(e.Author)
		f.findings.add(&x)
		if live {
			f.hear(e, &x)
		}
		return &x, nil, nil
	case ledger.KindReceipt:
		x, err := ledger.DecodeReceipt(e)
		if err != nil {
			return nil, nil, err
		}
		x.Host = f.name(e.Author)
		f.receipts.add(&x)
		return nil, &x, nil
	}
	return nil, nil, nil
}

// hear stamps a finding and hands it on as soon as a composite signature covers it: nothing acts on what is not sealed.
func (f *feed) hear(e *ledger.Entry, x *event.Finding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.order) >= maxHeard {
		delete(f.heard, f.order[0])
		f.order = f.order[1:]
	}
	f.heard[x.ID] = bpf.BootTime()
	f.order = append(f.order, x.ID)
	if e.Sealed() {
		f.tell(x)
		return
	}
	if f.held >= maxUnsealed {
		f.lost.Add(1)
		return
	}
	f.held++
	f.unsealed[e.Feed()] = append(f.unsealed[e.Feed()], unsealed{e.Seq, x})
}

// seal hands on what is sealed now.
func (f *feed) seal(of ledger.Feed, through uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	waiting := f.unsealed[of]
	n := 0
	for n < len(waiting) && waiting[n].seq <= through {
		f.tell(waiting[n].f)
		n++
	}
	f.held -= n
	if n == len(waiting) {
		delete(f.unsealed, of)
	} else {
		f.unsealed[of] = waiting[n:]
	}
}

// tell never blocks: it runs inside the ledger.
func (f *feed) tell(x *event.Finding) {
	for w := range f.followers {
		select {
		case w.ch <- *x:
		default:
			f.lost.Add(1)
		}
	}
}

// follow gives every sealed finding from now on, until ctx ends; then the channel is closed.
func (f *feed) follow(ctx context.Context) <-chan event.Finding {
	w := &follower{ch: make(chan event.Finding, followerQueue)}
	f.mu.Lock()
	f.followers[w] = struct{}{}
	f.mu.Unlock()
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.followers, w)
		close(w.ch)
	})
	return w.ch
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
