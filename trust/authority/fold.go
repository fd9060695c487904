package authority

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/root"
)

// ErrVoid is wrapped where an entry is well formed and has no effect now. It may gain one when what it depends on comes.
var ErrVoid = errors.New("entry without effect")

// Fold turns authority entries into a State. It keeps what was said, as facts, and derives the state from the set of
// them; where a new fact only adds to the state it is added, where it may change what stood before all is derived again.
// It is safe for concurrent use.
type Fold struct {
	genesis *Genesis

	mu          sync.Mutex
	quiet       bool                // between Hold and Release
	known       map[string]struct{} // ids of direct and admits
	direct      []*memberFact
	admits      map[identity.DID][]*admitFact // by author
	perKey      map[[32]byte]int              // admissions on one invite's key
	held        int                           // admissions whose invite has not come
	invites     map[string]*inviteFact        // by id
	byKey       map[[32]byte]*inviteFact
	withdrawals map[string][]withdrawFact
	roles       map[identity.DID]map[string]*register // by subject and role
	removals    map[identity.DID]*removal
	suspended   map[identity.DID]int64 // derived: until when, Unix nanoseconds
	share       int                    // derived: how many one operator may suspend at once
	allowed     map[exemption]*register
	responses   []responseFact
	delegated   []delegatedFact
	serials     []serialFact
	released    map[identity.DID][]releaseFact // by author, oldest first
	deployed    map[identity.DID][]deployFact
	verdicts    []verdictFact
	policies    []policyFact
	frost       *frost
	tree        *root.Tree
	waiting     map[identity.DID]*waiting
	waits       int                               // bytes
	proofs      map[identity.DID][]*ledger.Proof  // of authors whose key is not known yet
	forks       map[ledger.Feed]map[uint32]uint64 // proved: by feed and number of the key, the first number signed twice
	unmatched   map[identity.DID][]*ledger.Proof  // that no key known of their author has signed
	rings       map[identity.DID]*keyring         // of those who rotated
	strays      int                               // rotations heard before those they follow
	members     map[identity.DID]*membership      // derived

	state atomic.Pointer[State]
	open  openKeys
}

// NewFold begins with the genesis.
func NewFold(g *Genesis) *Fold {
	f := &Fold{
		genesis: g, admits: make(map[identity.DID][]*admitFact), invites: make(map[string]*inviteFact), byKey: make(map[[32]byte]*inviteFact),
		withdrawals: make(map[string][]withdrawFact), roles: make(map[identity.DID]map[string]*register), removals: make(map[identity.DID]*removal),
		allowed: make(map[exemption]*register), tree: root.NewTree(g.Anchor()), waiting: make(map[identity.DID]*waiting), known: make(map[string]struct{}), perKey: make(map[[32]byte]int),
		forks: make(map[ledger.Feed]map[uint32]uint64), rings: make(map[identity.DID]*keyring), unmatched: make(map[identity.DID][]*ledger.Proof),
		proofs: make(map[identity.DID][]*ledger.Proof), members: make(map[identity.DID]*membership), released: make(map[identity.DID][]releaseFact), deployed: make(map[identity.DID][]deployFact),
	}
	f.frost = &frost{root: f.tree.State()}
	f.publishAll()
	return f
}

// State is the snapshot after everything applied so far.
func (f *Fold) State() *State { return f.state.Load() }

// Key is the current composite key of an operator or member, former and revoked ones included (ledger.KeyResolver).
func (f *Fold) Key(did identity.DID) (*composite.PublicKey, bool) {
	keys, ok := f.publicKeys(did)
	if !ok {
		return nil, false
	}
	return f.open.use(keys.Current()), true
}

// Cut says how many entries of a revoked author's chain, or a former operator's authority chain, stand (ledger.Cutter).
func (f *Fold) Cut(author identity.DID, chain ledger.Chain) (entries uint64, revoked bool) {
	s := f.State()
	m, ok := s.Member(author)
	if former, was := s.root.Former[author]; was && !ok && chain == ledger.Authority {
		return former.Stands, true
	}
	if !ok || !m.Revoked {
		return 0, false
	}
	if chain == ledger.Authority {
		return m.authorityStands, true
	}
	return m.activityStands, true
}

// Apply takes an entry that the ledger has verified, in any order; one it has already, or of another chain, changes
// nothing. It keeps what depends on entries that have not come. An error says why an entry has no effect (ErrVoid,
// ErrBody, ErrUnknownKind, ErrFull, *InviteSpentError); the fold goes on.
func (f *Fold) Apply(e *ledger.Entry) error {
	if e.Chain != ledger.Authority {
		return nil
	}
	if e.Swarm != f.genesis.SwarmID() {
		return fmt.Errorf("authority: entry of swarm %s: %w", e.Swarm.Short(), ErrVoid)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.apply(e)
}

func (f *Fold) apply(e *ledger.Entry) error {
	if !e.Kind.Known() {
		if !e.Kind.Critical() {
			return nil
		}
		if old, ok := f.frost.unknown[e.Author]; !ok || e.Seq < old {
			next := f.frost.clone()
			next.unknown[e.Author] = e.Seq
			f.frost = next
			f.rebuild()
		}
		return fmt.Errorf("authority: entry %s of %s: %w", e.ID(), e.Author.Short(), ErrUnknownKind)
	}
	if e.Kind == ledger.KindWitness || e.Kind == ledger.KindAnonymousKey {
		return nil // says nothing of who may do what
	}
	body, err := DecodeBody(e.Kind, e.Body)
	if err != nil {
		return err
	}
	switch b := body.(type) {
	case *AdmitBody: // any member may: whether its author is one is part of the derivation
		return f.applyAdmit(e, b)
	case *EvidenceBody: // anyone may: it proves itself
		return f.applyProof(b.Proof)
	case *RootBody: // anyone may: it proves itself
		return f.applyRoot(e, b)
	case *ResponseBody: // a member may, as far as its credential goes
		if len(b.Credential) > 0 {
			return f.applyDelegated(e, b)
		}
	case *ModuleReleaseBody:
		if len(b.Credential) > 0 {
			return f.applyModuleRelease(e, b)
		}
	case *DeployBody:
		if len(b.Credential) > 0 {
			return f.applyDeploy(e, b, b.Module, b.Credential)
		}
	case *UndeployBody:
		if len(b.Credential) > 0 {
			return f.applyDeploy(e, nil, b.Module, b.Credential)
		}
	case *RotateBody:
		return f.applyRotate(e, b)
	case *ContestBody:
		return f.applyContest(b)
	}
	if _, ever := f.frost.root.Inception(e.Author); !ever {
		return f.wait(e)
	}
	switch b := body.(type) {
	case *MemberBody:
		return f.applyMember(e, b)
	case *InviteBody:
		return f.applyInvite(e, b)
	case *WithdrawBody:
		return f.applyWithdraw(e, b)
	case *GrantBody:
		f.applyGrant(e, b)
	case *RevokeRoleBody:
		f.applyRevokeRole(e, b)
	case *SuspendBody:
		return f.applySuspend(e, b)
	case *RevokeBody:
		return f.applyRevoke(e, b)
	case *AllowBody:
		f.applyAllow(e, b)
	case *DisallowBody:
		f.register(exemption{b.Address, b.Path}).revoke(e.Author, e.Seq)
		f.publishAllowed()
	case *ResponseBody:
		return f.applyResponse(e, b)
	case *ApproveBody:
		f.applyVerdict(e, b.Response, true)
	case *RejectBody:
		f.applyVerdict(e, b.Response, false)
	case *PolicyBody:
		f.applyPolicy(e, b)
	case *RevokeCredentialBody:
		f.applyRevokeCredential(e, b)
	case *ModuleReleaseBody:
		return f.applyModuleRelease(e, b)
	case *DeployBody:
		return f.applyDeploy(e, b, b.Module, nil)
	case *UndeployBody:
		return f.applyDeploy(e, nil, b.Module, nil)
	}
	return nil
}

func (f *Fold) void(e *ledger.Entry, why string) error {
	return fmt.Errorf("authority: %s %s of %s: %s: %w", e.Kind, e.ID(), e.Author.Short(), why, ErrVoid)
}

// authorityHeads keeps of heads what may order one operator's word after another's.
func authorityHeads(heads []ledger.Head) []ledger.Head {
	return slices.DeleteFunc(slices.Clone(heads), func(h ledger.Head) bool { return h.Chain != ledger.Authority })
}

func (f *Fold) role(subject identity.DID, role string) *register {
	if f.roles[subject] == nil {
		f.roles[subject] = make(map[string]*register)
	}
	if f.roles[subject][role] == nil {
		f.roles[subject][role] = new(register)
	}
	return f.roles[subject][role]
}

func (f *Fold) applyGrant(e *ledger.Entry, b *GrantBody) {
	subject := identity.DIDFromBytes([32]byte(b.Subject))
	w := word{fact: factOf(e), notAfter: b.NotAfter, seen: authorityHeads(e.Seen)}
	for _, r := range b.Roles {
		f.role(subject, r).grant(w)
	}
	f.publishMember(subject)
}

func (f *Fold) applyRevokeRole(e *ledger.Entry, b *RevokeRoleBody) {
	subject := identity.DIDFromBytes([32]byte(b.Subject))
	for _, r := range b.Roles {
		f.role(subject, r).revoke(e.Author, e.Seq)
	}
	f.publishMember(subject)
}

func (f *Fold) register(x exemption) *register {
	if f.allowed[x] == nil {
		f.allowed[x] = new(register)
	}
	return f.allowed[x]
}

func (f *Fold) applyAllow(e *ledger.Entry, b *AllowBody) {
	f.register(exemption{b.Address, b.Path}).grant(word{fact: factOf(e), seen: authorityHeads(e.Seen)})
	f.publishAllowed()
}

func (f *Fold) applyResponse(e *ledger.Entry, b *ResponseBody) error {
	r := b.Response
	if r.TTL > f.genesis.LongestLife {
		return f.void(e, fmt.Sprintf("lifetime %s, this swarm's longest is %s", r.TTL, f.genesis.LongestLife))
	}
	r.ID, r.By, r.Authority, r.Issued = e.ID(), string(e.Author), event.AuthorityOperator, e.Time
	f.responses = insert(f.responses, responseFact{factOf(e), r}, func(x responseFact) fact { return x.fact })
	f.publishOrders()
	return nil
}

func (f *Fold) applyVerdict(e *ledger.Entry, response string, approved bool) {
	f.verdicts = insert(f.verdicts, verdictFact{factOf(e), response, approved}, func(x verdictFact) fact { return x.fact })
	f.publishOrders()
}

func (f *Fold) applyPolicy(e *ledger.Entry, b *PolicyBody) {
	f.policies = insert(f.policies, policyFact{factOf(e), b.Text}, func(x policyFact) fact { return x.fact })
	f.policies = f.policies[max(0, len(f.policies)-maxWords):]
	f.publishOrders()
}

// insert keeps list sorted by fact, without repeats, and the newest trust.MaxResponses of it: which those are does not
// depend on the order of arrival.
func insert[T any](list []T, x T, of func(T) fact) []T {
	i, found := slices.BinarySearchFunc(list, of(x), func(a T, b fact) int {
		switch {
		case of(a).before(b):
			return -1
		case b.before(of(a)):
			return 1
		}
		return 0
	})
	if found {
		return list
	}
	if i < len(list) {
		list = slices.Clone(list) // snapshots hold it
	}
	list = slices.Insert(list, i, x)
	return list[max(0, len(list)-trust.MaxResponses):]
}

// ApplyProof takes a proof of equivocation, as the ledger found it. It is verified here.
func (f *Fold) ApplyProof(p *ledger.Proof) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applyProof(p)
}

func (f *Fold) applyProof(p *ledger.Proof) error {
	keys, _, ok := f.keysOf(p.Author)
	if !ok {
		return holdProof(f.proofs, p)
	}
	a, err := ledger.Decode(p.A)
	if err != nil || a.Swarm != f.genesis.SwarmID() {
		return fmt.Errorf("authority: proof of another swarm: %w", ErrVoid)
	}
	number, err := f.provenBy(p, keys)
	if err != nil {
		// Its key may be one of a rotation that has not come.
		_ = holdProof(f.unmatched, p)
		return fmt.Errorf("authority: %w", err)
	}
	feed := ledger.Feed{Author: p.Author, Chain: p.Chain}
	if old, ok := f.forks[feed][number]; ok && old <= p.Seq {
		return nil
	}
	if f.forks[feed] == nil {
		f.forks[feed] = make(map[uint32]uint64)
	}
	f.forks[feed][number] = p.Seq
	if number < keys.Number() {
		return nil // the author's rotation has answered it
	}
	f.refrost()
	f.rebuild()
	return nil
}

// provenBy is the number of the key that signed both entries of p.
func (f *Fold) provenBy(p *ledger.Proof, keys identity.Keys) (uint32, error) {
	number := keys.Number()
	err := p.Verify(f.open.use(keys.Current()))
	for err != nil && number > 0 {
		number--
		err = p.Verify(f.open.use(keys.Of(number)))
	}
	return number, err
}

// Proves reports why p proves nothing: its author is no member, or no key that it has had signed both entries.
func (f *Fold) Proves(p *ledger.Proof) error {
	keys, ok := f.publicKeys(p.Author)
	if !ok {
		return fmt.Errorf("authority: proof about a stranger, %s: %w", p.Author.Short(), ErrVoid)
	}
	_, err := f.provenBy(p, keys)
	return err
}

// maxHeldProofs is how many proofs about one author wait for its key.
const maxHeldProofs = 4

func holdProof(held map[identity.DID][]*ledger.Proof, p *ledger.Proof) error {
	if len(held) >= trust.MaxEvidence && held[p.Author] == nil || len(held[p.Author]) >= maxHeldProofs {
		return fmt.Errorf("authority: proofs about keys that are not known: %w", ErrFull)
	}
	held[p.Author] = append(held[p.Author], p)
	return nil
}

// openKeys bounds how many composite keys stand expanded.
type openKeys struct {
	mu   sync.Mutex
	in   map[*composite.PublicKey]struct{}
	ring []*composite.PublicKey
	at   int
}

func (o *openKeys) use(k *composite.PublicKey) *composite.PublicKey {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.in[k]; ok {
		return k
	}
	if o.in == nil {
		o.in = make(map[*composite.PublicKey]struct{}, trust.OpenKeys)
	}
	if len(o.ring) < trust.OpenKeys {
		o.ring = append(o.ring, k)
	} else {
		o.ring[o.at].Compact()
		delete(o.in, o.ring[o.at])
		o.ring[o.at] = k
		o.at = (o.at + 1) % len(o.ring)
	}
	o.in[k] = struct{}{}
	return k
}
