package authority

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// world is a swarm on paper: who speaks, and what each has said.
type world struct {
	t       testing.TB
	suite   trust.Suite
	genesis *Genesis
	ids     map[string]*identity.Identity
	next    map[string]uint64
	prev    map[string]ledger.Hash
	now     time.Time
	entries []*ledger.Entry
	exact   bool              // entries carry now as it is
	keyOf   map[string]uint32 // of who has rotated
	dirs    map[string]string
}

func newWorld(t testing.TB, operators int, k int, members ...string) *world {
	t.Helper()
	return newWorldOf(t, trust.SuiteDefault, operators, k, members...)
}

// newWorldOf is newWorld of a suite.
func newWorldOf(t testing.TB, suite trust.Suite, operators int, k int, members ...string) *world {
	t.Helper()
	w := &world{t: t, suite: suite, ids: make(map[string]*identity.Identity), keyOf: make(map[string]uint32), dirs: make(map[string]string), next: make(map[string]uint64), prev: make(map[string]ledger.Hash), now: time.Unix(1_800_000_000, 0)}
	var ops []*identity.Inception
	for i := range operators {
		ops = append(ops, w.identity(fmt.Sprint("op", i)).Inception())
	}
	g, err := NewGenesis("test", ops, k, GenesisOptions{Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	w.genesis = g
	for _, m := range members {
		w.identity(m)
	}
	return w
}

func (w *world) identity(name string) *identity.Identity {
	w.t.Helper()
	if id := w.ids[name]; id != nil {
		return id
	}
	dir := filepath.Join(w.t.TempDir(), name)
	id, err := identity.Create(dir, identity.Options{Name: name, Suite: w.suite})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = id.Close() })
	w.ids[name] = id
	w.dirs[name] = dir
	return id
}

func (w *world) did(name string) identity.DID { return w.identity(name).DID() }

func (w *world) hash(name string) []byte {
	h, err := w.did(name).Bytes()
	if err != nil {
		w.t.Fatal(err)
	}
	return h[:]
}

// says makes the next entry of who, a second after the last of anyone, and remembers it.
func (w *world) says(who string, b Body, seen ...ledger.Head) *ledger.Entry {
	w.t.Helper()
	raw, err := b.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	return w.saysRaw(who, b.Kind(), raw, seen...)
}

func (w *world) saysRaw(who string, kind ledger.Kind, body []byte, seen ...ledger.Head) *ledger.Entry {
	w.t.Helper()
	if !w.exact {
		w.now = w.now.Add(time.Second)
	}
	raw, err := ledger.SignEntry(w.identity(who), w.genesis.SwarmID(), w.next[who], w.prev[who], kind, body, w.now, seen...)
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := ledger.Decode(raw)
	if err != nil {
		w.t.Fatal(err)
	}
	e.Rotation = w.keyOf[who] // as the ledger would find
	w.next[who]++
	w.prev[who] = e.Hash()
	w.entries = append(w.entries, e)
	return e
}

func (w *world) admits(by, joiner string, t *Token) *ledger.Entry {
	w.t.Helper()
	key, err := t.InviteKey()
	if err != nil {
		w.t.Fatal(err)
	}
	sig, err := key.Sign(contextAdmit, joinMessage(w.genesis.SwarmID(), w.hash(joiner)))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.says(by, &AdmitBody{Inception: w.identity(joiner).Inception().Encode(), InviteKey: key.Public().Bytes(), Signature: sig})
}

func (w *world) invites(op string, uses int, roles ...string) (*Token, *ledger.Entry) {
	w.t.Helper()
	tok, body, err := NewInvite(w.genesis.SwarmID(), w.did(op), InviteOptions{Suite: w.suite, Roles: roles, Uses: uses, Now: w.now, NotAfter: w.now.Add(time.Hour)})
	if err != nil {
		w.t.Fatal(err)
	}
	return tok, w.says(op, body)
}

func (w *world) member(op, name string) *ledger.Entry {
	return w.says(op, &MemberBody{Inception: w.identity(name).Inception().Encode()})
}

func fold(w *world, entries []*ledger.Entry) *Fold {
	f := NewFold(w.genesis)
	for _, e := range entries {
		_ = f.Apply(e) // what has no effect is what several tests are about
	}
	return f
}

// digest spells out all that a state says.
func digest(s *State) string {
	var b strings.Builder
	for _, m := range s.Members() {
		fmt.Fprintf(&b, "member %s by %s at %d invite %s suspended %d revoked %v forked %v stands %d %d key %d contest %v\n", m.DID, m.AdmittedBy, m.Admitted.UnixNano(), m.Invite, m.SuspendedUntil.UnixNano(), m.Revoked, m.Forked, m.authorityStands, m.activityStands, m.Keys.Number(), m.Contest != nil)
		for _, r := range []string{"analyst", "decoy", "scheduler", "sentinel"} {
			if g, ok := m.Roles[r]; ok {
				fmt.Fprintf(&b, "  role %v\n", g)
			}
		}
		if t, ok := s.ByTransport(m.Inception.TransportKey()); !ok || t != m {
			fmt.Fprintf(&b, "  transport gives %v\n", t)
		}
	}
	for _, i := range s.Invites() {
		fmt.Fprintf(&b, "invite %s %v %v %v %v\n", i.ID, i.Withdrawn, i.Overspent, i.Joiners, i.Uses)
	}
	r := s.Root()
	fmt.Fprintln(&b, r.Seq, r.Head, r.K, r.Frozen, r.Forks, r.Revoked, r.Unrevoked)
	fmt.Fprintln(&b, s.Responses(), s.Verdicts(), s.Allowed(), s.ModuleReleases(), s.Deployments(), s.Problems())
	p, ok := s.Policy()
	fmt.Fprintln(&b, p, ok)
	return b.String()
}

func TestLifeOfASwarm(t *testing.T) {
	w := newWorld(t, 1, 1)
	f := NewFold(w.genesis)
	apply := func(e *ledger.Entry) {
		t.Helper()
		if err := f.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	now := w.now.Add(time.Minute)
	if _, ok := f.Key(w.did("op0")); !ok {
		t.Fatal("the operator's key is not known")
	}
	apply(w.member("op0", "n1"))
	tok, e := w.invites("op0", 1, "sentinel", "analyst")
	apply(e)
	apply(w.admits("n1", "n2", tok))
	s := f.State()
	if got := fmt.Sprint(s.Roles(w.did("n2"), now)); got != "[analyst sentinel]" {
		t.Fatalf("n2 holds %s", got)
	}
	m, ok := s.ByTransport(w.identity("n2").Inception().TransportKey())
	if !ok || m.Name != "n2" || m.AdmittedBy != w.did("n1") {
		t.Fatalf("by transport: %v", m)
	}
	if k, ok := f.Key(w.did("n2")); !ok || !k.Equal(w.identity("n2").Inception().PublicKey()) {
		t.Fatal("key of n2")
	}
	if err := f.Apply(w.admits("n1", "n2", tok)); err != nil {
		t.Fatalf("the same joiner again: %v", err)
	}
	var spent *InviteSpentError
	if err := f.Apply(w.admits("n1", "n3", tok)); !errors.As(err, &spent) || spent.Name != "n3" {
		t.Fatalf("another joiner on a spent invite: %v", err)
	}
	if inv, _ := f.State().InviteByKey([32]byte(mustKeyHash(t, tok))); !inv.Overspent || inv.Open(now) {
		t.Fatalf("%+v", inv)
	}
	apply(w.says("op0", &GrantBody{Subject: w.hash("n2"), Roles: []string{"decoy"}, NotAfter: now.Unix()}))
	if got := fmt.Sprint(f.State().Roles(w.did("n2"), now.Add(-time.Second))); got != "[analyst decoy sentinel]" {
		t.Fatalf("n2 holds %s", got)
	}
	if got := fmt.Sprint(f.State().Roles(w.did("n2"), now)); got != "[analyst sentinel]" {
		t.Fatalf("past its end n2 holds %s", got)
	}
	apply(w.says("op0", &RevokeRoleBody{Subject: w.hash("n2"), Roles: []string{"analyst"}}))
	if got := fmt.Sprint(f.State().Roles(w.did("n2"), now)); got != "[sentinel]" {
		t.Fatalf("n2 holds %s", got)
	}
	apply(w.says("op0", &AllowBody{Address: netip.MustParsePrefix("192.0.2.0/24")}))
	if len(f.State().Allowed()) != 1 {
		t.Fatal("allow list")
	}
	apply(w.says("op0", &DisallowBody{Address: netip.MustParsePrefix("192.0.2.0/24")}))
	if len(f.State().Allowed()) != 0 {
		t.Fatal("allow list after disallow")
	}
	deny := event.Response{Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix("203.0.113.9/32")}, Reason: "test", Authority: event.AuthorityOperator, Issued: 1, TTL: time.Hour}
	r := w.says("op0", &ResponseBody{Response: deny})
	apply(r)
	if got := f.State().Responses(); len(got) != 1 || got[0].ID != r.ID() || got[0].By != string(w.did("op0")) {
		t.Fatalf("%+v", got)
	}
	deny.TTL = 48 * time.Hour
	if err := f.Apply(w.says("op0", &ResponseBody{Response: deny})); !errors.Is(err, ErrVoid) {
		t.Fatalf("longer than the genesis allows: %v", err)
	}
	if err := f.Apply(w.says("n2", &GrantBody{Subject: w.hash("n2"), Roles: []string{"decoy"}})); !errors.Is(err, ErrVoid) {
		t.Fatalf("a member granted: %v", err)
	}
	before := f.State()
	apply(w.says("op0", &RevokeBody{Subject: w.hash("n2"), Authority: 1, Activity: 7, Why: "stolen"}))
	if before.Revoked(w.did("n2")) {
		t.Fatal("an old snapshot changed")
	}
	if s := f.State(); !s.Revoked(w.did("n2")) || s.Roles(w.did("n2"), now) != nil {
		t.Fatal("n2 is not out")
	}
	if n, cut := f.Cut(w.did("n2"), ledger.Activity); !cut || n != 7 {
		t.Fatalf("cut at %d %v", n, cut)
	}
}

func mustKeyHash(t testing.TB, tok *Token) []byte {
	t.Helper()
	h, err := tok.KeyHash()
	if err != nil {
		t.Fatal(err)
	}
	return h[:]
}

func TestRevokeNeedsKAndSuspendsBefore(t *testing.T) {
	w := newWorld(t, 3, 2)
	w.member("op0", "own")
	w.member("op0", "n1")
	w.says("op0", &RevokeBody{Subject: w.hash("n1"), Authority: 5, Activity: 9})
	s := fold(w, w.entries).State()
	m, _ := s.Member(w.did("n1"))
	if m.Revoked || m.Active(w.now.Add(time.Hour)) || !m.Active(w.now.Add(25*time.Hour)) {
		t.Fatalf("one of two votes: %+v", m)
	}
	w.says("op1", &RevokeBody{Subject: w.hash("n1"), Authority: 3, Activity: 20})
	s = fold(w, w.entries).State()
	m, _ = s.Member(w.did("n1"))
	if !m.Revoked || m.authorityStands != 3 || m.activityStands != 9 {
		t.Fatalf("two of two votes: %+v", m)
	}
	w.says("op2", &SuspendBody{Subject: w.hash("n1"), NotAfter: w.now.Add(1000 * time.Hour).Unix()})
	m, _ = fold(w, w.entries).State().Member(w.did("n1"))
	if m.SuspendedUntil.After(w.now.Add(trust.MaxSuspension)) {
		t.Fatal("one operator suspended for longer than a day")
	}
}

func TestRevokeWinsOverConcurrentGrant(t *testing.T) {
	w := newWorld(t, 2, 2)
	w.member("op0", "n1")
	roles := func() string { return fmt.Sprint(fold(w, w.entries).State().Roles(w.did("n1"), w.now)) }
	r := w.says("op0", &RevokeRoleBody{Subject: w.hash("n1"), Roles: []string{"sentinel"}})
	w.says("op1", &GrantBody{Subject: w.hash("n1"), Roles: []string{"sentinel"}})
	if roles() != "[]" {
		t.Fatal("a grant that does not know of the revocation counts")
	}
	w.says("op1", &GrantBody{Subject: w.hash("n1"), Roles: []string{"sentinel"}}, r.Head())
	if roles() != "[sentinel]" {
		t.Fatal("a grant that names the revocation does not count")
	}
}

func TestWithdrawNamesThoseThatStand(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.member("op0", "n1")
	tok, inv := w.invites("op0", 5, "sentinel")
	w.admits("n1", "n2", tok)
	w.admits("n1", "n3", tok)
	id := inv.Hash()
	w.says("op0", &WithdrawBody{Invite: id[:16], Stand: [][]byte{w.hash("n2")}})
	w.admits("n1", "n4", tok)
	s := fold(w, w.entries).State()
	for name, want := range map[string]bool{"n1": true, "n2": true, "n3": false, "n4": false} {
		if _, ok := s.Member(w.did(name)); ok != want {
			t.Errorf("%s member: %v", name, ok)
		}
	}
}

func TestBackdatedAdmissionDisplacesNoElder(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.member("op0", "n1")
	tok, _ := w.invites("op0", 2)
	w.admits("n1", "n2", tok)
	w.admits("n1", "n3", tok) // n3 will turn bad
	w.exact = true
	w.now = w.now.Add(-time.Hour)
	w.admits("n3", "sybil", tok)
	f := fold(w, w.entries)
	for name, want := range map[string]bool{"n2": true, "n3": true, "sybil": false} {
		if _, ok := f.State().Member(w.did(name)); ok != want {
			t.Errorf("%s member: %v", name, ok)
		}
	}
}

func TestUnknownCriticalKindFailsClosed(t *testing.T) {
	w := newWorld(t, 2, 2)
	w.member("op0", "n1")
	w.saysRaw("op0", 0x0ff, []byte("from the future"))
	w.says("op0", &GrantBody{Subject: w.hash("n1"), Roles: []string{"sentinel"}})
	w.says("op1", &GrantBody{Subject: w.hash("n1"), Roles: []string{"decoy"}})
	w.says("op0", &RevokeRoleBody{Subject: w.hash("n1"), Roles: []string{"decoy"}})
	f := NewFold(w.genesis)
	var unknown int
	for _, e := range w.entries {
		if errors.Is(f.Apply(e), ErrUnknownKind) {
			unknown++
		}
	}
	s := f.State()
	if roles := s.Roles(w.did("n1"), w.now); unknown != 1 || len(roles) != 0 || len(s.Problems()) != 1 {
		t.Fatalf("%d unknown, roles %v, problems %v", unknown, roles, s.Problems())
	}
	w2 := newWorld(t, 1, 1)
	w2.member("op0", "n1")
	w2.saysRaw("op0", ledger.KindOptional|0x0ff, nil)
	w2.says("op0", &GrantBody{Subject: w2.hash("n1"), Roles: []string{"sentinel"}})
	if s := fold(w2, w2.entries).State(); len(s.Roles(w2.did("n1"), w2.now)) != 1 {
		t.Fatal("an optional kind stopped the fold")
	}
}

func TestForkedOperatorFreezes(t *testing.T) {
	w := newWorld(t, 2, 2)
	w.member("op1", "n1")
	w.says("op0", &GrantBody{Subject: w.hash("n1"), Roles: []string{"analyst"}})
	a := w.says("op0", &GrantBody{Subject: w.hash("n1"), Roles: []string{"sentinel"}})
	w.next["op0"]--
	one := w.entries[len(w.entries)-2]
	w.prev["op0"] = one.Hash()
	b := w.says("op0", &GrantBody{Subject: w.hash("n1"), Roles: []string{"decoy"}})
	p, err := ledger.NewProof(a.Raw(), b.Raw())
	if err != nil {
		t.Fatal(err)
	}
	w.says("n1", &EvidenceBody{p})
	s := fold(w, w.entries).State()
	if got := fmt.Sprint(s.Roles(w.did("n1"), w.now)); got != "[analyst]" || len(s.Problems()) != 1 {
		t.Fatalf("roles %s, problems %v", got, s.Problems())
	}
}
