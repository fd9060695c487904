package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/omega-mesh/omega/modules"
)

func sample(t testing.TB) *Bundle {
	t.Helper()
	payload := make([]byte, modules.MaxBlock+777)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range payload {
		payload[i] = byte(r.Uint32())
	}
	b, err := New(modules.Manifest{Name: "x", Version: "1.0.0", Kind: modules.KindWASM, ABI: 1, Tests: []modules.Test{{Name: "a", Rules: []string{"r"}}, {Name: "b"}}},
		payload, [][]byte{[]byte("{}\n"), []byte("{}\n")})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func archive(t testing.TB, b *Bundle) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := b.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBundleComesBack(t *testing.T) {
	b := sample(t)
	raw := archive(t, b)
	got, err := Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Manifest.Equal(b.Manifest) || !bytes.Equal(got.Payload, b.Payload) || len(got.Recordings) != 2 || string(got.Recordings[1]) != "{}\n" {
		t.Fatalf("%+v", got.Manifest)
	}
	if !bytes.Equal(archive(t, got), raw) {
		t.Error("written again it is another file")
	}
	id, err := b.Manifest.ID()
	if err != nil {
		t.Fatal(err)
	}
	back, err := modules.ParseID(id.String())
	if err != nil || back != id {
		t.Errorf("%s: %v", id, err)
	}
	for _, bad := range []string{"", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG"} {
		if _, err := modules.ParseID(bad); err == nil {
			t.Errorf("%q names a module", bad)
		}
	}
}

// Any byte that is another, any block that is missing, twice or strange: refused.
func TestBundleRefuses(t *testing.T) {
	raw := archive(t, sample(t))
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		bad := bytes.Clone(raw)
		at := r.IntN(len(bad))
		bad[at] ^= byte(1 + r.IntN(255))
		if _, err := Read(bytes.NewReader(bad)); !errors.Is(err, modules.ErrRefused) {
			t.Fatalf("byte %d is another, and it is taken: %v", at, err)
		}
	}
	for _, n := range []int{0, 1, 40, 200, len(raw) - 1} {
		if _, err := Read(bytes.NewReader(raw[:n])); !errors.Is(err, modules.ErrRefused) {
			t.Errorf("the first %d bytes are taken: %v", n, err)
		}
	}
	last := raw[len(raw)-(1+36+3):]
	if last[0] != 36+3 {
		t.Fatal("the last section is not the recording")
	}
	if _, err := Read(bytes.NewReader(append(bytes.Clone(raw), last...))); !errors.Is(err, modules.ErrRefused) {
		t.Error("a block twice is taken")
	}
	if _, err := Read(bytes.NewReader(raw[:len(raw)-len(last)])); !errors.Is(err, modules.ErrRefused) {
		t.Error("without the recording it is taken")
	}
	huge := append([]byte{}, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)
	if _, err := Read(bytes.NewReader(huge)); !errors.Is(err, modules.ErrRefused) {
		t.Error("a section of terabytes is taken")
	}
}

// section is a block as it stands in an archive.
func section(c cid.Cid, data []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(len(c.Bytes())+len(data)))
	return append(append(b, c.Bytes()...), data...)
}

// A manifest names hashes of blocks, and a block names nothing: there are no cycles to follow and no nesting to unfold. The most
// that a short archive can become is the payload that its manifest may have.
func TestSmallArchiveDoesNotBecomeALargeOne(t *testing.T) {
	block := make([]byte, modules.MaxBlock)
	sum := sha256.Sum256(block)
	m := modules.Manifest{Name: "x", Version: "1.0.0", Kind: modules.KindWASM, ABI: 1, Size: modules.MaxPayload}
	for range modules.MaxBlocks {
		m.Blocks = append(m.Blocks, sum[:])
	}
	for i := range modules.MaxTests {
		m.Tests = append(m.Tests, modules.Test{Name: fmt.Sprint(i), Events: sum[:]})
	}
	archived := func(root []byte, blocks ...[]byte) []byte {
		id := modules.ID(sha256.Sum256(root)).CID()
		h := header(id)
		out := append(binary.AppendUvarint(nil, uint64(len(h))), h...)
		out = append(out, section(id, root)...)
		for _, b := range blocks {
			out = append(out, section(modules.BlockCID(sha256.Sum256(b)), b)...)
		}
		return out
	}
	root, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Read(bytes.NewReader(archived(root, block)))
	if err != nil || len(b.Payload) != modules.MaxPayload || &b.Recordings[0][0] != &b.Recordings[63][0] {
		t.Fatalf("one block named %d times: %v", modules.MaxBlocks+modules.MaxTests, err)
	}
	for name, root := range map[string][]byte{
		"arrays in arrays":      append(bytes.Repeat([]byte{0x81}, 60_000), 0x80),
		"maps in maps":          append(bytes.Repeat([]byte{0xa1, 0x01}, 30_000), 0xa0),
		"tags on tags":          append(bytes.Repeat([]byte{0xc1}, 60_000), 0x00),
		"an array of billions":  {0xa1, 0x0e, 0x9b, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff},
		"a text without an end": {0xa1, 0x01, 0x7f, 0x61, 'x'},
	} {
		if _, err := Read(bytes.NewReader(archived(root))); !errors.Is(err, modules.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A block that names itself cannot be made, so one is tried that says it does.
	self := modules.ID(sha256.Sum256(root)).CID()
	if _, err := Read(bytes.NewReader(append(archived(root, block), section(self, root)...))); !errors.Is(err, modules.ErrRefused) {
		t.Errorf("the root as its own block: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	small, err := New(modules.Manifest{Name: "x", Version: "1.0.0", Kind: modules.KindLua, ABI: 1}, []byte("return 1"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(archive(f, small))
	f.Add([]byte{1, 0xa0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := Read(bytes.NewReader(raw))
		if err != nil {
			return
		}
		again, err := Read(bytes.NewReader(archive(t, b)))
		if err != nil || !again.Manifest.Equal(b.Manifest) {
			t.Fatalf("taken, and written it is another: %v", err)
		}
	})
}
