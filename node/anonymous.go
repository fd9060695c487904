package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/omega-mesh/omega/node/api"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/anonymous"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Bounds of what anonymous reports cost a node.
const (
	maxBrought   = 1024 // entries that wait to be verified
	maxLetters   = 64   // letters that wait to be passed on or put into the feed
	maxPassed    = 4096 // letters remembered, so that none goes round for ever
	carryTries   = 3
	carriedSoon  = 3 * time.Second // how long a report may take to come back in another's feed before another carrier is asked
	passOnChance = 0.75            // of Crowds (Reiter and Rubin, TISSEC 1998): above one half
)

// nameless is the anonymous part of a node: what comes in the feeds of others, and the letters under way. The members
// hand a letter on with probability passOnChance, else put it into their own feed: who hands one over may be its author
// or not, and the feed it ends in says nothing of either.
type nameless struct {
	desk *anonymous.Desk

	mu      sync.Mutex
	brought []brought
	wake    chan struct{}
	passed  map[string]passage // by report id
	order   []string           // of passed, oldest first
	waiting map[string]chan struct{}
	lost    uint64
	refused uint64

	letters chan letter
}

type brought struct {
	raw     []byte
	carrier identity.DID
	live    bool
	time    int64 // as the carrier's entry claims
}

type letter struct {
	raw     []byte
	id      string
	publish bool
}

// passage is what became of a letter here.
type passage uint8

const (
	passageNone passage = iota
	passageOnce         // judged, and passed on
	passageMine         // this node wrote it
	passageDone         // in this node's feed
)

// namelessKey is the key that follows from the identity's current one.
func namelessKey(self *identity.Identity) (*anonymous.Key, error) {
	secret, err := self.Derive(anonymous.KeyLabel)
	if err != nil {
		return nil, err
	}
	defer clear(secret[:])
	return anonymous.NewKey(secret)
}

func newNameless(swarm trust.SwarmID, self *identity.Identity, n *Node) (*nameless, error) {
	key, err := namelessKey(self)
	if err != nil {
		return nil, err
	}
	return &nameless{
		desk: anonymous.NewDesk(swarm, self.DID(), key, n.fold.State), wake: make(chan struct{}, 1),
		passed: make(map[string]passage), waiting: make(map[string]chan struct{}), letters: make(chan letter, maxLetters),
	}, nil
}

// take keeps an entry for the worker: a ring's signature costs too much for the ledger's own hands. One that no composite
// signature covers by itself is passed over.
func (x *nameless) take(e *ledger.Entry, live bool, now time.Time) {
	if !e.Sealed() || now.UnixNano()-e.Time > int64(trust.AnonymousWindow*trust.AnonymousEpoch) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.brought) >= maxBrought {
		x.lost++
		return
	}
	x.brought = append(x.brought, brought{e.Body, e.Author, live, e.Time})
	x.ring()
}

func (x *nameless) ring() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// visit notes that a letter came, and says what became of it before.
func (x *nameless) visit(id string, now passage) passage {
	x.mu.Lock()
	defer x.mu.Unlock()
	before, known := x.passed[id]
	if !known {
		if len(x.order) >= maxPassed {
			delete(x.passed, x.order[0])
			x.order = x.order[1:]
		}
		x.order = append(x.order, id)
	}
	if now > before {
		x.passed[id] = now
	}
	return before
}

// arrival is closed when the report of that id was taken.
func (x *nameless) arrival(id string) <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.waiting[id] == nil {
		x.waiting[id] = make(chan struct{})
	}
	return x.waiting[id]
}

func (x *nameless) arrived(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ch := x.waiting[id]; ch != nil {
		close(ch)
		delete(x.waiting, id)
	}
}

// judgeReports verifies what came, and gives out this member's key once it may sign.
func (n *Node) judgeReports(ctx context.Context) error {
	x := n.nameless
	changes := n.changes.listen(ctx)
	var unplaced []brought
	for {
		x.mu.Lock()
		work := x.brought
		x.brought = nil
		x.mu.Unlock()
		work = append(unplaced, work...)
		// A restart reads feed by feed: of two reports in one slot the one that was first before is first again.
		slices.SortStableFunc(work, func(a, b brought) int { return cmp.Compare(a.time, b.time) })
		unplaced = nil
		for _, b := range work {
			err := n.judge(b)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, anonymous.ErrUnplaced) && len(unplaced) < trust.MaxUnplaced:
				unplaced = append(unplaced, b)
			case err != nil && !errors.Is(err, anonymous.ErrKnown):
				x.mu.Lock()
				x.refused++
				x.mu.Unlock()
				n.log.Debug("anonymous report refused", "carrier", n.nameOf(b.carrier), "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-x.wake:
		case <-changes:
		}
	}
}

func (n *Node) judge(b brought) error {
	r, err := anonymous.Decode(b.raw)
	if err != nil {
		return err
	}
	f, err := n.nameless.desk.Take(r, b.carrier, n.clock.now())
	if err != nil {
		return err
	}
	n.feed.hearNameless(f, b.live)
	n.nameless.arrived(f.ID)
	return nil
}

// giveKey publishes the key by which this member hides among the others, once for each key of its identity.
func (n *Node) giveKey(ctx context.Context) error {
	if n.nameless.desk.Given() {
		return nil
	}
	body, err := n.nameless.desk.KeyBody()
	if err != nil {
		return err
	}
	_, err = n.append(ctx, ledger.KindAnonymousKey, body, true)
	return err
}

// carryLetter implements swarm.Config.Carry.
func (n *Node) carryLetter(_ context.Context, from identity.DID, raw []byte) bool {
	x := n.nameless
	r, err := anonymous.Decode(raw)
	if err != nil || !n.synced.Load() {
		return false
	}
	id := r.ID(n.genesis.SwarmID())
	l := letter{raw: slices.Clone(raw), id: id}
	x.mu.Lock()
	before := x.passed[id]
	x.mu.Unlock()
	switch before {
	case passageDone:
		return true
	case passageMine: // it came back: its author does not carry it
	case passageOnce: // it went round
		l.publish = true
	default:
		if _, err := x.desk.Judge(r, from, n.clock.now()); err != nil {
			n.log.Debug("a letter was not taken", "err", err)
			return errors.Is(err, anonymous.ErrKnown) // it has arrived already
		}
		x.visit(id, passageOnce)
		l.publish = rand.Float64() >= passOnChance
	}
	select {
	case x.letters <- l:
		return true
	default:
		return false
	}
}

// postLetters passes letters on or puts them into this node's feed.
func (n *Node) postLetters(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l := <-n.nameless.letters:
			if !l.publish {
				if err := n.swarm.Hand(ctx, l.raw); err == nil {
					continue
				}
			}
			before := n.nameless.visit(l.id, passageNone)
			if before == passageMine || before == passageDone {
				continue // its author asks somebody again
			}
			n.nameless.visit(l.id, passageDone)
			if _, err := n.append(ctx, ledger.KindAnonymous, l.raw, true); err != nil && ctx.Err() == nil {
				n.log.Warn("a letter was not carried", "err", err)
			}
		}
	}
}

// ReportAnonymously implements api.Backend.
func (b backend) ReportAnonymously(ctx context.Context, t anonymous.Threshold, f event.Finding) (*apiv1.ReportResponse, error) {
	x := b.nameless
	if !b.synced.Load() || !x.desk.Given() {
		return nil, fmt.Errorf("%w: this node is not in sync yet; try again in a moment", api.ErrBusy)
	}
	now := b.clock.now()
	f.Time = now.UnixNano()
	r, err := x.desk.Write(t, f, now)
	switch {
	case errors.Is(err, anonymous.ErrTelling), errors.Is(err, anonymous.ErrBody), errors.Is(err, anonymous.ErrFormat):
		return nil, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	case errors.Is(err, anonymous.ErrRing):
		return nil, fmt.Errorf("%w: fewer than %d members of whom this is true, or this host is none of them: ask for less --standing, or no --role: %w", api.ErrState, trust.MinRing, err)
	case errors.Is(err, anonymous.ErrExhausted):
		return nil, fmt.Errorf("%w: %d reports an hour, and they are used up: the next hour begins at %s", api.ErrState, trust.AnonymousSlots,
			now.Truncate(trust.AnonymousEpoch).Add(trust.AnonymousEpoch).Format(time.TimeOnly))
	case err != nil:
		return nil, err
	}
	raw, err := r.Encode()
	if err != nil {
		return nil, err
	}
	id := r.ID(b.genesis.SwarmID())
	x.visit(id, passageMine)
	answer := &apiv1.ReportResponse{Id: id, Ring: uint32(len(r.Ring)), Slot: uint32(r.Slot) + 1, Slots: trust.AnonymousSlots}
	if x.desk.Known(r, now) {
		return answer, nil
	}
	here := x.arrival(id)
	defer x.arrived(id)
	for range carryTries {
		if err := b.swarm.Hand(ctx, raw); err != nil {
			return nil, fmt.Errorf("%w: %w", api.ErrBusy, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-here:
			return answer, nil
		case <-time.After(carriedSoon):
		}
	}
	return nil, fmt.Errorf("%w: %d members took the report, and none has carried it: try again, it counts once", api.ErrBusy, carryTries)
}

// anonymity is what doctor says of it.
func (b backend) anonymity() (ok bool, detail, lost string) {
	s, now := b.fold.State(), b.clock.now()
	epoch := anonymous.EpochOf(now)
	ring := len(b.nameless.desk.Keys.Keys(func(did identity.DID) bool { return anonymous.Threshold{}.Meets(s, did, epoch, now) }))
	b.nameless.mu.Lock()
	refused, dropped := b.nameless.refused, b.nameless.lost
	b.nameless.mu.Unlock()
	detail = fmt.Sprintf("an author hides among %d members; not against a quantum computer, which finds the author of each report that was kept; %d reports refused, %d lost", min(ring, trust.MaxRing), refused, dropped)
	return ring >= trust.MinRing && b.nameless.desk.Given(), detail, fmt.Sprintf("no anonymous report: it takes %d members that gave out a key", trust.MinRing)
}
