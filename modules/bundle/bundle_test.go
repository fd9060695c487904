package bundle

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

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
