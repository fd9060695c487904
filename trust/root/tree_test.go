package root

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

func TestPictures(t *testing.T) {
	base := newScene(t, 2, 3)
	for _, c := range []struct{ name, picture, stands string }{
		{"a line", `G -> A -> B`, "G A B"},
		{"one of two signatures does not advance", `G -> A@0 -> B`, "G"},
		{"a stranger's signature spoils an entry", `G -> A@019`, "G"},
		{"an operator added signs from then on", `G -> A:add:op3:3 -> B@123`, "G A B"},
		{"and not before", `G -> A@03`, "G"},
		{"k follows an add", `G -> A:add:op3:3 -> B@12`, "G A"},
		{"k stays more than half", `G -> A:add:op3:2`, "G"},
		{"a removed operator signs no more", `G -> A:remove:op2:2 -> B@02`, "G A"},
		{"removing the last quorum is refused", `G -> A:remove:op2:1`, "G"},
		{"rotation puts new keys in place of old", `G -> A:rotate:op0:op3 -> B@13`, "G A B"},
		{"the old keys are out", `G -> A:rotate:op0:op3 -> B@01`, "G A"},
		{"who was an operator is none again", `G -> A:remove:op2 -> B:add:op2`, "G A"},
		{"an unknown critical kind freezes grants", `G -> A -> B! -> C:revoke:n1`, "G A B C unknown-kind"},
		{"an unknown kind that may be skipped does not", `G -> A -> B? -> C`, "G A B C"},
		{"retired", `G -> A:retire:next -> B`, "G A retired"},
		{"a fork freezes at the last common entry", "G -> A -> B -> C\n A -> D@12", "G A fork"},
		{"a fork at genesis", "G -> A -> B\n G -> C@12", "G fork"},
		{"without recovery keys k operators choose", "G -> A -> B -> C\n A -> D@12\n C -> R:recover:A@02 -> E", "G A B C R E"},
		{"or choose neither", "G -> A -> B -> C\n A -> D@12\n A -> R:recover:A@02 -> E", "G A R E"},
		{"fewer do not", "G -> A -> B -> C\n A -> D@12\n C -> R:recover:A@0", "G A fork"},
		{"without a fork theirs is no recovery", "G -> A -> B\n A -> R:recover:A@01", "G A B"},
		{"two choices of one round are none", "G -> A -> B\n A -> D@12\n B -> R:recover:A@01\n D -> S:recover:A@12", "G A fork"},
		{"a later round settles it", "G -> A -> B\n A -> D@12\n B -> R:recover:A@01\n D -> S:recover:A@12\n B -> T:recover:A:2@02", "G A B T"},
		{"a recovery names an entry on its own path", "G -> A -> B\n A -> D@12\n D -> R:recover:B@01", "G A fork"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := base.fresh().draw(c.picture).stands(); got != c.stands {
				t.Errorf("%s\nstands %q, want %q", c.picture, got, c.stands)
			}
		})
	}
}

// TestRecoveryKeys: genesis's recovery keys outrank operators, with or without a fork.
func TestRecoveryKeys(t *testing.T) {
	base := newScene(t, 2, 3, recoveryKeys(t, 2)...)
	for _, c := range []struct{ name, picture, stands string }{
		{"they choose", "G -> A -> B\n A -> D@12\n D -> R:recover:A@rs -> E", "G A D R E"},
		{"one of two does not", "G -> A -> B\n A -> D@12\n D -> R:recover:A@r", "G A fork"},
		{"operators do not", "G -> A -> B\n A -> D@12\n D -> R:recover:A@01", "G A fork"},
		{"they replace stolen operators", "G -> A -> B:revoke:n1\n A -> R:recover:A:1:-op0:-op1:op3@rs -> E@23\n R -> F@01", "G A R E"},
		{"retired by thieves, back by recovery", "G -> A:retire:x\n G -> R:recover:G@rs -> B", "G R B"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := base.fresh().draw(c.picture).stands(); got != c.stands {
				t.Errorf("%s\nstands %q, want %q", c.picture, got, c.stands)
			}
		})
	}
}

func TestForkUnitesRevocationsAndFreezesGrants(t *testing.T) {
	s := newScene(t, 2, 3).draw(`
		G -> A:revoke:n1:5:5 -> B:revoke:n2 -> C:unrevoke:n2
		     A -> D:revoke:n3:7:7@12
		          D -> E:revoke:n1:3:9@12`)
	st := s.grown(s.order...).State()
	for _, n := range []string{"n1", "n2", "n3"} {
		if _, ok := st.Revoked[s.did(n)]; !ok {
			t.Errorf("%s is not revoked while the root forks", n)
		}
	}
	if r := st.Revoked[s.did("n1")]; r.Authority != 3 || r.Activity != 5 {
		t.Errorf("of two revocations the fewer entries stand: %+v", r)
	}
	at := s.entries["B"].Time
	if st.Grants(at) || !st.Grants(at-1) {
		t.Errorf("grants are frozen from the first of the entries in question on: %+v", st.Frozen)
	}
	if len(st.Forks) != 1 || !slices.Equal(st.Forks[0].Signers, []identity.DID{s.did("op1")}) {
		t.Errorf("who signed both is named: %+v", st.Forks)
	}
	s.draw(`D -> R:recover:A@02`)
	st = s.grown(s.order...).State()
	if _, ok := st.Revoked[s.did("n2")]; ok || st.Frozen != nil || len(st.Forks) != 1 || st.Forks[0].Stands != s.entries["D"].hash {
		t.Errorf("after recovery: %+v", st)
	}
}

func TestOneStolenKeyMovesNothing(t *testing.T) {
	s := newScene(t, 2, 3).draw(`
		G -> A:revoke:n1@0
		G -> B:remove:op1@0
		G -> C:add:thief:3@0
		G -> D:retire:thiefs@0
		G -> E:policy:permit@0
		G -> R:recover:G@0`)
	tree := s.grown()
	for name, e := range s.entries {
		if _, err := tree.Add(e, s.did("op0")); !errors.Is(err, ErrUnsigned) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st := tree.State(); st.Seq != 0 || len(st.Forks) != 0 {
		t.Fatalf("%+v", st)
	}
}

func TestSigningOffline(t *testing.T) {
	s := newScene(t, 2, 3)
	e, err := New(genesisState(s.anchor), &Unrevoke{Subject: s.hash("n1"), Why: "mistake"}, 2000)
	if err != nil {
		t.Fatal(err)
	}
	one, err := e.SignedBy(s.id("op2"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := e.SignedBy(s.id("op0"))
	if err != nil {
		t.Fatal(err)
	}
	tree := s.grown()
	if _, err := tree.Add(one, "x"); !errors.Is(err, ErrUnsigned) {
		t.Fatal(err)
	}
	both, err := one.Merge(two)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := tree.Add(both, "x"); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if _, err := one.Merge(&Entry{}); err == nil {
		t.Fatal("merged with another entry")
	}
	spoilt := *both
	spoilt.Signatures = slices.Clone(both.Signatures)
	spoilt.Signatures[0].Bytes = slices.Clone(spoilt.Signatures[0].Bytes)
	spoilt.Signatures[0].Bytes[9] ^= 1
	fresh := s.grown()
	if _, err := fresh.Add(&spoilt, "x"); !errors.Is(err, ErrUnsigned) {
		t.Fatalf("spoilt: %v", err)
	}
	if changed, err := fresh.Add(both, "x"); !changed || err != nil {
		t.Fatalf("a spoilt copy shut out the true one: %v", err)
	}
}

func TestOrphansAreBounded(t *testing.T) {
	s := newScene(t, 2, 3)
	st := genesisState(s.anchor)
	far := *st
	far.Head, far.Seq = Hash{9}, 7
	tree := s.grown()
	full := 0
	for i := range 400 {
		e, err := New(&far, &Policy{Text: strings.Repeat("x", 20_000) + fmt.Sprint(i)}, 2000)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tree.Add(e, s.did("hostile")); errors.Is(err, ErrFull) {
			full++
		}
	}
	if full == 0 || tree.all > trust.MaxRootHeld {
		t.Fatalf("%d refused, %d bytes held", full, tree.all)
	}
	line := s.draw(`G -> A -> B`)
	if got := line.stands(); got != "G A B" {
		t.Fatal(got)
	}
}

// TestOrderDoesNotMatter: any part of a hostile tree, in any order and with repeats, gives the state of its first order.
func TestOrderDoesNotMatter(t *testing.T) {
	s := newScene(t, 2, 3, recoveryKeys(t, 1)...)
	s.draw(`
		G -> A:add:op3:3 -> B:revoke:n1:4 -> C:issuers:n9:invite -> D:release:x
		     A -> E:revoke:n2@123 -> F:unrevoke:n2
		          B -> H:rotate:op1:op4@023 -> I@024
		          B -> J!
		               J -> K:revoke:n3
		E -> R:recover:A@r -> L -> M:retire:o
		R -> N:policy:permit@023
		B -> S:recover:A:2@r
		C -> T:recover:B:1@r
		G -> U@0
		A -> V:remove:op9`)
	spell := func(st *State) string {
		var b strings.Builder
		fmt.Fprintln(&b, st.Seq, st.Head, st.K, st.Frozen, st.Forks, st.PolicyText, st.Successor)
		for _, o := range st.Operators {
			fmt.Fprintln(&b, o.DID, o.Since)
		}
		for _, did := range slices.Sorted(maps.Keys(st.Former)) {
			fmt.Fprintln(&b, did, st.Former[did].Stands, st.Former[did].Removed)
		}
		fmt.Fprintln(&b, st.Revoked, st.Unrevoked, st.Issuers, st.Releases) // maps print sorted
		return b.String()
	}
	rapid.Check(t, func(rt *rapid.T) {
		drop := rapid.SliceOfNDistinct(rapid.IntRange(0, len(s.order)-1), 0, 8, rapid.ID).Draw(rt, "drop")
		var part []*Entry
		for i, e := range s.order {
			if !slices.Contains(drop, i) {
				part = append(part, e)
			}
		}
		want := spell(s.grown(part...).State())
		order := rapid.Permutation(part).Draw(rt, "order")
		again := rapid.SliceOfN(rapid.SampledFrom(part), 0, 4).Draw(rt, "again")
		if got := spell(s.grown(append(order, again...)...).State()); got != want {
			rt.Fatalf("two states of one tree:\n%s\n--- and\n%s", want, got)
		}
	})
}

// TestLongChain: states between are derived anew where they are not kept.
func TestLongChain(t *testing.T) {
	s := newScene(t, 1, 1)
	tree := NewTree(s.anchor)
	st := genesisState(s.anchor)
	var at50 Hash
	for i := range 2*keepEvery + 3 {
		e, err := New(st, &Revoke{Subject: s.hash(fmt.Sprint("n", i%5)), Authority: uint64(1000 - i)}, st.Time+1)
		if err != nil {
			t.Fatal(err)
		}
		if e, err = e.SignedBy(s.id("op0")); err != nil {
			t.Fatal(err)
		}
		if _, err := tree.Add(e, "x"); err != nil {
			t.Fatal(err)
		}
		if st = tree.State(); i == 50 {
			at50 = e.hash
		}
	}
	mid, ok := tree.At(at50)
	if !ok || mid.Seq != 51 || mid.Revoked[s.did("n0")].Authority != 950 || len(tree.Chain()) != 2*keepEvery+3 {
		t.Fatalf("%+v", mid)
	}
}

func FuzzDecode(f *testing.F) {
	if e, err := newEntry(trust.SwarmID{1}, 1, Hash{1}, 1, KindUnrevoke, true, append([]byte{0xa2, 1, 0x58, 32}, append(make([]byte, 32), 2, 0x61, 'w')...)); err != nil {
		f.Fatal(err)
	} else if raw, err := e.with(Signature{Signer: make([]byte, 32), Bytes: []byte{1}}).Encode(); err == nil {
		f.Add(raw)
	}
	f.Add([]byte{0xa2, 1, 0x41, 1, 2, 0x80})
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := Decode(raw)
		if err != nil {
			if !errors.Is(err, ErrEntry) {
				t.Fatal(err)
			}
			return
		}
		again, err := e.Encode()
		if err != nil || string(again) != string(raw) {
			t.Fatalf("%x came back as %x, %v", raw, again, err)
		}
	})
}

func TestText(t *testing.T) {
	s := newScene(t, 1, 1).draw(`G -> A`)
	text, err := s.entries["A"].Text()
	if err != nil {
		t.Fatal(err)
	}
	e, err := ParseText(append([]byte("Dear Bob,\n\nplease sign.\n"), append(text, "-- \nAlice\n"...)...))
	if err != nil || e.Hash() != s.entries["A"].Hash() || len(e.Signatures) != 1 {
		t.Fatalf("%+v, %v", e, err)
	}
	k, err := GenerateRecovery(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, pass := range []string{"", "long and good"} {
		text, err := k.Text([]byte(pass))
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRecoveryText(text, []byte(pass))
		if err != nil || string(again.Public()) != string(k.Public()) {
			t.Fatal(err)
		}
		if _, err := ParseRecoveryText(text, []byte("wrong")); (err == nil) != (pass == "") {
			t.Fatalf("wrong passphrase: %v", err)
		}
	}
}
