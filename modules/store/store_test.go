package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
)

func open(t *testing.T, dir string, budget int64) *Store {
	t.Helper()
	s, err := Open(dir, budget, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func bytesOf(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func module(t *testing.T, name string, size int) *bundle.Bundle {
	t.Helper()
	b, err := bundle.New(modules.Manifest{Name: name, Version: "1.0.0", Kind: modules.KindLua, ABI: 1, Tests: []modules.Test{{Name: "t"}}},
		bytesOf(uint64(len(name))+uint64(name[0]), size), [][]byte{[]byte("{}\n" + name)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, s *Store, data []byte) [32]byte {
	t.Helper()
	k, err := s.Put(data)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestModuleSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 8<<20)
	want := module(t, "one", modules.MaxBlock+100)
	id, err := s.Add(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Pin(id), s.Pin(id)); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, 8<<20)
	got, err := s.Bundle(id)
	if err != nil || !bytes.Equal(got.Payload, want.Payload) || !got.Manifest.Equal(want.Manifest) || len(got.Recordings) != 1 {
		t.Fatalf("%v", err)
	}
	list := s.List()
	if len(list) != 1 || list[0].ID != id || !list[0].Complete || list[0].Bytes != s.Stats().Bytes || !s.Pinned(id) {
		t.Errorf("%+v, %+v", list, s.Stats())
	}
	if err := s.Unpin(id); err != nil {
		t.Fatal(err)
	}
	if s = open(t, dir, 8<<20); s.Pinned(id) {
		t.Error("it is still pinned after a restart")
	}
	if freed := s.Collect(); freed == 0 || s.Stats().Bytes != 0 || s.Stats().Blocks != 0 {
		t.Errorf("%d freed, left %+v", freed, s.Stats())
	}
}

// A crash leaves a part, a bad disk another byte or less of them, a person a file: none is ever given out as a block.
func TestWhatIsNotWholeIsNotGiven(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 8<<20)
	id, err := s.Add(module(t, "one", 3000))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(id); err != nil {
		t.Fatal(err)
	}
	flipped, short, gone := put(t, s, bytesOf(1, 500)), put(t, s, bytesOf(2, 500)), put(t, s, bytesOf(3, 500))
	raw, err := os.ReadFile(s.blockFile(flipped))
	if err != nil {
		t.Fatal(err)
	}
	raw[7] ^= 1
	part := filepath.Join(s.blockDir(), partPrefix+"123")
	for path, data := range map[string][]byte{s.blockFile(flipped): raw, s.blockFile(short): raw[:100], part: raw, filepath.Join(s.blockDir(), "notes.txt"): raw,
		filepath.Join(s.pinDir(), "notes.txt"): nil, s.blockFile([32]byte{9}): make([]byte, modules.MaxBlock+1)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(s.blockFile(gone)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, k := range [][32]byte{flipped, short, gone} {
			if _, err := s.Get(k); !errors.Is(err, ErrDamaged) {
				t.Errorf("%v", err)
			}
			if _, err := s.Get(k); !errors.Is(err, ErrNone) || s.Has(k) {
				t.Errorf("it is still in the books: %v", err)
			}
		}
		put(t, s, bytesOf(1, 500)) // and it may come back
		if got, err := s.Get(flipped); err != nil || sha256.Sum256(got) != flipped {
			t.Errorf("%v", err)
		}
		if err := os.WriteFile(s.blockFile(flipped), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.blockFile(short), raw[:100], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.blockFile(gone), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, 8<<20)
		if _, err := os.Stat(part); !errors.Is(err, os.ErrNotExist) {
			t.Error("the part is still there")
		}
	}
	// A pinned module whose root went bad says so, and is whole again once it was fetched.
	if err := os.WriteFile(s.blockFile(id), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, 8<<20)
	if list := s.List(); len(list) != 1 || list[0].Complete {
		t.Errorf("%+v", list)
	}
	missing, err := s.Missing(id)
	if err != nil || len(missing) != 1 || missing[0] != id {
		t.Errorf("%v, %v", missing, err)
	}
	if _, err := s.Add(module(t, "one", 3000)); err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(id); err != nil {
		t.Fatal(err)
	}
	if list := s.List(); len(list) != 1 || !list[0].Complete {
		t.Errorf("%+v", list)
	}
}

func TestMissingBlocks(t *testing.T) {
	s := open(t, t.TempDir(), 8<<20)
	b := module(t, "one", 2*modules.MaxBlock+5)
	id, err := b.Manifest.ID()
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.Missing(id); err != nil || len(m) != 1 || m[0] != id {
		t.Fatalf("%v, %v", m, err)
	}
	root, err := b.Manifest.Encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, root)
	if m, err := s.Missing(id); err != nil || len(m) != 4 {
		t.Fatalf("%d, %v", len(m), err)
	}
	if err := s.Pin(id); err != nil {
		t.Fatal(err)
	}
	put(t, s, b.Payload[:modules.MaxBlock])
	if m, err := s.Missing(id); err != nil || len(m) != 3 {
		t.Fatalf("%d, %v", len(m), err)
	}
	if _, err := s.Bundle(id); !errors.Is(err, ErrNone) {
		t.Errorf("a bundle with holes: %v", err)
	}
	if s.Collect() != 0 {
		t.Error("blocks that came after the pin are not held by it")
	}
}

// The budget holds; what was used least goes, what is pinned stays.
func TestBudget(t *testing.T) {
	const budget = 10_000
	dir := t.TempDir()
	s := open(t, dir, budget)
	id, err := s.Add(module(t, "kept", 4000))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(id); err != nil {
		t.Fatal(err)
	}
	first, second := put(t, s, bytesOf(1, 2000)), put(t, s, bytesOf(2, 2000))
	if _, err := s.Get(first); err != nil { // used since
		t.Fatal(err)
	}
	put(t, s, bytesOf(3, 2000))
	if !s.Has(first) || s.Has(second) {
		t.Errorf("first %v, second %v", s.Has(first), s.Has(second))
	}
	if _, err := s.Put(bytesOf(4, 7000)); !errors.Is(err, ErrFull) {
		t.Errorf("more than there is room beside what is pinned: %v", err)
	}
	if _, err := s.Put(nil); !errors.Is(err, modules.ErrRefused) {
		t.Error("an empty block is taken")
	}
	if _, err := s.Put(make([]byte, modules.MaxBlock+1)); !errors.Is(err, modules.ErrRefused) {
		t.Error("a large block is taken")
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 50 {
				_, _ = s.Put(bytesOf(uint64(100+(i+j)%20), 500))
				_, _ = s.Get(first)
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Bytes > budget {
		t.Errorf("%+v", st)
	}
	onDisk := int64(0)
	list, err := os.ReadDir(s.blockDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		onDisk += info.Size()
	}
	if onDisk != s.Stats().Bytes || len(list) != s.Stats().Blocks {
		t.Errorf("%d bytes in %d files, the books say %+v", onDisk, len(list), s.Stats())
	}
	if s = open(t, dir, 5000); s.Stats().Bytes > 5000 || !s.Has(id) {
		t.Errorf("a smaller budget after a restart: %+v", s.Stats())
	}
	if b, err := s.Bundle(id); err != nil || b.Manifest.Name != "kept" {
		t.Error(err)
	}
}
