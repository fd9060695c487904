package vectors

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/mldsa"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/slhdsa"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/root"
)

// The Wycheproof release used: go mod tidy would drop a requirement that only holds data, so it is named here, with its hash.
const (
	wycheproofModule = "github.com/c2sp/wycheproof@v0.0.0-20260902155932-3fa63dd0344a"
	wycheproofSum    = "h1:pNbL2nztRsWfW/ispAwsvcDFxs9Id38uIsR2/Up5G2c="
)

// tally counts the cases that passed, by source.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (n *tally) add(source string, cases int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts[source] += cases
}

// TestVectors runs all of them and prints how many there were of each.
func TestVectors(t *testing.T) {
	if testing.Short() {
		t.Skip("short: known answers do not depend on how the tests are built")
	}
	n := &tally{counts: make(map[string]int)}
	t.Run("all", func(t *testing.T) {
		t.Run("differential", func(t *testing.T) { differential(t, n) })
		t.Run("IETF composite", func(t *testing.T) { ietfComposite(t, n) })
		t.Run("ACVP", func(t *testing.T) {
			dir := circl(t)
			t.Run("ML-DSA keyGen", func(t *testing.T) { acvpMLDSAKeyGen(t, dir, n) })
			t.Run("ML-DSA sigGen and sigVer", func(t *testing.T) { acvpMLDSAInternal(t, dir, n) })
			t.Run("ML-KEM keyGen", func(t *testing.T) { acvpMLKEMKeyGen(t, dir, n) })
			t.Run("ML-KEM encapsulation", func(t *testing.T) { acvpMLKEMEncapsulate(t, dir, n) })
			t.Run("SLH-DSA", func(t *testing.T) { acvpSLHDSA(t, dir, n) })
		})
		t.Run("Wycheproof", func(t *testing.T) {
			dir := filepath.Join(wycheproof(t), "testvectors_v1")
			t.Run("ML-DSA-87", func(t *testing.T) { wycheproofMLDSA87(t, dir, n) })
			t.Run("ML-DSA-65", func(t *testing.T) { wycheproofMLDSA65(t, dir, n) })
			t.Run("Ed25519", func(t *testing.T) { wycheproofEd25519(t, dir, n) })
			t.Run("ML-KEM keyGen", func(t *testing.T) { wycheproofMLKEMKeyGen(t, dir, n) })
			t.Run("ML-KEM encapsulation", func(t *testing.T) { wycheproofMLKEMEncapsulate(t, dir, n) })
			t.Run("ML-KEM decapsulation", func(t *testing.T) { wycheproofMLKEMDecapsulate(t, dir, n) })
			t.Run("X25519", func(t *testing.T) { wycheproofX25519(t, dir, n) })
			t.Run("XChaCha20-Poly1305", func(t *testing.T) { wycheproofXChaCha(t, dir, n) })
			t.Run("HKDF", func(t *testing.T) { wycheproofHKDF(t, dir, n) })
		})
	})
	var parts []string
	for source, cases := range n.counts {
		parts = append(parts, fmt.Sprintf("%s %d", source, cases))
	}
	sort.Strings(parts)
	tell(t, "vectors: "+strings.Join(parts, ", "))
}

// tell prints a line, and leaves it for make test, which ends with all such lines: go test shows none of a package that
// passes.
func tell(t *testing.T, line string) {
	t.Helper()
	fmt.Println(line)
	path := os.Getenv("VECTOR_TALLY")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.WriteString(line + "\n"); err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func circl(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cloudflare/circl").Output()
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		t.Skipf("circl is not in the module cache: %v", err)
	}
	return string(bytes.TrimSpace(out))
}

// wycheproof finds the release in the module cache, or fetches it through the Go proxy.
func wycheproof(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", wycheproofModule).Output()
	var got struct{ Dir, Sum string }
	if err != nil || json.Unmarshal(out, &got) != nil || got.Dir == "" {
		t.Skipf("%s cannot be had: %v", wycheproofModule, err)
	}
	if got.Sum != wycheproofSum {
		t.Fatalf("%s has the hash %s", wycheproofModule, got.Sum)
	}
	return got.Dir
}

type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := hex.DecodeString(s)
	*h = v
	return err
}

// read fills v, or skips where the file is not there.
func read(t *testing.T, v any, path ...string) {
	t.Helper()
	f, err := os.Open(filepath.Join(path...))
	if err != nil {
		t.Skipf("vectors are not there: %v", err)
	}
	defer func() { _ = f.Close() }()
	var r io.Reader = f
	if strings.HasSuffix(f.Name(), ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := json.NewDecoder(r).Decode(v); err != nil {
		t.Fatal(err)
	}
}

// fromSeed makes a key of a suite from an ML-DSA seed; in the default suite the Ed25519 half is all zeros.
func fromSeed(t *testing.T, suite trust.Suite, seed []byte) *composite.PrivateKey {
	t.Helper()
	k, err := composite.FromSeed(suite, append(bytes.Clone(seed), make([]byte, composite.SeedSize(suite)-len(seed))...))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// acvp is what the files of ML-DSA, ML-KEM and SLH-DSA have in common: prompts and results, by number.
type acvp struct {
	TestGroups []struct {
		ParameterSet       string   `json:"parameterSet"`
		SignatureInterface string   `json:"signatureInterface"`
		PreHash            string   `json:"preHash"`
		PK                 hexBytes `json:"pk"`
		Function           string   `json:"function"`
		Deterministic      bool     `json:"deterministic"`
		Tests              []acvpCase
	} `json:"testGroups"`
}

type acvpCase struct {
	TcID       int      `json:"tcId"`
	Seed       hexBytes `json:"seed"`
	PK         hexBytes `json:"pk"`
	SK         hexBytes `json:"sk"`
	D          hexBytes `json:"d"`
	Z          hexBytes `json:"z"`
	EK         hexBytes `json:"ek"`
	Message    hexBytes `json:"message"`
	Context    hexBytes `json:"context"`
	Signature  hexBytes `json:"signature"`
	TestPassed bool     `json:"testPassed"`
	M          hexBytes `json:"m"`
	C          hexBytes `json:"c"`
	K          hexBytes `json:"k"`
}

func (a *acvp) byID() map[int]acvpCase {
	out := make(map[int]acvpCase)
	for _, g := range a.TestGroups {
		for _, c := range g.Tests {
			out[c.TcID] = c
		}
	}
	return out
}

func acvpMLDSAKeyGen(t *testing.T, dir string, n *tally) {
	var prompt, results acvp
	dir = filepath.Join(dir, "sign/mldsa/testdata/ML-DSA-keyGen-FIPS204")
	read(t, &prompt, dir, "prompt.json.gz")
	read(t, &results, dir, "expectedResults.json.gz")
	want, cases := results.byID(), 0
	for _, g := range prompt.TestGroups {
		suite, ok := map[string]trust.Suite{"ML-DSA-65": trust.SuiteDefault, "ML-DSA-87": trust.SuiteCNSA}[g.ParameterSet]
		if !ok {
			continue
		}
		for _, c := range g.Tests {
			pk := want[c.TcID].PK
			if got := fromSeed(t, suite, c.Seed).Public().Bytes(); !bytes.Equal(got[:len(pk)], pk) {
				t.Errorf("%s test %d: another public key", g.ParameterSet, c.TcID)
			}
			cases++
		}
	}
	pass(t, n, "ACVP ML-DSA keyGen", cases)
}

// acvpMLDSAInternal: these files are for ML-DSA's internal interface, which takes no context and which nothing here calls;
// so circl's own test of it is run, on the very code this module is built with.
func acvpMLDSAInternal(t *testing.T, dir string, n *tally) {
	cmd := exec.CommandContext(t.Context(), "go", "test", "-run", "ACVP", "github.com/cloudflare/circl/sign/mldsa/mldsa65", "github.com/cloudflare/circl/sign/mldsa/mldsa87")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"sigGen", "sigVer"} {
		var prompt acvp
		read(t, &prompt, dir, "sign/mldsa/testdata/ML-DSA-"+name+"-FIPS204/prompt.json.gz")
		cases := 0
		for _, g := range prompt.TestGroups {
			if g.ParameterSet != "ML-DSA-44" {
				cases += len(g.Tests)
			}
		}
		pass(t, n, "ACVP ML-DSA "+name, cases)
	}
}

// acvpSLHDSA is of the recovery keys: SLH-DSA-SHA2-128s, pure, as trust/root signs and verifies.
func acvpSLHDSA(t *testing.T, dir string, n *tally) {
	dir = filepath.Join(dir, "sign/slhdsa/testdata")
	var keys, prompt, results acvp
	read(t, &keys, dir, "keyGen_results.json.gz")
	cases := 0
	for _, c := range keys.TestGroups[0].Tests { // the first group is this parameter set: its keys have 32 bytes
		k, err := root.ParseRecovery(c.SK)
		if err != nil || !bytes.Equal(k.Public(), c.PK) {
			t.Errorf("keyGen test %d: another key, %v", c.TcID, err)
		}
		cases++
	}
	pass(t, n, "ACVP SLH-DSA keyGen", cases)
	read(t, &prompt, dir, "verify_prompt.json.gz")
	read(t, &results, dir, "verify_results.json.gz")
	want := results.byID()
	cases = 0
	for _, g := range prompt.TestGroups {
		if g.ParameterSet != "SLH-DSA-SHA2-128s" || g.SignatureInterface != "external" || g.PreHash != "pure" {
			continue
		}
		for _, c := range g.Tests {
			key := slhdsa.PublicKey{ID: slhdsa.SHA2_128s}
			ok := key.UnmarshalBinary(c.PK) == nil && slhdsa.Verify(&key, slhdsa.NewMessage(c.Message), c.Signature, c.Context)
			if ok != want[c.TcID].TestPassed {
				t.Errorf("sigVer test %d: %v", c.TcID, ok)
			}
			cases++
		}
	}
	pass(t, n, "ACVP SLH-DSA sigVer", cases)
	prompt, results, cases = acvp{}, acvp{}, 0
	read(t, &prompt, dir, "sigGen_prompt.json.gz")
	read(t, &results, dir, "sigGen_results.json.gz")
	want = results.byID()
	for _, g := range prompt.TestGroups {
		if g.ParameterSet != "SLH-DSA-SHA2-128s" || g.SignatureInterface != "external" || g.PreHash != "pure" || !g.Deterministic {
			continue
		}
		for _, c := range g.Tests {
			key := slhdsa.PrivateKey{ID: slhdsa.SHA2_128s}
			if err := key.UnmarshalBinary(c.SK); err != nil {
				t.Fatal(err)
			}
			got, err := slhdsa.SignDeterministic(&key, slhdsa.NewMessage(c.Message), c.Context)
			if err != nil || !bytes.Equal(got, want[c.TcID].Signature) {
				t.Errorf("sigGen test %d: another signature, %v", c.TcID, err)
			}
			cases++
		}
	}
	pass(t, n, "ACVP SLH-DSA sigGen", cases)
}

func pass(t *testing.T, n *tally, source string, cases int) {
	t.Helper()
	if cases == 0 {
		t.Errorf("%s: no cases", source)
	}
	if !t.Failed() {
		n.add(source, cases)
	}
}

// signatures is the form of Wycheproof's ML-DSA files.
type signatures struct {
	TestGroups []struct {
		PrivateSeed hexBytes `json:"privateSeed"`
		PublicKey   hexBytes `json:"publicKey"`
		Tests       []struct {
			TcID   int      `json:"tcId"`
			Msg    hexBytes `json:"msg"`
			Ctx    hexBytes `json:"ctx"`
			Sig    hexBytes `json:"sig"`
			Result string   `json:"result"`
			Flags  []string `json:"flags"`
		} `json:"tests"`
	} `json:"testGroups"`
}

// wycheproofMLDSA87 is the cnsa suite as it stands: the context is FIPS 204's.
func wycheproofMLDSA87(t *testing.T, dir string, n *tally) {
	var v signatures
	read(t, &v, dir, "mldsa_87_verify_test.json")
	cases := 0
	for _, g := range v.TestGroups {
		for _, c := range g.Tests {
			k, err := composite.ParsePublicKey(trust.SuiteCNSA, g.PublicKey)
			if ok := err == nil && k.Verify(string(c.Ctx), c.Msg, c.Sig); ok != (c.Result == "valid") {
				t.Errorf("verify test %d: %v, want %s", c.TcID, ok, c.Result)
			}
			cases++
		}
	}
	v = signatures{}
	read(t, &v, dir, "mldsa_87_sign_seed_test.json")
	for _, g := range v.TestGroups {
		for _, c := range g.Tests {
			k, err := composite.FromSeed(trust.SuiteCNSA, g.PrivateSeed)
			if err != nil || slices.Contains(c.Flags, "Internal") {
				if c.Result == "valid" && err != nil {
					t.Errorf("sign test %d: %v", c.TcID, err)
				}
				continue // a bad seed, or a hash signed in place of a message, which nothing here does
			}
			if ok := bytes.Equal(k.Public().Bytes(), g.PublicKey) && k.Public().Verify(string(c.Ctx), c.Msg, c.Sig); c.Result == "valid" && !ok {
				t.Errorf("sign test %d: its signature does not verify", c.TcID)
			}
			cases++
		}
	}
	pass(t, n, "Wycheproof ML-DSA-87", cases)
}

// wycheproofMLDSA65 checks the ML-DSA half as it is called, and that the whole refuses each of them, whatever Ed25519
// signature stands beside it: what is valid by itself signs another representative than the composite's.
func wycheproofMLDSA65(t *testing.T, dir string, n *tally) {
	var v signatures
	read(t, &v, dir, "mldsa_65_verify_test.json")
	ed := ed25519.NewKeyFromSeed(make([]byte, 32))
	cases := 0
	for _, g := range v.TestGroups {
		for _, c := range g.Tests {
			cases++
			var pk mldsa65.PublicKey
			ok := pk.UnmarshalBinary(g.PublicKey) == nil && len(c.Ctx) <= trust.MaxContext && mldsa65.Verify(&pk, c.Msg, c.Ctx, c.Sig)
			if ok != (c.Result == "valid") {
				t.Errorf("test %d: %v, want %s", c.TcID, ok, c.Result)
			}
			k, err := composite.ParsePublicKey(trust.SuiteDefault, append(bytes.Clone(g.PublicKey), ed[32:]...))
			if err == nil && k.Verify("", c.Msg, append(bytes.Clone(c.Sig), ed25519.Sign(ed, c.Msg)...)) {
				t.Errorf("test %d: a signature of the bare message stands for the composite", c.TcID)
			}
		}
	}
	pass(t, n, "Wycheproof ML-DSA-65", cases)
}

// wycheproofEd25519: no malleable form passes, because entries are told apart by what they say and gossip by their bytes.
func wycheproofEd25519(t *testing.T, dir string, n *tally) {
	var v struct {
		TestGroups []struct {
			PublicKey struct {
				PK hexBytes `json:"pk"`
			} `json:"publicKey"`
			Tests []struct {
				TcID   int      `json:"tcId"`
				Msg    hexBytes `json:"msg"`
				Sig    hexBytes `json:"sig"`
				Result string   `json:"result"`
			} `json:"tests"`
		} `json:"testGroups"`
	}
	read(t, &v, dir, "ed25519_test.json")
	cases := 0
	for _, g := range v.TestGroups {
		for _, c := range g.Tests {
			cases++
			ok := len(g.PublicKey.PK) == 32 && ed25519.Verify(ed25519.PublicKey(g.PublicKey.PK), c.Msg, c.Sig)
			if ok != (c.Result == "valid") {
				t.Errorf("test %d: %v, want %s", c.TcID, ok, c.Result)
			}
		}
	}
	pass(t, n, "Wycheproof Ed25519", cases)
}

func wycheproofX25519(t *testing.T, dir string, n *tally) {
	var v struct {
		TestGroups []struct {
			Tests []struct {
				TcID    int      `json:"tcId"`
				Public  hexBytes `json:"public"`
				Private hexBytes `json:"private"`
				Shared  hexBytes `json:"shared"`
				Result  string   `json:"result"`
			} `json:"tests"`
		} `json:"testGroups"`
	}
	read(t, &v, dir, "x25519_test.json")
	cases := 0
	for _, g := range v.TestGroups {
		for _, c := range g.Tests {
			cases++
			private, err := ecdh.X25519().NewPrivateKey(c.Private)
			if err != nil {
				t.Fatal(err)
			}
			public, err := ecdh.X25519().NewPublicKey(c.Public)
			if err != nil {
				t.Fatal(err)
			}
			shared, err := private.ECDH(public)
			if zero := bytes.Equal(c.Shared, make([]byte, 32)); zero != (err != nil) || !zero && !bytes.Equal(shared, c.Shared) {
				t.Errorf("test %d: %x, %v", c.TcID, shared, err)
			}
		}
	}
	pass(t, n, "Wycheproof X25519", cases)
}

// wycheproofXChaCha is of keys at rest.
func wycheproofXChaCha(t *testing.T, dir string, n *tally) {
	var v struct {
		TestGroups []struct {
			IVSize int `json:"ivSize"`
			Tests  []struct {
				TcID   int      `json:"tcId"`
				Key    hexBytes `json:"key"`
				IV     hexBytes `json:"iv"`
				AAD    hexBytes `json:"aad"`
				Msg    hexBytes `json:"msg"`
				CT     hexBytes `json:"ct"`
				Tag    hexBytes `json:"tag"`
				Result string   `json:"result"`
			} `json:"tests"`
		} `json:"testGroups"`
	}
	read(t, &v, dir, "xchacha20_poly1305_test.json")
	cases := 0
	for _, g := range v.TestGroups {
		if g.IVSize != 8*chacha20poly1305.NonceSizeX {
			continue // other nonces than the key files have cannot even be given
		}
		for _, c := range g.Tests {
			cases++
			aead, err := chacha20poly1305.NewX(c.Key)
			if err != nil {
				t.Fatal(err)
			}
			got, err := aead.Open(nil, c.IV, append(bytes.Clone(c.CT), c.Tag...), c.AAD)
			if ok := err == nil && bytes.Equal(got, c.Msg); ok != (c.Result == "valid") {
				t.Errorf("test %d: %v, want %s", c.TcID, ok, c.Result)
			}
		}
	}
	pass(t, n, "Wycheproof XChaCha20-Poly1305", cases)
}

// wycheproofHKDF is of the invite key.
func wycheproofHKDF(t *testing.T, dir string, n *tally) {
	var v struct {
		TestGroups []struct {
			Tests []struct {
				TcID   int      `json:"tcId"`
				IKM    hexBytes `json:"ikm"`
				Salt   hexBytes `json:"salt"`
				Info   hexBytes `json:"info"`
				Size   int      `json:"size"`
				OKM    hexBytes `json:"okm"`
				Result string   `json:"result"`
			} `json:"tests"`
		} `json:"testGroups"`
	}
	read(t, &v, dir, "hkdf_sha256_test.json")
	cases := 0
	for _, g := range v.TestGroups {
		for _, c := range g.Tests {
			cases++
			got, err := hkdf.Key(sha256.New, c.IKM, c.Salt, string(c.Info), c.Size)
			if ok := err == nil && bytes.Equal(got, c.OKM); ok != (c.Result == "valid") {
				t.Errorf("test %d: %v, want %s (%v)", c.TcID, ok, c.Result, err)
			}
		}
	}
	pass(t, n, "Wycheproof HKDF", cases)
}

// differential lets filippo.io/mldsa, which is the standard library's, judge circl's signatures and the other way round, over
// keys, contexts and messages at random, whole ones and ones with a bit changed: both must always agree.
func differential(t *testing.T, n *tally) {
	const rounds = 100
	random := rand.NewChaCha8([32]byte{1})
	pick := rand.New(random)
	for range rounds {
		seed, msg, ctx := make([]byte, 32), make([]byte, pick.IntN(300)), make([]byte, pick.IntN(256))
		for _, b := range [][]byte{seed, msg, ctx} {
			_, _ = random.Read(b) // never fails
		}
		ours := fromSeed(t, trust.SuiteCNSA, seed)
		theirs, err := mldsa.NewPrivateKey(mldsa.MLDSA87(), seed)
		if err != nil {
			t.Fatal(err)
		}
		opts := &mldsa.Options{Context: string(ctx)}
		a, err := ours.Sign(string(ctx), msg)
		if err != nil {
			t.Fatal(err)
		}
		b, err := theirs.Sign(nil, msg, opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, sig := range [][]byte{a, b} {
			for _, spoil := range []bool{false, true} {
				if spoil {
					sig[pick.IntN(len(sig))] ^= 1 << pick.IntN(8)
				}
				x, y := ours.Public().Verify(string(ctx), msg, sig), mldsa.Verify(theirs.PublicKey(), msg, sig, opts) == nil
				if x != y || x == spoil {
					t.Fatalf("seed %x: ours says %v, theirs %v, spoilt is %v", seed, x, y, spoil)
				}
			}
		}
	}
	pass(t, n, "differential ML-DSA-87", 4*rounds)
}
