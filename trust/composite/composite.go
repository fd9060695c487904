// Package composite is the signature of every long-lived key in Omega, in the two suites that a swarm may be founded with:
//
//   - default: ML-DSA-65 (FIPS 204) and Ed25519 (RFC 8032) bound into one by draft-ietf-lamps-pq-composite-sigs, algorithm
//     MLDSA65-Ed25519-SHA512. A signature stands only if both halves do, so it holds as long as either algorithm does.
//     There is no way here to check one half alone.
//   - cnsa: ML-DSA-87 alone, as CNSA 2.0 has no composites.
//
// A key belongs to one suite; what a key of one signed, no key of the other verifies. It signs bytes under a context and
// knows nothing of what they mean.
package composite

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/omega-mesh/omega/trust"
)

// Refusals of a key or a context.
var (
	// ErrContext says that a signature context is longer than the one-byte length of both standards allows.
	ErrContext = errors.New("composite: context longer than 255 bytes")
	// ErrSuite says that a suite is none of this build's.
	ErrSuite = errors.New("composite: unknown suite")
	// ErrSize says that a key or seed has not the size of its suite.
	ErrSize = errors.New("composite: not the size of the suite's")
)

// The largest of any suite, in bytes: for buffers and bounds.
const (
	MaxPublicKeySize = publicKeySize87
	MaxSignatureSize = signatureSize87
)

// sizes are those of a suite's public key, signature and stored private key, in bytes; zeros for an unknown suite.
func sizes(s trust.Suite) (public, signature, seed int) {
	switch s {
	case trust.SuiteDefault:
		return publicKeySize65, signatureSize65, seedSize65
	case trust.SuiteCNSA:
		return publicKeySize87, signatureSize87, seedSize87
	}
	return 0, 0, 0
}

// PublicKeySize is the length of a public key of s in bytes: 1984 or 2592; 0 for an unknown suite.
func PublicKeySize(s trust.Suite) int { n, _, _ := sizes(s); return n }

// SignatureSize is the length of a signature of s in bytes: 3373 or 4627; 0 for an unknown suite.
func SignatureSize(s trust.Suite) int { _, n, _ := sizes(s); return n }

// SeedSize is the length of a private key of s as it is stored, in bytes: 64 or 32; 0 for an unknown suite.
func SeedSize(s trust.Suite) int { _, _, n := sizes(s); return n }

// IsSignatureSize reports whether a signature of any suite has n bytes.
func IsSignatureSize(n int) bool { return n == signatureSize65 || n == signatureSize87 }

// signer and verifier are what a suite does; context and lengths have been checked.
type (
	signer interface {
		sign(context string, msg []byte) ([]byte, error)
	}
	verifier interface {
		verify(context string, msg, sig []byte) bool
	}
)

// PrivateKey signs. It is safe for concurrent use.
type PrivateKey struct {
	seed   []byte
	signer signer
	pub    *PublicKey
}

// PublicKey verifies. It keeps its expanded form once it was used, until Compact. It is safe for concurrent use.
type PublicKey struct {
	suite    trust.Suite
	raw      []byte
	expanded atomic.Pointer[verifier]
}

// Generate makes a key of a suite from random, crypto/rand where random is nil.
func Generate(s trust.Suite, random io.Reader) (*PrivateKey, error) {
	if random == nil {
		random = rand.Reader
	}
	seed := make([]byte, SeedSize(s))
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("composite: read seed: %w", err)
	}
	defer clear(seed)
	return FromSeed(s, seed)
}

// FromSeed derives the key whose private form is seed, SeedSize(s) bytes: the ML-DSA seed (FIPS 204 xi), then, in the
// default suite, the Ed25519 seed. The seed is copied.
func FromSeed(s trust.Suite, seed []byte) (*PrivateKey, error) {
	if !s.Known() {
		return nil, fmt.Errorf("%w: %d", ErrSuite, s)
	}
	if len(seed) != SeedSize(s) {
		return nil, fmt.Errorf("%w: seed of %d bytes, want %d", ErrSize, len(seed), SeedSize(s))
	}
	k := &PrivateKey{seed: bytes.Clone(seed), pub: &PublicKey{suite: s}}
	var v verifier
	if s == trust.SuiteCNSA {
		k.signer, v, k.pub.raw = key87(seed)
	} else {
		k.signer, v, k.pub.raw = key65(seed)
	}
	k.pub.expanded.Store(&v)
	return k, nil
}

// Seed is a copy of the private form of k: keep it secret, and clear it.
func (k *PrivateKey) Seed() []byte { return bytes.Clone(k.seed) }

// Suite is what k signs with.
func (k *PrivateKey) Suite() trust.Suite { return k.pub.suite }

// Public is the public key of k.
func (k *PrivateKey) Public() *PublicKey { return k.pub }

// Sign signs msg under context, the application's context string (e.g. "omega/entry/1"): at most 255 bytes. ML-DSA is
// hedged, so that two signatures of one message differ.
func (k *PrivateKey) Sign(context string, msg []byte) ([]byte, error) {
	if len(context) > trust.MaxContext {
		return nil, ErrContext
	}
	sig, err := k.signer.sign(context, msg)
	if err != nil {
		return nil, fmt.Errorf("composite: ML-DSA: %w", err)
	}
	return sig, nil
}

// ParsePublicKey reads what Bytes of a key of that suite gave. It checks the length only: any bytes of it are a public key.
func ParsePublicKey(s trust.Suite, raw []byte) (*PublicKey, error) {
	if !s.Known() {
		return nil, fmt.Errorf("%w: %d", ErrSuite, s)
	}
	if len(raw) != PublicKeySize(s) {
		return nil, fmt.Errorf("%w: public key of %d bytes, want %d", ErrSize, len(raw), PublicKeySize(s))
	}
	return &PublicKey{suite: s, raw: bytes.Clone(raw)}, nil
}

// Suite is what p verifies with.
func (p *PublicKey) Suite() trust.Suite { return p.suite }

// Bytes is the public key as it travels: of ML-DSA, then, in the default suite, of Ed25519.
func (p *PublicKey) Bytes() []byte { return bytes.Clone(p.raw) }

// Equal reports whether p and o are the same key.
func (p *PublicKey) Equal(o *PublicKey) bool {
	return o != nil && p.suite == o.suite && bytes.Equal(p.raw, o.raw)
}

// Compact drops the expanded form (50 to 100 KiB); the next Verify builds it again.
func (p *PublicKey) Compact() { p.expanded.Store(nil) }

// Verify reports whether sig is a signature of msg under context by p. In the default suite both halves are checked, and
// both must hold.
func (p *PublicKey) Verify(context string, msg, sig []byte) bool {
	if len(sig) != SignatureSize(p.suite) || len(context) > trust.MaxContext {
		return false
	}
	v := p.expanded.Load()
	if v == nil {
		v = p.expand()
		p.expanded.Store(v)
	}
	return (*v).verify(context, msg, sig)
}

func (p *PublicKey) expand() *verifier {
	var v verifier
	if p.suite == trust.SuiteCNSA {
		v = expand87(p.raw)
	} else {
		v = expand65(p.raw)
	}
	return &v
}
