package authority

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Who is out, and until when. Revoking takes k operators: by the root chain, or by as many votes in their own. What one
// operator says alone keeps a peer out for a day at most, and no more than a thief of its key may do: not an operator's
// peer, not more than a tenth of the members at once, not the same peer again within a week. Times are those the operator's
// entries claim, which only move forward in its chain: so the same set of entries gives the same answer everywhere.

// removal is what operators said against a peer.
type removal struct {
	said map[identity.DID][]said // by operator, as keep leaves them
}

// said is one suspension, or one vote to revoke, which suspends until enough have voted.
type said struct {
	fact
	until int64       // Unix nanoseconds
	vote  *RevokeBody // nil for a suspension
}

func (f *Fold) removal(subject identity.DID) *removal {
	if f.removals[subject] == nil {
		f.removals[subject] = &removal{said: make(map[identity.DID][]said)}
	}
	return f.removals[subject]
}

func (f *Fold) applySuspend(e *ledger.Entry, b *SuspendBody) error {
	return f.speaksAgainst(e, b.Subject, said{fact: factOf(e), until: min(b.NotAfter*int64(time.Second), e.Time+int64(trust.MaxSuspension))})
}

func (f *Fold) applyRevoke(e *ledger.Entry, b *RevokeBody) error {
	return f.speaksAgainst(e, b.Subject, said{fact: factOf(e), until: e.Time + int64(trust.MaxSuspension), vote: b})
}

func (f *Fold) speaksAgainst(e *ledger.Entry, b []byte, x said) error {
	subject := identity.DIDFromBytes([32]byte(b))
	r := f.removal(subject)
	_, _, before := f.revoked(subject)
	r.said[e.Author] = keep(r.said[e.Author], x, func(s said) uint64 { return s.seq })
	f.judge()
	if _, _, now := f.revoked(subject); now && (!before || x.vote != nil) && len(f.admits[subject]) > 0 {
		f.rebuild() // what it admitted past its head no longer counts
	} else {
		f.publishMember(subject)
	}
	if _, op := f.frost.root.Operator(subject); op {
		return f.void(e, "an operator is removed by a change of the root")
	}
	if f.suspended[subject] < x.until && x.vote == nil {
		return f.void(e, "one operator alone may not keep that peer out so long: see `omega peer suspend --help`")
	}
	return nil
}

// revoked says how many entries of each of did's chains stand, where it is out for good.
func (f *Fold) revoked(did identity.DID) (authority, activity uint64, revoked bool) {
	authority, activity = math.MaxUint64, math.MaxUint64
	s := f.frost.root
	if r, ok := s.Revoked[did]; ok {
		authority, activity, revoked = r.Authority, r.Activity, true
	}
	r := f.removals[did]
	if r == nil {
		return authority, activity, revoked
	}
	if _, op := s.Operator(did); op {
		return authority, activity, revoked
	}
	voters := make(map[identity.DID]bool)
	least := RevokeBody{Authority: math.MaxUint64, Activity: math.MaxUint64}
	for op, list := range r.said {
		for _, x := range list {
			if x.vote == nil || !f.frost.counts(op, x.seq) || x.time <= s.Unrevoked[did] {
				continue
			}
			voters[f.person(op)] = true
			least.Authority, least.Activity = min(least.Authority, x.vote.Authority), min(least.Activity, x.vote.Activity)
		}
	}
	if len(voters) < s.K {
		return authority, activity, revoked
	}
	return min(authority, least.Authority), min(activity, least.Activity), true
}

// person is the operator that another's keys were rotated into: its votes before and after are one.
func (f *Fold) person(op identity.DID) identity.DID {
	for range trust.MaxRootEntries {
		former, ok := f.frost.root.Former[op]
		if !ok || former.Successor == "" {
			break
		}
		op = former.Successor
	}
	return op
}

// judge derives until when each peer is suspended, and publishes those whose answer changed.
func (f *Fold) judge() {
	old := f.suspended
	f.share = f.shareNow()
	f.suspended = f.sentences(nil)
	for subject := range f.removals {
		if old[subject] != f.suspended[subject] {
			f.publishMember(subject)
		}
	}
}

// CheckSuspend says why a suspension that an operator would sign now, as entry seq of its chain, would have no effect.
func (f *Fold) CheckSuspend(op identity.DID, seq uint64, subject identity.DID, now, until time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := against{said{fact: fact{by: op, seq: seq, time: now.UnixNano()}, until: until.UnixNano()}, subject}
	switch got := f.sentences(&x)[subject]; {
	case got > x.time: // though it be shorter: a day after this operator first suspended that peer it ends
		return nil
	case f.frost.root.K > 1 && f.operatorsPeers()[subject]:
		return fmt.Errorf("authority: an operator's peer is put out by %d operators, not by one: %w", f.frost.root.K, ErrVoid)
	}
	return fmt.Errorf("authority: one operator alone keeps out at most %d of %d peers at once, and none twice within %s: %w", f.shareNow(), len(f.members), trust.SuspendAgain, ErrVoid)
}

// against is what was said, and of whom.
type against struct {
	said
	subject identity.DID
}

// sentences derives until when each peer is suspended, by what was said and extra.
func (f *Fold) sentences(extra *against) map[identity.DID]int64 {
	suspended := make(map[identity.DID]int64)
	byOperator := make(map[identity.DID][]against)
	for subject, r := range f.removals {
		for op, list := range r.said {
			for _, x := range list {
				if f.frost.counts(op, x.seq) && x.time > f.frost.root.Unrevoked[subject] {
					byOperator[op] = append(byOperator[op], against{x, subject})
				}
			}
		}
	}
	if extra != nil {
		byOperator[extra.by] = append(byOperator[extra.by], *extra)
	}
	alone := f.frost.root.K == 1
	var protected map[identity.DID]bool
	if len(byOperator) > 0 {
		protected = f.operatorsPeers()
	}
	for _, list := range byOperator {
		slices.SortFunc(list, func(a, b against) int { return cmp.Compare(a.seq, b.seq) })
		begun := make(map[identity.DID]int64) // the window of each subject
		until := make(map[identity.DID]int64)
		for _, x := range list {
			if !alone {
				if protected[x.subject] {
					continue
				}
				begin, ok := begun[x.subject]
				switch {
				case ok && x.time < begin+int64(trust.MaxSuspension):
					x.until = min(x.until, begin+int64(trust.MaxSuspension))
				case ok && x.time < begin+int64(trust.SuspendAgain):
					continue
				default:
					others := 0
					for subject, end := range until {
						if subject != x.subject && end > x.time {
							others++
						}
					}
					if others >= f.shareNow() {
						continue
					}
					begun[x.subject] = x.time
				}
			}
			until[x.subject] = max(until[x.subject], x.until)
		}
		for subject, end := range until {
			suspended[subject] = max(suspended[subject], end)
		}
	}
	return suspended
}

// shareNow is how many peers one operator alone may keep out at once.
func (f *Fold) shareNow() int { return max(1, len(f.members)/trust.SuspendShare) }

// rejudge judges anew where a new membership may change the answer.
func (f *Fold) rejudge(m *memberFact) {
	if len(f.removals) > 0 && (f.share != f.shareNow() || m != nil && m.seq == 0) {
		f.judge()
	}
}

// operatorsPeers are the peers that no single operator may keep out: those the root names, and the one that an operator's
// first entry admitted, which is how a swarm is founded.
func (f *Fold) operatorsPeers() map[identity.DID]bool {
	out := make(map[identity.DID]bool)
	for _, o := range f.frost.root.Operators {
		out[o.DID] = true
		if o.Node != "" {
			out[o.Node] = true
		}
	}
	for _, m := range f.direct {
		if _, op := f.frost.root.Operator(m.by); op && m.seq == 0 {
			out[m.inception.DID()] = true
		}
	}
	return out
}
