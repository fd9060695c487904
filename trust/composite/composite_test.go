package composite

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"filippo.io/mldsa"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"github.com/omega-mesh/omega/trust"
)

// fromSeed makes a key of the default suite; seed is cut or filled with zeros to its size.
func fromSeed(t testing.TB, suite trust.Suite, seed ...byte) *PrivateKey {
	t.Helper()
	k, err := FromSeed(suite, append(bytes.Clone(seed), make([]byte, 64)...)[:SeedSize(suite)])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// eachSuite runs a test in both.
func eachSuite(t *testing.T, test func(*testing.T, trust.Suite)) {
	for _, s := range trust.Suites() {
		t.Run(s.Name(), func(t *testing.T) { test(t, s) })
	}
}

func TestSignVerify(t *testing.T) { eachSuite(t, testSignVerify) }

func testSignVerify(t *testing.T, suite trust.Suite) {
	k, err := Generate(suite, nil)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ParsePublicKey(suite, k.Public().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[trust.Suite][3]int{trust.SuiteDefault: {1984, 3373, 64}, trust.SuiteCNSA: {2592, 4627, 32}}[suite]
	for _, n := range []int{0, 1, 1000} {
		msg := bytes.Repeat([]byte{7}, n)
		sig, err := k.Sign("omega/test/1", msg)
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]int{len(pub.Bytes()), len(sig), len(k.Seed())}; got != sizes {
			t.Fatalf("sizes %v, want %v", got, sizes)
		}
		if !pub.Verify("omega/test/1", msg, sig) {
			t.Fatal("a good signature does not verify")
		}
		pub.Compact()
		if !pub.Verify("omega/test/1", msg, sig) {
			t.Fatal("a good signature does not verify after Compact")
		}
		if pub.Verify("omega/test/2", msg, sig) || pub.Verify("", msg, sig) || pub.Verify("omega/test/1", append(msg, 0), sig) {
			t.Fatal("a signature verifies for another context or message")
		}
	}
	if _, err := k.Sign(strings.Repeat("x", 256), nil); !errors.Is(err, ErrContext) {
		t.Error("a context of 256 bytes:", err)
	}
	again, err := FromSeed(suite, k.Seed())
	if err != nil || !again.Public().Equal(k.Public()) {
		t.Error("the seed gives another key", err)
	}
	seed := k.Seed()
	clear(seed)
	if bytes.Equal(seed, k.Seed()) {
		t.Error("Seed is not a copy")
	}
}

// TestSuitesAreApart: nothing of one suite passes for the other's.
func TestSuitesAreApart(t *testing.T) {
	eachSuite(t, func(t *testing.T, suite trust.Suite) {
		other := trust.SuiteDefault + trust.SuiteCNSA - suite
		k, o := fromSeed(t, suite, 1), fromSeed(t, other, 1)
		sig, err := k.Sign("c", []byte("m"))
		if err != nil {
			t.Fatal(err)
		}
		if o.Public().Verify("c", []byte("m"), sig) || o.Public().Verify("c", []byte("m"), append(sig, make([]byte, MaxSignatureSize)...)[:SignatureSize(other)]) {
			t.Error("verified by a key of the other suite")
		}
		if _, err := ParsePublicKey(other, k.Public().Bytes()); !errors.Is(err, ErrSize) {
			t.Errorf("read as a key of the other suite: %v", err)
		}
		if _, err := FromSeed(other, k.Seed()); !errors.Is(err, ErrSize) {
			t.Errorf("read as a seed of the other suite: %v", err)
		}
		if k.Public().Equal(o.Public()) || o.Public().Equal(k.Public()) {
			t.Error("keys of two suites are equal")
		}
	})
	if _, err := Generate(3, nil); !errors.Is(err, ErrSuite) {
		t.Error(err)
	}
	if _, err := ParsePublicKey(0, nil); !errors.Is(err, ErrSuite) {
		t.Error(err)
	}
}

// TestEveryByteCounts changes a signature throughout.
func TestEveryByteCounts(t *testing.T) {
	eachSuite(t, func(t *testing.T, suite trust.Suite) {
		k := fromSeed(t, suite, 9)
		sig, err := k.Sign("c", []byte("m"))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(sig); i += 61 {
			bad := bytes.Clone(sig)
			bad[i] ^= 0x10
			if k.Public().Verify("c", []byte("m"), bad) {
				t.Fatalf("byte %d may be anything", i)
			}
		}
	})
}

// TestPureMLDSA87: a signature of the cnsa suite is FIPS 204's and nothing else's, checked with another implementation.
func TestPureMLDSA87(t *testing.T) {
	for i := range byte(20) {
		seed := sha512.Sum512([]byte{i})
		k := fromSeed(t, trust.SuiteCNSA, seed[:32]...)
		mk, err := mldsa.NewPrivateKey(mldsa.MLDSA87(), seed[:32])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(mk.PublicKey().Bytes(), k.Public().Bytes()) {
			t.Fatal("public keys differ")
		}
		msg, opts := seed[:i], &mldsa.Options{Context: "ctx" + string(rune('a'+i))}
		theirs, err := mk.Sign(nil, msg, opts)
		if err != nil || !k.Public().Verify(opts.Context, msg, theirs) {
			t.Fatal("the other implementation's signature does not verify", err)
		}
		ours, err := k.Sign(opts.Context, msg)
		if err != nil {
			t.Fatal(err)
		}
		if err := mldsa.Verify(mk.PublicKey(), msg, ours, opts); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBothHalvesMust changes each byte region of a signature, and mixes halves of two keys.
func TestBothHalvesMust(t *testing.T) {
	x, y := sha512.Sum512([]byte("a")), sha512.Sum512([]byte("b"))
	a, b := fromSeed(t, trust.SuiteDefault, x[:]...), fromSeed(t, trust.SuiteDefault, y[:]...)
	msg := []byte("message")
	sa, _ := a.Sign("c", msg)
	sb, _ := b.Sign("c", msg)
	const cut = mldsa65.SignatureSize
	for name, sig := range map[string][]byte{
		"ML-DSA half of another key":  append(bytes.Clone(sb[:cut]), sa[cut:]...),
		"Ed25519 half of another key": append(bytes.Clone(sa[:cut]), sb[cut:]...),
		"ML-DSA half alone":           append(bytes.Clone(sa[:cut]), make([]byte, 64)...),
		"Ed25519 half alone":          append(make([]byte, cut), sa[cut:]...),
		"short":                       sa[:len(sa)-1],
		"long":                        append(bytes.Clone(sa), 0),
		"empty":                       nil,
	} {
		if a.Public().Verify("c", msg, sig) {
			t.Errorf("%s: verifies", name)
		}
	}
	// Neither half is a signature of the bare message: the label and prefix are part of what each signs.
	if ed25519.Verify(a.Public().raw[mldsa65.PublicKeySize:], msg, sa[cut:]) {
		t.Error("the Ed25519 half stands by itself")
	}
}

// TestConstruction builds the composite from two other implementations (filippo.io/mldsa, crypto/ed25519), with the
// message representative of the draft spelled out, and checks both ways.
func TestConstruction(t *testing.T) {
	for i := range 20 {
		seed := sha512.Sum512([]byte{byte(i)})
		k := fromSeed(t, trust.SuiteDefault, seed[:]...)
		mk, err := mldsa.NewPrivateKey(mldsa.MLDSA65(), seed[:32])
		if err != nil {
			t.Fatal(err)
		}
		ek := ed25519.NewKeyFromSeed(seed[32:])
		if want := append(mk.PublicKey().Bytes(), ek[32:]...); !bytes.Equal(want, k.Public().Bytes()) {
			t.Fatal("public keys differ")
		}
		msg, ctx := seed[:i], "ctx"+string(rune('a'+i))
		sum := sha512.Sum512(msg)
		m := "CompositeAlgorithmSignatures2025" + "COMPSIG-MLDSA65-Ed25519-SHA512" + string(byte(len(ctx))) + ctx + string(sum[:])
		opts := &mldsa.Options{Context: "COMPSIG-MLDSA65-Ed25519-SHA512"}
		ms, err := mk.Sign(nil, []byte(m), opts)
		if err != nil {
			t.Fatal(err)
		}
		if !k.Public().Verify(ctx, msg, append(ms, ed25519.Sign(ek, []byte(m))...)) {
			t.Fatal("the other implementation's signature does not verify")
		}
		sig, err := k.Sign(ctx, msg)
		if err != nil {
			t.Fatal(err)
		}
		if err := mldsa.Verify(mk.PublicKey(), []byte(m), sig[:mldsa65.SignatureSize], opts); err != nil {
			t.Fatal(err)
		}
		if !ed25519.Verify(ek.Public().(ed25519.PublicKey), []byte(m), sig[mldsa65.SignatureSize:]) {
			t.Fatal("our Ed25519 half does not verify")
		}
	}
}

// TestRFC8032 is §7.1 of the RFC, tests 1 to 3: the second half of a composite seed makes these keys.
func TestRFC8032(t *testing.T) {
	for _, c := range []struct{ seed, pub, msg, sig string }{
		{"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "", "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
		{"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72", "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
		{"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82", "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
	} {
		s, _ := hex.DecodeString(c.seed)
		k := fromSeed(t, trust.SuiteDefault, append(make([]byte, mldsa65.SeedSize), s...)...)
		if got := hex.EncodeToString(k.Public().Bytes()[mldsa65.PublicKeySize:]); got != c.pub {
			t.Errorf("public key %s, want %s", got, c.pub)
		}
		msg, _ := hex.DecodeString(c.msg)
		if got := hex.EncodeToString(ed25519.Sign(k.signer.(*signer65).ed, msg)); got != c.sig {
			t.Errorf("signature %s, want %s", got, c.sig)
		}
	}
}

func FuzzVerify(f *testing.F) {
	keys := make(map[trust.Suite]*PrivateKey)
	for _, suite := range trust.Suites() {
		k := fromSeed(f, suite, 3)
		sig, _ := k.Sign("c", []byte("m"))
		f.Add(uint16(suite), k.Public().Bytes(), "c", []byte("m"), sig)
		keys[suite] = k
	}
	f.Add(uint16(0), []byte{}, "", []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, suite uint16, pub []byte, ctx string, msg, s []byte) {
		p, err := ParsePublicKey(trust.Suite(suite), pub)
		if err != nil {
			return
		}
		if p.Verify(ctx, msg, s) && !(p.Equal(keys[p.Suite()].Public()) && ctx == "c" && string(msg) == "m") {
			t.Fatal("a forgery")
		}
	})
}

func BenchmarkSign(b *testing.B) {
	for _, suite := range trust.Suites() {
		b.Run(suite.Name(), func(b *testing.B) {
			k := fromSeed(b, suite, 1)
			msg := make([]byte, 300)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Sign("omega/entry/1", msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, suite := range trust.Suites() {
		b.Run(suite.Name(), func(b *testing.B) {
			k := fromSeed(b, suite, 1)
			msg := make([]byte, 300)
			sig, _ := k.Sign("omega/entry/1", msg)
			b.ReportAllocs()
			for b.Loop() {
				if !k.Public().Verify("omega/entry/1", msg, sig) {
					b.Fatal("refused")
				}
			}
		})
	}
}

// BenchmarkRatio is the composite's processor time over that of its two algorithms called bare.
func BenchmarkRatio(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		for _, m := range Benchmarks() {
			v, err := m.Measure()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(v, m.Name)
		}
	}
}
