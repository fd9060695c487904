package authority

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

// Each publish function makes the next snapshot from the last: a copy of what changed, the rest shared. The caller holds
// Fold.mu.

// Hold keeps the state as it is while many entries are applied; Release publishes what follows from all of them.
func (f *Fold) Hold() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quiet = true
}

// Release ends Hold; it may be called without one.
func (f *Fold) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.quiet {
		f.quiet = false
		f.publishAll()
	}
}

// publishAll derives every part of the state.
func (f *Fold) publishAll() {
	if f.quiet {
		return
	}
	s := &State{genesis: f.genesis, root: f.frost.root, members: new(memberTable), transports: new(transportTable), byName: new(sortedMembers)}
	for did := range f.members {
		s.put(f.member(did))
	}
	f.fillInvites(s)
	f.fillAllowed(s)
	f.fillOrders(s)
	f.fillProblems(s)
	f.state.Store(s)
	f.provenNow()
}

// put adds m to tables that no one else sees yet.
func (s *State) put(m *Member) {
	i := shardOf(m.DID)
	if s.members[i] == nil {
		s.members[i] = make(map[identity.DID]*Member)
	}
	s.members[i][m.DID] = m
	key := m.Inception.Transport
	shard := s.transports[key[0]]
	if shard == nil {
		shard = make(map[[32]byte]*Member)
		s.transports[key[0]] = shard
	}
	// A transport key proves itself in its inception, so two members share one only by their own doing.
	if old := shard[key]; old == nil || old.DID >= m.DID {
		shard[key] = m
	}
}

// publishMember puts did's new face into the state; nothing where it is no member.
func (f *Fold) publishMember(did identity.DID) {
	if f.quiet || f.members[did] == nil {
		return
	}
	m := f.member(did)
	old := f.state.Load()
	s := *old
	s.byName = new(sortedMembers)
	f.fillDelegated(&s)
	members, transports := *old.members, *old.transports
	i, j := shardOf(did), m.Inception.Transport[0]
	members[i], transports[j] = maps.Clone(members[i]), maps.Clone(transports[j])
	s.members, s.transports = &members, &transports
	s.put(m)
	if m.Contest != nil {
		f.fillProblems(&s)
	}
	f.state.Store(&s)
	f.provenNow()
}

// provenNow applies the proofs that waited for a member's key.
func (f *Fold) provenNow() {
	for did, proofs := range f.proofs {
		if _, ok := f.inceptionOf(did); !ok {
			continue
		}
		delete(f.proofs, did)
		for _, p := range proofs {
			_ = f.applyProof(p) // one that does not verify is none
		}
	}
}

// member derives one member.
func (f *Fold) member(did identity.DID) *Member {
	x := f.members[did]
	m := &Member{
		DID: did, Name: x.inception.Name, Inception: x.inception, Roles: make(map[string]Grant),
		AdmittedBy: x.by, Admitted: time.Unix(0, x.time).UTC(), Forked: f.frost.forked(did),
	}
	m.Keys, m.Contest, _ = f.keysOf(did)
	var fromInvite []string
	var inviteWord word
	if inv := x.invite; inv != nil {
		m.Invite = inv.id
		fromInvite = inv.body.Roles
		inviteWord = word{fact: inv.fact, seen: inv.seen}
	}
	for _, role := range fromInvite {
		r := f.roles[did][role]
		if r == nil {
			r = new(register)
		}
		if w, ok := r.best(f.frost, inviteWord); ok {
			m.Roles[role] = w.grant(role)
		}
	}
	for role, r := range f.roles[did] {
		if slices.Contains(fromInvite, role) {
			continue
		}
		if w, ok := r.best(f.frost); ok {
			m.Roles[role] = w.grant(role)
		}
	}
	m.authorityStands, m.activityStands, m.Revoked = f.revoked(did)
	if until := f.suspended[did]; until > 0 {
		m.SuspendedUntil = time.Unix(0, until).UTC()
	}
	return m
}

func (w word) grant(role string) Grant {
	g := Grant{Role: role, By: w.by, Entry: w.id}
	if w.notAfter != 0 {
		g.NotAfter = time.Unix(w.notAfter, 0).UTC()
	}
	return g
}

func (f *Fold) publishInvites() {
	if f.quiet {
		return
	}
	s := *f.state.Load()
	f.fillInvites(&s)
	f.state.Store(&s)
}

// publishInvite puts the new face of one invite into the state.
func (f *Fold) publishInvite(x *inviteFact) {
	if f.quiet {
		return
	}
	s := *f.state.Load()
	s.invites = slices.Clone(s.invites)
	for i, inv := range s.invites {
		if inv.ID == x.id {
			s.invites[i] = x.face()
		}
	}
	s.byKey = new(invitesByKey)
	f.state.Store(&s)
}

func (i *inviteFact) face() *Invite {
	return &Invite{
		ID: i.id, By: i.by, KeyHash: [32]byte(i.body.KeyHash), Roles: i.body.Roles, Uses: int(i.body.Uses),
		NotAfter: time.Unix(i.body.NotAfter, 0).UTC(), Approve: i.body.Approve, Withdrawn: len(i.withdraw) > 0,
		Joiners: slices.Clone(i.joiners), Overspent: i.overspent,
	}
}

func (f *Fold) fillInvites(s *State) {
	s.invites = make([]*Invite, 0, len(f.invites))
	s.byKey = new(invitesByKey)
	for _, x := range f.invites {
		if f.frost.allows(x.fact) {
			s.invites = append(s.invites, x.face())
		}
	}
	slices.SortFunc(s.invites, func(a, b *Invite) int {
		if f.invites[b.ID].before(f.invites[a.ID].fact) {
			return -1
		}
		return 1
	})
}

func (f *Fold) publishAllowed() {
	if f.quiet {
		return
	}
	s := *f.state.Load()
	f.fillAllowed(&s)
	f.state.Store(&s)
}

func (f *Fold) fillAllowed(s *State) {
	s.allowed = nil
	for x, r := range f.allowed {
		if w, ok := r.best(f.frost); ok {
			s.allowed = append(s.allowed, Allowed{Address: x.address, Path: x.path, By: w.by, Entry: w.id})
		}
	}
	slices.SortFunc(s.allowed, func(a, b Allowed) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		if c := a.Address.Addr().Compare(b.Address.Addr()); c != 0 {
			return c
		}
		return a.Address.Bits() - b.Address.Bits()
	})
	s.allowed = s.allowed[:min(len(s.allowed), trust.MaxAllowed)]
}

func (f *Fold) publishOrders() {
	if f.quiet {
		return
	}
	s := *f.state.Load()
	f.fillOrders(&s)
	f.state.Store(&s)
}

func (f *Fold) fillOrders(s *State) {
	f.fillDelegated(s)
	s.orders = &orders{frost: f.frost, responseFacts: f.responses, verdictFacts: f.verdicts, policyFacts: f.policies}
}

// orders are the operators' responses, verdicts and policy: facts, and what follows from them when first asked for.
type orders struct {
	frost         *frost
	responseFacts []responseFact
	verdictFacts  []verdictFact
	policyFacts   []policyFact

	once      sync.Once
	responses []event.Response
	verdicts  []Verdict
	policy    *Policy
}

// made derives. A frozen operator's denials and rejections hold; its releases, approvals and policies do not. Once the
// root names a policy, no operator alone does.
func (o *orders) made() *orders {
	o.once.Do(func() {
		for _, x := range o.responseFacts {
			if o.frost.counts(x.by, x.seq) && (x.response.Action != event.ActionRelease || o.frost.allows(x.fact)) {
				o.responses = append(o.responses, x.response)
			}
		}
		for _, x := range o.verdictFacts {
			if o.frost.counts(x.by, x.seq) && (!x.approved || o.frost.allows(x.fact)) {
				o.verdicts = append(o.verdicts, Verdict{ID: x.id, By: x.by, Response: x.response, Approved: x.approved, Time: time.Unix(0, x.time).UTC()})
			}
		}
		for _, x := range o.policyFacts {
			if o.frost.allows(x.fact) {
				o.policy = &Policy{Text: x.text, By: x.by, Entry: x.id, Time: time.Unix(0, x.time).UTC()}
			}
		}
		if r := o.frost.root; r.PolicyText != "" {
			o.policy = &Policy{Text: r.PolicyText, Time: time.Unix(0, r.PolicyTime).UTC()}
		}
	})
	return o
}

func (f *Fold) publishProblems() {
	s := *f.state.Load()
	f.fillProblems(&s)
	f.state.Store(&s)
}

func (f *Fold) fillProblems(s *State) {
	s.problems = nil
	if frozen := f.frost.root.Frozen; frozen != nil {
		s.problems = append(s.problems, frozen.Detail+": what operators allow since then is ignored, what they forbid holds; see `omega root show`")
	}
	var others []string
	for did, seq := range f.frost.unknown {
		others = append(others, fmt.Sprintf("entry %d of %s is of a kind that this version does not know: what its author allows since then is ignored; update omega", seq, did))
	}
	for feed, seq := range f.frost.forks {
		others = append(others, fmt.Sprintf("%s signed two different entries %d of its %s chain: what it allows since then is ignored", feed.Author, seq, feed.Chain))
	}
	for did, k := range f.rings {
		if k.contested != nil && f.members[did] != nil {
			others = append(others, fmt.Sprintf("%s rotated its key twice to number %d: its next key was stolen as well, and it stays out until an operator revokes it", did, k.contested[0].Number))
		}
	}
	slices.Sort(others)
	s.problems = append(s.problems, others...)
}
