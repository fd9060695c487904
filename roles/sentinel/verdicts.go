package sentinel

import (
	"context"
	"strings"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
)

// verdict is the operators' latest word on a response.
func (r *responder) verdict(id string) (v authority.Verdict, ok bool) {
	for _, o := range r.p.Authority().Verdicts() {
		if o.Response == id {
			v, ok = o, true
		}
	}
	return v, ok
}

// judge does what the operators decided of a response that waits, if they have, and if this host knows it.
func (r *responder) judge(ctx context.Context, id string) {
	v, ok := r.verdict(id)
	if !ok || r.handled["verdict "+v.ID] {
		return
	}
	p, waits := r.board.Waiting(id)
	asked := r.asked.get(id)
	s, stands := r.board.Response(id)
	if !waits && asked == nil && !stands {
		return // what it is about has not arrived yet
	}
	r.handled["verdict "+v.ID] = true
	r.board.Withdraw(id)
	heard := r.p.Boot()
	var resp event.Response
	switch {
	case waits:
		resp = p.Proposal
	case asked != nil:
		resp = *asked
	default:
		resp = s.Response
	}
	if !v.Approved {
		if _, enforced := r.active[id]; enforced {
			return // this host had no reason to wait; a release ends it
		}
		delete(r.expires, id)
		r.board.Set(roles.Standing{Response: resp, State: roles.StateRejected, Guard: p.Guard, Acted: heard})
		return
	}
	member := p.Member
	if member == "" && s.State == roles.StateActive {
		member = r.memberAt(resp.Target.Address.Addr())
		if member == "" {
			return // enforced here already, as what it was
		}
	}
	resp.Authority, resp.By, resp.Issued = event.AuthorityOperator, string(v.By), v.Time.UnixNano()
	resp.Reason = strings.TrimSpace("approved: " + resp.Reason)
	if member != "" {
		resp.Action, resp.Target, resp.Scope = event.ActionContain, event.Target{Peer: member}, nil
	} else if waits && p.Guard != "" {
		r.stand(resp, event.Receipt{Outcome: event.OutcomeRefused, Guard: p.Guard, Detail: "no single member has that address, so none can be contained"}, 0, heard)
		return
	}
	left := resp.TTL - max(0, r.p.Now().Sub(v.Time))
	if left <= 0 {
		return
	}
	if _, enforced := r.active[id]; enforced {
		if _, err := r.p.Release(ctx, id); err != nil {
			r.log.Warn("denial not ended before the containment", "id", id, "err", err)
		}
		r.forget(id)
	}
	delete(r.expires, id)
	r.stand(resp, r.act(ctx, resp, left), left, heard)
}
