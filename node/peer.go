package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/guard"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Node is the peer that roles run on.
var _ roles.Peer = (*Node)(nil)

// containGrace is how long the other hosts wait before they refuse a host that is to be contained: its own order has to
// reach it first, over connections that end then.
const containGrace = 100 * time.Millisecond

// DID implements roles.Peer.
func (n *Node) DID() string { return string(n.self.DID()) }

// Name implements roles.Peer.
func (n *Node) Name() string { return n.self.Inception().Name }

// Mode implements roles.Peer.
func (n *Node) Mode() roles.Mode {
	m, _ := n.mode.Load().(string)
	return roles.Mode(m)
}

// Boot implements roles.Peer.
func (n *Node) Boot() uint64 { return bpf.BootTime() }

// Now implements roles.Peer.
func (n *Node) Now() time.Time { return n.clock.now() }

// Subscribe implements roles.Peer.
func (n *Node) Subscribe(fn func(*event.Event)) (cancel func()) { return n.telemetry.subscribe(fn) }

// Publish implements roles.Peer.
func (n *Node) Publish(ctx context.Context, f event.Finding) (event.Finding, error) {
	if f.Time == 0 {
		f.Time = n.clock.now().UnixNano()
	}
	if f.Boot == 0 {
		f.Boot = bpf.BootTime()
	}
	body, err := ledger.EncodeFinding(&f)
	if err != nil {
		return f, fmt.Errorf("finding: %w", err)
	}
	e, err := n.append(ctx, ledger.KindFinding, body, f.Handshake || f.Severity >= event.SeverityCritical)
	if err != nil {
		return f, fmt.Errorf("finding: %w", err)
	}
	f.ID, f.Peer, f.Host = e.ID(), n.DID(), n.Name()
	return f, nil
}

// Report implements roles.Peer.
func (n *Node) Report(ctx context.Context, rc event.Receipt) (event.Receipt, error) {
	if rc.Time == 0 {
		rc.Time = n.clock.now().UnixNano()
	}
	body, err := ledger.EncodeReceipt(&rc)
	if err != nil {
		return rc, fmt.Errorf("receipt: %w", err)
	}
	e, err := n.append(ctx, ledger.KindReceipt, body, false)
	if err != nil {
		return rc, fmt.Errorf("receipt: %w", err)
	}
	rc.ID, rc.Peer, rc.Host = e.ID(), n.DID(), n.Name()
	return rc, nil
}

// append signs and stores an entry of this node; gossip gets it from the ledger's OnEntry, in the feed's order.
func (n *Node) append(ctx context.Context, kind ledger.Kind, body []byte, full bool) (*ledger.Entry, error) {
	e, err := n.ledger.Append(ctx, kind.Chain(), kind, body, full)
	n.health.stored(err)
	return e, err
}

// Findings implements roles.Peer.
func (n *Node) Findings(ctx context.Context, since time.Time, buffer int) <-chan roles.Heard {
	return n.feed.follow(ctx, since, buffer)
}

// Respond implements roles.Peer.
func (n *Node) Respond(ctx context.Context, r event.Response) (event.Receipt, error) {
	if r.Action == event.ActionContain && r.Target.Peer != n.DID() {
		select {
		case <-time.After(containGrace):
		case <-ctx.Done():
			return event.Receipt{}, ctx.Err()
		}
	}
	heard := n.feed.heardAt(r.Findings)
	rc, err := n.service.Apply(ctx, r, heard)
	if err != nil {
		return rc, err
	}
	if rc.Heard == 0 {
		rc.Heard = heard
	}
	if r.Action == event.ActionQuarantine && rc.Outcome == event.OutcomeDone {
		n.sealed(&r)
	}
	return rc, nil
}

// Release implements roles.Peer.
func (n *Node) Release(ctx context.Context, id string) (event.Receipt, error) {
	n.local.release(id)
	return n.service.Release(ctx, id)
}

// HasRole implements roles.Peer.
func (n *Node) HasRole(did, role string) bool {
	return n.fold.State().HasRole(identity.DID(did), role, n.clock.now()) && n.honours(identity.DID(did), role)
}

// Sights implements roles.Peer.
func (n *Node) Sights() []roles.Sight {
	s, now := n.fold.State(), n.clock.now()
	live := map[identity.DID]bool{}
	for _, p := range n.swarm.Peers() {
		live[p.DID] = true
	}
	var out []roles.Sight
	for _, m := range s.Members() {
		if m.DID == n.self.DID() || !m.Active(now) {
			continue
		}
		x := roles.Sight{DID: string(m.DID), Name: m.Name, Sentinel: s.HasRole(m.DID, roles.NameSentinel, now), Connected: live[m.DID], Met: n.coverages.hasMet(string(m.DID)), Ended: n.coverages.end(string(m.DID))}
		if head, ok := n.ledger.Head(m.DID, ledger.Activity); ok {
			x.Entries = head.Seq + 1
		}
		out = append(out, x)
	}
	return out
}

// Reach implements roles.Peer.
func (n *Node) Reach(ctx context.Context, did string) bool {
	return n.swarm.Reach(ctx, identity.DID(did))
}

// MemberName implements roles.Peer.
func (n *Node) MemberName(did string) string {
	if m, ok := n.fold.State().Member(identity.DID(did)); ok {
		return m.Name
	}
	return ""
}

// nameOf is a member's or an operator's name, or the short form of its DID.
func (n *Node) nameOf(did identity.DID) string {
	if name := n.MemberName(string(did)); name != "" {
		return name
	}
	if op, ok := n.fold.State().Root().Inception(did); ok {
		return op.Name
	}
	return did.Short()
}

// Proved implements roles.Peer.
func (n *Node) Proved() []guard.Proved {
	proved := n.swarm.Proved()
	out := make([]guard.Proved, len(proved))
	for i, p := range proved {
		out[i] = guard.Proved{DID: string(p.DID), Address: p.Addr.Unmap(), Since: uint64(p.Since)}
	}
	return out
}

// Authority implements roles.Peer.
func (n *Node) Authority() roles.Authority { return n.fold.State() }

// Changes implements roles.Peer.
func (n *Node) Changes(ctx context.Context) <-chan struct{} { return n.changes.listen(ctx) }

// bell tells many listeners that something changed; tokens coalesce.
type bell struct {
	mu        sync.Mutex
	listeners map[chan struct{}]struct{}
}

func newBell() *bell { return &bell{listeners: map[chan struct{}]struct{}{}} }

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.listeners {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// listen gives a token after each change until ctx ends. The channel is not closed: who listens has ctx.
func (b *bell) listen(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	b.mu.Lock()
	b.listeners[ch] = struct{}{}
	b.mu.Unlock()
	context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, ch)
	})
	return ch
}
