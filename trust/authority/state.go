package authority

import (
	"crypto/ed25519"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/root"
)

// Grant is a role that a member holds.
type Grant struct {
	Role     string
	By       identity.DID // the operator
	NotAfter time.Time    // zero: no end
	Entry    string       // id of the granting entry (grant or invite)
}

// Member is a peer of the swarm, as the fold sees it. It is immutable.
type Member struct {
	DID            identity.DID
	Name           string
	Inception      *identity.Inception
	Keys           identity.Keys // the history of its key: Keys.Current signs for it now
	Roles          map[string]Grant
	AdmittedBy     identity.DID // the admitting member, or the operator
	Admitted       time.Time    // by the admitting entry
	Invite         string       // id of the invite's entry; empty where an operator admitted it directly
	SuspendedUntil time.Time    // zero: not suspended
	Revoked        bool
	Forked         bool // proved to have equivocated with its current key: nothing it says counts after that
	// Contest are two rotations of one number, where there are: the next key was stolen as well, and only an operator can
	// say more.
	Contest []*identity.Rotation

	authorityStands, activityStands uint64 // entries that stand where Revoked
}

// Active reports whether m may take part now.
func (m *Member) Active(now time.Time) bool {
	return !m.Barred(now) && !m.Forked && m.Contest == nil
}

// Barred reports whether operators keep m out now. One that is only Forked may still prove its next key.
func (m *Member) Barred(now time.Time) bool { return m.Revoked || now.Before(m.SuspendedUntil) }

// Invite is an invite and what became of it.
type Invite struct {
	ID        string // of its entry
	By        identity.DID
	KeyHash   [32]byte
	Roles     []string
	Uses      int
	NotAfter  time.Time
	Approve   bool
	Withdrawn bool
	Joiners   []identity.DID // admitted on it, in the order that counts
	Overspent bool           // more joiners than uses presented its key: the token leaked
}

// Open reports whether another joiner may use it now.
func (i *Invite) Open(now time.Time) bool {
	return !i.Withdrawn && len(i.Joiners) < i.Uses && now.Before(i.NotAfter)
}

// Verdict is an operator's word on a pending response.
type Verdict struct {
	ID       string // of the entry
	By       identity.DID
	Response string
	Approved bool
	Time     time.Time
}

// Allowed is one line of the operators' allow list.
type Allowed struct {
	Address netip.Prefix // or
	Path    string
	By      identity.DID
	Entry   string
}

// Policy is the response policy in force.
type Policy struct {
	Text  string
	By    identity.DID
	Entry string
	Time  time.Time
}

// shards is how a State's members are divided: a change copies one of them and the table, not all members.
const shards = 256

type memberTable [shards]map[identity.DID]*Member

type transportTable [shards]map[[32]byte]*Member

// State is one immutable snapshot of the fold.
type State struct {
	genesis    *Genesis
	root       *root.State
	members    *memberTable
	transports *transportTable
	invites    []*Invite
	byKey      *invitesByKey
	orders     *orders
	delegated  *delegated
	released   *released
	deployed   *deployed
	allowed    []Allowed
	problems   []string
	byName     *sortedMembers
}

// invitesByKey is made when first asked for.
type invitesByKey struct {
	once sync.Once
	m    map[[32]byte]*Invite
}

// sortedMembers is made when first asked for.
type sortedMembers struct {
	once sync.Once
	list []*Member
}

// shardOf spreads DIDs, which are hashes, by their last digits.
func shardOf(did identity.DID) int {
	if len(did) < 4 {
		return 0
	}
	return (int(did[len(did)-2])*31 + int(did[len(did)-3])*7 + int(did[len(did)-4])) % shards
}

// Genesis is the swarm's genesis record.
func (s *State) Genesis() *Genesis { return s.genesis }

// Member finds a member by DID, suspended and revoked ones included.
func (s *State) Member(did identity.DID) (*Member, bool) {
	m, ok := s.members[shardOf(did)][did]
	return m, ok
}

// Members are all members, revoked ones included, sorted by name, then DID. The caller must not change the slice.
func (s *State) Members() []*Member {
	s.byName.once.Do(func() {
		for _, shard := range s.members {
			for _, m := range shard {
				s.byName.list = append(s.byName.list, m)
			}
		}
		slices.SortFunc(s.byName.list, func(a, b *Member) int {
			if c := strings.Compare(a.Name, b.Name); c != 0 {
				return c
			}
			return strings.Compare(string(a.DID), string(b.DID))
		})
	})
	return s.byName.list
}

// ByTransport finds a member by its transport key.
func (s *State) ByTransport(key ed25519.PublicKey) (*Member, bool) {
	if len(key) != ed25519.PublicKeySize {
		return nil, false
	}
	m, ok := s.transports[key[0]][[32]byte(key)]
	return m, ok
}

// Roles are the roles did holds at now, sorted; none while it is suspended or revoked.
func (s *State) Roles(did identity.DID, now time.Time) []string {
	m, ok := s.Member(did)
	if !ok || !m.Active(now) {
		return nil
	}
	var roles []string
	for r, g := range m.Roles {
		if g.NotAfter.IsZero() || now.Before(g.NotAfter) {
			roles = append(roles, r)
		}
	}
	slices.Sort(roles)
	return roles
}

// HasRole reports whether did holds role at now.
func (s *State) HasRole(did identity.DID, role string, now time.Time) bool {
	m, ok := s.Member(did)
	if !ok || !m.Active(now) {
		return false
	}
	g, ok := m.Roles[role]
	return ok && (g.NotAfter.IsZero() || now.Before(g.NotAfter))
}

// IsOperator reports whether did is an operator.
func (s *State) IsOperator(did identity.DID) bool { _, ok := s.root.Operator(did); return ok }

// Revoked reports whether did is out of the swarm for good: revoked, or proved to have equivocated.
func (s *State) Revoked(did identity.DID) bool {
	m, ok := s.Member(did)
	return ok && (m.Revoked || m.Forked)
}

// Invites are all invites, newest first. The caller must not change the slice.
func (s *State) Invites() []*Invite { return s.invites }

// InviteByKey finds an invite by the hash of its key (Token.KeyHash).
func (s *State) InviteByKey(hash [32]byte) (*Invite, bool) {
	s.byKey.once.Do(func() {
		s.byKey.m = make(map[[32]byte]*Invite, len(s.invites))
		for _, i := range s.invites { // newest first: of two with one key the first made is kept
			s.byKey.m[i.KeyHash] = i
		}
	})
	i, ok := s.byKey.m[hash]
	return i, ok
}

// Responses are the responses and releases of operators, and of members under credentials that stand, oldest first; ID, By, Authority and Issued are the entry's. The
// caller must not change the slice.
func (s *State) Responses() []event.Response { return s.responsesOf() }

// Verdicts are the operators' approvals and rejections, oldest first. The caller must not change the slice.
func (s *State) Verdicts() []Verdict { return s.orders.made().verdicts }

// Allowed is what must never be blocked, sorted. The caller must not change the slice.
func (s *State) Allowed() []Allowed { return s.allowed }

// Policy is the response policy in force; ok is false where it is the built-in one.
func (s *State) Policy() (p Policy, ok bool) {
	if o := s.orders.made(); o.policy != nil {
		return *o.policy, true
	}
	return Policy{}, false
}

// Problems say where the fold failed closed, the root first: a forked root, unknown critical kinds, forked authors. Empty when all is well.
func (s *State) Problems() []string { return s.problems }
