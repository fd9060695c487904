package ledger

import (
	"errors"
	"fmt"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

// Proof shows that one author signed two different entries of one number: it holds both, or one and a later entry that
// links to another of its number. Whoever has the author's inception can check it; nothing else is needed.
type Proof struct {
	Author identity.DID
	Chain  Chain
	Seq    uint64
	A, B   []byte   // the entries, raw, in the order of their numbers, then hashes
	Certs  [][]byte // the KindEpoch entries whose keys signed A and B, where those are not composite: at most two
}

type proofWire struct {
	Version uint8    `cbor:"1,keyasint"`
	A       []byte   `cbor:"2,keyasint"`
	B       []byte   `cbor:"3,keyasint"`
	Certs   [][]byte `cbor:"4,keyasint,omitempty"`
}

// ErrProof is wrapped where bytes are no proof of equivocation.
var ErrProof = errors.New("not a proof of equivocation")

// NewProof makes the proof of two raw entries and the certificates they need. It verifies no signature.
func NewProof(a, b []byte, certs ...[]byte) (*Proof, error) {
	ea, err := Decode(a)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	eb, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	if ea.Seq > eb.Seq || ea.Seq == eb.Seq && string(ea.hash[:]) > string(eb.hash[:]) {
		ea, eb = eb, ea
	}
	same := ea.Seq == eb.Seq && ea.hash != eb.hash
	other := ea.Seq+1 == eb.Seq && eb.Prev != ea.hash
	if ea.Feed() != eb.Feed() || ea.Swarm != eb.Swarm || !same && !other || len(certs) > 2 {
		return nil, fmt.Errorf("ledger: the entries do not contradict: %w", ErrProof)
	}
	return &Proof{Author: ea.Author, Chain: ea.Chain, Seq: ea.Seq, A: ea.raw, B: eb.raw, Certs: certs}, nil
}

// Encode is the proof as a KindEvidence body carries it.
func (p *Proof) Encode() ([]byte, error) {
	b, err := canonical.Marshal(proofWire{Version: 1, A: p.A, B: p.B, Certs: p.Certs})
	if err == nil && len(b) > trust.MaxEvidenceBody {
		err = fmt.Errorf("ledger: proof of %d bytes: %w", len(b), canonical.ErrTooLong)
	}
	return b, err
}

// DecodeProof reads a proof; it verifies no signature.
func DecodeProof(raw []byte) (*Proof, error) {
	var w proofWire
	if err := canonical.Unmarshal(raw, &w, trust.MaxEvidenceBody); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	if w.Version != 1 {
		return nil, fmt.Errorf("ledger: version %d: %w", w.Version, ErrProof)
	}
	p, err := NewProof(w.A, w.B, w.Certs...)
	if err != nil {
		return nil, err
	}
	if string(p.A) != string(w.A) {
		return nil, fmt.Errorf("ledger: entries out of order: %w", ErrProof)
	}
	return p, nil
}

// Verify reports whether key signed both entries of p, itself or through the certificates in p.
func (p *Proof) Verify(key *composite.PublicKey) error {
	for _, raw := range [][]byte{p.A, p.B} {
		e, err := Decode(raw)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProof, err)
		}
		if e.Full != nil {
			err = e.verifyFull(key)
		} else {
			err = p.verifyByCert(e, key)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProof, err)
		}
	}
	return nil
}

func (p *Proof) verifyByCert(e *Entry, key *composite.PublicKey) error {
	for _, raw := range p.Certs {
		c, err := Decode(raw)
		if err != nil || c.Kind != KindEpoch || c.Feed() != e.Feed() || c.Swarm != e.Swarm || c.Seq+1 != e.Epoch {
			continue
		}
		epoch, err := decodeEpoch(c.Body)
		if err != nil || c.verifyFull(key) != nil {
			continue
		}
		if e.verifyEpoch(epoch) == nil {
			return nil
		}
	}
	return reject(CauseSignature, e.Author, "no certificate for the epoch key of entry %d", e.Seq)
}
