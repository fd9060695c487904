package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"

	"crypto/ed25519"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

// contextEntry separates entry signatures and hashes from everything else.
const contextEntry = "omega/entry/1"

// entryVersion is the first byte of an entry.
const entryVersion = 1

// Hash is SHA-256("omega/entry/1" || 0x00 || entry without its signature).
type Hash [32]byte

// String is h in hex, 64 digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Head names one entry: usually the last of a feed.
type Head struct {
	Author identity.DID
	Chain  Chain
	Seq    uint64
	Hash   Hash
}

// Entry is one record of a feed. It is immutable once decoded; its byte slices belong to it.
type Entry struct {
	Version   uint8
	Swarm     trust.SwarmID
	Author    identity.DID
	Chain     Chain
	Seq       uint64 // from 0
	Prev      Hash   // of entry Seq-1; zero for the first
	BootEpoch uint64 // counts the author's starts; never falls along a chain
	Time      int64  // Unix nanoseconds by the author's clock; never falls along a chain
	Kind      Kind
	Epoch     uint64 // where signed by an epoch key: number of its KindEpoch entry plus 1; 0 where Full
	Seen      []Head // heads the author had that its earlier entries of this chain did not name; sorted
	Body      []byte
	Sig       []byte // Ed25519 by the epoch key, 64 bytes; nil where Full is set
	Full      []byte // composite signature, 3373 bytes; nil where Sig is set

	// Rotation is the number of the author's key that signed it, 0 for its inception's, as the ledger found; it does not
	// travel. It is set before the entry is handed out.
	Rotation uint32

	raw    []byte
	hash   Hash
	author [32]byte
	sealed atomic.Bool
}

// Raw is the entry as it travels and is stored. The caller must not change it.
func (e *Entry) Raw() []byte { return e.raw }

// Hash identifies what the entry says: it does not cover the signature, of which many may be valid.
func (e *Entry) Hash() Hash { return e.hash }

// ID is the first 16 bytes of the hash in hex, 32 digits: the id of whatever the entry carries, everywhere.
func (e *Entry) ID() string { return hex.EncodeToString(e.hash[:16]) }

// Head names e.
func (e *Entry) Head() Head { return Head{Author: e.Author, Chain: e.Chain, Seq: e.Seq, Hash: e.hash} }

// Feed is the feed e belongs to.
func (e *Entry) Feed() Feed { return Feed{e.Author, e.Chain} }

// Sealed reports whether a composite signature covers e: its own, or that of a later entry of its chain, as known when
// the ledger handed e out. Nothing acts on an entry that is not sealed; Options.OnSealed tells when one becomes so.
func (e *Entry) Sealed() bool { return e.Full != nil || e.sealed.Load() }

// MessageID is SHA-256 of all raw bytes, signature included. Gossip must deduplicate by it and not by Hash: otherwise a
// copy with a spoilt signature, sent first, would shut out the true one.
func MessageID(raw []byte) [32]byte { return sha256.Sum256(raw) }

func hashContent(content []byte) Hash {
	h := sha256.New()
	var domain [len(contextEntry) + 1]byte
	copy(domain[:], contextEntry)
	h.Write(domain[:])
	h.Write(content)
	var out Hash
	h.Sum(out[:0])
	return out
}

// The wire form is: version byte, a CBOR map of the eleven keys below in this order, a CBOR byte string with the
// signature. Lengths of the signature tell its kind, and key 9, which is signed, says the same.
const (
	keySwarm = iota + 1
	keyAuthor
	keyChain
	keySeq
	keyPrev
	keyBoot
	keyTime
	keyKind
	keyEpoch
	keySeen
	keyBody
)

var errMalformed = errors.New("malformed entry")

// appendContent appends version and map: what is hashed and signed.
func (e *Entry) appendContent(b []byte) []byte {
	b = append(b, entryVersion, 0xa0|keyBody)
	b = appendBytes(append(b, keySwarm), e.Swarm[:])
	b = appendBytes(append(b, keyAuthor), e.author[:])
	b = appendUint(append(b, keyChain), uint64(e.Chain))
	b = appendUint(append(b, keySeq), e.Seq)
	b = appendBytes(append(b, keyPrev), e.Prev[:])
	b = appendUint(append(b, keyBoot), e.BootEpoch)
	b = appendUint(append(b, keyTime), uint64(e.Time))
	b = appendUint(append(b, keyKind), uint64(e.Kind))
	b = appendUint(append(b, keyEpoch), e.Epoch)
	b = appendHead(append(b, keySeen), majorArray, uint64(len(e.Seen)))
	for i := range e.Seen {
		h := &e.Seen[i]
		id, _ := h.Author.Bytes() // checked by whoever set Seen
		b = appendHead(b, majorArray, 4)
		b = appendBytes(b, id[:])
		b = appendUint(b, uint64(h.Chain))
		b = appendUint(b, h.Seq)
		b = appendBytes(b, h.Hash[:])
	}
	return appendBytes(append(b, keyBody), e.Body)
}

// Decode reads an entry of at most trust.MaxEntry bytes and checks all that can be checked without knowing its author:
// form, bounds, and that kind, chain and signature go together. It verifies no signature. Errors are *RejectError.
func Decode(raw []byte) (*Entry, error) {
	if len(raw) > trust.MaxEntry {
		return nil, reject(CauseOversize, "", "%d bytes, at most %d", len(raw), trust.MaxEntry)
	}
	return decodeOwned(bytes.Clone(raw))
}

// decodeOwned is Decode for bytes that nobody else will change.
func decodeOwned(raw []byte) (*Entry, error) {
	e := &Entry{raw: raw}
	contentLen, err := e.parse(raw)
	if err != nil {
		return nil, reject(CauseMalformed, "", "%v", err)
	}
	if err := e.checkForm(); err != nil {
		return nil, err
	}
	e.hash = hashContent(raw[:contentLen])
	return e, nil
}

func (e *Entry) parse(raw []byte) (contentLen int, err error) {
	r, known := reader{b: raw}, e.author
	e.Version = r.byte()
	if r.ok() && e.Version != entryVersion {
		return 0, fmt.Errorf("version %d", e.Version)
	}
	r.expect(0xa0 | keyBody)
	r.expect(keySwarm)
	r.fixed(e.Swarm[:])
	r.expect(keyAuthor)
	r.fixed(e.author[:])
	r.expect(keyChain)
	e.Chain = Chain(r.uint(255))
	r.expect(keySeq)
	e.Seq = r.uint(1<<63 - 1)
	r.expect(keyPrev)
	r.fixed(e.Prev[:])
	r.expect(keyBoot)
	e.BootEpoch = r.uint(1<<63 - 1)
	r.expect(keyTime)
	e.Time = int64(r.uint(1<<63 - 1))
	r.expect(keyKind)
	e.Kind = Kind(r.uint(1<<16 - 1))
	r.expect(keyEpoch)
	e.Epoch = r.uint(1<<63 - 1)
	r.expect(keySeen)
	n := r.head(majorArray, trust.MaxSeen)
	if r.ok() && n > 0 {
		e.Seen = make([]Head, n)
		var last [41]byte
		for i := range e.Seen {
			h := &e.Seen[i]
			var key [41]byte
			r.expect(0x84)
			r.fixed(key[:32])
			h.Chain = Chain(r.uint(255))
			h.Seq = r.uint(1<<63 - 1)
			r.fixed(h.Hash[:])
			key[32] = byte(h.Chain)
			if !r.ok() || !h.Chain.Valid() || i > 0 && bytes.Compare(last[:], key[:]) >= 0 {
				return 0, fmt.Errorf("seen head %d: %w", i, errMalformed)
			}
			last = key
			h.Author = identity.DIDFromBytes([32]byte(key[:32]))
		}
	}
	r.expect(keyBody)
	e.Body = r.bytes(trust.MaxRootBody)
	contentLen = r.at
	sig := r.bytes(composite.MaxSignatureSize)
	if !r.ok() || r.at != len(raw) {
		return 0, errMalformed
	}
	switch {
	case len(sig) == ed25519.SignatureSize:
		e.Sig = sig
	case composite.IsSignatureSize(len(sig)): // of which suite, its author's key says
		e.Full = sig
	default:
		return 0, fmt.Errorf("signature of %d bytes", len(sig))
	}
	if e.Author == "" || e.author != known { // a run names one author: spell it once
		e.Author = identity.DIDFromBytes(e.author)
	}
	return contentLen, nil
}

// checkForm holds the rules that need nothing but the entry.
func (e *Entry) checkForm() error {
	if !e.Chain.Valid() || e.Kind.Chain() != e.Chain {
		return reject(CauseKind, e.Author, "%s in the %s chain", e.Kind, e.Chain)
	}
	if (e.Full != nil) != (e.Epoch == 0) {
		return reject(CauseMalformed, e.Author, "signature is not of the declared kind")
	}
	if e.Full == nil && (e.Chain == Authority || e.Kind == KindEpoch || e.Kind == KindSeal || e.Kind == KindCheckpoint) {
		return reject(CauseKind, e.Author, "%s needs a composite signature", e.Kind)
	}
	if e.Epoch > e.Seq { // the epoch entry, number Epoch-1, comes before
		return reject(CauseMalformed, e.Author, "entry %d signed by the epoch key of entry %d", e.Seq, e.Epoch-1)
	}
	if (e.Seq == 0) != (e.Prev == Hash{}) {
		return reject(CauseMalformed, e.Author, "entry %d and its link disagree", e.Seq)
	}
	if e.Time <= 0 {
		return reject(CauseMalformed, e.Author, "no time")
	}
	if limit := bodyLimit(e.Kind); len(e.Body) > limit {
		return reject(CauseOversize, e.Author, "%s of %d bytes, at most %d", e.Kind, len(e.Body), limit)
	}
	if e.Kind == KindSeal && len(e.Body) != 0 {
		return reject(CauseMalformed, e.Author, "a seal with a body")
	}
	return nil
}

func bodyLimit(k Kind) int {
	switch {
	case k == KindEvidence:
		return trust.MaxEvidenceBody
	case k == KindRoot:
		return trust.MaxRootBody
	case k.Chain() == Activity:
		return trust.MaxActivityBody
	}
	return trust.MaxAuthorityBody
}
