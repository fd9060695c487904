package root

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

// ErrChange is wrapped where an entry would change the state into one that may not be.
var ErrChange = errors.New("not a change that may be made")

// Anchor is what genesis says of the root.
type Anchor struct {
	Swarm     trust.SwarmID
	Suite     trust.Suite
	Created   int64 // Unix nanoseconds
	Operators []*identity.Inception
	K         int
	Recovery  [][]byte // SLH-DSA-SHA2-128s public keys, 32 bytes each
	RecoveryK int
}

// Operator is one that signs now.
type Operator struct {
	DID       identity.DID
	Inception *identity.Inception
	Since     uint64       // number of the entry that made it; 0 for genesis
	Node      identity.DID // its own peer, where the root names it
}

// Former is an operator that was removed or rotated away.
type Former struct {
	Inception *identity.Inception
	Stands    uint64 // entries of its authority chain
	Removed   uint64 // number of the entry that ended it
	Successor identity.DID
}

// Revocation is a peer's, by the root.
type Revocation struct {
	Authority, Activity uint64 // entries that stand
	Why                 string
	Time                int64 // Unix nanoseconds, as the entry claims
	Entry               Hash
}

// Freeze says that nothing is granted from Since on: at a fork, after an unknown critical kind, or in retirement.
type Freeze struct {
	Since  int64 // Unix nanoseconds: the earliest of the entries in question
	Cause  FreezeCause
	Entry  Hash   // the last common entry, the unknown one, or the retirement
	Detail string // for people
}

// FreezeCause says why.
type FreezeCause string

// Causes of a freeze.
const (
	FrozenFork    FreezeCause = "fork"
	FrozenUnknown FreezeCause = "unknown-kind"
	FrozenRetired FreezeCause = "retired"
)

// Fork is evidence that operators signed two entries after one.
type Fork struct {
	Common   Hash
	Children []Hash // sorted
	Signers  []identity.DID
	Stands   Hash // what a recovery chose to follow; zero while nothing did
}

// State is what follows from the entries of a chain. It is immutable.
type State struct {
	Swarm      trust.SwarmID
	Seq        uint64
	Head       Hash // of the last entry; the swarm id before the first
	Time       int64
	Operators  []Operator // sorted by DID
	K          int
	Former     map[identity.DID]Former
	Issuers    map[identity.DID][]string
	Revoked    map[identity.DID]Revocation
	Unrevoked  map[identity.DID]int64 // when last: votes and revocations up to then do not count
	Releases   map[string]Release     // by name
	PolicyText string                 // empty: no word of the root on it
	PolicyTime int64
	Successor  *Retire
	Frozen     *Freeze
	Forks      []Fork // resolved ones included

	suite trust.Suite
}

// Operator finds one that signs now.
func (s *State) Operator(did identity.DID) (Operator, bool) {
	i, ok := slices.BinarySearchFunc(s.Operators, did, compareOperator)
	if !ok {
		return Operator{}, false
	}
	return s.Operators[i], true
}

func compareOperator(o Operator, did identity.DID) int {
	switch {
	case o.DID < did:
		return -1
	case o.DID > did:
		return 1
	}
	return 0
}

// Counts reports whether entry seq of did's authority chain is an operator's word: it is one, or was one and the entry
// stands.
func (s *State) Counts(did identity.DID, seq uint64) bool {
	if _, ok := s.Operator(did); ok {
		return true
	}
	f, ok := s.Former[did]
	return ok && seq < f.Stands
}

// Inception is the record of an operator, former ones included.
func (s *State) Inception(did identity.DID) (*identity.Inception, bool) {
	if o, ok := s.Operator(did); ok {
		return o.Inception, true
	}
	f, ok := s.Former[did]
	return f.Inception, ok
}

// Grants reports whether what an operator allowed at a claimed time (Unix nanoseconds) may count.
func (s *State) Grants(time int64) bool { return s.Frozen == nil || time < s.Frozen.Since }

// Issuer reports whether did may issue under a capability: an operator always may.
func (s *State) Issuer(did identity.DID, capability string) bool {
	if _, ok := s.Operator(did); ok {
		return true
	}
	return slices.Contains(s.Issuers[did], capability)
}

func genesisState(a Anchor) *State {
	s := &State{Swarm: a.Swarm, Head: Hash(a.Swarm), Time: a.Created, K: a.K, suite: a.Suite}
	for _, i := range a.Operators {
		s.Operators = append(s.Operators, Operator{DID: i.DID(), Inception: i})
	}
	slices.SortFunc(s.Operators, func(a, b Operator) int { return compareOperator(a, b.DID) })
	return s
}

// after is s with e applied, or why e may not follow. It verifies no signature.
func (s *State) after(e *Entry) (*State, error) {
	if e.Swarm != s.Swarm || e.Seq != s.Seq+1 || e.Prev != s.Head || e.Time < s.Time {
		return nil, fmt.Errorf("root: entry %d of swarm %s does not follow entry %d: %w", e.Seq, e.Swarm.Short(), s.Seq, ErrChange)
	}
	if s.Successor != nil && e.Kind != KindRecover {
		return nil, fmt.Errorf("root: the swarm is retired: %w", ErrChange)
	}
	next := *s
	next.Seq, next.Head, next.Time = e.Seq, e.hash, e.Time
	if !e.Kind.Known() {
		if e.Critical && next.Frozen == nil {
			next.Frozen = &Freeze{Since: e.Time, Cause: FrozenUnknown, Entry: e.hash, Detail: fmt.Sprintf("root entry %d is of a kind that this version does not know", e.Seq)}
		}
		return &next, nil
	}
	body, err := DecodeBody(e.Kind, e.Body)
	if err != nil {
		return nil, err
	}
	if err := next.apply(e, body); err != nil {
		return nil, fmt.Errorf("root: entry %d, %s: %w: %w", e.Seq, e.Kind, ErrChange, err)
	}
	return &next, nil
}

func (s *State) apply(e *Entry, body Body) error {
	switch b := body.(type) {
	case *Add:
		if err := s.add(b.Inception, b.Node, e.Seq); err != nil {
			return err
		}
		return s.quorum(int(b.K))
	case *Remove:
		if err := s.remove(identity.DIDFromBytes([32]byte(b.Operator)), b.Authority, e.Seq, ""); err != nil {
			return err
		}
		return s.quorum(int(b.K))
	case *Rotate:
		i, err := identity.DecodeInception(b.Inception)
		if err != nil {
			return err
		}
		if err := s.remove(identity.DIDFromBytes([32]byte(b.Operator)), b.Authority, e.Seq, i.DID()); err != nil {
			return err
		}
		return s.add(b.Inception, b.Node, e.Seq)
	case *Issuers:
		s.Issuers = make(map[identity.DID][]string, len(b.List))
		for _, x := range b.List {
			s.Issuers[identity.DIDFromBytes([32]byte(x.DID))] = x.Capabilities
		}
	case *Revoke:
		did := identity.DIDFromBytes([32]byte(b.Subject))
		if _, op := s.Operator(did); op {
			return errors.New("an operator is removed before it is revoked")
		}
		r := Revocation{Authority: b.Authority, Activity: b.Activity, Why: b.Why, Time: e.Time, Entry: e.hash}
		s.Revoked = revokedWith(s.Revoked, did, r)
	case *Unrevoke:
		did := identity.DIDFromBytes([32]byte(b.Subject))
		s.Revoked, s.Unrevoked = maps.Clone(s.Revoked), cloned(s.Unrevoked)
		delete(s.Revoked, did)
		s.Unrevoked[did] = e.Time
	case *Release:
		s.Releases = cloned(s.Releases)
		if len(b.SHA256) == 0 {
			delete(s.Releases, b.Name)
			return nil
		}
		s.Releases[b.Name] = *b
		if len(s.Releases) > trust.MaxReleases {
			return fmt.Errorf("%d releases", len(s.Releases))
		}
	case *Policy:
		s.PolicyText, s.PolicyTime = b.Text, e.Time
	case *Retire:
		if trust.SwarmID(b.Successor) == s.Swarm {
			return errors.New("a swarm cannot follow itself")
		}
		s.Successor = b
		s.Frozen = &Freeze{Since: e.Time, Cause: FrozenRetired, Entry: e.hash, Detail: "the swarm is handed over to " + trust.SwarmID(b.Successor).String()}
	case *Recover:
		s.Successor, s.Frozen = nil, nil
		for _, r := range b.Remove {
			if err := s.remove(identity.DIDFromBytes([32]byte(r.Operator)), r.Authority, e.Seq, ""); err != nil {
				return err
			}
		}
		for _, raw := range b.Add {
			if err := s.add(raw, nil, e.Seq); err != nil {
				return err
			}
		}
		if b.K > 0 {
			return s.quorum(int(b.K))
		}
	}
	return nil
}

// revokedWith adds r; of two revocations of one peer the fewer entries stand.
func revokedWith(m map[identity.DID]Revocation, did identity.DID, r Revocation) map[identity.DID]Revocation {
	m = cloned(m)
	if old, ok := m[did]; ok {
		r.Authority, r.Activity = min(r.Authority, old.Authority), min(r.Activity, old.Activity)
	}
	m[did] = r
	return m
}

func cloned[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return make(map[K]V)
	}
	return maps.Clone(m)
}

func (s *State) add(raw, node []byte, seq uint64) error {
	inc, err := identity.DecodeInception(raw)
	if err != nil {
		return err
	}
	if inc.Suite != s.suite {
		return fmt.Errorf("%s is of another suite than the swarm", inc.Name)
	}
	i, there := slices.BinarySearchFunc(s.Operators, inc.DID(), compareOperator)
	if _, was := s.Former[inc.DID()]; there || was {
		return fmt.Errorf("%s is or was an operator", inc.DID().Short())
	}
	o := Operator{DID: inc.DID(), Inception: inc, Since: seq}
	if len(node) == 32 {
		o.Node = identity.DIDFromBytes([32]byte(node))
	}
	s.Operators = slices.Insert(slices.Clone(s.Operators), i, o)
	return nil
}

func (s *State) remove(did identity.DID, stands, seq uint64, successor identity.DID) error {
	i, ok := slices.BinarySearchFunc(s.Operators, did, compareOperator)
	if !ok {
		return fmt.Errorf("%s is no operator", did.Short())
	}
	s.Former = cloned(s.Former)
	s.Former[did] = Former{Inception: s.Operators[i].Inception, Stands: stands, Removed: seq, Successor: successor}
	s.Operators = slices.Delete(slices.Clone(s.Operators), i, i+1)
	return nil
}

func (s *State) quorum(k int) error {
	s.K = k
	return checkQuorum(k, len(s.Operators))
}
