// Package composite is the signature of every long-lived key in Omega: ML-DSA-65 (FIPS 204) and Ed25519 (RFC 8032) bound
// into one by draft-ietf-lamps-pq-composite-sigs, algorithm MLDSA65-Ed25519-SHA512. A signature stands only if both
// halves do, so it holds as long as either algorithm does. There is no way here to check one half alone.
//
// It signs bytes under a context and knows nothing of what they mean.
package composite

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"github.com/omega-mesh/omega/trust"
)

// Sizes in bytes, as in the draft's size table.
const (
	PublicKeySize = mldsa65.PublicKeySize + ed25519.PublicKeySize // 1984
	SignatureSize = mldsa65.SignatureSize + ed25519.SignatureSize // 3373
	SeedSize      = mldsa65.SeedSize + ed25519.SeedSize           // 64
)

const (
	prefix = "CompositeAlgorithmSignatures2025"
	label  = "COMPSIG-MLDSA65-Ed25519-SHA512"
)

// ErrContext says that a signature context is longer than the draft's one-byte length allows.
var ErrContext = errors.New("composite: context longer than 255 bytes")

// PrivateKey signs. It is safe for concurrent use.
type PrivateKey struct {
	seed  [SeedSize]byte
	mldsa *mldsa65.PrivateKey
	ed    ed25519.PrivateKey
	pub   *PublicKey
}

// PublicKey verifies. It keeps its expanded form once it was used, until Compact. It is safe for concurrent use.
type PublicKey struct {
	raw      [PublicKeySize]byte
	expanded atomic.Pointer[mldsa65.PublicKey]
}

// Generate makes a key from 64 bytes of random, crypto/rand where random is nil.
func Generate(random io.Reader) (*PrivateKey, error) {
	if random == nil {
		random = rand.Reader
	}
	var seed [SeedSize]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, fmt.Errorf("composite: read seed: %w", err)
	}
	return FromSeed(seed), nil
}

// FromSeed derives the key whose private form is seed: the ML-DSA seed (FIPS 204 xi), then the Ed25519 seed.
func FromSeed(seed [SeedSize]byte) *PrivateKey {
	mseed := [mldsa65.SeedSize]byte(seed[:mldsa65.SeedSize])
	mpub, mpriv := mldsa65.NewKeyFromSeed(&mseed)
	k := &PrivateKey{seed: seed, mldsa: mpriv, ed: ed25519.NewKeyFromSeed(seed[mldsa65.SeedSize:]), pub: new(PublicKey)}
	mpub.Pack((*[mldsa65.PublicKeySize]byte)(k.pub.raw[:mldsa65.PublicKeySize]))
	copy(k.pub.raw[mldsa65.PublicKeySize:], k.ed[ed25519.SeedSize:])
	k.pub.expanded.Store(mpub)
	return k
}

// Seed is the private form of k: keep it secret.
func (k *PrivateKey) Seed() [SeedSize]byte { return k.seed }

// Public is the public key of k.
func (k *PrivateKey) Public() *PublicKey { return k.pub }

// message builds M' of the draft: Prefix || Label || len(ctx) || ctx || SHA-512(M).
func message(context string, msg []byte) []byte {
	sum := sha512.Sum512(msg)
	m := make([]byte, 0, len(prefix)+len(label)+1+len(context)+len(sum))
	m = append(m, prefix...)
	m = append(m, label...)
	m = append(m, byte(len(context)))
	m = append(m, context...)
	return append(m, sum[:]...)
}

// Sign signs msg under context, the application context string of the draft (e.g. "omega/entry/1"): at most 255 bytes.
// The ML-DSA half is hedged, so that two signatures of one message differ.
func (k *PrivateKey) Sign(context string, msg []byte) ([]byte, error) {
	if len(context) > trust.MaxContext {
		return nil, ErrContext
	}
	m := message(context, msg)
	sig := make([]byte, SignatureSize)
	if err := mldsa65.SignTo(k.mldsa, m, []byte(label), true, sig[:mldsa65.SignatureSize]); err != nil {
		return nil, fmt.Errorf("composite: ML-DSA: %w", err)
	}
	copy(sig[mldsa65.SignatureSize:], ed25519.Sign(k.ed, m))
	return sig, nil
}

// ParsePublicKey reads the 1984 bytes of Bytes. It checks the length only: any 1984 bytes are a public key.
func ParsePublicKey(raw []byte) (*PublicKey, error) {
	if len(raw) != PublicKeySize {
		return nil, fmt.Errorf("composite: public key of %d bytes, want %d", len(raw), PublicKeySize)
	}
	return &PublicKey{raw: [PublicKeySize]byte(raw)}, nil
}

// Bytes is the public key as the draft serialises it: ML-DSA-65, then Ed25519.
func (p *PublicKey) Bytes() []byte { return append([]byte(nil), p.raw[:]...) }

// Equal reports whether p and o are the same key.
func (p *PublicKey) Equal(o *PublicKey) bool { return o != nil && p.raw == o.raw }

// Compact drops the expanded form (about 50 KiB); the next Verify builds it again.
func (p *PublicKey) Compact() { p.expanded.Store(nil) }

// Verify reports whether sig is a signature of msg under context by p: both halves are checked, and both must hold.
func (p *PublicKey) Verify(context string, msg, sig []byte) bool {
	if len(sig) != SignatureSize || len(context) > trust.MaxContext {
		return false
	}
	m := message(context, msg)
	pub := p.expanded.Load()
	if pub == nil {
		pub = new(mldsa65.PublicKey)
		pub.Unpack((*[mldsa65.PublicKeySize]byte)(p.raw[:mldsa65.PublicKeySize]))
		p.expanded.Store(pub)
	}
	// ML-DSA first: with an expanded key it is the cheaper of the two to refuse a forgery with.
	return mldsa65.Verify(pub, m, []byte(label), sig[:mldsa65.SignatureSize]) &&
		ed25519.Verify(p.raw[mldsa65.PublicKeySize:], m, sig[mldsa65.SignatureSize:])
}
