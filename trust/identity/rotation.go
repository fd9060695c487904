package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
)

const (
	contextRotation = "omega/rotation/1"
	rotationVersion = 1
)

var (
	// ErrRotation is wrapped by every refusal of a rotation record.
	ErrRotation = errors.New("not a valid rotation")
	// ErrContested: another rotation of the same number is as valid. Whoever made one of them stole the next key as well.
	ErrContested = errors.New("two rotations of one number")
)

// Rotation is how an identity goes from one composite key to the next without changing its DID. It is signed by the new
// key, whose hash the record before it (the inception, or the rotation before) committed to: so the current key alone can
// never make one (pre-rotation, as in KERI). It says how much of each chain stands under the keys before; what else they
// sign does not count. It is immutable once decoded.
type Rotation struct {
	Version       uint8 // of the record: 1
	Suite         trust.Suite
	Swarm         trust.SwarmID // whose chains Authority and Activity count
	DID           DID
	Number        uint32   // 1 for the first, at most trust.MaxRotations
	Key           []byte   // the new composite public key
	Next          [32]byte // hash of the one after (NextHash)
	Authority     uint64   // entries of the authority chain that stand: the rotation's own entry has this number
	AuthorityHead [32]byte // hash of the last of them; zero where there is none
	Activity      uint64   // entries of the activity chain that stand
	ActivityHead  [32]byte

	raw  []byte
	hash [32]byte
	pub  *composite.PublicKey
}

type rotationContent struct {
	Suite         trust.Suite `cbor:"1,keyasint"`
	Swarm         []byte      `cbor:"2,keyasint"`
	DID           []byte      `cbor:"3,keyasint"`
	Number        uint32      `cbor:"4,keyasint"`
	Key           []byte      `cbor:"5,keyasint"`
	Next          []byte      `cbor:"6,keyasint"`
	Authority     uint64      `cbor:"7,keyasint"`
	AuthorityHead []byte      `cbor:"8,keyasint"`
	Activity      uint64      `cbor:"9,keyasint"`
	ActivityHead  []byte      `cbor:"10,keyasint"`
}

type rotationWire struct {
	Content   []byte `cbor:"1,keyasint"`
	Signature []byte `cbor:"2,keyasint"`
}

// Standing is how much of an identity's chains a rotation lets stand.
type Standing struct {
	Authority     uint64
	AuthorityHead [32]byte
	Activity      uint64
	ActivityHead  [32]byte
}

// NewRotation makes the record by which key becomes did's key number n; next is the hash of the one after.
func NewRotation(swarm trust.SwarmID, did DID, n uint32, key *composite.PrivateKey, next [32]byte, s Standing) (*Rotation, error) {
	id, err := did.Bytes()
	if err != nil {
		return nil, err
	}
	content, err := canonical.Marshal(rotationContent{
		Suite: key.Suite(), Swarm: swarm[:], DID: id[:], Number: n, Key: key.Public().Bytes(), Next: next[:],
		Authority: s.Authority, AuthorityHead: s.AuthorityHead[:], Activity: s.Activity, ActivityHead: s.ActivityHead[:],
	})
	if err != nil {
		return nil, err
	}
	sig, err := key.Sign(contextRotation, append([]byte{rotationVersion}, content...))
	if err != nil {
		return nil, err
	}
	b, err := canonical.Marshal(rotationWire{Content: content, Signature: sig})
	if err != nil {
		return nil, err
	}
	return DecodeRotation(append([]byte{rotationVersion}, b...))
}

// DecodeRotation reads a record of at most trust.MaxRotation bytes: version byte, then canonical CBOR of content and
// signature. The signature by the record's own key has been verified when it returns without error; that the key is the
// one committed to is Follows's.
func DecodeRotation(raw []byte) (*Rotation, error) {
	if len(raw) > trust.MaxRotation || len(raw) < 1 {
		return nil, fmt.Errorf("identity: %d bytes: %w", len(raw), ErrRotation)
	}
	if raw[0] != rotationVersion {
		return nil, fmt.Errorf("identity: version %d: %w", raw[0], ErrRotation)
	}
	var w rotationWire
	if err := canonical.Unmarshal(raw[1:], &w, trust.MaxRotation); err != nil {
		return nil, fmt.Errorf("identity: %w: %w", ErrRotation, err)
	}
	var c rotationContent
	if err := canonical.Unmarshal(w.Content, &c, trust.MaxRotation); err != nil {
		return nil, fmt.Errorf("identity: %w: %w", ErrRotation, err)
	}
	for _, b := range [][]byte{c.Swarm, c.DID, c.Next, c.AuthorityHead, c.ActivityHead} {
		if len(b) != 32 {
			return nil, fmt.Errorf("identity: a hash of %d bytes: %w", len(b), ErrRotation)
		}
	}
	if !c.Suite.Known() || c.Number < 1 || c.Number > trust.MaxRotations {
		return nil, fmt.Errorf("identity: suite %d, number %d: %w", c.Suite, c.Number, ErrRotation)
	}
	if (c.Authority == 0) != ([32]byte(c.AuthorityHead) == [32]byte{}) || (c.Activity == 0) != ([32]byte(c.ActivityHead) == [32]byte{}) {
		return nil, fmt.Errorf("identity: what stands and its hash disagree: %w", ErrRotation)
	}
	pub, err := composite.ParsePublicKey(c.Suite, c.Key)
	if err != nil {
		return nil, fmt.Errorf("identity: %w: %w", ErrRotation, err)
	}
	signed := append([]byte{rotationVersion}, w.Content...)
	if !pub.Verify(contextRotation, signed, w.Signature) {
		return nil, fmt.Errorf("identity: signature: %w", ErrRotation)
	}
	pub.Compact() // thousands are held, and few are used
	h := sha256.New()
	h.Write([]byte(contextRotation))
	h.Write([]byte{0})
	h.Write(signed)
	return &Rotation{
		Version: rotationVersion, Suite: c.Suite, Swarm: trust.SwarmID(c.Swarm), DID: DIDFromBytes([32]byte(c.DID)), Number: c.Number,
		Key: c.Key, Next: [32]byte(c.Next), Authority: c.Authority, AuthorityHead: [32]byte(c.AuthorityHead),
		Activity: c.Activity, ActivityHead: [32]byte(c.ActivityHead),
		raw: append([]byte(nil), raw...), hash: [32]byte(h.Sum(nil)), pub: pub,
	}, nil
}

// Encode is the record as it travels. The caller must not change it.
func (r *Rotation) Encode() []byte { return r.raw }

// Hash identifies what the record says: it does not cover the signature, of which many may be valid.
func (r *Rotation) Hash() [32]byte { return r.hash }

// PublicKey is the new composite key; one value, shared.
func (r *Rotation) PublicKey() *composite.PublicKey { return r.pub }

// Keys is the public history of an identity's key: its inception, and each rotation that followed. It is a value:
// Rotated makes another.
type Keys struct {
	Inception *Inception
	Rotations []*Rotation // number 1 first
}

// Number is how many rotations led to the current key.
func (k Keys) Number() uint32 { return uint32(len(k.Rotations)) }

// Current is the key that the identity signs with now.
func (k Keys) Current() *composite.PublicKey { return k.Of(k.Number()) }

// Of is key number n, 0 being the inception's; nil where there is none.
func (k Keys) Of(n uint32) *composite.PublicKey {
	switch {
	case n == 0:
		return k.Inception.PublicKey()
	case n <= k.Number():
		return k.Rotations[n-1].PublicKey()
	}
	return nil
}

// Next is the hash of the key that the next rotation must show.
func (k Keys) Next() [32]byte {
	if n := len(k.Rotations); n > 0 {
		return k.Rotations[n-1].Next
	}
	return k.Inception.Next
}

// Follows reports why r cannot be the identity's next rotation; nil where it can.
func (k Keys) Follows(r *Rotation) error {
	switch n := len(k.Rotations); {
	case r.DID != k.Inception.DID():
		return fmt.Errorf("identity: rotation of %s: %w", r.DID.Short(), ErrRotation)
	case r.Suite != k.Inception.Suite:
		return fmt.Errorf("identity: rotation to another suite: %w", ErrRotation)
	case r.Number != uint32(n)+1:
		return fmt.Errorf("identity: rotation %d after %d: %w", r.Number, n, ErrRotation)
	case NextHash(r.pub) != k.Next():
		return fmt.Errorf("identity: rotation %d of %s shows another key than was committed to: %w", r.Number, r.DID.Short(), ErrRotation)
	case n > 0 && (r.Swarm != k.Rotations[n-1].Swarm || r.Authority <= k.Rotations[n-1].Authority):
		return fmt.Errorf("identity: rotation %d of %s takes back the one before: %w", r.Number, r.DID.Short(), ErrRotation)
	}
	return nil
}

// Rotated is k with r added; the caller has asked Follows.
func (k Keys) Rotated(r *Rotation) Keys {
	n := len(k.Rotations)
	return Keys{Inception: k.Inception, Rotations: append(k.Rotations[:n:n], r)}
}

// NumberAt is the number of the key that signs entry seq of the authority chain (or the activity chain).
func (k Keys) NumberAt(authority bool, seq uint64) uint32 {
	for n := len(k.Rotations); n > 0; n-- {
		from := k.Rotations[n-1].Activity
		if authority {
			from = k.Rotations[n-1].Authority
		}
		if seq >= from {
			return uint32(n)
		}
	}
	return 0
}
