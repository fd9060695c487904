package anonymous

import (
	"bytes"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/group"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

// Errors of keys and encodings.
var (
	// ErrPoint: not the one encoding of a ristretto255 element (RFC 9496 §4.3.1), or that of the identity.
	ErrPoint = errors.New("not a point")
	// ErrScalar: not a scalar below the group's order in 32 bytes.
	ErrScalar = errors.New("not a scalar")
	// ErrPossession: the proof that someone holds the key does not verify.
	ErrPossession = errors.New("anonymous: no proof that the key is held")
)

// Domain separation: each hash has its own.
const (
	domainKey        = "omega/anonymous-key/1"
	domainNonce      = "omega/anonymous-nonce/1"
	domainPossession = "omega/anonymous-possession/1"
	domainTag        = "omega/anonymous-tag/1"
	domainReport     = "omega/anonymous-report/1"
	domainChallenge  = "omega/anonymous-challenge/1"
	domainOrder      = "omega/anonymous-order/1"
)

const (
	pointSize  = 32
	scalarSize = 32
	// PossessionSize is the length of a proof of possession.
	PossessionSize = 2 * scalarSize
)

// PublicKey is a ristretto255 element other than the identity, in its encoding.
type PublicKey [pointSize]byte

// Key signs reports. It is safe for concurrent use.
type Key struct {
	x      group.Scalar
	public PublicKey
}

// NewKey makes the key of a secret of at least 32 random bytes' strength, always the same of the same.
func NewKey(secret [32]byte) (*Key, error) {
	x := group.Ristretto255.HashToScalar(secret[:], []byte(domainKey))
	if x.IsZero() {
		return nil, fmt.Errorf("anonymous: key: %w", ErrScalar)
	}
	public, err := encode(group.Ristretto255.NewElement().MulGen(x))
	if err != nil {
		return nil, err
	}
	return &Key{x, public}, nil
}

// Public is the key that others know.
func (k *Key) Public() PublicKey { return k.public }

// Possess proves to whoever knows swarm and member that it holds the key: a Schnorr signature (RFC 8235 §3), so that
// nobody gives out another's key for his own.
func (k *Key) Possess(swarm trust.SwarmID, member identity.DID) ([]byte, error) {
	who, err := possessor(swarm, member, k.public)
	if err != nil {
		return nil, err
	}
	u, err := k.nonce(who)
	if err != nil {
		return nil, err
	}
	r, err := encode(group.Ristretto255.NewElement().MulGen(u))
	if err != nil {
		return nil, err
	}
	c := hashToScalar(domainPossession, who, r[:])
	return appendScalars(nil, c, answer(u, c, k.x))
}

// VerifyPossession checks what Possess gives. Errors: ErrPoint, ErrPossession.
func VerifyPossession(swarm trust.SwarmID, member identity.DID, key PublicKey, proof []byte) error {
	p, err := decodePoint(key[:])
	if err != nil {
		return err
	}
	if len(proof) != PossessionSize {
		return fmt.Errorf("%d bytes: %w", len(proof), ErrPossession)
	}
	c, err := decodeScalar(proof[:scalarSize])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPossession, err)
	}
	s, err := decodeScalar(proof[scalarSize:])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPossession, err)
	}
	who, err := possessor(swarm, member, key)
	if err != nil {
		return err
	}
	r, err := encode(combine(s, group.Ristretto255.Generator(), c, p))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPossession, err)
	}
	if !hashToScalar(domainPossession, who, r[:]).IsEqual(c) {
		return ErrPossession
	}
	return nil
}

func possessor(swarm trust.SwarmID, member identity.DID, key PublicKey) ([]byte, error) {
	did, err := member.Bytes()
	if err != nil {
		return nil, fmt.Errorf("anonymous: %w", err)
	}
	return bytes.Join([][]byte{swarm[:], did[:], key[:]}, nil), nil
}

// nonce is a fresh secret scalar. The key and what is signed are hashed in with the kernel's randomness: were that ever to
// repeat, two messages would still not share a nonce.
func (k *Key) nonce(context []byte) (group.Scalar, error) {
	var fresh [64]byte
	if _, err := rand.Read(fresh[:]); err != nil {
		return nil, fmt.Errorf("anonymous: %w", err)
	}
	x, err := k.x.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("anonymous: %w", err)
	}
	defer clear(x)
	return hashToScalar(domainNonce, fresh[:], x, context), nil
}

// hashToScalar hashes parts, each with its length before it, by hash_to_field of RFC 9380 with SHA-512.
func hashToScalar(domain string, parts ...[]byte) group.Scalar {
	return group.Ristretto255.HashToScalar(framed(parts), []byte(domain))
}

// hashParts is SHA-512 of parts, domain first, each with its length before it.
func hashParts(domain string, parts ...[]byte) [sha512.Size]byte {
	return sha512.Sum512(framed(append([][]byte{[]byte(domain)}, parts...)))
}

func framed(parts [][]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
	}
	return b
}

// combine is s*g + c*p.
func combine(s group.Scalar, g group.Element, c group.Scalar, p group.Element) group.Element {
	a := group.Ristretto255.NewElement().Mul(g, s)
	b := group.Ristretto255.NewElement().Mul(p, c)
	return a.Add(a, b)
}

// answer is u - c*x.
func answer(u, c, x group.Scalar) group.Scalar {
	s := group.Ristretto255.NewScalar().Mul(c, x)
	return s.Sub(u, s)
}

func encode(e group.Element) (b [pointSize]byte, err error) {
	raw, err := e.MarshalBinary()
	if err != nil {
		return b, fmt.Errorf("anonymous: %w", err)
	}
	if len(raw) != pointSize {
		return b, fmt.Errorf("anonymous: %d bytes: %w", len(raw), ErrPoint)
	}
	return [pointSize]byte(raw), nil
}

func decodePoint(b []byte) (group.Element, error) {
	e := group.Ristretto255.NewElement()
	if len(b) != pointSize {
		return nil, fmt.Errorf("anonymous: %d bytes: %w", len(b), ErrPoint)
	}
	if err := e.UnmarshalBinary(b); err != nil {
		return nil, fmt.Errorf("anonymous: %w: %w", ErrPoint, err)
	}
	// A second encoding of a key would be a second member, and of a tag a second slot.
	if again, err := encode(e); err != nil || !bytes.Equal(again[:], b) || e.IsIdentity() {
		return nil, fmt.Errorf("anonymous: %w", ErrPoint)
	}
	return e, nil
}

func decodeScalar(b []byte) (group.Scalar, error) {
	s := group.Ristretto255.NewScalar()
	if err := s.UnmarshalBinary(b); err != nil {
		return nil, fmt.Errorf("anonymous: %w: %w", ErrScalar, err)
	}
	return s, nil
}

func appendScalars(b []byte, scalars ...group.Scalar) ([]byte, error) {
	for _, s := range scalars {
		raw, err := s.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("anonymous: %w", err)
		}
		b = append(b, raw...)
	}
	return b, nil
}
