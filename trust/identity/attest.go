package identity

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
)

// ErrAttestation is wrapped by every refusal of an endorsement or an attestation.
var ErrAttestation = errors.New("not a valid attestation")

const (
	contextAttestation = "omega/attestation/1"
	fileEndorsement    = "attestation"
)

// Endorsement is an identity's signed word on which attestation key its host's TPM has.
type Endorsement struct {
	Key       []byte `cbor:"1,keyasint"` // TPMT_PUBLIC
	Number    uint32 `cbor:"2,keyasint"` // of the identity's key that signed
	Signature []byte `cbor:"3,keyasint"`
}

// maxEndorsement bounds the file: a key of at most 256 bytes, a signature of the larger suite.
const maxEndorsement = 256 + composite.MaxSignatureSize + 64

func endorsed(did DID, number uint32, key []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append([]byte(did), 0), number), key...)
}

func writeEndorsement(dir string, did DID, number uint32, signer *composite.PrivateKey, attestationKey []byte) error {
	sig, err := signer.Sign(contextAttestation, endorsed(did, number, attestationKey))
	if err != nil {
		return err
	}
	b, err := canonical.Marshal(Endorsement{Key: attestationKey, Number: number, Signature: sig})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, fileEndorsement), b, 0o644)
}

// Endorse signs attestationKey as this host's, beside the identity. A rotation signs it again by itself.
func (i *Identity) Endorse(attestationKey []byte) error {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return writeEndorsement(i.dir, i.DID(), i.keys.Number(), i.key, attestationKey)
}

// ReadEndorsement reads what Endorse wrote; ErrNone where nothing was endorsed.
func ReadEndorsement(dir string) (*Endorsement, error) {
	raw, err := readBounded(filepath.Join(dir, fileEndorsement), maxEndorsement)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("identity: %s has endorsed no attestation key: %w", dir, ErrNone)
	}
	if err != nil {
		return nil, err
	}
	var e Endorsement
	if err := canonical.Unmarshal(raw, &e, maxEndorsement); err != nil {
		return nil, fmt.Errorf("identity: %w: %w", ErrAttestation, err)
	}
	return &e, nil
}

// Endorses reports why e is not the word of the identity's current key; nil where it is.
func (k Keys) Endorses(e *Endorsement) error {
	if e.Number != k.Number() {
		return fmt.Errorf("identity: signed by key %d, and key %d is in use: %w", e.Number, k.Number(), ErrAttestation)
	}
	if len(e.Key) > 256 || !k.Current().Verify(contextAttestation, endorsed(k.Inception.DID(), e.Number, e.Key), e.Signature) {
		return fmt.Errorf("identity: the attestation key is not endorsed by the identity: %w", ErrAttestation)
	}
	return nil
}

// Attestation is a TPM's quote with what shows whose TPM it is. It is checked without a network.
type Attestation struct {
	Keys        Keys
	Endorsement Endorsement
	Quote       []byte // of package tpm, over Challenge
}

type attestationWire struct {
	Inception   []byte      `cbor:"1,keyasint"`
	Rotations   [][]byte    `cbor:"2,keyasint"`
	Endorsement Endorsement `cbor:"3,keyasint"`
	Quote       []byte      `cbor:"4,keyasint"`
}

// Encode is the attestation as a file: canonical CBOR.
func (a *Attestation) Encode() ([]byte, error) {
	w := attestationWire{Inception: a.Keys.Inception.Encode(), Rotations: [][]byte{}, Endorsement: a.Endorsement, Quote: a.Quote}
	for _, r := range a.Keys.Rotations {
		w.Rotations = append(w.Rotations, r.Encode())
	}
	return canonical.Marshal(w)
}

// DecodeAttestation reads what Encode made, at most trust.MaxAttestation bytes. The history of the keys and the
// endorsement have been verified when it returns without error; the quote has not.
func DecodeAttestation(raw []byte) (*Attestation, error) {
	var w attestationWire
	if err := canonical.Unmarshal(raw, &w, trust.MaxAttestation); err != nil {
		return nil, fmt.Errorf("identity: %w: %w", ErrAttestation, err)
	}
	if len(w.Rotations) > trust.MaxRotations || len(w.Quote) > trust.MaxQuote {
		return nil, fmt.Errorf("identity: %d rotations, quote of %d bytes: %w", len(w.Rotations), len(w.Quote), ErrAttestation)
	}
	inception, err := DecodeInception(w.Inception)
	if err != nil {
		return nil, fmt.Errorf("identity: %w: %w", ErrAttestation, err)
	}
	a := &Attestation{Keys: Keys{Inception: inception}, Endorsement: w.Endorsement, Quote: w.Quote}
	for _, raw := range w.Rotations {
		r, err := DecodeRotation(raw)
		if err == nil {
			err = a.Keys.Follows(r)
		}
		if err != nil {
			return nil, fmt.Errorf("identity: %w: %w", ErrAttestation, err)
		}
		a.Keys = a.Keys.Rotated(r)
	}
	if err := a.Keys.Endorses(&a.Endorsement); err != nil {
		return nil, err
	}
	return a, nil
}

// Challenge is what did's TPM signs for a verifier's nonce: a quote made for one host answers for no other.
func Challenge(did DID, nonce []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte("omega/quote/1\x00" + string(did) + "\x00"))
	h.Write(nonce)
	return [32]byte(h.Sum(nil))
}
