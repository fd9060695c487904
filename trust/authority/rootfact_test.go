package authority

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/root"
)

// changes makes the root entry that follows the state after all said so far (or after parent), signed by signers, and
// has by carry it.
func (w *world) changes(by string, body root.Body, signers ...string) *ledger.Entry {
	w.t.Helper()
	return w.carries(by, w.proposed(fold(w, w.entries).State().Root(), body, signers...))
}

func (w *world) proposed(at *root.State, body root.Body, signers ...string) *root.Entry {
	w.t.Helper()
	e, err := root.New(at, body, w.now.UnixNano())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range signers {
		if e, err = e.SignedBy(w.identity(s)); err != nil {
			w.t.Fatal(err)
		}
	}
	return e
}

func (w *world) carries(by string, e *root.Entry) *ledger.Entry {
	w.t.Helper()
	return w.says(by, &RootBody{Entry: e})
}

func (w *world) record(name string) []byte { return w.identity(name).Inception().Encode() }

// hostileRoot is a swarm whose root changes hands: an operator that spoke before it was one, one removed at a number, one
// rotated, a member revoked, let in again and voted out, suspensions beyond the rules, and two forks, one of them
// resolved.
func hostileRoot(t testing.TB) *world {
	w := newWorld(t, 3, 2)
	w.member("op0", "n1")
	for _, n := range []string{"n2", "n3", "n4", "n5"} {
		w.member("op1", n)
	}
	tok, _ := w.invites("op2", 3, "sentinel")
	w.says("new", &GrantBody{Subject: w.hash("n2"), Roles: []string{"decoy"}}) // not yet
	w.says("new", &MemberBody{Inception: w.record("n6")})
	w.changes("n2", &root.Add{Inception: w.record("new"), K: 3}, "op0", "op1")
	w.says("new", &RevokeRoleBody{Subject: w.hash("n3"), Roles: []string{"sentinel"}})
	w.says("op2", &GrantBody{Subject: w.hash("n3"), Roles: []string{"sentinel"}})
	w.admits("n2", "n7", tok)
	w.says("op2", &GrantBody{Subject: w.hash("n1"), Roles: []string{"analyst"}})
	w.says("op2", &SuspendBody{Subject: w.hash("n2"), NotAfter: w.now.Unix() + 1000, Why: "thief"})
	w.says("op2", &SuspendBody{Subject: w.hash("n3"), NotAfter: w.now.Unix() + 1000, Why: "thief"})
	w.says("op2", &RevokeBody{Subject: w.hash("n4"), Why: "thief"})
	w.says("op2", &AllowBody{Address: netip.MustParsePrefix("203.0.113.0/24")})
	w.says("op2", &ResponseBody{Response: event.Response{Action: event.ActionDeny, Target: event.Target{Path: "/bin/true"}, Authority: event.AuthorityOperator, Issued: 1, TTL: time.Hour}})
	w.changes("n3", &root.Revoke{Subject: w.hash("n5"), Authority: 0, Activity: 2, Why: "bad"}, "op0", "op1", "new")
	w.changes("n2", &root.Remove{Operator: w.hash("op2"), Authority: 2, K: 2}, "op0", "op1", "new")
	w.says("op1", &RevokeBody{Subject: w.hash("n5"), Authority: 3, Activity: 3})
	w.says("op0", &RevokeBody{Subject: w.hash("n5"), Authority: 3, Activity: 3})
	w.changes("n1", &root.Unrevoke{Subject: w.hash("n5"), Why: "mistake"}, "op1", "new")
	w.says("op0", &RevokeBody{Subject: w.hash("n5"), Authority: 3, Activity: 3})
	w.changes("n1", &root.Rotate{Operator: w.hash("op0"), Authority: 9, Inception: w.record("op0b")}, "op1", "new")
	w.says("op0b", &RevokeBody{Subject: w.hash("n5"), Authority: 3, Activity: 3}) // the same person's second vote
	w.says("op0b", &GrantBody{Subject: w.hash("n4"), Roles: []string{"sentinel"}})
	at := fold(w, w.entries).State().Root()
	one := w.proposed(at, &root.Revoke{Subject: w.hash("n2"), Authority: 1}, "op1", "new")
	two := w.proposed(at, &root.Revoke{Subject: w.hash("n3")}, "op1", "op0b")
	w.carries("n1", one)
	w.carries("n4", two)
	w.says("op1", &GrantBody{Subject: w.hash("n1"), Roles: []string{"decoy"}}) // frozen
	w.says("op1", &RevokeRoleBody{Subject: w.hash("n4"), Roles: []string{"sentinel"}})
	h := at.Head
	after, ok := fold(w, w.entries).RootAt(two.Hash())
	if !ok {
		t.Fatal("the second branch was not kept")
	}
	w.carries("n1", w.proposed(after, &root.Recover{Common: h[:], Round: 1}, "op0b", "new"))
	w.changes("n1", &root.Policy{Text: "permit (principal, action, resource);"}, "op0b", "new")
	w.says("op1", &PolicyBody{Text: "forbid (principal, action, resource);"})
	at = fold(w, w.entries).State().Root()
	w.carries("n1", w.proposed(at, &root.Unrevoke{Subject: w.hash("n3")}, "op1", "new"))
	w.carries("n1", w.proposed(at, &root.Retire{Successor: make([]byte, 32)}, "op1", "op0b"))
	w.says("op1", &GrantBody{Subject: w.hash("n4"), Roles: []string{"decoy"}}) // frozen again
	w.says("n2", &GrantBody{Subject: w.hash("n2"), Roles: []string{"decoy"}})
	w.carries("n2", w.proposed(at, &root.Add{Inception: w.record("n2"), K: 3}, "new"))
	return w
}

func TestChangingRootEndsAsRuled(t *testing.T) {
	w := hostileRoot(t)
	s := fold(w, w.entries).State()
	r := s.Root()
	if r.Frozen == nil || len(r.Forks) != 2 || len(s.Problems()) != 1 {
		t.Fatalf("frozen %+v, forks %+v, problems %q", r.Frozen, r.Forks, s.Problems())
	}
	for name, want := range map[string]bool{"op0": false, "op1": true, "op2": false, "new": true, "op0b": true} {
		if s.IsOperator(w.did(name)) != want {
			t.Errorf("%s is an operator: %v", name, !want)
		}
	}
	roles := func(n string) string { return fmt.Sprint(s.Roles(w.did(n), w.now)) }
	for n, want := range map[string]string{
		"n1": "[decoy]",    // op2's grant came after what stands of it; op1's was frozen until the fork was resolved
		"n2": "[decoy]",    // granted by one who became an operator later
		"n4": "[]",         // what a frozen root's operators forbid holds, what they allow does not
		"n6": "[]",         // admitted by one who became an operator later
		"n7": "[sentinel]", // its invite is op2's first entry, which stands
	} {
		if got := roles(n); got != want {
			t.Errorf("%s holds %s, want %s", n, got, want)
		}
	}
	for n, want := range map[string]bool{"n2": false, "n3": true, "n4": false, "n5": false} {
		if got := s.Revoked(w.did(n)); got != want {
			t.Errorf("%s revoked: %v", n, got)
		}
	}
	if p, _ := s.Policy(); p.Text != "permit (principal, action, resource);" {
		t.Errorf("an operator alone replaced the root's policy: %+v", p)
	}
	if len(s.Allowed()) != 0 || len(s.Responses()) != 0 {
		t.Error("what a removed operator said past its cut counts")
	}
	if n, cut := fold(w, w.entries).Cut(w.did("op2"), ledger.Authority); !cut || n != 2 {
		t.Errorf("op2 is cut at %d, %v", n, cut)
	}
}

// TestStolenOperatorKey: the thief of one key of two of three suspends one peer for a day, and nothing else.
func TestStolenOperatorKey(t *testing.T) {
	w := newWorld(t, 3, 2)
	w.member("op0", "own0")
	w.member("op1", "own1")
	for i := range 6 {
		w.member("op0", fmt.Sprint("n", i))
	}
	begin := w.now
	suspend := func(who, peer string, d time.Duration) error {
		e := w.says(who, &SuspendBody{Subject: w.hash(peer), NotAfter: w.now.Add(d).Unix(), Why: "theft"})
		return fold(w, w.entries[:len(w.entries)-1]).Apply(e)
	}
	out := func(at time.Time) []string {
		var names []string
		for _, m := range fold(w, w.entries).State().Members() {
			if !m.Active(at) {
				names = append(names, m.Name)
			}
		}
		slices.Sort(names)
		return names
	}
	want := func(at time.Time, names ...string) {
		t.Helper()
		if got := out(at); !slices.Equal(got, names) {
			t.Fatalf("out after %s: %v, want %v", at.Sub(begin).Round(time.Second), got, names)
		}
	}
	if err := suspend("op2", "n0", 100*time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := suspend("op2", "n1", time.Hour); !errors.Is(err, ErrVoid) {
		t.Fatalf("a second peer at once: %v", err)
	}
	if err := suspend("op2", "own0", time.Hour); !errors.Is(err, ErrVoid) {
		t.Fatalf("an operator's peer: %v", err)
	}
	w.says("op2", &RevokeBody{Subject: w.hash("n2"), Why: "theft"})
	want(w.now, "n0")
	want(begin.Add(25 * time.Hour))
	w.now = begin.Add(25 * time.Hour) // and again the next day
	if err := suspend("op2", "n0", time.Hour); !errors.Is(err, ErrVoid) {
		t.Fatalf("the same peer again: %v", err)
	}
	want(w.now)
	if err := suspend("op2", "n1", time.Hour); err != nil {
		t.Fatalf("another peer on another day: %v", err)
	}
	want(w.now, "n1")
	swarm := w.genesis.SwarmID()
	// The root does not move.
	for _, body := range []root.Body{
		&root.Revoke{Subject: w.hash("n3")}, &root.Add{Inception: w.record("thief"), K: 3}, &root.Remove{Operator: w.hash("op0"), K: 2},
		&root.Rotate{Operator: w.hash("op2"), Inception: w.record("thief")}, &root.Policy{Text: "permit"}, &root.Retire{Successor: make([]byte, 32)},
		&root.Recover{Common: swarm[:], Round: 1},
	} {
		at := fold(w, w.entries).State().Root()
		e := w.carries("op2", w.proposed(at, body, "op2"))
		if err := fold(w, w.entries[:len(w.entries)-1]).Apply(e); !errors.Is(err, root.ErrUnsigned) {
			t.Errorf("%s by one of two: %v", body.Kind(), err)
		}
	}
	if at := fold(w, w.entries).State().Root(); at.Seq != 0 || at.Frozen != nil {
		t.Fatalf("%+v", at)
	}
	// The others put the thief out, and what it did goes with it.
	w.changes("own0", &root.Remove{Operator: w.hash("op2"), Authority: 0, K: 2}, "op0", "op1")
	want(w.now)
	// A real revocation takes two, holds, and is undone by two.
	w.changes("own0", &root.Revoke{Subject: w.hash("n3"), Authority: 0, Why: "stolen"}, "op0", "op1")
	want(w.now.Add(10000*time.Hour), "n3")
	w.changes("own1", &root.Unrevoke{Subject: w.hash("n3"), Why: "found"}, "op0", "op1")
	want(w.now)
}

func TestShareOfSuspensionsFollowsTheSwarm(t *testing.T) {
	w := newWorld(t, 3, 2)
	w.member("op0", "own")
	for i := range 2 * trust.SuspendShare {
		w.member("op0", fmt.Sprint("n", i))
	}
	for i := range 4 {
		w.says("op1", &SuspendBody{Subject: w.hash(fmt.Sprint("n", i)), NotAfter: w.now.Add(time.Hour).Unix()})
	}
	s := fold(w, w.entries).State()
	n := 0
	for _, m := range s.Members() {
		if !m.Active(w.now) {
			n++
		}
	}
	if n != 2 {
		t.Fatalf("%d of %d out by one operator's word", n, len(s.Members()))
	}
}

func TestWaitingIsBounded(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.member("op0", "n1")
	f := fold(w, w.entries)
	for range trust.MaxWaiting + 9 {
		_ = f.Apply(w.says("n1", &DisallowBody{Path: "/x"}))
	}
	if got := f.waiting[w.did("n1")]; len(got.entries) != trust.MaxWaiting || got.entries[0].Seq != 0 || f.waits != got.size {
		t.Fatalf("%d wait, %d bytes of %d", len(got.entries), got.size, f.waits)
	}
}

func FuzzDecodeRootBody(f *testing.F) {
	f.Add([]byte{0xa2, 1, 0x41, 1, 2, 0x80})
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := DecodeBody(ledger.KindRoot, raw)
		if err != nil {
			if !errors.Is(err, ErrBody) {
				t.Fatal(err)
			}
			return
		}
		if again, err := b.Encode(); err != nil || string(again) != string(raw) {
			t.Fatalf("read what it cannot write: %v", err)
		}
	})
}
