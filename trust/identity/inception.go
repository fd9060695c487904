// Package identity is who a peer is: a DID that outlives its keys, the inception record that a DID is the hash of, and
// the private keys at rest on this host.
//
// An inception record names the composite key that signs, the hash of the next one (pre-rotation: a thief of the current
// key cannot rotate to a key of its own), and the Ed25519 transport key that libp2p derives the peer ID from. It is
// signed by the composite key and by the transport key, so that nobody can claim another's. What a peer is allowed to
// do stands elsewhere (authority).
package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
)

// Signature contexts and hash domains of this package.
const (
	contextInception = "omega/inception/1"
	contextTransport = "omega/transport/1"
	domainNext       = "omega/next-key/1"
	inceptionVersion = 1
	didPrefix        = "did:omega:"
	didDigits        = 52 // base32 of 32 bytes, no padding
)

// ErrInception is wrapped by every refusal of an inception record.
var ErrInception = errors.New("not a valid inception record")

// ErrDID is wrapped where a string is not a DID of this method.
var ErrDID = errors.New("not a did:omega identifier")

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// DID is "did:omega:" and the lower-case base32 of 32 bytes, without padding: the hash of an inception record.
type DID string

// DIDFromBytes is the DID of a 32-byte hash.
func DIDFromBytes(h [32]byte) DID { return DID(didPrefix + base32Lower.EncodeToString(h[:])) }

// ParseDID checks that s is a DID in its one spelling.
func ParseDID(s string) (DID, error) {
	d := DID(s)
	if _, err := d.Bytes(); err != nil {
		return "", err
	}
	return d, nil
}

// Bytes is the hash in d.
func (d DID) Bytes() ([32]byte, error) {
	var h [32]byte
	digits, ok := strings.CutPrefix(string(d), didPrefix)
	if !ok || len(digits) != didDigits {
		return h, fmt.Errorf("identity: %q: %w", clip(string(d)), ErrDID)
	}
	b, err := base32Lower.DecodeString(digits)
	if err != nil || len(b) != len(h) || base32Lower.EncodeToString(b) != digits {
		return h, fmt.Errorf("identity: %q: %w", clip(string(d)), ErrDID)
	}
	return [32]byte(b), nil
}

// Short is the first ten digits after the method: for people only.
func (d DID) Short() string {
	digits := strings.TrimPrefix(string(d), didPrefix)
	if len(digits) > 10 {
		digits = digits[:10]
	}
	return digits
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// Inception is the record that makes an identity. It is immutable once decoded.
type Inception struct {
	Version   uint8       // of the record: 1
	Suite     trust.Suite // of Key and Next
	Key       []byte      // public key of Suite
	Next      [32]byte    // hash of the next composite public key (NextHash)
	Transport [32]byte    // Ed25519 public key of the libp2p host
	Name      string      // what its owner calls it: 1 to 63 of A-Z a-z 0-9 . _ -, not unique

	raw []byte
	did DID
	pub *composite.PublicKey
}

// inceptionContent is the signed part, after the version byte.
type inceptionContent struct {
	Suite     trust.Suite `cbor:"1,keyasint"`
	Key       []byte      `cbor:"2,keyasint"`
	Next      []byte      `cbor:"3,keyasint"`
	Transport []byte      `cbor:"4,keyasint"`
	Name      string      `cbor:"5,keyasint"`
}

// NextHash is the commitment to a next key: SHA-256("omega/next-key/1" || 0x00 || public key).
func NextHash(p *composite.PublicKey) [32]byte {
	h := sha256.New()
	h.Write([]byte(domainNext))
	h.Write([]byte{0})
	h.Write(p.Bytes())
	return [32]byte(h.Sum(nil))
}

// CheckName reports why name cannot be a peer's or a swarm's: 1 to 63 bytes of A-Z a-z 0-9 . _ - that begin with a
// letter or digit. Names reach terminals, so nothing else may be in them.
func CheckName(name string) error {
	if name == "" || len(name) > trust.MaxName {
		return fmt.Errorf("identity: a name has 1 to %d characters, not %d", trust.MaxName, len(name))
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return fmt.Errorf("identity: name %q: only letters, digits, '.', '_' and '-', and first a letter or digit", clip(name))
		}
	}
	return nil
}

// newInception signs the record of key and transport.
func newInception(name string, key, next *composite.PrivateKey, transport ed25519.PrivateKey) (*Inception, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	nextHash := NextHash(next.Public())
	content, err := canonical.Marshal(inceptionContent{
		Suite: key.Suite(), Key: key.Public().Bytes(), Next: nextHash[:],
		Transport: transport[ed25519.SeedSize:], Name: name,
	})
	if err != nil {
		return nil, err
	}
	raw := append([]byte{inceptionVersion}, content...)
	signed := raw
	full, err := key.Sign(contextInception, signed)
	if err != nil {
		return nil, err
	}
	possession, err := transport.Sign(nil, signed, &ed25519.Options{Context: contextTransport})
	if err != nil {
		return nil, fmt.Errorf("identity: sign with the transport key: %w", err)
	}
	raw = append(append(raw[:len(raw):len(raw)], full...), possession...)
	return DecodeInception(raw)
}

// DecodeInception reads a record, at most trust.MaxInception bytes: version byte, canonical CBOR, composite signature,
// transport signature. Both signatures have been verified when it returns without error.
func DecodeInception(raw []byte) (*Inception, error) {
	if len(raw) > trust.MaxInception || len(raw) < 1 {
		return nil, fmt.Errorf("identity: %d bytes: %w", len(raw), ErrInception)
	}
	if raw[0] != inceptionVersion {
		return nil, fmt.Errorf("identity: version %d: %w", raw[0], ErrInception)
	}
	var c inceptionContent
	signed, full, possession := splitInception(raw, &c)
	if signed == nil {
		return nil, fmt.Errorf("identity: %d bytes are no record of a suite that this build knows: %w", len(raw), ErrInception)
	}
	if len(c.Next) != 32 || len(c.Transport) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("identity: next of %d and transport of %d bytes: %w", len(c.Next), len(c.Transport), ErrInception)
	}
	if err := CheckName(c.Name); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInception, err)
	}
	pub, err := composite.ParsePublicKey(c.Suite, c.Key)
	if err != nil {
		return nil, fmt.Errorf("identity: %w: %w", ErrInception, err)
	}
	if ed25519.VerifyWithOptions(c.Transport, signed, possession, &ed25519.Options{Context: contextTransport, Hash: crypto.Hash(0)}) != nil {
		return nil, fmt.Errorf("identity: transport signature: %w", ErrInception)
	}
	if !pub.Verify(contextInception, signed, full) {
		return nil, fmt.Errorf("identity: signature: %w", ErrInception)
	}
	h := sha256.New()
	h.Write([]byte(contextInception))
	h.Write([]byte{0})
	h.Write(signed)
	own := append([]byte(nil), raw...)
	return &Inception{
		Version: inceptionVersion, Suite: c.Suite, Key: c.Key, Next: [32]byte(c.Next), Transport: [32]byte(c.Transport), Name: c.Name,
		raw: own, did: DIDFromBytes([32]byte(h.Sum(nil))), pub: pub,
	}, nil
}

// splitInception finds the signed part of a record, and its two signatures. The suite decides how long a signature is and
// stands within, so each suite is tried: a record has the length of one alone. It returns nils where none fits.
func splitInception(raw []byte, c *inceptionContent) (signed, full, possession []byte) {
	for _, suite := range trust.Suites() {
		size := composite.SignatureSize(suite)
		cut := len(raw) - size - ed25519.SignatureSize
		if cut < 1 {
			continue
		}
		*c = inceptionContent{}
		if canonical.Unmarshal(raw[1:cut], c, trust.MaxInception) == nil && c.Suite == suite {
			return raw[:cut:cut], raw[cut : cut+size], raw[cut+size:]
		}
	}
	return nil, nil, nil
}

// Encode is the record as it travels. The caller must not change it.
func (i *Inception) Encode() []byte { return i.raw }

// DID is "did:omega:" and base32 of SHA-256("omega/inception/1" || 0x00 || record without its signatures).
func (i *Inception) DID() DID { return i.did }

// PublicKey is the composite key of the record; one value, shared.
func (i *Inception) PublicKey() *composite.PublicKey { return i.pub }

// TransportKey is the Ed25519 public key of the libp2p host.
func (i *Inception) TransportKey() ed25519.PublicKey {
	return append(ed25519.PublicKey(nil), i.Transport[:]...)
}
