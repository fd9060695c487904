package node

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/swarm"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// members answers the swarm from the fold as it stands at each question.
type members struct{ fold *authority.Fold }

func (m members) Member(did identity.DID) (*authority.Member, bool) {
	return m.fold.State().Member(did)
}
func (m members) ByTransport(key ed25519.PublicKey) (*authority.Member, bool) {
	return m.fold.State().ByTransport(key)
}
func (m members) Members() []*authority.Member  { return m.fold.State().Members() }
func (m members) Revoked(did identity.DID) bool { return m.fold.State().Revoked(did) }

// onEntry is called by the ledger for each new entry, own and others', in the order of its feed. It must be quick.
func (n *Node) onEntry(e *ledger.Entry) {
	live := n.synced.Load()
	if e.Chain == ledger.Authority {
		if err := n.fold.Apply(e); err != nil {
			n.log.Log(context.Background(), heldLevel(err), "authority entry without effect", "entry", e.ID(), "kind", e.Kind, "author", n.nameOf(e.Author), "err", err)
		}
		if e.Kind == ledger.KindAnonymousKey {
			n.learnKey(e)
		}
		n.changes.ring()
	}
	n.witness.Observe(e, live)
	if live && e.Author != n.self.DID() {
		n.clock.observe(e.Author, e.Time)
	}
	if err := n.take(e, live); err != nil {
		n.log.Warn("activity entry does not read", "entry", e.ID(), "kind", e.Kind, "author", n.nameOf(e.Author), "err", err)
	}
	if e.Author == n.self.DID() {
		queue := n.out
		if e.Chain == ledger.Authority {
			queue = n.urgent
		}
		select {
		case queue <- e:
		default:
			n.outLost.Add(1) // sync brings it
		}
	}
}

func (n *Node) learnKey(e *ledger.Entry) {
	if err := n.nameless.desk.Keys.Learn(e); err != nil {
		n.log.Debug("anonymous key without effect", "author", n.nameOf(e.Author), "err", err)
	}
}

// take decodes an activity entry for those who follow.
func (n *Node) take(e *ledger.Entry, live bool) error {
	var err error
	switch e.Kind {
	case ledger.KindJoinRequest:
		err = n.joining.take(e)
	case ledger.KindCredential:
		err = n.credentials.take(e)
	case ledger.KindCoverage:
		err = n.coverages.take(e)
	case ledger.KindModules:
		err = n.moduleHosts.take(e)
	case ledger.KindBaseline:
		err = n.baselines.take(e)
	case ledger.KindAnonymous:
		n.nameless.take(e, live, n.clock.now())
	}
	if err != nil {
		return err
	}
	return n.feed.take(e, live)
}

// heldLevel tells what has no effect yet, because what leads to it is on its way, from what has none at all.
func heldLevel(err error) slog.Level {
	if errors.Is(err, authority.ErrVoid) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

func (n *Node) onSealed(of ledger.Feed, through uint64) { n.feed.seal(of, through) }

// onEquivocation takes a proof at once, and has it posted for everyone.
func (n *Node) onEquivocation(p *ledger.Proof) {
	if err := n.fold.ApplyProof(p); err != nil {
		n.log.Warn("proof of equivocation without effect", "author", n.nameOf(p.Author), "err", err)
	}
	n.changes.ring()
	select {
	case n.proofs <- p:
	default: // every peer that sees the fork posts it; it is stored here too
	}
}

// postEvidence spreads proofs of equivocation: any member may, and each proves itself.
func (n *Node) postEvidence(ctx context.Context) error {
	for {
		var body authority.Body
		var author identity.DID
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p := <-n.proofs:
			body, author = &authority.EvidenceBody{Proof: p}, p.Author
		case c := <-n.contests:
			body = c
		}
		raw, err := body.Encode()
		if err == nil {
			_, err = n.append(ctx, body.Kind(), raw, true)
		}
		if err != nil && ctx.Err() == nil {
			n.log.Warn("evidence not posted", "kind", body.Kind(), "author", n.nameOf(author), "err", err)
		}
	}
}

// admit lets a joiner in that holds an invite. The inviter need not be there: any member can.
func (n *Node) admit(ctx context.Context, req swarm.JoinRequest) (swarm.JoinReply, error) {
	var reply swarm.JoinReply
	if !n.synced.Load() {
		return reply, errors.New("not in sync yet: the invite may be used up already")
	}
	j, err := authority.VerifyJoin(n.fold.State(), req.Proof, req.Exporter, n.clock.now())
	if err != nil {
		var spent *authority.InviteSpentError
		if errors.As(err, &spent) {
			n.alarm(spent, req.Remote)
		}
		return reply, err
	}
	if !j.Already && j.Invite.Approve {
		return reply, n.askOperator(ctx, j, req.Remote)
	}
	if !j.Already {
		body, err := j.Body.Encode()
		if err != nil {
			return reply, err
		}
		if _, err := n.append(ctx, ledger.KindAdmit, body, true); err != nil {
			return reply, fmt.Errorf("admit %s: %w", j.Inception.Name, err)
		}
		n.log.Info("admitted", "name", j.Inception.Name, "did", j.Inception.DID(), "invite", j.Invite.ID)
	}
	reply.Genesis, reply.By = n.genesis.Encode(), n.self.DID()
	reply.Entries, err = n.authorityEntries()
	return reply, err
}

// askOperator passes a joiner's wish on to the operators, once, and says that it waits.
func (n *Node) askOperator(ctx context.Context, j *authority.Join, from netip.Addr) error {
	s := n.fold.State()
	switch n.joining.status(s, j.Inception.DID()) {
	case joinRejected:
		return fmt.Errorf("an operator refused %s", j.Inception.Name)
	case joinWaits:
		return swarm.ErrWaiting
	}
	if !n.joining.room(s, j.Invite, n.clock.now()) {
		return fmt.Errorf("too many joiners wait on invite %s", j.Invite.ID)
	}
	invite, err := hex.DecodeString(j.Invite.ID)
	if err != nil {
		return err
	}
	body, err := (&authority.JoinRequest{Inception: j.Inception.Encode(), Invite: invite, Address: from}).Encode()
	if err != nil {
		return err
	}
	if _, err := n.append(ctx, ledger.KindJoinRequest, body, true); err != nil {
		return fmt.Errorf("pass on the wish of %s: %w", j.Inception.Name, err)
	}
	n.log.Info("a joiner waits for approval", "name", j.Inception.Name, "did", j.Inception.DID(), "invite", j.Invite.ID)
	return swarm.ErrWaiting
}

// authorityEntries is every authority chain, parents before children where feeds allow; the reader applies in any order.
func (n *Node) authorityEntries() ([][]byte, error) {
	const most = 2 << 20 // bytes of one reply: what is over comes by sync
	var out [][]byte
	size := 0
	for _, h := range n.ledger.Heads() {
		for from := uint64(0); h.Chain == ledger.Authority && from <= h.Seq; {
			raws, err := n.ledger.Range(h.Author, h.Chain, from, int(h.Seq-from)+1, most)
			if err != nil {
				return nil, err
			}
			if len(raws) == 0 {
				break
			}
			for _, raw := range raws {
				if size += len(raw); size > most {
					return out, nil
				}
				out = append(out, raw)
			}
			from += uint64(len(raws))
		}
	}
	return out, nil
}

// alarm says that a used-up token was shown by another key: it leaked, or its holder lost the identity it joined with.
func (n *Node) alarm(e *authority.InviteSpentError, from netip.Addr) {
	f := event.Finding{
		RuleID: "omega.invite.reuse", Rule: "invite-reuse", Title: "A used-up join token was presented by another identity",
		Attack: []string{"T1078"}, Severity: event.SeverityHigh, Confidence: 50,
		Subject:  event.Subject{Address: from.Unmap()},
		Evidence: []event.Evidence{{Name: "invite", Value: e.Invite}, {Name: "joiner", Value: string(e.Joiner)}, {Name: "name", Value: e.Name}},
	}
	select {
	case n.alarms <- f:
	default: // a stranger who repeats itself is one alarm, not many
	}
}

// raiseAlarms publishes what the network half found; it may not wait for the disk inside a handshake.
func (n *Node) raiseAlarms(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-n.alarms:
			if _, err := n.Publish(ctx, f); err != nil && ctx.Err() == nil {
				n.log.Error("alarm not published", "rule", f.RuleID, "err", err)
			}
		}
	}
}

// proved is where members are, as live authenticated connections prove it, for the guard rails and for a containment.
func (n *Node) proved() []privileged.Proved {
	ports := map[string][]uint16{} // DID and address → the ports its connections use
	for _, p := range n.swarm.Peers() {
		for _, s := range p.Addrs {
			if ap, ok := endpoint(s); ok {
				key := string(p.DID) + "|" + ap.Addr().String()
				if !slices.Contains(ports[key], ap.Port()) {
					ports[key] = append(ports[key], ap.Port())
				}
			}
		}
	}
	var out []privileged.Proved
	for _, p := range n.swarm.Proved() {
		one := privileged.Proved{DID: string(p.DID), Addr: p.Addr.Unmap(), Since: uint64(p.Since)}
		known := ports[one.DID+"|"+one.Addr.String()]
		if len(known) == 0 {
			known = []uint16{0}
		}
		slices.Sort(known)
		for _, port := range known[:min(len(known), 4)] {
			one.Port = port
			out = append(out, one)
		}
	}
	return out
}

// listeners are where this node's own swarm is called.
func (n *Node) listeners() []bpf.Listener {
	var out []bpf.Listener
	for _, s := range n.swarm.Addrs() {
		ap, ok := endpoint(s)
		if !ok {
			continue
		}
		l := bpf.Listener{Protocol: unix.IPPROTO_TCP, Port: ap.Port()}
		if strings.Contains(s, "/udp/") {
			l.Protocol = unix.IPPROTO_UDP
		}
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// endpoint reads address and port of a multiaddr.
func endpoint(s string) (netip.AddrPort, bool) {
	m, err := ma.NewMultiaddr(s)
	if err != nil {
		return netip.AddrPort{}, false
	}
	var host, port string
	ma.ForEach(m, func(c ma.Component) bool {
		switch c.Protocol().Code {
		case ma.P_IP4, ma.P_IP6:
			host = c.Value()
		case ma.P_TCP, ma.P_UDP:
			port = c.Value()
		}
		return port == ""
	})
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	ap, err := netip.ParseAddrPort(host + ":" + port)
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), err == nil
}

// othersActive counts the members that could be connected.
func (n *Node) othersActive() int {
	count, now := 0, n.clock.now()
	for _, m := range n.fold.State().Members() {
		if m.DID != n.self.DID() && m.Active(now) {
			count++
		}
	}
	return count
}
