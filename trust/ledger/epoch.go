package ledger

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
)

// epochBody is the body of a KindEpoch entry.
type epochBody struct {
	Key       []byte `cbor:"1,keyasint"` // Ed25519 public key
	NotBefore int64  `cbor:"2,keyasint"` // Unix nanoseconds by the author's clock
	NotAfter  int64  `cbor:"3,keyasint"`
}

// epochKey is a certified epoch key, as held in memory.
type epochKey struct {
	number uint64 // of its entry, plus 1: what Entry.Epoch says
	body   epochBody
}

func decodeEpoch(body []byte) (*epochBody, error) {
	var b epochBody
	if err := canonical.Unmarshal(body, &b, 128); err != nil {
		return nil, err
	}
	if len(b.Key) != ed25519.PublicKeySize || b.NotBefore <= 0 || b.NotAfter < b.NotBefore || b.NotAfter-b.NotBefore > int64(trust.EpochLifetime) {
		return nil, fmt.Errorf("ledger: epoch key of %d bytes for %s", len(b.Key), time.Duration(b.NotAfter-b.NotBefore))
	}
	return &b, nil
}

// content is what is hashed and signed.
func (e *Entry) content() []byte {
	sig := len(e.Sig) + len(e.Full)
	head := 2
	if sig >= 256 {
		head = 3
	}
	return e.raw[:len(e.raw)-sig-head]
}

// verifyFull checks the composite signature.
func (e *Entry) verifyFull(key *composite.PublicKey) error {
	if e.Full == nil || !key.Verify(contextEntry, e.content(), e.Full) {
		return reject(CauseSignature, e.Author, "composite signature of entry %d", e.Seq)
	}
	return nil
}

// verifyEpoch checks the Ed25519 signature (Ed25519ctx of RFC 8032) and that the key was for that time.
func (e *Entry) verifyEpoch(b *epochBody) error {
	if e.Time < b.NotBefore || e.Time > b.NotAfter {
		return reject(CauseSignature, e.Author, "entry %d is outside its epoch key's hour", e.Seq)
	}
	if ed25519.VerifyWithOptions(b.Key, e.content(), e.Sig, &ed25519.Options{Context: contextEntry}) != nil {
		return reject(CauseSignature, e.Author, "epoch signature of entry %d", e.Seq)
	}
	return nil
}
