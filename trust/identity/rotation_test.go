package identity

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
)

var rotationSwarm = trust.SwarmID{7}

// rotate goes through a whole rotation as a node and its owner do.
func rotate(id *Identity, dir, next string, s Standing) (*Rotation, error) {
	step, err := Succeed(dir, Options{NextDir: next})
	if err != nil {
		return nil, err
	}
	defer func() { _ = step.Close() }()
	r, err := id.Rotate(step.Key, nil, func(n uint32) (*Rotation, []byte, error) {
		r, err := NewRotation(rotationSwarm, id.DID(), n, step.Key, step.Next, s)
		return r, []byte("entry"), err
	})
	if err != nil {
		return nil, err
	}
	return r, step.Done()
}

func TestRotate(t *testing.T) {
	next := filepath.Join(t.TempDir(), "elsewhere")
	id, dir := create(t, Options{NextDir: next})
	before := id.DID()
	for n := uint32(1); n <= 3; n++ {
		r, err := rotate(id, dir, next, Standing{Authority: uint64(2 * n), AuthorityHead: [32]byte{1}})
		if err != nil {
			t.Fatal(err)
		}
		if r.Number != n || id.Keys().Number() != n || !NextPresent(next, n) || NextPresent(next, n-1) {
			t.Fatalf("rotation %d: record %d, identity %d, next key there %t", n, r.Number, id.Keys().Number(), NextPresent(next, n))
		}
		sig, err := id.Sign("c", []byte("m"))
		if err != nil || !r.PublicKey().Verify("c", []byte("m"), sig) || id.Inception().PublicKey().Verify("c", []byte("m"), sig) {
			t.Fatal("the identity does not sign with the new key", err)
		}
		if hasSecret(keySlot(dir, n-1)) {
			t.Fatal("the old key is still there")
		}
	}
	_ = id.Close()
	again, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if again.DID() != before || again.Keys().Number() != 3 || string(again.Carrier()) != "entry" {
		t.Fatalf("reopened: %s, number %d, carrier %q", again.DID(), again.Keys().Number(), again.Carrier())
	}
}

// Whoever has the current key and everything beside it, but not the next one, makes no rotation that anyone follows.
func TestThiefOfCurrentKeyCannotRotate(t *testing.T) {
	next := filepath.Join(t.TempDir(), "elsewhere")
	id, dir := create(t, Options{NextDir: next})
	if _, err := Succeed(dir, Options{}); !errors.Is(err, ErrNextKey) {
		t.Errorf("without the next key's folder: %v", err)
	}
	own, err := composite.Generate(trust.SuiteDefault, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]*composite.PrivateKey{"a key of its own": own, "the current key again": id.key} {
		r, err := NewRotation(rotationSwarm, id.DID(), 1, key, [32]byte{9}, Standing{})
		if err != nil {
			t.Fatal(err)
		}
		if err := id.Keys().Follows(r); !errors.Is(err, ErrRotation) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := id.Rotate(key, nil, nil); !errors.Is(err, ErrNextKey) {
			t.Errorf("%s, on the disk: %v", name, err)
		}
	}
	// The committed public key (it is not secret once shown) under another's signature.
	step, err := Succeed(dir, Options{NextDir: next})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = step.Close() }()
	good, err := NewRotation(rotationSwarm, id.DID(), 1, step.Key, step.Next, Standing{})
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Keys().Follows(good); err != nil {
		t.Fatal(err)
	}
	for i := range good.Encode() {
		if i > 300 && i%97 != 0 {
			continue
		}
		bad := bytes.Clone(good.Encode())
		bad[i] ^= 1
		if r, err := DecodeRotation(bad); err == nil && r.Hash() != good.Hash() {
			t.Fatalf("byte %d changed, and it is another rotation that verifies", i)
		}
	}
}

func TestRotationOrder(t *testing.T) {
	next := filepath.Join(t.TempDir(), "elsewhere")
	id, dir := create(t, Options{NextDir: next})
	first, err := rotate(id, dir, next, Standing{Authority: 5, AuthorityHead: [32]byte{1}, Activity: 9, ActivityHead: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Keys().Follows(first); !errors.Is(err, ErrRotation) {
		t.Errorf("the same rotation twice: %v", err)
	}
	if _, err := rotate(id, dir, next, Standing{Authority: 5, AuthorityHead: [32]byte{1}}); !errors.Is(err, ErrRotation) {
		t.Errorf("a rotation that takes back the one before: %v", err)
	}
	if _, err := rotate(id, dir, next, Standing{Authority: 8, AuthorityHead: [32]byte{1}, Activity: 7, ActivityHead: [32]byte{1}}); err != nil {
		t.Fatal(err)
	}
	k := id.Keys()
	for _, c := range []struct {
		authority bool
		seq       uint64
		want      uint32
	}{{true, 4, 0}, {true, 5, 1}, {true, 7, 1}, {true, 8, 2}, {false, 6, 0}, {false, 7, 2}, {false, 9, 2}} {
		if got := k.NumberAt(c.authority, c.seq); got != c.want {
			t.Errorf("authority %t, entry %d: key %d, want %d", c.authority, c.seq, got, c.want)
		}
	}
}

const killedDir = "ROTATE_TEST_DIR"

// TestKilledWhileRotating: kill -9 at any instant leaves the old key or the new one, whole, and a rotation that can be
// done again.
func TestKilledWhileRotating(t *testing.T) {
	if base := os.Getenv(killedDir); base != "" {
		id, err := Open(filepath.Join(base, "id"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for n := uint64(id.Keys().Number() + 1); ; n++ {
			if _, err := rotate(id, filepath.Join(base, "id"), filepath.Join(base, "next"), Standing{Authority: n, AuthorityHead: [32]byte{1}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	base := t.TempDir()
	id, err := Create(filepath.Join(base, "id"), Options{Name: "n1", NextDir: filepath.Join(base, "next")})
	if err != nil {
		t.Fatal(err)
	}
	_ = id.Close()
	last := uint32(0)
	for round := range 12 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledWhileRotating$")
		cmd.Env = append(os.Environ(), killedDir+"="+base)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(40*time.Millisecond+rand.N(80*time.Millisecond), func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // killed, or out of rotations
		timer.Stop()
		id, err := Open(filepath.Join(base, "id"), Options{})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		n := id.Keys().Number()
		if n < last {
			t.Fatalf("round %d: rotation %d after %d", round, n, last)
		}
		last = n
		if n < trust.MaxRotations {
			step, err := Succeed(filepath.Join(base, "id"), Options{NextDir: filepath.Join(base, "next")})
			if err != nil {
				t.Fatalf("round %d: after %d rotations: %v", round, n, err)
			}
			_ = step.Close()
		}
		_ = id.Close()
	}
	t.Logf("%d rotations between 12 kills", last)
}

func FuzzDecodeRotation(f *testing.F) {
	key, err := composite.Generate(trust.SuiteDefault, nil)
	if err != nil {
		f.Fatal(err)
	}
	r, err := NewRotation(rotationSwarm, DIDFromBytes([32]byte{1}), 1, key, [32]byte{2}, Standing{Activity: 3, ActivityHead: [32]byte{4}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeRotation(b); err == nil && (!bytes.Equal(r.Encode(), b) || r.Number == 0 || r.Number > trust.MaxRotations) {
			t.Errorf("accepted rotation %d", r.Number)
		}
		if records, carrier, err := decodeRotations(b); err == nil && (len(records) > trust.MaxRotations || len(carrier) > trust.MaxEntry) {
			t.Error("accepted past the bounds")
		}
	})
}
