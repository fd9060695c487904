package authority

import (
	"container/heap"
	"errors"
	"fmt"
	"slices"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Who is a member follows from admissions alone, in an order that no one can choose for others: an admission counts from
// its effective time, which is what it claims but never before its author's own admission, and of an invite's admissions
// the first by that time, then id, count. So a member that turned bad and backdates can at most displace joiners that
// came after itself on the same token.

// candidate is an admission that may count: direct (by an operator's word) or on an invite.
type candidate struct {
	fact      // time is effective
	inception *identity.Inception
	invite    *inviteFact // nil: direct
}

type candidates []candidate

func (c candidates) Len() int           { return len(c) }
func (c candidates) Less(i, j int) bool { return c[i].before(c[j].fact) }
func (c candidates) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }
func (c *candidates) Push(x any)        { *c = append(*c, x.(candidate)) }
func (c *candidates) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

// candidateOf is a as it counts, where its author is a member or operator and nothing voids it.
func (f *Fold) candidateOf(a *admitFact) (candidate, bool) {
	t := a.time
	if !f.frost.counts(a.by, a.seq) {
		m, ok := f.members[a.by]
		if !ok {
			return candidate{}, false
		}
		t = max(t, m.time)
	}
	if f.frost.voids(a.fact) || f.misplaced(a.fact) {
		return candidate{}, false
	}
	if n, _, cut := f.revoked(a.by); cut && a.seq >= n {
		return candidate{}, false
	}
	inv := f.byKey[a.keyHash]
	if inv == nil || !f.frost.allows(inv.fact) || !inv.lets(a.inception.DID(), a.time) {
		return candidate{}, false
	}
	c := candidate{fact: a.fact, inception: a.inception, invite: inv}
	c.time = t
	return c, true
}

// directCandidate is m as it counts. On an invite it waits for that to come; its time is no matter, since an operator
// may take its own.
func (f *Fold) directCandidate(m *memberFact) (candidate, bool) {
	if !f.frost.allows(m.fact) {
		return candidate{}, false
	}
	c := candidate{fact: m.fact, inception: m.inception}
	if m.invite == "" {
		return c, true
	}
	inv := f.invites[m.invite]
	if inv == nil || f.byKey[[32]byte(inv.body.KeyHash)] != inv || !f.frost.allows(inv.fact) || !inv.stands(m.inception.DID()) {
		return candidate{}, false
	}
	c.invite = inv
	return c, true
}

// rebuild computes all memberships from the facts, in the order of effective times (as Dijkstra's algorithm does: an
// admission never counts before its author's), and publishes a new state.
func (f *Fold) rebuild() {
	f.members = make(map[identity.DID]*membership, len(f.members))
	for _, inv := range f.invites {
		inv.reset()
	}
	var queue candidates
	for _, m := range f.direct {
		if c, ok := f.directCandidate(m); ok {
			queue = append(queue, c)
		}
	}
	for did, list := range f.admits {
		if _, op := f.frost.root.Inception(did); !op {
			continue
		}
		for _, a := range list {
			if c, ok := f.candidateOf(a); ok {
				queue = append(queue, c)
			}
		}
	}
	heap.Init(&queue)
	for queue.Len() > 0 {
		c := heap.Pop(&queue).(candidate)
		if !f.settle(c) {
			continue
		}
		for _, a := range f.admits[c.inception.DID()] {
			if next, ok := f.candidateOf(a); ok {
				heap.Push(&queue, next)
			}
		}
	}
	f.publishAll()
	f.rejudge(nil)
}

// settle counts c, which comes after all counted before it; it reports whether that made a new member.
func (f *Fold) settle(c candidate) bool {
	did := c.inception.DID()
	if inv := c.invite; inv != nil {
		inv.last = c.fact
		if !inv.joined[did] {
			if len(inv.joiners) >= int(inv.body.Uses) {
				inv.overspent = true
				return false
			}
			inv.joined[did] = true
			inv.joiners = append(inv.joiners, did)
		}
	}
	if f.members[did] != nil || len(f.members) >= trust.MaxMembers {
		return false
	}
	f.members[did] = &membership{fact: c.fact, inception: c.inception, invite: c.invite}
	return true
}

// applyMember is an operator's admission of an inception.
func (f *Fold) applyMember(e *ledger.Entry, b *MemberBody) error {
	if _, twice := f.known[e.ID()]; twice {
		return nil
	}
	inception, err := f.inception(b.Inception)
	if err != nil {
		return err
	}
	if len(f.direct) >= trust.MaxMembers {
		return fmt.Errorf("authority: %w: %d members", ErrFull, len(f.direct))
	}
	f.known[e.ID()] = struct{}{}
	m := &memberFact{fact: factOf(e), inception: inception}
	if len(b.Invite) > 0 {
		m.invite = fmt.Sprintf("%x", b.Invite)
	}
	f.direct = append(f.direct, m)
	defer f.rejudge(m)
	c, ok := f.directCandidate(m)
	if !ok {
		return f.void(e, "its author is frozen, or its invite does not allow it, or has not come")
	}
	did := inception.DID()
	if f.members[did] != nil || len(f.admits[did]) > 0 || c.invite != nil && c.invite.last.id != "" && c.before(c.invite.last) {
		f.rebuild()
		return nil
	}
	if f.settle(c) {
		f.publishMember(did)
	}
	if c.invite == nil {
		return nil
	}
	f.publishInvite(c.invite)
	if c.invite.overspent && !c.invite.joined[did] {
		return &InviteSpentError{Invite: c.invite.id, Joiner: did, Name: inception.Name, Joiners: c.invite.joiners}
	}
	return nil
}

// inception reads a record, or gives the one already held: with its key not expanded, which thousands need not be.
func (f *Fold) inception(raw []byte) (*identity.Inception, error) {
	i, err := identity.DecodeInception(raw)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	if i.Suite != f.genesis.Suite {
		return nil, fmt.Errorf("authority: %s has keys of suite %s: %w", i.DID().Short(), i.Suite.Name(), ErrSuite)
	}
	i.PublicKey().Compact()
	if m := f.members[i.DID()]; m != nil {
		return m.inception, nil
	}
	return i, nil
}

// maxAdmissions is how many admissions on one invite are kept: its uses, as often as impatient joiners may ask several
// peers at once. Only whoever holds the token can make more.
const maxAdmissions = 4 * trust.MaxInviteUses

// applyAdmit is a member's admission of a joiner on an invite.
func (f *Fold) applyAdmit(e *ledger.Entry, b *AdmitBody) error {
	if _, twice := f.known[e.ID()]; twice {
		return nil
	}
	hash := inviteKeyHash(b.InviteKey)
	if f.byKey[hash] == nil && f.held >= trust.MaxHeld {
		return fmt.Errorf("authority: admission on an unknown invite: %w", ErrFull)
	}
	if f.perKey[hash] >= maxAdmissions || len(f.known) >= 2*trust.MaxMembers {
		return fmt.Errorf("authority: admissions: %w", ErrFull)
	}
	inception, err := f.inception(b.Inception)
	if err != nil {
		return err
	}
	key, err := composite.ParsePublicKey(f.genesis.Suite, b.InviteKey)
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	joiner, err := inception.DID().Bytes()
	if err != nil {
		return err
	}
	if !key.Verify(contextAdmit, joinMessage(f.genesis.SwarmID(), joiner[:]), b.Signature) {
		return f.void(e, "the invite's key did not sign it")
	}
	a := &admitFact{fact: factOf(e), keyHash: hash, inception: inception}
	f.admits[e.Author] = append(f.admits[e.Author], a)
	f.known[e.ID()] = struct{}{}
	f.perKey[hash]++
	if f.byKey[hash] == nil {
		f.held++
	}
	return f.count(e, a)
}

// count lets a new admission take effect: alone where it comes last on its invite, by rebuild where it does not.
func (f *Fold) count(e *ledger.Entry, a *admitFact) error {
	c, ok := f.candidateOf(a)
	if !ok {
		return f.void(e, "its invite or its author does not allow it, or has not come")
	}
	did := c.inception.DID()
	m := f.members[did]
	switch {
	case c.before(c.invite.last) && c.invite.last.id != "":
		f.rebuild()
	case m != nil && c.before(m.fact):
		f.rebuild()
	case m == nil && len(f.admits[did]) > 0:
		f.rebuild()
	default:
		if f.settle(c) {
			f.publishMember(did)
			f.rejudge(nil)
		}
		f.publishInvite(c.invite)
	}
	if c.invite.overspent && !c.invite.joined[did] {
		return &InviteSpentError{Invite: c.invite.id, Joiner: did, Name: c.inception.Name, Joiners: c.invite.joiners}
	}
	return nil
}

// applyInvite opens an invite.
func (f *Fold) applyInvite(e *ledger.Entry, b *InviteBody) error {
	if f.invites[e.ID()] != nil {
		return nil
	}
	if len(f.invites) >= trust.MaxInvites {
		return fmt.Errorf("authority: %w: %d invites", ErrFull, len(f.invites))
	}
	inv := &inviteFact{fact: factOf(e), body: b, seen: authorityHeads(e.Seen), withdraw: f.withdrawn(e.ID())}
	inv.reset()
	f.invites[e.ID()] = inv
	hash := [32]byte(b.KeyHash)
	old := f.byKey[hash]
	if f.frost.counts(inv.by, inv.seq) && (old == nil || inv.before(old.fact)) { // one key, one invite: the first
		f.byKey[hash] = inv
	}
	waits := func(m *memberFact) bool { return m.invite == inv.id }
	if f.held > 0 || old != nil || slices.ContainsFunc(f.direct, waits) {
		f.recountHeld()
		f.rebuild()
		return nil
	}
	f.publishInvites()
	return nil
}

// recountHeld counts the admissions whose invite has not come.
func (f *Fold) recountHeld() {
	f.held = 0
	for _, list := range f.admits {
		for _, a := range list {
			if f.byKey[a.keyHash] == nil {
				f.held++
			}
		}
	}
}

// applyWithdraw ends an invite.
func (f *Fold) applyWithdraw(e *ledger.Entry, b *WithdrawBody) error {
	id := fmt.Sprintf("%x", b.Invite)
	list := f.withdrawals[id]
	if slices.ContainsFunc(list, func(w withdrawFact) bool { return w.id == e.ID() }) {
		return nil
	}
	if len(list) >= trust.MaxOperators {
		return fmt.Errorf("authority: invite withdrawn %d times: %w", len(list), ErrFull)
	}
	f.withdrawals[id] = append(list, withdrawFact{factOf(e), b})
	if inv := f.invites[id]; inv != nil {
		inv.withdraw = f.withdrawn(id)
		f.rebuild()
	}
	return nil
}

// ErrFull is wrapped where a bound of limits.go keeps the fold from taking more.
var ErrFull = errors.New("the bound is reached")
