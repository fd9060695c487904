package sentinel

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
	"github.com/omega-mesh/omega/trust/guard"
	"github.com/omega-mesh/omega/trust/policy"
)

// Times and bounds of a responder.
const (
	// history is how far back findings are folded at start: the longest a response of the policy may stand, and a window.
	history = policy.MaxTTL + policy.Window
	// settle is how long after start what is history waits before it acts: by then live connections have proved which
	// addresses are members', so that a restart blocks no member.
	settle = uint64(5 * time.Second)
	// bookkeeping is how often expiries are looked at.
	bookkeeping = time.Second
	// maxSameTarget is how many responses stand on one target at once; more add nothing.
	maxSameTarget = 4
	// killFresh is how old an operator's order to kill may be: later, the pid may be another's.
	killFresh = 2 * time.Minute
	// maxWaiting bounds the history that waits for settle, maxAsked the proposals a person may yet approve.
	maxWaiting = 4096
	maxAsked   = 512
)

// responder folds findings into responses, and does what operators say. One goroutine runs it.
type responder struct {
	s        *Sentinel
	p        roles.Peer
	board    *roles.Board
	log      *slog.Logger
	receipts chan<- event.Receipt
	fold     *policy.Fold
	lag      *clocks

	policyText string
	access     *policy.Access
	started    uint64
	waiting    []waiting                     // history, until settle
	active     map[string]event.Response     // what this host enforces or observes, by id
	expires    map[string]uint64             // CLOCK_BOOTTIME by id
	byTarget   map[netip.Prefix][]string     // ids of active denials by address
	writes     map[string]string             // paths that may not be written, by the id of the response
	asked      *slab[string, event.Response] // what the policy asks of a person
	handled    map[string]bool               // operators' responses and verdicts done with
	released   map[netip.Prefix]int64        // wall clock of the latest release of an address
	mode       roles.Mode
}

type waiting struct {
	proposal policy.Proposal
	heard    roles.Heard
}

func newResponder(s *Sentinel, p roles.Peer, receipts chan<- event.Receipt) *responder {
	return &responder{
		s: s, p: p, board: s.opt.Board, log: s.log, receipts: receipts,
		fold:    policy.NewFold(policy.Default(), policy.FoldOptions{Self: p.DID(), HasRole: p.HasRole}),
		lag:     newClocks(),
		started: p.Boot(),
		active:  map[string]event.Response{}, expires: map[string]uint64{}, byTarget: map[netip.Prefix][]string{}, writes: map[string]string{},
		asked: newSlab[string, event.Response](maxAsked), handled: map[string]bool{}, released: map[netip.Prefix]int64{},
		mode: p.Mode(),
	}
}

// run responds until ctx ends. It returns roles.ErrBehind when its channel of findings was closed under it.
func (r *responder) run(ctx context.Context) error {
	changes := r.p.Changes(ctx) // first: what is ordered while the rest is read must not be missed
	r.usePolicy()
	r.obey(ctx, true)
	findings := r.p.Findings(ctx, r.p.Now().Add(-history), findingsBuffer)
	tick := time.NewTicker(bookkeeping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case h, ok := <-findings:
			if !ok {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return fmt.Errorf("sentinel: %w", roles.ErrBehind)
			}
			r.usePolicy() // the one in force now: its change and this finding arrive by two channels, in any order
			r.hear(ctx, &h)
		case _, ok := <-changes:
			if !ok {
				changes = nil
			}
			r.usePolicy()
			r.obey(ctx, false)
		case <-tick.C:
			r.keep(ctx)
		}
	}
}

// usePolicy takes up the policy in force. One that does not parse leaves what was: operators' clients refuse such a text
// before it is signed, so this is a newer build's policy or an attack.
func (r *responder) usePolicy() {
	text := policy.DefaultText()
	if p, ok := r.p.Authority().Policy(); ok {
		text = p.Text
	}
	if text == r.policyText {
		return
	}
	r.policyText = text
	e, err := policy.Parse(text)
	var a *policy.Access
	if err == nil {
		a, err = policy.NewAccess(text)
	}
	if err != nil {
		r.log.Error("response policy not understood: the one before stays in force", "err", err)
		return
	}
	r.fold.SetEngine(e)
	r.access = a
}

// hear folds one finding and does at once what follows.
func (r *responder) hear(ctx context.Context, h *roles.Heard) {
	age := r.lag.age(h, r.p.Now())
	proposal, ok := r.fold.Add(&h.Finding)
	if !ok {
		return
	}
	if at := r.releasedAt(proposal.Response.ID); at != 0 {
		// A release that stands since before this life, or came before what it releases.
		r.letIn(ctx, proposal.Response, at, h.At)
		return
	}
	switch {
	case proposal.Verdict == policy.Ask:
		if left := proposal.Response.TTL - age; left > 0 && len(r.expires) < 2*roles.MaxStandings {
			r.expires[proposal.Response.ID] = r.p.Boot() + uint64(left)
		} else {
			return
		}
		*r.asked.touch(proposal.Response.ID) = proposal.Response
		r.judge(ctx, proposal.Response.ID)
	case !h.Live && r.p.Boot()-r.started < settle:
		if len(r.waiting) < maxWaiting {
			r.waiting = append(r.waiting, waiting{proposal, *h})
		} else {
			r.s.counts.surplus.Add(1)
		}
	default:
		r.respond(ctx, proposal, h, age)
	}
}

// respond acts on what the policy lets act by itself.
func (r *responder) respond(ctx context.Context, proposal policy.Proposal, h *roles.Heard, age time.Duration) {
	resp := proposal.Response
	left := resp.TTL - age
	target := resp.Target.Address
	if left <= 0 || resp.Issued <= r.released[target] {
		return
	}
	if s, known := r.board.Response(resp.ID); known && (s.State == roles.StateReleased || s.State == roles.StateRejected) {
		return
	}
	if len(r.byTarget[target]) >= maxSameTarget || len(r.active) >= roles.MaxStandings {
		r.s.counts.surplus.Add(1)
		return
	}
	if verdict, ok := r.verdict(resp.ID); ok && !verdict.Approved {
		r.board.Set(roles.Standing{Response: resp, State: roles.StateRejected, Acted: r.p.Boot()})
		return
	}
	var rc event.Receipt
	member := r.memberAt(target.Addr())
	if member != "" && !h.Live {
		// History was heard before the connections of this life were proved: the rails cannot know, so it is asked here.
		rc = event.Receipt{Outcome: event.OutcomeRefused, Guard: guard.RailPeer, Detail: "the address is a member's"}
	} else {
		rc = r.act(ctx, resp, left)
	}
	if rc.Outcome == event.OutcomeRefused && proposal.Verdict == policy.Everywhere && (rc.Guard == guard.RailPeer || rc.Guard == guard.RailOwn) {
		if rc.Guard == guard.RailOwn {
			member = r.p.DID()
		}
		rc.Outcome = event.OutcomePending
		p := roles.Pending{Proposal: resp, Guard: rc.Guard, Evidence: proposal.Evidence, Member: member, Since: r.p.Boot()}
		if member != "" {
			p.Suggested = event.ActionContain
		}
		r.board.Propose(p)
	}
	r.stand(resp, rc, left, h.At)
	r.judge(ctx, resp.ID)
}

// memberAt is the member whose proved address a is; empty where it is none's, or more than one's.
func (r *responder) memberAt(a netip.Addr) string {
	member := ""
	for _, p := range r.p.Proved() {
		if p.Address.Unmap() != a || p.DID == member {
			continue
		}
		if member != "" {
			return ""
		}
		member = p.DID
	}
	return member
}

// act has the kernel enforce resp for what is left of its life.
func (r *responder) act(ctx context.Context, resp event.Response, left time.Duration) event.Receipt {
	resp.TTL = left
	rc, err := r.p.Respond(ctx, resp)
	if err != nil {
		rc.Outcome, rc.Detail = event.OutcomeFailed, redact.Printable(err.Error(), maxPath)
	}
	return rc
}

// stand keeps the books of what became of resp, and has the receipt signed.
func (r *responder) stand(resp event.Response, rc event.Receipt, left time.Duration, heard uint64) {
	now := r.p.Boot()
	rc.Response = resp.ID
	if rc.Time == 0 {
		rc.Time = r.p.Now().UnixNano()
	}
	if rc.Heard == 0 {
		rc.Heard = heard
	}
	if rc.Acted == 0 {
		rc.Acted = now
	}
	st := roles.Standing{Response: resp, Guard: rc.Guard, Detail: rc.Detail, Acted: rc.Acted}
	c := &r.s.counts
	switch rc.Outcome {
	case event.OutcomeDone, event.OutcomeAdopted:
		st.State = roles.StateActive
		if resp.Action == event.ActionKill {
			st.State = roles.StateDone
		}
		c.done.Add(1)
	case event.OutcomeObserved:
		st.State = roles.StateObserved
		c.observed.Add(1)
	case event.OutcomeRefused:
		st.State = roles.StateRefused
		c.refused.Add(1)
	case event.OutcomePending:
		st.State = roles.StatePending
		c.pending.Add(1)
	default:
		st.State = roles.StateFailed
		c.failed.Add(1)
	}
	if st.State == roles.StateActive || st.State == roles.StateObserved {
		st.Expires = now + uint64(left)
		r.active[resp.ID], r.expires[resp.ID] = resp, st.Expires
		if resp.Target.Write != "" && st.State == roles.StateActive {
			r.writes[resp.ID] = resp.Target.Write
			r.sayWrites()
		}
		if p := resp.Target.Address; p.IsValid() && !slices.Contains(r.byTarget[p], resp.ID) {
			r.byTarget[p] = append(r.byTarget[p], resp.ID)
		}
	}
	if st.State == roles.StatePending {
		st.Expires = now + uint64(left)
		r.expires[resp.ID] = st.Expires
	}
	r.board.Set(st)
	r.log.Info("response", "id", resp.ID, "action", resp.Action, "outcome", rc.Outcome, "guard", rc.Guard, "reason", resp.Reason)
	r.receipt(rc)
}

func (r *responder) receipt(rc event.Receipt) {
	select {
	case r.receipts <- rc:
	default:
		r.s.counts.receiptsDropped.Add(1)
	}
}

// forget takes id off the books.
func (r *responder) forget(id string) {
	if p := r.active[id].Target.Address; p.IsValid() {
		if rest := slices.DeleteFunc(r.byTarget[p], func(o string) bool { return o == id }); len(rest) > 0 {
			r.byTarget[p] = rest
		} else {
			delete(r.byTarget, p)
		}
	}
	delete(r.active, id)
	delete(r.expires, id)
	if r.writes[id] != "" {
		delete(r.writes, id)
		r.sayWrites()
	}
}

// sayWrites tells the detector of denied writes where they are denied.
func (r *responder) sayWrites() {
	if r.s.opt.Denied != nil {
		r.s.opt.Denied.deny(slices.Sorted(maps.Values(r.writes)))
	}
}

// keep is the work of every second: history that may act now, what has expired, and a panic.
func (r *responder) keep(ctx context.Context) {
	now := r.p.Boot()
	if len(r.waiting) > 0 && now-r.started >= settle {
		for _, w := range r.waiting {
			r.respond(ctx, w.proposal, &w.heard, r.lag.age(&w.heard, r.p.Now()))
		}
		r.waiting = nil
	}
	mode := r.p.Mode()
	panicked := mode == roles.ModePanic && r.mode != roles.ModePanic
	r.mode = mode
	for id, end := range r.expires {
		s, known := r.board.Response(id)
		resp, enforced := r.active[id]
		switch {
		case end <= now:
			r.forget(id)
			r.board.Withdraw(id)
			r.s.counts.expired.Add(1)
			if known {
				s.State, s.Acted, s.Expires = roles.StateExpired, now, 0
				r.board.Set(s)
			}
			if enforced {
				r.receipt(event.Receipt{Response: id, Outcome: event.OutcomeExpired, Time: r.p.Now().UnixNano(), Heard: end, Acted: now})
			}
		case panicked && enforced:
			r.forget(id)
			r.board.Set(roles.Standing{Response: resp, State: roles.StateReleased, Detail: "panic on this host", Acted: now})
			r.receipt(event.Receipt{Response: id, Outcome: event.OutcomeReleased, Detail: "panic on this host", Time: r.p.Now().UnixNano(), Heard: now, Acted: now})
		}
	}
}
