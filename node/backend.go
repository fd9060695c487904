package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/api"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/journal"
	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// backend is the node as its API sees it.
type backend struct{ *Node }

var _ api.Backend = backend{}

// Peers implements api.Backend: every member but this one, whether connected or not.
func (b backend) Peers(context.Context) ([]*apiv1.Peer, error) {
	s, now := b.fold.State(), b.clock.now()
	wall, boot := time.Now(), int64(bpf.BootTime())
	var out []*apiv1.Peer
	live := b.swarm.Peers()
	for _, m := range s.Members() {
		if m.DID == b.self.DID() {
			continue
		}
		p := &apiv1.Peer{Did: string(m.DID), Name: m.Name, Roles: s.Roles(m.DID, now)}
		if head, ok := b.ledger.Head(m.DID, ledger.Activity); ok {
			p.Head = head.Seq + 1
		}
		for _, l := range live {
			if l.DID == m.DID {
				p.Connected, p.Peer, p.Addrs, p.Reputation = true, l.ID, l.Addrs, l.Score
				p.RttMs = float64(l.RTT) / float64(time.Millisecond)
				p.Since = timestamppb.New(wall.Add(-time.Duration(boot - l.Since)))
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// Grants implements api.Backend.
func (b backend) Grants(context.Context) ([]*apiv1.RoleGrant, error) {
	now, running := b.clock.now(), b.roles.Running()
	var out []*apiv1.RoleGrant
	for _, m := range b.fold.State().Members() {
		for _, role := range b.fold.State().Roles(m.DID, now) {
			g := m.Roles[role]
			row := &apiv1.RoleGrant{Did: string(m.DID), Name: m.Name, Role: role, By: string(g.By)}
			if !g.NotAfter.IsZero() {
				row.NotAfter = timestamppb.New(g.NotAfter)
			}
			row.Running = m.DID == b.self.DID() && slices.Contains(running, role)
			out = append(out, row)
		}
	}
	return out, nil
}

// Decoys implements api.Backend: this host's services; the swarm's touches of them are findings.
func (b backend) Decoys(context.Context) ([]*apiv1.Decoy, error) {
	var out []*apiv1.Decoy
	for _, s := range b.decoy.Services() {
		out = append(out, &apiv1.Decoy{Peer: b.DID(), Host: b.Name(), Service: s.Name, Port: uint32(s.Port), Touches: s.Touches, State: s.State})
	}
	return out, nil
}

// Invites implements api.Backend.
func (b backend) Invites(context.Context) ([]*apiv1.Invite, error) {
	var out []*apiv1.Invite
	for _, i := range b.fold.State().Invites() {
		out = append(out, &apiv1.Invite{
			Id: i.ID, Roles: i.Roles, Uses: uint32(i.Uses), Used: uint32(len(i.Joiners)), Expires: timestamppb.New(i.NotAfter),
			Withdrawn: i.Withdrawn, By: string(i.By),
		})
	}
	return out, nil
}

// EachFinding implements api.Backend.
func (b backend) EachFinding(ctx context.Context, since int64, follow bool, yield func(*event.Finding) error) error {
	return b.feed.findings.each(ctx, follow, func(f *event.Finding) error {
		if f.Time < since {
			return nil
		}
		return yield(f)
	})
}

// EachReceipt implements api.Backend.
func (b backend) EachReceipt(ctx context.Context, response string, follow bool, yield func(*event.Receipt) error) error {
	return b.feed.receipts.each(ctx, follow, func(r *event.Receipt) error {
		if response != "" && r.Response != response {
			return nil
		}
		return yield(r)
	})
}

// EachEvent implements api.Backend.
func (b backend) EachEvent(ctx context.Context, q api.EventQuery, yield func(*event.Event) error) error {
	return b.telemetry.journal.Read(ctx, journal.Query{Since: q.Since, Follow: q.Follow, Match: q.Match, Needs: q.Needs}, yield)
}

// Responses implements api.Backend.
func (b backend) Responses(_ context.Context, active bool) ([]*apiv1.Response, error) {
	now := bpf.BootTime()
	var out []*apiv1.Response
	for _, s := range b.local.merge(b.board.Responses()) {
		if s.State == roles.StateActive && b.Mode() == roles.ModePanic {
			s.State, s.Expires = roles.StateReleased, 0 // a panic ends all at once, whoever knows of it
		}
		if active && s.State != roles.StateActive {
			continue
		}
		out = append(out, api.Response(&s.Response, string(s.State), time.Duration(s.Expires-min(s.Expires, now))))
	}
	return out, nil
}

// Pending implements api.Backend.
func (b backend) Pending(context.Context) ([]*apiv1.Pending, error) {
	var out []*apiv1.Pending
	for _, p := range b.board.Pending() {
		row := &apiv1.Pending{Proposal: api.Response(&p.Proposal, string(roles.StatePending), p.Proposal.TTL), Guard: p.Guard, Suggested: string(p.Suggested)}
		if p.Member != "" {
			row.Suggested += " " + b.nameOf(identity.DID(p.Member))
		}
		for i := range p.Evidence {
			row.Evidence = append(row.Evidence, api.Finding(&p.Evidence[i]))
		}
		out = append(out, row)
	}
	return out, nil
}

// Joiners implements api.Backend.
func (b backend) Joiners(context.Context) ([]*apiv1.Joiner, error) {
	s := b.fold.State()
	var out []*apiv1.Joiner
	for _, j := range b.joining.waiting(s, b.clock.now()) {
		row := &apiv1.Joiner{
			Id: j.id, Did: string(j.inception.DID()), Name: j.inception.Name, Words: j.inception.DID().Words(), Inception: j.inception.Encode(),
			Invite: j.invite, Asked: b.nameOf(j.asked), Time: timestamppb.New(time.Unix(0, j.time)),
		}
		if j.address.IsValid() {
			row.Address = j.address.String()
		}
		for _, i := range s.Invites() {
			if i.ID == j.invite {
				row.Roles = i.Roles
			}
		}
		out = append(out, row)
	}
	return out, nil
}

// Head implements api.Backend. An empty DID names the genesis's first operator.
func (b backend) Head(_ context.Context, did string) (*apiv1.HeadResponse, error) {
	author := b.genesis.Operators[0].DID()
	if did != "" {
		var err error
		if author, err = identity.ParseDID(did); err != nil {
			return nil, fmt.Errorf("%w: %w", api.ErrInvalid, err)
		}
	}
	if !b.synced.Load() {
		return nil, fmt.Errorf("%w: this node does not know yet where that chain stands", api.ErrBusy)
	}
	out := &apiv1.HeadResponse{Genesis: b.genesis.Encode(), NodeInception: b.self.Inception().Encode()}
	if h, ok := b.ledger.Head(author, ledger.Authority); ok {
		out.NextSeq, out.Prev = h.Seq+1, h.Hash[:]
	} else {
		out.Prev = make([]byte, len(ledger.Hash{}))
	}
	return out, nil
}

// Submit implements api.Backend. The socket adds nothing to what the entry's signature says.
func (b backend) Submit(ctx context.Context, raw []byte) (string, error) {
	e, err := ledger.Decode(raw)
	if err != nil {
		return "", fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	if e.Chain != ledger.Authority || !b.fold.State().IsOperator(e.Author) {
		return "", fmt.Errorf("%w: only an operator's authority entries are taken here", api.ErrForbidden)
	}
	if err := errors.Join(b.checkSuspension(e), b.checkDeployment(e)); err != nil {
		return "", err
	}
	e, err = b.ledger.Submit(ctx, raw)
	b.health.stored(err)
	var refused *ledger.RejectError
	switch {
	case err == nil:
	case errors.Is(err, ledger.ErrDuplicate):
		again, derr := ledger.Decode(raw)
		if derr != nil {
			return "", derr
		}
		return again.ID(), nil
	case errors.Is(err, ledger.ErrStale):
		return "", fmt.Errorf("%w: %w", api.ErrState, err)
	case errors.As(err, &refused):
		return "", fmt.Errorf("%w: %w", api.ErrForbidden, err)
	default:
		return "", err
	}
	b.fresh.word(b.fold.State())
	if err := b.swarm.Publish(ctx, e); err != nil {
		b.log.Debug("operator's entry left to sync", "entry", e.ID(), "err", err)
	}
	return e.ID(), nil
}

// Respond implements api.Backend: on this host alone, whatever scope was asked for.
func (b backend) Respond(ctx context.Context, r event.Response) (event.Response, event.Receipt, error) {
	r.Authority, r.By, r.Issued, r.Scope = event.AuthorityLocal, b.DID(), b.clock.now().UnixNano(), []string{b.DID()}
	r.TTL = min(r.TTL, b.genesis.LongestLife)
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return r, event.Receipt{}, err
	}
	r.ID = hex.EncodeToString(id)
	var rc event.Receipt
	var err error
	if r.Action == event.ActionRelease {
		if !b.knows(r.Releases) {
			return r, rc, fmt.Errorf("%w: no response %.40q stands on this host", api.ErrNotFound, r.Releases)
		}
		rc, err = b.Release(ctx, r.Releases)
		rc.Response = r.ID
	} else {
		rc, err = b.Node.Respond(ctx, r)
	}
	if err != nil {
		return r, rc, err
	}
	if r.Action != event.ActionRelease {
		b.local.did(r, rc)
	}
	if rc.Heard == 0 {
		rc.Heard = rc.Acted
	}
	signed, err := b.Report(ctx, rc)
	if err != nil {
		b.log.Error("receipt not signed", "response", r.ID, "err", err) // what was done is done
		return r, rc, nil
	}
	return r, signed, nil
}

func (b backend) knows(id string) bool {
	for _, s := range b.local.merge(b.board.Responses()) {
		if s.Response.ID == id {
			return true
		}
	}
	return false
}

// Allowed implements api.Backend.
func (b backend) Allowed(ctx context.Context) ([]*apiv1.Allowed, error) {
	own, err := b.service.Allowed(ctx)
	if err != nil {
		return nil, err
	}
	var out []*apiv1.Allowed
	for _, what := range own {
		why := "this host's socket"
		if slices.Contains(b.cfg.Allow, what) {
			why = "this host's configuration"
		}
		out = append(out, &apiv1.Allowed{What: what, By: b.DID(), Why: why})
	}
	for _, a := range b.fold.State().Allowed() {
		out = append(out, &apiv1.Allowed{What: allowText(a), By: string(a.By), Why: "an operator, for every host"})
	}
	return out, nil
}

func allowText(a authority.Allowed) string {
	if a.Path != "" {
		return a.Path
	}
	if a.Address.IsSingleIP() {
		return a.Address.Addr().String()
	}
	return a.Address.String()
}

// Allow implements api.Backend.
func (b backend) Allow(ctx context.Context, what string) error {
	what, err := plainAllow(what)
	if err != nil {
		return err
	}
	return b.service.Allow(ctx, what)
}

// Disallow implements api.Backend.
func (b backend) Disallow(ctx context.Context, what string) error {
	what, err := plainAllow(what)
	if err != nil {
		return err
	}
	list, err := b.service.Allowed(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(list, what) {
		return fmt.Errorf("%w: %q is not on this host's allow list", api.ErrNotFound, what)
	}
	if slices.Contains(b.cfg.Allow, what) {
		return fmt.Errorf("%w: %q stands in the configuration: take it out there", api.ErrState, what)
	}
	return b.service.Disallow(ctx, what)
}

// plainAllow brings a line into the one spelling it is kept in.
func plainAllow(what string) (string, error) {
	what = strings.TrimSpace(what)
	if len(what) > 4096 || what == "" {
		return "", fmt.Errorf("%w: a line of %d bytes", api.ErrInvalid, len(what))
	}
	if what[0] == '/' {
		if strings.ContainsFunc(what, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return "", fmt.Errorf("%w: the path holds a control character", api.ErrInvalid)
		}
		return what, nil
	}
	if a, err := netip.ParseAddr(what); err == nil && a.Zone() == "" {
		return a.Unmap().String(), nil
	}
	p, err := netip.ParsePrefix(what)
	if err != nil {
		return "", fmt.Errorf("%w: %.80q is neither an address, nor a prefix, nor an absolute path", api.ErrInvalid, what)
	}
	return p.Masked().String(), nil
}

// allowOperators tells the privileged side what the operators said must never be blocked.
func (n *Node) allowOperators(ctx context.Context, s *authority.State) error {
	var lines []string
	for _, a := range s.Allowed() {
		lines = append(lines, allowText(a))
	}
	if slices.Equal(lines, n.operatorsSaid) {
		return nil
	}
	if err := n.service.Operators(ctx, lines); err != nil {
		return err
	}
	n.operatorsSaid = lines
	return nil
}

// Panic implements api.Backend.
func (b backend) Panic(ctx context.Context) (int, error) {
	n, err := b.service.Panic(ctx)
	b.mode.Store(string(roles.ModePanic))
	b.local.releaseAll()
	return n, err
}

// Leave implements api.Backend: the node stops; who asked wipes the folder.
func (b backend) Leave(context.Context) error {
	b.leaving.Do(func() { close(b.leave) })
	return nil
}
