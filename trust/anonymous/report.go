package anonymous

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudflare/circl/group"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
)

// Errors of reports.
var (
	// ErrFormat: bytes or a report that is not as its format asks.
	ErrFormat = errors.New("anonymous: not a report")
	// ErrSignature: nobody of the ring signed this.
	ErrSignature = errors.New("anonymous: signature does not verify")
)

const version = 0x01

// maxReport bounds an encoded report before it is parsed.
const maxReport = trust.MaxAnonymousBody + trust.MaxRing*(pointSize+scalarSize) + 256

// Tag is what one key gives for one slot: the same for every report it signs there, and unlike any other of its own.
type Tag [pointSize]byte

// Report is what someone of Ring says. It is a linkable ring signature after Liu, Wei and Wong (ACISP 2004), its tag over
// a base of its own for each slot.
type Report struct {
	Epoch Epoch
	Slot  uint8 // below trust.AnonymousSlots
	Ring  Ring
	Body  []byte // 1 to trust.MaxAnonymousBody bytes
	Tag   Tag

	challenge []byte // of the ring's first key
	responses []byte // a scalar for each key
}

// Sign makes the report of body in a slot that the key did not use before: a second one in a slot is refused by all, and
// tells them that both have one author. The key must be in the ring. Errors: ErrFormat, ErrRing, ErrPoint.
//
// Its time does not depend on the key nor, but for which memory it touches, on the key's place in the ring.
func (k *Key) Sign(swarm trust.SwarmID, epoch Epoch, slot uint8, ring Ring, body []byte) (*Report, error) {
	at := slices.Index(ring, k.public)
	if at < 0 {
		return nil, fmt.Errorf("the signer's key is not in it: %w", ErrRing)
	}
	base := tagBase(swarm, epoch, slot)
	tag := group.Ristretto255.NewElement().Mul(base, k.x)
	encoded, err := encode(tag)
	if err != nil {
		return nil, err
	}
	r := &Report{Epoch: epoch, Slot: slot, Ring: slices.Clone(ring), Body: bytes.Clone(body), Tag: encoded}
	points, err := r.points()
	if err != nil {
		return nil, err
	}
	digest := r.digest(swarm)
	u, err := k.nonce(digest)
	if err != nil {
		return nil, err
	}
	n := len(ring)
	challenges, responses := make([]group.Scalar, n), make([]group.Scalar, n)
	left, right := group.Ristretto255.NewElement().MulGen(u), group.Ristretto255.NewElement().Mul(base, u)
	for step := 1; ; step++ {
		i := (at + step) % n
		if challenges[i], err = link(digest, left, right); err != nil {
			return nil, err
		}
		if step == n {
			break
		}
		if responses[i], err = k.nonce(digest); err != nil {
			return nil, err
		}
		left = combine(responses[i], group.Ristretto255.Generator(), challenges[i], points[i])
		right = combine(responses[i], base, challenges[i], tag)
	}
	responses[at] = answer(u, challenges[at], k.x)
	if r.challenge, err = appendScalars(nil, challenges[0]); err != nil {
		return nil, err
	}
	if r.responses, err = appendScalars(nil, responses...); err != nil {
		return nil, err
	}
	return r, nil
}

// Verify checks that someone of the ring signed r for the swarm. counts says for each key whether its holder is a member
// above the threshold: what r proves of its author is what counts says of every key. It does not check the epoch, nor
// whether the slot was used before: see Spent. Errors: ErrFormat, ErrRing, ErrPoint, ErrScalar, ErrSignature.
func (r *Report) Verify(swarm trust.SwarmID, counts func(PublicKey) bool) error {
	if err := r.validate(); err != nil {
		return err
	}
	for i, k := range r.Ring { // before any arithmetic: a lookup costs little
		if !counts(k) {
			return fmt.Errorf("key %d does not count: %w", i, ErrRing)
		}
	}
	points, err := r.points()
	if err != nil {
		return err
	}
	tag, err := decodePoint(r.Tag[:])
	if err != nil {
		return err
	}
	first, err := decodeScalar(r.challenge)
	if err != nil {
		return err
	}
	base, digest := tagBase(swarm, r.Epoch, r.Slot), r.digest(swarm)
	c := first
	for i, p := range points {
		s, err := decodeScalar(r.responses[i*scalarSize : (i+1)*scalarSize])
		if err != nil {
			return err
		}
		left := combine(s, group.Ristretto255.Generator(), c, p)
		right := combine(s, base, c, tag)
		if c, err = link(digest, left, right); err != nil {
			return err
		}
	}
	if !c.IsEqual(first) {
		return ErrSignature
	}
	return nil
}

// validate checks all of the form but whether points and scalars are such.
func (r *Report) validate() error {
	if err := r.statement(); err != nil {
		return err
	}
	if len(r.challenge) != scalarSize || len(r.responses) != len(r.Ring)*scalarSize {
		return fmt.Errorf("%d bytes for %d keys: %w", len(r.responses), len(r.Ring), ErrFormat)
	}
	return nil
}

// statement checks the form of what is signed.
func (r *Report) statement() error {
	if r.Slot >= trust.AnonymousSlots {
		return fmt.Errorf("slot %d of %d: %w", r.Slot, trust.AnonymousSlots, ErrFormat)
	}
	if len(r.Body) == 0 || len(r.Body) > trust.MaxAnonymousBody {
		return fmt.Errorf("%d bytes, 1 to %d: %w", len(r.Body), trust.MaxAnonymousBody, ErrFormat)
	}
	return r.Ring.validate()
}

// points decodes the ring's keys, after a check of the form.
func (r *Report) points() ([]group.Element, error) {
	if err := r.statement(); err != nil {
		return nil, err
	}
	points := make([]group.Element, len(r.Ring))
	for i, k := range r.Ring {
		p, err := decodePoint(k[:])
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
		points[i] = p
	}
	return points, nil
}

// digest binds each link of the ring to everything the report says, its tag included.
func (r *Report) digest(swarm trust.SwarmID) []byte {
	keys := make([]byte, 0, len(r.Ring)*pointSize)
	for _, k := range r.Ring {
		keys = append(keys, k[:]...)
	}
	h := hashParts(domainReport, swarm[:], slotBytes(r.Epoch, r.Slot), keys, r.Body, r.Tag[:])
	return h[:]
}

// tagBase is a point whose logarithm nobody knows, another for each swarm, epoch and slot.
func tagBase(swarm trust.SwarmID, epoch Epoch, slot uint8) group.Element {
	return group.Ristretto255.HashToElement(framed([][]byte{swarm[:], slotBytes(epoch, slot)}), []byte(domainTag))
}

func slotBytes(epoch Epoch, slot uint8) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(epoch)), slot)
}

// link is the challenge that follows two commitments.
func link(digest []byte, left, right group.Element) (group.Scalar, error) {
	l, err := encode(left)
	if err != nil {
		return nil, err
	}
	r, err := encode(right)
	if err != nil {
		return nil, err
	}
	return hashToScalar(domainChallenge, digest, l[:], r[:]), nil
}

type reportBody struct {
	Epoch     uint64 `cbor:"1,keyasint"`
	Slot      uint8  `cbor:"2,keyasint"`
	Ring      []byte `cbor:"3,keyasint"`
	Body      []byte `cbor:"4,keyasint"`
	Tag       []byte `cbor:"5,keyasint"`
	Challenge []byte `cbor:"6,keyasint"`
	Responses []byte `cbor:"7,keyasint"`
}

// Encode gives the bytes that Decode reads.
func (r *Report) Encode() ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	b := reportBody{Epoch: uint64(r.Epoch), Slot: r.Slot, Body: r.Body, Tag: r.Tag[:], Challenge: r.challenge, Responses: r.responses}
	for _, k := range r.Ring {
		b.Ring = append(b.Ring, k[:]...)
	}
	encoded, err := canonical.Marshal(b)
	if err != nil {
		return nil, err
	}
	return append([]byte{version}, encoded...), nil
}

// Decode reads a report, at most maxReport bytes, in its one encoding. It verifies nothing. Errors: ErrFormat, ErrRing.
func Decode(data []byte) (*Report, error) {
	if len(data) == 0 || len(data) > maxReport || data[0] != version {
		return nil, fmt.Errorf("%d bytes: %w", len(data), ErrFormat)
	}
	var b reportBody
	if err := canonical.Unmarshal(data[1:], &b, maxReport-1); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if len(b.Tag) != pointSize || len(b.Ring)%pointSize != 0 || len(b.Ring) > trust.MaxRing*pointSize {
		return nil, fmt.Errorf("a tag of %d bytes, keys of %d: %w", len(b.Tag), len(b.Ring), ErrFormat)
	}
	r := &Report{Epoch: Epoch(b.Epoch), Slot: b.Slot, Body: b.Body, Tag: Tag(b.Tag), challenge: b.Challenge, responses: b.Responses}
	for k := range slices.Chunk(b.Ring, pointSize) {
		r.Ring = append(r.Ring, PublicKey(k))
	}
	if err := r.validate(); err != nil {
		return nil, err
	}
	return r, nil
}
