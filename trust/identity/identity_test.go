package identity

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
)

func create(t testing.TB, opt Options) (*Identity, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "id")
	if opt.Name == "" {
		opt.Name = "n1"
	}
	id, err := Create(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Close() })
	return id, dir
}

func TestCreateOpen(t *testing.T) {
	for _, c := range []struct {
		name  string
		suite trust.Suite
		pass  []byte
	}{
		{"file", trust.SuiteDefault, nil}, {"passphrase", trust.SuiteDefault, []byte("correct horse")},
		{"file", trust.SuiteCNSA, nil}, {"passphrase", trust.SuiteCNSA, []byte("correct horse")},
	} {
		name, pass := c.name, c.pass
		t.Run(c.suite.Name()+" "+name, func(t *testing.T) {
			id, dir := create(t, Options{Passphrase: pass, Suite: c.suite})
			if id.Suite() != c.suite || id.Inception().PublicKey().Suite() != c.suite {
				t.Errorf("suite %s", id.Suite().Name())
			}
			if id.Protection().String() != name {
				t.Errorf("protection %s", id.Protection())
			}
			if _, err := Open(dir, Options{Passphrase: pass}); !errors.Is(err, ErrLocked) {
				t.Fatalf("opened twice: %v", err)
			}
			_ = id.Close()
			again, err := Open(dir, Options{Passphrase: pass})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = again.Close() }()
			if again.DID() != id.DID() || !again.Transport().Equal(id.Transport()) || again.Protection().String() != name {
				t.Fatal("another identity came back")
			}
			sig, err := again.Sign("c", []byte("m"))
			if err != nil || !id.Inception().PublicKey().Verify("c", []byte("m"), sig) {
				t.Fatal("signature of the reopened identity", err)
			}
			if _, err := Create(dir, Options{Name: "n1"}); err == nil {
				t.Fatal("an identity was overwritten")
			}
			// The next key is elsewhere, and is the one the inception commits to.
			o, err := readSecret(filepath.Join(dir, "next"), purposeNext, guard{passphrase: pass})
			if err != nil {
				t.Fatal(err)
			}
			next, err := composite.FromSeed(c.suite, o.secret)
			if err != nil || NextHash(next.Public()) != id.Inception().Next {
				t.Error("the next key is not the committed one", err)
			}
			// Neither key opens in place of the other.
			if _, err := readSecret(filepath.Join(dir, "next"), purposeCurrent, guard{passphrase: pass}); err == nil {
				t.Error("the next key opens as the current one")
			}
		})
	}
}

func TestPassphraseRefusals(t *testing.T) {
	id, dir := create(t, Options{Passphrase: []byte("right")})
	_ = id.Close()
	for _, p := range [][]byte{nil, []byte("wrong"), bytes.Repeat([]byte("x"), trust.MaxPassphrase+1)} {
		if _, err := Open(dir, Options{Passphrase: p}); !errors.Is(err, ErrPassphrase) {
			t.Errorf("passphrase of %d bytes: %v", len(p), err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, fileWrap)); err == nil {
		t.Error("a wrapping key lies beside a passphrase-protected one")
	}
}

func TestDamagedFiles(t *testing.T) {
	for _, name := range []string{fileInception, fileKey, fileWrap} {
		for how, change := range map[string]func([]byte) []byte{
			"flipped":  func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			"cut":      func(b []byte) []byte { return b[:len(b)-1] },
			"empty":    func([]byte) []byte { return nil },
			"too long": func(b []byte) []byte { return append(b, make([]byte, 1<<16)...) },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				id, dir := create(t, Options{})
				_ = id.Close()
				path := filepath.Join(dir, name)
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, change(b), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := Open(dir, Options{}); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), dir) {
					t.Fatalf("got %v", err)
				}
			})
		}
	}
	_, dir := create(t, Options{})
	if err := os.Remove(filepath.Join(dir, fileKey)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Dir(dir), Options{}); !errors.Is(err, ErrNone) {
		t.Errorf("no identity: %v", err)
	}
}

func TestModeIsChecked(t *testing.T) {
	id, dir := create(t, Options{})
	_ = id.Close()
	for _, name := range []string{fileKey, fileWrap} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %v, %v", name, info.Mode(), err)
		}
		_ = os.Chmod(filepath.Join(dir, name), 0o640)
		if _, err := Open(dir, Options{}); !errors.Is(err, ErrMode) {
			t.Errorf("%s readable by its group: %v", name, err)
		}
		_ = os.Chmod(filepath.Join(dir, name), 0o600)
	}
}

func TestNextDirElsewhere(t *testing.T) {
	other := t.TempDir()
	_, dir := create(t, Options{NextDir: other})
	if _, err := os.Stat(filepath.Join(dir, folderNext)); err == nil {
		t.Error("the next key lies beside the current one")
	}
	if _, err := os.Stat(filepath.Join(other, fileKey)); err != nil {
		t.Error(err)
	}
}

func TestKeyFileBounds(t *testing.T) {
	ok := keyHeader{KDF: KindPassphrase, Time: 3, Memory: trust.KDFMemory, Threads: 1, Salt: make([]byte, 16), Nonce: make([]byte, 24)}
	for name, change := range map[string]func(*keyHeader){
		"memory eats the host": func(h *keyHeader) { h.Memory = 1<<32 - 1 },
		"memory weakened":      func(h *keyHeader) { h.Memory = 8 },
		"time":                 func(h *keyHeader) { h.Time = 1 << 31 },
		"no time":              func(h *keyHeader) { h.Time = 0 },
		"threads":              func(h *keyHeader) { h.Threads = 255 },
		"unknown":              func(h *keyHeader) { h.KDF = 9 },
		"salt":                 func(h *keyHeader) { h.Salt = nil },
		"stray parameters":     func(h *keyHeader) { h.KDF = KindFile },
		"nothing sealed":       func(h *keyHeader) { *h = keyHeader{KDF: KindTPM, Salt: h.Salt, Nonce: h.Nonce} },
		"sealed for nobody":    func(h *keyHeader) { h.Sealed = []byte{1} },
		"half outside a token": func(h *keyHeader) {
			*h = keyHeader{KDF: KindTPM, Sealed: []byte{1}, Half: []byte{1}, Salt: h.Salt, Nonce: h.Nonce}
		},
	} {
		h := ok
		change(&h)
		raw, err := sealKey(h, make([]byte, 32), purposeCurrent, make([]byte, 96))
		if name == "salt" || err == nil {
			if _, err := decodeKeyFile(raw); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestInceptionRefusals(t *testing.T) {
	id, _ := create(t, Options{})
	raw := id.Inception().Encode()
	for i := range raw {
		if i > 1980 && i%53 != 0 {
			continue // signatures: a sample
		}
		bad := bytes.Clone(raw)
		bad[i] ^= 0x01
		if _, err := DecodeInception(bad); !errors.Is(err, ErrInception) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	if _, err := DecodeInception(append(bytes.Clone(raw), 0)); !errors.Is(err, ErrInception) {
		t.Error("trailing byte")
	}
	// Someone else's transport key cannot be claimed: its signature would be needed.
	k, err := composite.FromSeed(trust.SuiteDefault, bytes.Repeat([]byte{1}, 64))
	if err != nil {
		t.Fatal(err)
	}
	n := k
	victim := ed25519.NewKeyFromSeed(make([]byte, 32))
	thief := append(bytes.Clone(victim[:32]), victim[32:]...)
	thief[0] ^= 1 // not the victim's private key, but its public half
	if _, err := newInception("thief", k, n, thief); err == nil {
		t.Error("an inception claims a transport key without having it")
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"n1": true, "web-01.example.org": true, "A_b": true, "": false, "-x": false, ".x": false, "a b": false, "a\x1b[2J": false,
		"ä": false, strings.Repeat("x", 63): true, strings.Repeat("x", 64): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDIDSpelling(t *testing.T) {
	d := DIDFromBytes([32]byte{1, 2, 3})
	if got, err := ParseDID(string(d)); err != nil || got != d {
		t.Fatal(err)
	}
	for _, s := range []string{"", "did:omega:", strings.ToUpper(string(d)), string(d) + "a", string(d)[:len(d)-1] + "b", "did:key:" + string(d)[10:], string(d) + "="} {
		if _, err := ParseDID(s); !errors.Is(err, ErrDID) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzDecodeInception(f *testing.F) {
	id, _ := create(f, Options{})
	f.Add(id.Inception().Encode())
	cnsa, _ := create(f, Options{Suite: trust.SuiteCNSA})
	f.Add(cnsa.Inception().Encode())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		i, err := DecodeInception(raw)
		if err == nil && !bytes.Equal(i.Encode(), raw) {
			t.Fatal("decoded to something else")
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	raw, err := sealKey(keyHeader{Salt: make([]byte, 16), Nonce: make([]byte, 24)}, make([]byte, 32), purposeCurrent, make([]byte, 96))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	if raw, err = sealKey(keyHeader{KDF: KindPKCS11, Sealed: []byte{1}, Half: []byte{2}, Salt: make([]byte, 16), Nonce: make([]byte, 24)}, make([]byte, 32), purposeCurrent, make([]byte, 64)); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(keyMagic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, err := decodeKeyFile(raw)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if k.Header.Memory > trust.MaxKDFMemory || k.Header.Time > trust.MaxKDFTime {
			t.Fatal("parameters out of bounds")
		}
		_, _ = k.open(make([]byte, 32), purposeCurrent)
	})
}

func FuzzParseDID(f *testing.F) {
	f.Add(string(DIDFromBytes([32]byte{})))
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDID(s); err == nil {
			h, _ := d.Bytes()
			if DIDFromBytes(h) != d {
				t.Fatal("two spellings of one DID")
			}
		}
	})
}
