package tpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/tpm/tpmtest"
)

func open(t testing.TB, path string) *Device {
	t.Helper()
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestSealHoldsUntilAPCRChanges(t *testing.T) {
	d := open(t, tpmtest.Start(t))
	secret := bytes.Repeat([]byte{7}, 32)
	p, err := ParsePCRs("0,4,7,8,9,11,12,13,14,23")
	if err != nil {
		t.Fatal(err)
	}
	blob, err := d.Seal(secret, p)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // a chip has room for three objects: none may be left behind
		got, err := d.Unseal(blob)
		if err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("%x, %v", got, err)
		}
	}
	if to, err := SealedTo(blob); err != nil || to != p {
		t.Errorf("sealed to %s, %v", to, err)
	}
	tpmtest.ExtendBy(t, d.line, 15) // none of ours
	if _, err := d.Unseal(blob); err != nil {
		t.Fatal(err)
	}
	tpmtest.ExtendBy(t, d.line, 7)
	if _, err := d.Unseal(blob); !errors.Is(err, ErrPCRs) || !strings.Contains(err.Error(), "PCR 7 (Secure Boot) changed") {
		t.Errorf("after PCR 7 was extended: %v", err)
	}
	if blob, err = d.Seal(secret, p); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Unseal(blob); err != nil {
		t.Errorf("sealed anew: %v", err)
	}
}

func TestSealedIsOfOneTPM(t *testing.T) {
	d, other := open(t, tpmtest.Start(t)), open(t, tpmtest.Start(t))
	blob, err := d.Seal([]byte("secret"), SecureBoot)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Unseal(blob); !errors.Is(err, ErrOtherTPM) {
		t.Errorf("another TPM: %v", err)
	}
	// A thief of the disk edits the name of the storage key: the TPM itself refuses then.
	s, _, err := decodeSealed(blob)
	if err != nil {
		t.Fatal(err)
	}
	root, err := other.storageRoot()
	if err != nil {
		t.Fatal(err)
	}
	s.Root = root.name.Buffer
	root.flush()
	forged, err := canonical.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Unseal(forged); !errors.Is(err, ErrOtherTPM) {
		t.Errorf("another TPM with its own name: %v", err)
	}
	if _, err := (tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}).Execute(d.line); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Unseal(blob); !errors.Is(err, ErrOtherTPM) {
		t.Errorf("after a clear: %v", err)
	}
}

// tap is a bus that somebody listens on.
type tap struct {
	stream
	seen bytes.Buffer
}

func (t *tap) Write(p []byte) (int, error) { t.seen.Write(p); return t.stream.Write(p) }
func (t *tap) Read(p []byte) (int, error) {
	n, err := t.stream.Read(p)
	t.seen.Write(p[:n])
	return n, err
}

func TestBusCarriesNoSecret(t *testing.T) {
	d := open(t, tpmtest.Start(t))
	bus := &tap{stream: d.line.conn}
	d.line.conn = bus
	secret := []byte("a wrapping key that none may hear")
	blob, err := d.Seal(secret, SecureBoot)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Unseal(blob); err != nil {
		t.Fatal(err)
	}
	random := make([]byte, 100)
	if err := d.Random(t.Context(), random); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(bus.seen.Bytes(), secret) || bytes.Contains(bus.seen.Bytes(), random[:32]) || bytes.Contains(bus.seen.Bytes(), random[32:64]) {
		t.Error("a secret crossed the bus in the clear")
	}
}

func TestQuote(t *testing.T) {
	d := open(t, tpmtest.Start(t))
	challenge := sha256.Sum256([]byte("nonce"))
	tpmtest.ExtendBy(t, d.line, 8)
	p := PCRs(1<<24 - 1)
	q, err := d.Quote(p, challenge)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := q.Encode()
	if err != nil {
		t.Fatal(err)
	}
	q, err = DecodeQuote(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Verify(challenge); err != nil {
		t.Fatal(err)
	}
	key, err := d.AttestationKey()
	if err != nil || !bytes.Equal(key, q.Key) {
		t.Errorf("the attestation key is not the same each time: %v", err)
	}
	if bytes.Equal(q.Value(8), make([]byte, 32)) || !bytes.Equal(q.Value(9), make([]byte, 32)) || q.Value(24) != nil {
		t.Errorf("values: %x %x", q.Value(8), q.Value(9))
	}
	if _, err := q.Verify(sha256.Sum256([]byte("another"))); !errors.Is(err, ErrQuote) {
		t.Errorf("another nonce: %v", err)
	}
	for name, change := range map[string]func(*Quote){
		"value":     func(q *Quote) { q.Values[0] ^= 1 },
		"statement": func(q *Quote) { q.Statement[20] ^= 1 },
		"signature": func(q *Quote) { q.Signature[40] ^= 1 },
		"pcrs":      func(q *Quote) { q.PCRs = 7; q.Values = q.Values[:96] },
		// A key that is not restricted signs whatever its owner calls a statement.
		"key": func(q *Quote) {
			public, err := tpm2.Unmarshal[tpm2.TPMTPublic](q.Key)
			if err != nil {
				t.Fatal(err)
			}
			public.ObjectAttributes.Restricted = false
			q.Key = tpm2.Marshal(public)
		},
	} {
		bad, err := DecodeQuote(raw)
		if err != nil {
			t.Fatal(err)
		}
		change(bad)
		if _, err := bad.Verify(challenge); !errors.Is(err, ErrQuote) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenRefusals(t *testing.T) {
	if _, err := Open(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), file); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

// TestSilentDevice: what listens and never answers is given up on when the caller gives up; what answers nonsense, at once.
func TestSilentDevice(t *testing.T) {
	for _, answer := range [][]byte{nil, {0x80, 1, 0, 0, 0, 3, 0, 0, 0, 0}, {0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, {0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1}} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			for b := make([]byte, 4096); ; {
				if _, err := c.Read(b); err != nil {
					return
				}
				if _, err := c.Write(answer); err != nil {
					return
				}
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		d, err := Open(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		if answer == nil {
			cancel()
		}
		if _, err := d.Read(SecureBoot); err == nil {
			t.Errorf("%x: no error", answer)
		}
		d.Close()
		l.Close()
		<-done
		cancel()
	}
}

// TestCorpus keeps a real sealed secret and a real quote in the fuzzers' corpus: UPDATE=1 writes them anew.
func TestCorpus(t *testing.T) {
	if os.Getenv("UPDATE") == "" {
		t.Skip("UPDATE=1 writes the corpus anew")
	}
	d := open(t, tpmtest.Start(t))
	blob, err := d.Seal([]byte("secret"), SecureBoot)
	if err != nil {
		t.Fatal(err)
	}
	q, err := d.Quote(SecureBoot, sha256.Sum256(nil))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := q.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"FuzzSealed": blob, "FuzzQuote": raw} {
		dir := filepath.Join("testdata", "fuzz", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "made"), fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestParsePCRs(t *testing.T) {
	if p, err := ParsePCRs("7, 0,23,7"); err != nil || p.String() != "0,7,23" {
		t.Errorf("%s, %v", p, err)
	}
	for _, s := range []string{"", "24", "-1", "a", "7,", "4294967303"} {
		if _, err := ParsePCRs(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func FuzzSealed(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, public, err := decodeSealed(raw)
		if err == nil && (public == nil || len(s.Values) > 24*32) {
			t.Fatal("out of bounds")
		}
	})
}

func FuzzQuote(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := DecodeQuote(raw)
		if err != nil {
			return
		}
		_, _ = Name(q.Key)
		if _, err := q.Verify([32]byte{1}); err == nil {
			t.Fatal("a quote that no TPM made")
		}
	})
}
