package authority

import (
	"crypto/ed25519"
	"net/netip"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/identity"
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
	Roles          map[string]Grant
	AdmittedBy     identity.DID // the admitting member, or the operator
	Admitted       time.Time    // by the admitting entry
	Invite         string       // id of the invite's entry; empty where an operator admitted it directly
	SuspendedUntil time.Time    // zero: not suspended
	Revoked        bool
	Forked         bool // proved to have equivocated: nothing it says counts after that
}

// Active reports whether m may take part now.
func (m *Member) Active(now time.Time) bool {
	return !m.Revoked && !m.Forked && !now.Before(m.SuspendedUntil)
}

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

// State is one immutable snapshot of the fold.
type State struct{}

// Genesis is the swarm's genesis record.
func (s *State) Genesis() *Genesis { return nil }

// Member finds a member by DID, suspended and revoked ones included.
func (s *State) Member(did identity.DID) (*Member, bool) { return nil, false }

// Members are all members, revoked ones included, sorted by name, then DID. The caller must not change the slice.
func (s *State) Members() []*Member { return nil }

// ByTransport finds a member by its transport key.
func (s *State) ByTransport(key ed25519.PublicKey) (*Member, bool) { return nil, false }

// Roles are the roles did holds at now, sorted; none while it is suspended or revoked.
func (s *State) Roles(did identity.DID, now time.Time) []string { return nil }

// IsOperator reports whether did is an operator.
func (s *State) IsOperator(did identity.DID) bool { return false }

// Revoked reports whether did is out of the swarm for good: revoked, or proved to have equivocated.
func (s *State) Revoked(did identity.DID) bool { return false }

// Invites are all invites, newest first.
func (s *State) Invites() []*Invite { return nil }

// InviteByKey finds an invite by the hash of its key (Token.KeyHash).
func (s *State) InviteByKey(hash [32]byte) (*Invite, bool) { return nil, false }

// Responses are the operators' responses and releases, oldest first; ID, By and Authority are filled in.
func (s *State) Responses() []event.Response { return nil }

// Verdicts are the operators' approvals and rejections, oldest first.
func (s *State) Verdicts() []Verdict { return nil }

// Allowed is what must never be blocked, sorted.
func (s *State) Allowed() []Allowed { return nil }

// Policy is the response policy in force; ok is false where it is the built-in one.
func (s *State) Policy() (p Policy, ok bool) { return Policy{}, false }

// Problems say where the fold failed closed: unknown critical kinds, forked operators. Empty when all is well.
func (s *State) Problems() []string { return nil }
