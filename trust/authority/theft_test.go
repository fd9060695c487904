package authority

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// store is one peer's ledger with the fold that resolves its keys.
type store struct {
	t    testing.TB
	fold *Fold
	led  *ledger.Ledger
	dir  string
}

func (w *world) store(dir string, self *identity.Identity) *store {
	w.t.Helper()
	s := &store{t: w.t, fold: NewFold(w.genesis), dir: dir}
	var err error
	s.led, err = ledger.Open(dir, w.genesis.SwarmID(), self, s.fold, ledger.Options{
		OnEntry:        func(e *ledger.Entry) { _ = s.fold.Apply(e) },
		OnEquivocation: func(p *ledger.Proof) { _ = s.fold.ApplyProof(p) },
		OnContest:      func(r *identity.Rotation) { _ = s.fold.ApplyRotation(r) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.led.Close() })
	if err := s.led.Replay(func(e *ledger.Entry) error { _ = s.fold.Apply(e); return nil }); err != nil {
		w.t.Fatal(err)
	}
	for _, p := range s.led.Evidence() {
		_ = s.fold.ApplyProof(p)
	}
	return s
}

func (s *store) says(text string) (*ledger.Entry, error) {
	return s.led.Append(context.Background(), ledger.Activity, ledger.KindSummary, []byte(text), false)
}

func (s *store) must(text string) *ledger.Entry {
	s.t.Helper()
	e, err := s.says(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// pulls takes what from has and s has not, as sync does; the first refusal of each feed ends it.
func (s *store) pulls(from *store) (refused error) {
	for _, h := range from.led.Heads() {
		for range 8 {
			n := s.led.Count(h.Author, h.Chain)
			if n > h.Seq {
				break
			}
			raws, err := from.led.Range(h.Author, h.Chain, n, 1000, 1<<20)
			if err != nil {
				s.t.Fatal(err)
			}
			var gap *ledger.GapError
			if _, err = s.led.IngestBatch(context.Background(), raws); err != nil && !errors.As(err, &gap) {
				refused = err
				break
			}
		}
	}
	return refused
}

func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	err := filepath.Walk(to, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			err = os.Chmod(path, 0o600)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestStolenFolder is a theft on paper, with real stores: the whole folder of n1 is copied, both sign, a peer convicts,
// the one with the next key goes on, and the thief's words are gone.
func TestStolenFolder(t *testing.T) {
	w := newWorld(t, 1, 1)
	base := t.TempDir()
	w.identity("op0")
	self, err := identity.Create(filepath.Join(base, "n1"), identity.Options{Name: "n1", NextDir: filepath.Join(base, "next")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = self.Close() })
	w.ids["n1"] = self
	w.now = time.Now().Add(-time.Minute)
	admission := w.member("op0", "n1")
	own, peer := w.store(filepath.Join(base, "ledger"), self), w.store(filepath.Join(base, "peer"), nil)
	for _, s := range []*store{own, peer} {
		if _, err := s.led.Ingest(context.Background(), admission.Raw()); err != nil {
			t.Fatal(err)
		}
	}
	own.must("one")
	own.must("two")
	if err := peer.pulls(own); err != nil {
		t.Fatal(err)
	}

	copyTree(t, filepath.Join(base, "n1"), filepath.Join(base, "stolen"))
	copyTree(t, filepath.Join(base, "ledger"), filepath.Join(base, "stolen-ledger"))
	clone, err := identity.Open(filepath.Join(base, "stolen"), identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clone.Close() })
	thief := w.store(filepath.Join(base, "stolen-ledger"), clone)
	thief.must("a lie")
	thief.must("and another")
	if err := peer.pulls(thief); err != nil {
		t.Fatal(err)
	}
	own.must("three")
	own.must("four")
	var fork *ledger.EquivocationError
	if err := peer.pulls(own); err != nil && !errors.As(err, &fork) {
		t.Fatal(err)
	}
	last := own.must("five")
	if _, err := peer.led.Ingest(context.Background(), last.Raw()); fork == nil && !errors.As(err, &fork) {
		// What is ahead cannot be linked: the peer asks for the numbers that it holds of the thief.
		raws, rerr := own.led.Range(self.DID(), ledger.Activity, 3, 10, 1<<20)
		if rerr != nil {
			t.Fatal(rerr)
		}
		if _, err := peer.led.Ingest(context.Background(), raws[0]); !errors.As(err, &fork) {
			t.Fatalf("two versions of a feed: %v", err)
		}
	}
	if m, _ := peer.fold.State().Member(self.DID()); !m.Forked {
		t.Fatal("the peer does not hold it against the author")
	}

	// The thief has the current key, and no more.
	if _, err := identity.Succeed(filepath.Join(base, "stolen"), identity.Options{}); !errors.Is(err, identity.ErrNextKey) {
		t.Errorf("the thief looks for the next key: %v", err)
	}
	fresh, err := composite.Generate(w.suite, nil)
	if err != nil {
		t.Fatal(err)
	}
	h, _ := thief.led.Head(self.DID(), ledger.Authority)
	r, err := identity.NewRotation(w.genesis.SwarmID(), self.DID(), 1, fresh, [32]byte{1}, identity.Standing{})
	if err != nil {
		t.Fatal(err)
	}
	forged, err := ledger.SignEntry(clone, w.genesis.SwarmID(), 0, h.Hash, ledger.KindRotate, r.Encode(), w.now)
	if err != nil {
		t.Fatal(err)
	}
	var refusal *ledger.RejectError
	if _, err := peer.led.Ingest(context.Background(), forged); !errors.As(err, &refusal) || refusal.Cause != ledger.CauseRotation {
		t.Errorf("a rotation to a key of the thief's own: %v", err)
	}

	step, err := identity.Succeed(filepath.Join(base, "n1"), identity.Options{NextDir: filepath.Join(base, "next")})
	if err != nil {
		t.Fatal(err)
	}
	e, err := own.led.Rotate(step.Key, step.Next, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = step.Done()
	_ = step.Close()
	own.must("six, with the new key")
	if err := peer.pulls(own); err != nil {
		t.Fatal(err)
	}
	check := func(peer *store) {
		t.Helper()
		if m, _ := peer.fold.State().Member(self.DID()); m.Forked || m.Keys.Number() != 1 {
			t.Fatalf("after the rotation: forked %t, key %d", m.Forked, m.Keys.Number())
		}
		for _, c := range []ledger.Chain{ledger.Authority, ledger.Activity} {
			a, _ := own.led.Head(self.DID(), c)
			if b, _ := peer.led.Head(self.DID(), c); a != b {
				t.Fatalf("%s: the peer has %v, the owner %v", c, b, a)
			}
		}
	}
	check(peer)
	lie, err := thief.says("a third lie")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peer.led.Ingest(context.Background(), lie.Raw()); !errors.As(err, &refusal) {
		t.Errorf("the thief goes on: %v", err)
	}
	check(peer)
	if _, err := thief.led.Ingest(context.Background(), e.Raw()); err != nil {
		t.Fatal(err)
	}
	if _, err := thief.says("a fourth"); !errors.Is(err, ledger.ErrRotated) {
		t.Errorf("the thief signs on although it has heard of the rotation: %v", err)
	}

	// It all holds after a restart of either.
	_ = peer.led.Close()
	check(w.store(peer.dir, nil))
	_ = own.led.Close()
	_ = self.Close()
	again, err := identity.Open(filepath.Join(base, "n1"), identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() })
	w.store(own.dir, again).must("seven")
}
