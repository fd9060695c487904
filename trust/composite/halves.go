package composite

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"github.com/omega-mesh/omega/trust"
)

// ErrHalves says that a key's parts do not make one key of the suite, or that what keeps one of them signs wrongly.
var ErrHalves = errors.New("composite: the halves make no key")

// Halves are the parts of a private key of which a token keeps one or both. A key of the cnsa suite has no Ed25519.
type Halves struct {
	Seed        []byte        // of ML-DSA (32 bytes), where this process has it; else the next two
	MLDSA       MLDSASigner   // signs with the ML-DSA key that is kept elsewhere
	MLDSAPublic []byte        // its public key
	Ed25519     crypto.Signer // its Public is an ed25519.PublicKey; Sign is given the message itself, and crypto.Hash(0)
	Random      io.Reader     // handed to Ed25519.Sign, which need not use it
}

// MLDSASigner signs msg under an ML-DSA context (FIPS 204, algorithm 2) with a key that does not leave it.
type MLDSASigner interface {
	SignMLDSA(msg, context []byte) ([]byte, error)
}

// FromHalves makes one key of its parts. It signs and verifies once, so that a token which signs by another algorithm, or
// with another key, is found out before anything depends on it. Seed of such a key gives Halves.Seed alone.
func FromHalves(s trust.Suite, h Halves) (*PrivateKey, error) {
	k := &PrivateKey{seed: bytes.Clone(h.Seed), pub: &PublicKey{suite: s}}
	kept := &keptSigner{suite: s, remote: h.MLDSA, ed: h.Ed25519, random: h.Random}
	mldsaPublic := h.MLDSAPublic
	switch {
	case (h.MLDSA == nil) != (len(h.Seed) == mldsa65.SeedSize) || h.MLDSA != nil && len(h.Seed) != 0:
		return nil, fmt.Errorf("%w: of ML-DSA either a seed or a signer", ErrHalves)
	case s == trust.SuiteDefault && h.MLDSA == nil:
		pub, priv := mldsa65.NewKeyFromSeed((*[mldsa65.SeedSize]byte)(h.Seed))
		kept.local, mldsaPublic = priv, pub.Bytes()
	case s == trust.SuiteCNSA && h.MLDSA == nil:
		return nil, fmt.Errorf("%w: a key of that suite has one part, and this process has it", ErrHalves)
	}
	want := mldsa65.PublicKeySize
	if s == trust.SuiteCNSA {
		want = mldsa87.PublicKeySize
	}
	if !s.Known() || len(mldsaPublic) != want || (s == trust.SuiteDefault) != (h.Ed25519 != nil) {
		return nil, fmt.Errorf("%w of suite %d", ErrHalves, s)
	}
	k.pub.raw = bytes.Clone(mldsaPublic)
	if h.Ed25519 != nil {
		ed, ok := h.Ed25519.Public().(ed25519.PublicKey)
		if !ok || len(ed) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%w: not an Ed25519 key", ErrHalves)
		}
		k.pub.raw = append(k.pub.raw, ed...)
	}
	k.signer = kept
	const context, probe = "omega/probe/1", "does this key sign?"
	sig, err := k.Sign(context, []byte(probe))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHalves, err)
	}
	if !k.pub.Verify(context, []byte(probe), sig) {
		return nil, fmt.Errorf("%w: what it signs does not verify", ErrHalves)
	}
	return k, nil
}

// keptSigner asks for each part where it is kept.
type keptSigner struct {
	suite  trust.Suite
	local  *mldsa65.PrivateKey
	remote MLDSASigner
	ed     crypto.Signer
	random io.Reader
}

func (k *keptSigner) sign(context string, msg []byte) ([]byte, error) {
	if k.suite == trust.SuiteCNSA {
		return k.remote.SignMLDSA(msg, []byte(context))
	}
	m := message(context, msg)
	sig := make([]byte, mldsa65.SignatureSize, signatureSize65)
	if k.local != nil {
		if err := mldsa65.SignTo(k.local, m, []byte(label), true, sig); err != nil {
			return nil, err
		}
	} else {
		kept, err := k.remote.SignMLDSA(m, []byte(label))
		if err != nil {
			return nil, err
		}
		if len(kept) != len(sig) {
			return nil, fmt.Errorf("%w: an ML-DSA signature of %d bytes", ErrHalves, len(kept))
		}
		copy(sig, kept)
	}
	ed, err := k.ed.Sign(k.random, m, crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("Ed25519: %w", err)
	}
	return append(sig, ed...), nil
}
