package tlog

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
)

// TestTreeIsRFC6962 grows a tree beside transparency-dev's, and goes on from the frontier at every size.
func TestTreeIsRFC6962(t *testing.T) {
	theirs := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	var ours Tree
	if r := ours.Root(); !bytes.Equal(r[:], rfc6962.DefaultHasher.EmptyRoot()) {
		t.Fatal("the root of nothing")
	}
	for n := range 300 {
		leaf := Hash{byte(n), byte(n >> 8), 7}
		before := ours.Root()
		next := ours.Append(leaf)
		if ours.Root() != before {
			t.Fatal("appending changed the tree it was appended to")
		}
		again, err := FromFrontier(ours.Size(), ours.Frontier())
		if err != nil {
			t.Fatal(err)
		}
		if ours = next; again.Append(leaf).Root() != ours.Root() {
			t.Fatalf("gone on from a frontier of %d leaves", n)
		}
		if err := theirs.Append(rfc6962.DefaultHasher.HashLeaf(leaf[:]), nil); err != nil {
			t.Fatal(err)
		}
		want, err := theirs.GetRootHash(nil)
		if err != nil {
			t.Fatal(err)
		}
		if r := ours.Root(); !bytes.Equal(r[:], want) || ours.Size() != uint64(n)+1 {
			t.Fatalf("root of %d leaves is %x, want %x", n+1, r, want)
		}
	}
	for _, bad := range [][][]byte{nil, {make([]byte, 32)}, {make([]byte, 32), make([]byte, 31)}} {
		if _, err := FromFrontier(3, bad); err == nil {
			t.Errorf("a frontier of %d hashes for 3 leaves", len(bad))
		}
	}
}

func TestCosignature(t *testing.T) {
	k := NewKey([SeedSize]byte{1})
	v, err := ParseKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Origin: "omega/test/a/activity", Size: 3, Root: Hash{9}}
	s, err := k.Cosign(c, "did:omega:w", 1_700_000_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Verify(c, s); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Checkpoint, *Cosignature){
		"origin":    func(c *Checkpoint, _ *Cosignature) { c.Origin += "x" },
		"size":      func(c *Checkpoint, _ *Cosignature) { c.Size++ },
		"root":      func(c *Checkpoint, _ *Cosignature) { c.Root[31] ^= 1 },
		"witness":   func(_ *Checkpoint, s *Cosignature) { s.Witness += "x" },
		"time":      func(_ *Checkpoint, s *Cosignature) { s.Time++ },
		"signature": func(_ *Checkpoint, s *Cosignature) { s.Sig = append([]byte{^s.Sig[0]}, s.Sig[1:]...) },
		"no name":   func(_ *Checkpoint, s *Cosignature) { s.Witness = "" },
	} {
		c2, s2 := c, s
		change(&c2, &s2)
		if err := v.Verify(c2, s2); !errors.Is(err, ErrCosignature) {
			t.Errorf("%s changed: %v", name, err)
		}
	}
}

// TestFormats pins the bytes that other implementations of C2SP read.
func TestFormats(t *testing.T) {
	c := Checkpoint{Origin: "o", Size: 7, Root: Hash{1}}
	msg, err := c.message("w", 2)
	if err != nil {
		t.Fatal(err)
	}
	want := hex.EncodeToString([]byte("subtree/v1\n\x00")) + "01" + "77" + "0000000000000002" + "01" + "6f" + "0000000000000000" + "0000000000000007" + "01" + strings.Repeat("00", 31)
	if hex.EncodeToString(msg) != want {
		t.Errorf("cosigned message %x", msg)
	}
	if want := "o\n7\nAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"; c.Text() != want {
		t.Errorf("text %q, want %q", c.Text(), want)
	}
	k := NewKey([SeedSize]byte{})
	v, err := ParseKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	s, err := k.Cosign(c, "w", 2)
	if err != nil {
		t.Fatal(err)
	}
	note := c.Note(v.NoteLine(s))
	line, ok := strings.CutPrefix(note, c.Text()+"\n— w ")
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(line, "\n"))
	if !ok || err != nil || len(raw) != 4+8+SignatureSize || binary.BigEndian.Uint64(raw[4:]) != 2 {
		t.Errorf("note %.120q: %v", note, err)
	}
}

func BenchmarkAppend(b *testing.B) {
	var t Tree
	b.ReportAllocs()
	for b.Loop() {
		t = t.Append(Hash{1})
	}
}
