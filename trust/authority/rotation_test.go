package authority

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// at is a place in who's authority chain.
type at struct {
	seq  uint64
	prev ledger.Hash
}

func (w *world) place(who string) at { return at{w.next[who], w.prev[who]} }

func (w *world) goBack(who string, to at) { w.next[who], w.prev[who] = to.seq, to.prev }

// successor is who's next key, and the hash of the one after.
func (w *world) successor(who string) (*composite.PrivateKey, [32]byte) {
	w.t.Helper()
	w.identity(who)
	s, err := identity.Succeed(w.dirs[who], identity.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	return s.Key, s.Next
}

// rotates makes who go on with its next key from that place: what it said beyond it is a thief's.
func (w *world) rotates(who string, from at, activity uint64) *ledger.Entry {
	w.t.Helper()
	w.goBack(who, from)
	key, next := w.successor(who)
	s := identity.Standing{Authority: from.seq, AuthorityHead: from.prev, Activity: activity}
	if activity > 0 {
		s.ActivityHead = [32]byte{1}
	}
	r, err := w.identity(who).Rotate(key, nil, func(n uint32) (*identity.Rotation, []byte, error) {
		r, err := identity.NewRotation(w.genesis.SwarmID(), w.did(who), n, key, next, s)
		return r, nil, err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.keyOf[who] = r.Number
	return w.says(who, &RotateBody{Rotation: r})
}

// forks makes who sign two entries of its next number, and by say that it did.
func (w *world) forks(who, by string) {
	w.t.Helper()
	from := w.place(who)
	a := w.saysRaw(who, ledger.KindOptional|0x0aa, []byte("one"))
	w.goBack(who, from)
	b := w.saysRaw(who, ledger.KindOptional|0x0aa, []byte("other"))
	p, err := ledger.NewProof(a.Raw(), b.Raw())
	if err != nil {
		w.t.Fatal(err)
	}
	w.says(by, &EvidenceBody{p})
}

func (w *world) memberNow(name string) *Member {
	w.t.Helper()
	m, ok := fold(w, w.entries).State().Member(w.did(name))
	if !ok {
		w.t.Fatalf("%s is no member", name)
	}
	return m
}

func TestRotationAnswersTheft(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.member("op0", "n1")
	w.member("op0", "n2")
	tok, _ := w.invites("op0", 5, "sentinel")
	w.admits("n1", "before", tok)
	stands := w.place("n1")
	w.admits("n1", "friend", tok)
	w.forks("n1", "n2")
	if m := w.memberNow("n1"); !m.Forked || m.Active(w.now) {
		t.Fatal("the fork is not seen")
	}
	w.rotates("n1", stands, 4)
	w.admits("n1", "after", tok)
	f := fold(w, w.entries)
	s := f.State()
	m := w.memberNow("n1")
	if m.Forked || !m.Active(w.now) || m.Keys.Number() != 1 {
		t.Fatalf("after the rotation: forked %t, active %t, key %d", m.Forked, m.Active(w.now), m.Keys.Number())
	}
	for name, want := range map[string]bool{"before": true, "friend": false, "after": true} {
		if _, ok := s.Member(w.did(name)); ok != want {
			t.Errorf("%s member: %v", name, ok)
		}
	}
	if k, n, ok := f.KeyAt(ledger.Feed{Author: w.did("n1"), Chain: ledger.Authority}, stands.seq-1); !ok || n != 0 || !k.Equal(w.identity("n1").Inception().PublicKey()) {
		t.Error("the old key does not sign what stands")
	}
	if _, n, _ := f.KeyAt(ledger.Feed{Author: w.did("n1"), Chain: ledger.Activity}, 4); n != 1 {
		t.Error("the new key does not sign activity from there on")
	}
	w.forks("n1", "n2")
	if m := w.memberNow("n1"); !m.Forked {
		t.Error("a fork by the new key is excused by the old rotation")
	}
}

// A thief who has everything but the next key is not followed, whatever it signs.
func TestThiefCannotRotateInTheFold(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.member("op0", "n1")
	own, err := composite.Generate(w.suite, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := identity.NewRotation(w.genesis.SwarmID(), w.did("n1"), 1, own, [32]byte{9}, identity.Standing{})
	if err != nil {
		t.Fatal(err)
	}
	f := fold(w, w.entries)
	if err := f.Rotates(r); !errors.Is(err, identity.ErrRotation) {
		t.Errorf("asked: %v", err)
	}
	if err := f.Apply(w.says("n1", &RotateBody{Rotation: r})); !errors.Is(err, ErrVoid) {
		t.Errorf("applied: %v", err)
	}
	if m, _ := f.State().Member(w.did("n1")); m.Keys.Number() != 0 || !m.Active(w.now) {
		t.Error("it had an effect")
	}
}

// Two who hold the next key: nobody can tell which is the owner, so both wait.
func TestContestFreezes(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.member("op0", "n1")
	w.member("op0", "n2")
	from := w.place("n1")
	key, next := w.successor("n1")
	stolen, err := identity.NewRotation(w.genesis.SwarmID(), w.did("n1"), 1, key, [32]byte{9}, identity.Standing{Activity: 3, ActivityHead: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	_ = next
	own := w.rotates("n1", from, 0)
	f := fold(w, w.entries)
	if err := f.Rotates(stolen); !errors.Is(err, identity.ErrContested) {
		t.Fatalf("the second rotation of one number: %v", err)
	}
	r, err := identity.DecodeRotation(own.Body)
	if err != nil {
		t.Fatal(err)
	}
	w.says("n2", NewContest(r, stolen))
	s := fold(w, w.entries).State()
	m, _ := s.Member(w.did("n1"))
	if m.Active(w.now) || len(m.Contest) != 2 || m.Keys.Number() != 0 || len(s.Problems()) != 1 {
		t.Fatalf("active %t, contest %d, key %d, problems %v", m.Active(w.now), len(m.Contest), m.Keys.Number(), s.Problems())
	}
}

// TestRotationsConverge: whatever part of a history with theft, rotations and a contest arrives, in whatever order and
// however often, the state is the same.
func TestRotationsConverge(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: there is nothing for the race detector to see")
	}
	w := newWorld(t, 1, 1)
	for _, n := range []string{"n1", "n2", "n3"} {
		w.member("op0", n)
	}
	tok, _ := w.invites("op0", 9, "sentinel")
	w.admits("n1", "a1", tok)
	w.forks("n1", "n3") // below what will stand
	stands := w.place("n1")
	w.admits("n1", "thief1", tok)
	w.forks("n1", "n2")
	w.rotates("n1", stands, 7)
	w.admits("n1", "a2", tok)
	stands = w.place("n1")
	w.admits("n1", "thief2", tok)
	w.rotates("n1", stands, 5)
	w.admits("n1", "a3", tok)
	w.forks("n1", "n3")
	w.admits("a2", "a4", tok)
	w.admits("thief1", "thief3", tok)
	from := w.place("n2")
	key, _ := w.successor("n2")
	stolen, err := identity.NewRotation(w.genesis.SwarmID(), w.did("n2"), 1, key, [32]byte{9}, identity.Standing{})
	if err != nil {
		t.Fatal(err)
	}
	w.admits("n2", "a5", tok)
	own, err := identity.DecodeRotation(w.rotates("n2", from, 0).Body)
	if err != nil {
		t.Fatal(err)
	}
	w.admits("n2", "a6", tok)
	w.says("n3", NewContest(own, stolen))
	rapid.Check(t, func(rt *rapid.T) {
		drop := rapid.SliceOfNDistinct(rapid.IntRange(0, len(w.entries)-1), 0, 6, rapid.ID).Draw(rt, "drop")
		var part []*ledger.Entry
		for i, e := range w.entries {
			keep := true
			for _, d := range drop {
				keep = keep && d != i
			}
			if keep {
				part = append(part, e)
			}
		}
		want := digest(fold(w, part).State())
		order := rapid.Permutation(part).Draw(rt, "order")
		again := rapid.SliceOfN(rapid.SampledFrom(part), 0, 4).Draw(rt, "again")
		if got := digest(fold(w, append(order, again...)).State()); got != want {
			rt.Fatalf("two states of one history:\n%s\n--- and\n%s", want, got)
		}
	})
	var names []string
	for _, m := range fold(w, w.entries).State().Members() {
		names = append(names, m.Name)
	}
	if got := fmt.Sprint(names); got != "[a1 a2 a3 a4 a5 n1 n2 n3]" {
		t.Errorf("members %s", got)
	}
}
