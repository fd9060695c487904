package identity

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
)

// vault is a store in memory; what it gave away it may refuse to give again.
type vault struct {
	kind   Kind
	wraps  map[string][]byte
	closed bool
}

var errClosed = errors.New("the vault is shut")

func (v *vault) Kind() Kind { return v.kind }

func (v *vault) NewWrap(random io.Reader) ([]byte, []byte, error) {
	wrap := make([]byte, WrapSize)
	if _, err := io.ReadFull(random, wrap); err != nil {
		return nil, nil, err
	}
	if v.wraps == nil {
		v.wraps = map[string][]byte{}
	}
	name := []byte{byte(len(v.wraps) + 1)}
	v.wraps[string(name)] = bytes.Clone(wrap)
	return wrap, name, nil
}

func (v *vault) Open(sealed []byte) ([]byte, error) {
	if w, ok := v.wraps[string(sealed)]; ok && !v.closed {
		return bytes.Clone(w), nil
	}
	return nil, errClosed
}

// token is a vault that keeps the Ed25519 half too.
type token struct {
	vault
	keys map[string]ed25519.PrivateKey
	made byte
}

func (k *token) Generate(s trust.Suite, random io.Reader) (*composite.PrivateKey, []byte, error) {
	if s != trust.SuiteDefault {
		key, err := composite.Generate(s, random)
		return key, nil, err
	}
	seed := make([]byte, 64)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, nil, err
	}
	return k.keep(s, seed)
}

func (k *token) Adopt(key *composite.PrivateKey) (*composite.PrivateKey, []byte, error) {
	if key.Suite() != trust.SuiteDefault {
		return key, nil, nil
	}
	return k.keep(key.Suite(), key.Seed())
}

func (k *token) keep(s trust.Suite, seed []byte) (*composite.PrivateKey, []byte, error) {
	if k.keys == nil {
		k.keys = map[string]ed25519.PrivateKey{}
	}
	k.made++
	half := []byte{k.made}
	k.keys[string(half)] = ed25519.NewKeyFromSeed(seed[32:])
	key, err := k.Load(s, seed[:32], half)
	return key, half, err
}

func (k *token) Discard(half []byte) error { delete(k.keys, string(half)); return nil }

func (k *token) Load(s trust.Suite, seed, half []byte) (*composite.PrivateKey, error) {
	ed, ok := k.keys[string(half)]
	if !ok {
		return nil, errClosed
	}
	return composite.FromHalves(s, composite.Halves{Seed: seed, Ed25519: ed})
}

// reopen closes id and opens its folder again.
func reopen(t *testing.T, id *Identity, dir string, opt Options) *Identity {
	t.Helper()
	_ = id.Close()
	again, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() })
	sig, err := again.Sign("c", []byte("m"))
	if err != nil || !again.Keys().Current().Verify("c", []byte("m"), sig) || again.DID() != id.DID() {
		t.Fatalf("another identity came back: %v", err)
	}
	a, err := again.Derive("x")
	b, err2 := id.Derive("x")
	if err != nil || err2 != nil || a != b {
		t.Error("a derived secret changed", err, err2)
	}
	return again
}

func TestStoreKeepsTheKey(t *testing.T) {
	for _, suite := range trust.Suites() {
		for _, kind := range []Kind{KindTPM, KindPKCS11} {
			t.Run(suite.Name()+" "+kind.String(), func(t *testing.T) {
				var store Store = &vault{kind: kind}
				if kind == KindPKCS11 {
					store = &token{vault: vault{kind: kind}}
				}
				next := filepath.Join(t.TempDir(), "next")
				id, dir := create(t, Options{Suite: suite, Store: store, NextDir: next})
				if id.Protection() != kind {
					t.Errorf("protection %s", id.Protection())
				}
				if _, err := os.Lstat(filepath.Join(dir, fileWrap)); !os.IsNotExist(err) {
					t.Error("a wrapping key lies in the folder")
				}
				_ = id.Close()
				for name, opt := range map[string]Options{"no store": {}, "another": {Store: &vault{kind: 9}}, "a passphrase": {Passphrase: []byte("x")}} {
					if _, err := Open(dir, opt); !errors.Is(err, ErrStore) {
						t.Errorf("%s: %v", name, err)
					}
				}
				id = reopen(t, id, dir, Options{Store: store})
				// What the privileged half hands over is enough where the token keeps nothing of the key itself.
				_ = id.Close()
				kept, err := Unwrap(dir, store)
				if err != nil {
					t.Fatal(err)
				}
				if p, err := ReadProtection(dir); err != nil || p.Kind != kind || p.Half == nil {
					opt := Options{Store: kept, NextDir: next}
					id = reopen(t, id, dir, opt)
					rotateStored(t, id, dir, next)
					if id.Protection() != kind {
						t.Errorf("after a rotation: %s", id.Protection())
					}
					reopen(t, id, dir, Options{Store: store})
					return
				}
				if _, err := Open(dir, Options{Store: kept}); !errors.Is(err, ErrStore) {
					t.Errorf("half of a key opened: %v", err)
				}
				id = reopen(t, id, dir, Options{Store: store})
				rotateStored(t, id, dir, next)
				reopen(t, id, dir, Options{Store: store})
				if n := len(store.(*token).keys); n != 1 {
					t.Errorf("the token keeps %d keys after a rotation", n)
				}
			})
		}
	}
}

func rotateStored(t *testing.T, id *Identity, dir, next string) {
	t.Helper()
	step, err := Succeed(dir, Options{NextDir: next})
	if err != nil {
		t.Fatal(err)
	}
	defer step.Close()
	if _, err := id.Rotate(step.Key, nil, func(n uint32) (*Rotation, []byte, error) {
		r, err := NewRotation(rotationSwarm, id.DID(), n, step.Key, step.Next, Standing{})
		return r, []byte{1}, err
	}); err != nil {
		t.Fatal(err)
	}
	if err := step.Done(); err != nil {
		t.Fatal(err)
	}
}

func TestProtectAnew(t *testing.T) {
	pass := []byte("correct horse")
	next := filepath.Join(t.TempDir(), "next")
	id, dir := create(t, Options{NextDir: next, Passphrase: pass})
	_ = id.Close()
	v := &vault{kind: KindTPM}
	opt := Options{NextDir: next, Passphrase: pass, Store: v}
	if err := Protect(dir, opt, nil); err != nil {
		t.Fatal(err)
	}
	id = reopen(t, id, dir, Options{Store: v})
	_ = id.Close()

	// New firmware: the TPM keeps what it has. The copy beside the next key opens the file, with the passphrase only.
	v.closed = true
	if _, err := Open(dir, Options{Store: v}); !errors.Is(err, errClosed) {
		t.Fatal(err)
	}
	fresh := &vault{kind: KindTPM, wraps: map[string][]byte{"": nil}}
	if err := Protect(dir, Options{NextDir: next, Passphrase: []byte("wrong"), Store: fresh}, v); !errors.Is(err, ErrPassphrase) || !errors.Is(err, errClosed) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if err := Protect(dir, Options{NextDir: t.TempDir(), Passphrase: pass, Store: fresh}, v); !errors.Is(err, ErrNextKey) {
		t.Errorf("no copy: %v", err)
	}
	opt.Store = fresh
	if err := Protect(dir, opt, v); err != nil {
		t.Fatal(err)
	}
	id = reopen(t, id, dir, Options{Store: fresh})
	_ = id.Close()
	// The copy is of the new wrapping key now.
	fresh.closed = true
	if err := Protect(dir, Options{NextDir: next, Passphrase: pass}, fresh); err != nil {
		t.Fatal(err)
	}
	id = reopen(t, id, dir, Options{Passphrase: pass})
	_ = id.Close()
	// A token takes a part of the key, and gives it to nobody.
	k := &token{vault: vault{kind: KindPKCS11}}
	if err := Protect(dir, Options{NextDir: next, Passphrase: pass, Store: k}, nil); err != nil {
		t.Fatal(err)
	}
	if err := Protect(dir, Options{NextDir: next, Passphrase: pass}, k); !errors.Is(err, ErrStore) {
		t.Errorf("out of the token: %v", err)
	}
	if err := Protect(dir, Options{NextDir: next, Passphrase: pass, Store: k}, k); err != nil {
		t.Errorf("within the token: %v", err)
	}
	again, err := Open(dir, Options{Store: k})
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
}
