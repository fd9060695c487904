package root

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudflare/circl/sign/slhdsa"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
)

const (
	// contextEntry separates hashes and operators' signatures of root entries from everything else.
	contextEntry = "omega/root/1"
	// contextRecovery separates the recovery keys'.
	contextRecovery = "omega/root-recovery/1"
	entryVersion    = 1
	// SignatureSizeRecovery is that of SLH-DSA-SHA2-128s (FIPS 205 table 2).
	SignatureSizeRecovery = 7856
)

// ErrEntry is wrapped where bytes are no root entry.
var ErrEntry = errors.New("not a root entry")

// Hash is SHA-256("omega/root/1" || 0x00 || content): it leaves the signatures out.
type Hash [32]byte

// String is h in hex, 64 digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Short is the first 12 digits, for people.
func (h Hash) Short() string { return hex.EncodeToString(h[:6]) }

// Kind says what a root entry changes.
type Kind uint16

// Kinds of root entries.
const (
	KindAdd      Kind = 1  // a new operator
	KindRemove   Kind = 2  // an operator less
	KindRotate   Kind = 3  // an operator's new inception in place of its old
	KindIssuers  Kind = 4  // who may issue, and what
	KindRevoke   Kind = 5  // a peer is out for good
	KindUnrevoke Kind = 6  // and in again
	KindRelease  Kind = 7  // the hash of a module or binary
	KindPolicy   Kind = 8  // the response policy
	KindRetire   Kind = 9  // the swarm's hand-over to another
	KindRecover  Kind = 10 // which branch of a fork stands
)

// String is the kind's name as `omega root propose` takes it.
func (k Kind) String() string {
	for _, x := range kinds() {
		if x.kind == k {
			return x.name
		}
	}
	return fmt.Sprintf("kind(%d)", uint16(k))
}

// Known reports whether this build knows what k means.
func (k Kind) Known() bool {
	return slices.ContainsFunc(kinds(), func(x kindName) bool { return x.kind == k })
}

type kindName struct {
	kind Kind
	name string
}

func kinds() []kindName {
	return []kindName{
		{KindAdd, "operator-add"}, {KindRemove, "operator-remove"}, {KindRotate, "operator-rotate"}, {KindIssuers, "issuers"},
		{KindRevoke, "revoke"}, {KindUnrevoke, "unrevoke"}, {KindRelease, "release"}, {KindPolicy, "policy"},
		{KindRetire, "retire"}, {KindRecover, "recover"},
	}
}

// Signature is one signer's: an operator's (its DID's 32 bytes) or, under a recovery, a recovery key's (the key itself).
type Signature struct {
	Signer []byte `cbor:"1,keyasint"`
	Bytes  []byte `cbor:"2,keyasint"`
}

// Entry is one entry of the root chain. It is immutable: signing makes another.
type Entry struct {
	Swarm      trust.SwarmID
	Seq        uint64 // from 1; genesis is 0
	Prev       Hash   // of the entry before; the swarm id for the first
	Time       int64  // Unix nanoseconds as the proposer claims; never falls along the chain
	Kind       Kind
	Critical   bool // who does not know the kind must not act on what is allowed after
	Body       []byte
	Signatures []Signature // sorted by signer, no two of one

	content []byte
	hash    Hash
}

type contentWire struct {
	Swarm    []byte `cbor:"1,keyasint"`
	Seq      uint64 `cbor:"2,keyasint"`
	Prev     []byte `cbor:"3,keyasint"`
	Time     int64  `cbor:"4,keyasint"`
	Kind     Kind   `cbor:"5,keyasint"`
	Critical bool   `cbor:"6,keyasint"`
	Body     []byte `cbor:"7,keyasint"`
}

type entryWire struct {
	Content    []byte      `cbor:"1,keyasint"` // version byte, contentWire
	Signatures []Signature `cbor:"2,keyasint"`
}

// New makes the entry that would follow parent, without signatures. It does not ask whether it may.
func New(parent *State, body Body, now int64) (*Entry, error) {
	raw, err := encodeBody(body)
	if err != nil {
		return nil, err
	}
	return newEntry(parent.Swarm, parent.Seq+1, parent.Head, max(now, parent.Time), body.Kind(), true, raw)
}

func newEntry(swarm trust.SwarmID, seq uint64, prev Hash, now int64, kind Kind, critical bool, body []byte) (*Entry, error) {
	c, err := canonical.Marshal(contentWire{Swarm: swarm[:], Seq: seq, Prev: prev[:], Time: now, Kind: kind, Critical: critical, Body: body})
	if err != nil {
		return nil, err
	}
	return decodeWire(entryWire{Content: append([]byte{entryVersion}, c...), Signatures: []Signature{}})
}

// Decode reads a root entry of at most trust.MaxRootBody bytes. It verifies no signature.
func Decode(raw []byte) (*Entry, error) {
	var w entryWire
	if err := canonical.Unmarshal(raw, &w, trust.MaxRootBody); err != nil {
		return nil, fmt.Errorf("root: %w: %w", ErrEntry, err)
	}
	return decodeWire(w)
}

func decodeWire(w entryWire) (*Entry, error) {
	if len(w.Content) < 1 || w.Content[0] != entryVersion {
		return nil, fmt.Errorf("root: unknown version: %w", ErrEntry)
	}
	var c contentWire
	if err := canonical.Unmarshal(w.Content[1:], &c, trust.MaxRootBody); err != nil {
		return nil, fmt.Errorf("root: %w: %w", ErrEntry, err)
	}
	if len(c.Swarm) != 32 || len(c.Prev) != 32 || c.Seq < 1 || c.Seq > trust.MaxRootEntries || c.Time <= 0 {
		return nil, fmt.Errorf("root: swarm, link, number or time: %w", ErrEntry)
	}
	if len(w.Signatures) > trust.MaxOperators {
		return nil, fmt.Errorf("root: %d signatures, at most %d: %w", len(w.Signatures), trust.MaxOperators, ErrEntry)
	}
	for i, s := range w.Signatures {
		if len(s.Signer) != 32 || len(s.Bytes) == 0 || len(s.Bytes) > SignatureSizeRecovery {
			return nil, fmt.Errorf("root: signature %d: %w", i, ErrEntry)
		}
		if i > 0 && bytes.Compare(w.Signatures[i-1].Signer, s.Signer) >= 0 {
			return nil, fmt.Errorf("root: signatures must be sorted by signer, without repeats: %w", ErrEntry)
		}
	}
	e := &Entry{
		Swarm: trust.SwarmID(c.Swarm), Seq: c.Seq, Prev: Hash(c.Prev), Time: c.Time, Kind: c.Kind, Critical: c.Critical, Body: c.Body,
		Signatures: w.Signatures, content: w.Content,
	}
	if e.Kind.Known() {
		if _, err := DecodeBody(e.Kind, e.Body); err != nil {
			return nil, err
		}
	}
	h := sha256.New()
	h.Write([]byte(contextEntry))
	h.Write([]byte{0})
	h.Write(e.content)
	h.Sum(e.hash[:0])
	return e, nil
}

// Encode is the entry as it travels, at most trust.MaxRootBody bytes.
func (e *Entry) Encode() ([]byte, error) {
	raw, err := canonical.Marshal(entryWire{Content: e.content, Signatures: e.Signatures})
	if err == nil && len(raw) > trust.MaxRootBody {
		err = fmt.Errorf("root: entry of %d bytes: %w", len(raw), canonical.ErrTooLong)
	}
	return raw, err
}

// Hash names what the entry says.
func (e *Entry) Hash() Hash { return e.hash }

// Signer is an operator's identity.
type Signer interface {
	DID() identity.DID
	Sign(context string, msg []byte) ([]byte, error)
}

// SignedBy is e with the signature of an operator added.
func (e *Entry) SignedBy(s Signer) (*Entry, error) {
	did, err := s.DID().Bytes()
	if err != nil {
		return nil, err
	}
	sig, err := s.Sign(contextEntry, e.content)
	if err != nil {
		return nil, fmt.Errorf("root: sign: %w", err)
	}
	return e.with(Signature{Signer: did[:], Bytes: sig}), nil
}

// with is e with one signature more, in place of an older one of the same signer.
func (e *Entry) with(s Signature) *Entry {
	next := *e
	next.Signatures = slices.DeleteFunc(slices.Clone(e.Signatures), func(o Signature) bool { return bytes.Equal(o.Signer, s.Signer) })
	next.Signatures = append(next.Signatures, s)
	slices.SortFunc(next.Signatures, func(a, b Signature) int { return bytes.Compare(a.Signer, b.Signer) })
	return &next
}

// Merge is e with the signatures that other, a copy of it signed elsewhere, has more.
func (e *Entry) Merge(other *Entry) (*Entry, error) {
	if other.hash != e.hash {
		return nil, fmt.Errorf("root: %s and %s are different entries: %w", e.hash.Short(), other.hash.Short(), ErrEntry)
	}
	for _, s := range other.Signatures {
		if !slices.ContainsFunc(e.Signatures, func(o Signature) bool { return bytes.Equal(o.Signer, s.Signer) }) {
			e = e.with(s)
		}
	}
	return e, nil
}

// valid counts the signatures of operators that verify; a wrong one, or a stranger's, spoils the entry.
func (e *Entry) valid(operators []Operator) (int, error) {
	for _, s := range e.Signatures {
		did := identity.DIDFromBytes([32]byte(s.Signer))
		i := slices.IndexFunc(operators, func(o Operator) bool { return o.DID == did })
		if i < 0 {
			return 0, fmt.Errorf("root: signed by %s, which is no operator there: %w", did.Short(), ErrUnsigned)
		}
		if !operators[i].Inception.PublicKey().Verify(contextEntry, e.content, s.Bytes) {
			return 0, fmt.Errorf("root: the signature of %s does not verify: %w", operators[i].Inception.Name, ErrUnsigned)
		}
	}
	return len(e.Signatures), nil
}

// recovered counts the signatures of recovery keys that verify.
func (e *Entry) recovered(keys [][]byte) (int, error) {
	for _, s := range e.Signatures {
		if !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, s.Signer) }) {
			return 0, fmt.Errorf("root: signed by a key that is no recovery key: %w", ErrUnsigned)
		}
		if len(s.Bytes) != SignatureSizeRecovery {
			return 0, fmt.Errorf("root: recovery signature of %d bytes: %w", len(s.Bytes), ErrUnsigned)
		}
		key := slhdsa.PublicKey{ID: slhdsa.SHA2_128s}
		if err := key.UnmarshalBinary(s.Signer); err != nil {
			return 0, fmt.Errorf("root: recovery key: %w: %w", ErrUnsigned, err)
		}
		if !slhdsa.Verify(&key, slhdsa.NewMessage(e.content), s.Bytes, []byte(contextRecovery)) {
			return 0, fmt.Errorf("root: a recovery signature does not verify: %w", ErrUnsigned)
		}
	}
	return len(e.Signatures), nil
}

// ErrUnsigned is wrapped where an entry has not the signatures it needs.
var ErrUnsigned = errors.New("not signed as it must be")

// MissingError says that what is there verifies, and is not enough.
type MissingError struct{ Have, Need int }

// Error implements error.
func (e *MissingError) Error() string {
	return fmt.Sprintf("root: %d of %d signatures: %v", e.Have, e.Need, ErrUnsigned)
}

// Unwrap makes it an ErrUnsigned.
func (e *MissingError) Unwrap() error { return ErrUnsigned }
