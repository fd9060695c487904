package sentinel

import (
	"context"
	"slices"
	"time"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/policy"
)

// obey does what operators say: their responses and releases, then their verdicts. At start, kills are not repeated.
func (r *responder) obey(ctx context.Context, first bool) {
	a := r.p.Authority()
	now := r.p.Boot()
	all := a.Responses()
	// Releases first: a release that came with its response must win whatever the order.
	for _, o := range all {
		if o.Action == event.ActionRelease && !r.handled["release "+o.ID] {
			r.handled["release "+o.ID] = true
			if d := r.allowed(o); !d.Allowed {
				r.log.Warn("release refused by the policy", "id", o.ID, "by", o.By, "why", d)
				continue
			}
			r.release(ctx, o, all, now)
		}
	}
	for _, o := range all {
		if o.Action == event.ActionRelease || r.handled[o.ID] {
			continue
		}
		r.handled[o.ID] = true
		if len(o.Scope) > 0 && !slices.Contains(o.Scope, r.p.DID()) {
			continue
		}
		if d := r.allowed(o); !d.Allowed {
			r.stand(o, event.Receipt{Outcome: event.OutcomeRefused, Guard: policy.Rail, Detail: d.String()}, 0, now)
			continue
		}
		r.order(ctx, o, first, now)
	}
	r.lapse(ctx, all, now)
	for _, v := range a.Verdicts() {
		if !r.handled["verdict "+v.ID] {
			r.judge(ctx, v.Response)
		}
	}
	if len(r.handled) > 4*maxHandled {
		r.prune(a, all)
	}
}

// allowed asks the policy about an order. That its signature and credential stand is known: the fold left out what does not.
func (r *responder) allowed(o event.Response) policy.AccessDecision {
	c := policy.Call{Caller: policy.Operator, ID: o.By, Action: authority.CapabilityFor(o.Action), Host: r.p.DID(), Swarm: true, TTL: o.TTL, Active: true, Capable: true}
	if o.Authority == event.AuthorityDelegated {
		c.Caller, c.Active = policy.Delegate, false
		for _, role := range []string{"analyst", "decoy", "scheduler", "sentinel", "simulator"} {
			if r.p.HasRole(o.By, role) {
				c.Roles, c.Active = append(c.Roles, role), true
			}
		}
	}
	return r.access.Decide(c)
}

// lapse ends what members ordered under credentials that do not stand any more.
func (r *responder) lapse(ctx context.Context, all []event.Response, now uint64) {
	for id, o := range r.active {
		if o.Authority == event.AuthorityDelegated && !slices.ContainsFunc(all, func(a event.Response) bool { return a.ID == id }) {
			r.end(ctx, id, roles.Standing{Response: o}, "the credential it was ordered by does not stand any more", now)
		}
	}
}

// maxHandled is about what the authority keeps: ids that it has forgotten are forgotten here too.
const maxHandled = 8192

func (r *responder) prune(a roles.Authority, all []event.Response) {
	kept := make(map[string]bool, len(all))
	keep := func(key string) {
		if r.handled[key] {
			kept[key] = true
		}
	}
	for _, o := range all {
		keep(o.ID)
		keep("release " + o.ID)
	}
	for _, v := range a.Verdicts() {
		keep("verdict " + v.ID)
	}
	r.handled = kept
}

// order acts on an operator's response.
func (r *responder) order(ctx context.Context, o event.Response, first bool, heard uint64) {
	age := max(0, r.p.Now().Sub(time.Unix(0, o.Issued)))
	left := o.TTL - age
	if s, known := r.board.Response(o.ID); known && s.State == roles.StateReleased && r.releasedAt(o.ID) != 0 {
		return
	}
	if left <= 0 {
		return
	}
	switch o.Action {
	case event.ActionKill, event.ActionQuarantine:
		if o.Target.Peer != r.p.DID() || o.Action == event.ActionKill && (first || age > killFresh) {
			return
		}
		// The peer was for the swarm; this host's kernel and rails know processes and files.
		local := o
		local.Target.Peer = ""
		r.stand(o, r.act(ctx, local, left), left, heard)
		return
	}
	r.stand(o, r.act(ctx, o, left), left, heard)
}

// release ends a response here, and with it every other one of the policy on the same address: a person who lets an
// address in again does not mean one of several equal blocks.
func (r *responder) release(ctx context.Context, o event.Response, all []event.Response, heard uint64) {
	ids := []string{o.Releases}
	target := r.active[o.Releases].Target.Address
	if s, known := r.board.Response(o.Releases); known && !target.IsValid() {
		target = s.Response.Target.Address
	}
	if target.IsValid() {
		r.released[target] = max(r.released[target], o.Issued)
		for _, id := range r.byTarget[target] {
			if id != o.Releases && r.active[id].Authority == event.AuthorityPolicy {
				ids = append(ids, id)
			}
		}
		if len(r.released) > maxHandled {
			r.dropReleases()
		}
	}
	if i := slices.IndexFunc(all, func(a event.Response) bool { return a.ID == o.Releases }); i >= 0 {
		r.handled[o.Releases] = true // whichever came first, it is released
	}
	for _, id := range ids {
		s, known := r.board.Response(id)
		if !known {
			s = roles.Standing{Response: event.Response{ID: id, Action: event.ActionRelease, Reason: o.Reason, By: o.By, Authority: o.Authority, Issued: o.Issued}}
		}
		r.end(ctx, id, s, "", heard)
	}
}

// end takes a response out of the kernel, if it is there, and keeps the books of that; why, if set, is said in the receipt.
func (r *responder) end(ctx context.Context, id string, s roles.Standing, why string, heard uint64) {
	if resp, active := r.active[id]; active {
		s.Response = resp
	}
	// What this host's own operator asked for at its socket is in the kernel and not in these books: it ends as well.
	rc, err := r.p.Release(ctx, id)
	if err != nil {
		rc.Outcome, rc.Detail = event.OutcomeFailed, redact.Printable(err.Error(), maxPath)
	}
	rc.Response = id
	if rc.Time == 0 {
		rc.Time = r.p.Now().UnixNano()
	}
	rc.Heard, rc.Acted = heard, max(rc.Acted, heard)
	if rc.Outcome == event.OutcomeFailed {
		// It still stands: the books say so, and its own end comes.
		r.receipt(rc)
		return
	}
	if why != "" {
		rc.Detail = why
	}
	r.forget(id)
	r.board.Withdraw(id)
	s.State, s.Detail, s.Acted, s.Expires = roles.StateReleased, rc.Detail, rc.Acted, 0
	r.board.Set(s)
	r.receipt(rc)
}

// releasedAt is when an operator released a response, Unix nanoseconds; 0 if none did.
func (r *responder) releasedAt(id string) int64 {
	at := int64(0)
	for _, o := range r.p.Authority().Responses() {
		if o.Action == event.ActionRelease && o.Releases == id {
			at = max(at, o.Issued)
		}
	}
	return at
}

// letIn notes that resp was released before it was derived here, and ends what older findings had put on its address.
func (r *responder) letIn(ctx context.Context, resp event.Response, at int64, heard uint64) {
	target := resp.Target.Address
	r.released[target] = max(r.released[target], at)
	r.board.Set(roles.Standing{Response: resp, State: roles.StateReleased, Acted: r.p.Boot()})
	for _, id := range slices.Clone(r.byTarget[target]) {
		old := r.active[id]
		if old.Authority != event.AuthorityPolicy || old.Issued > at {
			continue
		}
		rc, err := r.p.Release(ctx, id)
		if err != nil {
			r.log.Warn("response not released", "id", id, "err", err)
			continue
		}
		r.forget(id)
		r.board.Set(roles.Standing{Response: old, State: roles.StateReleased, Detail: rc.Detail, Acted: r.p.Boot()})
		rc.Response, rc.Heard, rc.Time = id, heard, r.p.Now().UnixNano()
		r.receipt(rc)
	}
}

// dropReleases forgets releases older than any finding that is still folded.
func (r *responder) dropReleases() {
	oldest := r.p.Now().Add(-history).UnixNano()
	for p, at := range r.released {
		if at < oldest {
			delete(r.released, p)
		}
	}
}
