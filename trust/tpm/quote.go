package tpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
)

// ErrQuote is wrapped by every refusal of a quote.
var ErrQuote = errors.New("not a valid quote")

// attestationTemplate is the attestation key: ECDSA over P-256 with SHA-256, restricted, so that it signs what the TPM
// itself states and nothing that was put into its mouth. Unique tells it from other software's keys of this template.
func attestationTemplate() tpm2.TPMTPublic {
	label := sha256.Sum256([]byte("omega attestation key/1"))
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: label[:]}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
		}),
	}
}

// AttestationKey is the public part of this TPM's attestation key: the same each time until the endorsement seed changes.
func (d *Device) AttestationKey() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	handle, _, public, err := d.primary(tpm2.TPMRHEndorsement, attestationTemplate())
	if err != nil {
		return nil, d.failed("make the attestation key", err)
	}
	d.flush(handle)
	return tpm2.Marshal(public), nil
}

// Name is how an attestation key is compared by eye: its TPM name, hex.
func Name(attestationKey []byte) (string, error) {
	public, _, err := parseAttestationKey(attestationKey)
	if err != nil {
		return "", err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return "", fmt.Errorf("tpm: %w: %w", ErrQuote, err)
	}
	return hex.EncodeToString(name.Buffer), nil
}

// Quote is a TPM's signed word on its PCRs. It is what Decode read; Verify says whether it holds.
type Quote struct {
	Key       []byte `cbor:"1,keyasint"` // attestation key, TPMT_PUBLIC
	Statement []byte `cbor:"2,keyasint"` // TPMS_ATTEST
	Signature []byte `cbor:"3,keyasint"` // ECDSA, r and s of 32 bytes each
	PCRs      PCRs   `cbor:"4,keyasint"`
	Values    []byte `cbor:"5,keyasint"` // of the PCRs, 32 bytes each, the lowest number's first
}

// Quote has the TPM sign what p hold now, over challenge: 32 bytes that the one who asks chose.
func (d *Device) Quote(p PCRs, challenge [32]byte) (*Quote, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	handle, name, public, err := d.primary(tpm2.TPMRHEndorsement, attestationTemplate())
	if err != nil {
		return nil, d.failed("make the attestation key", err)
	}
	defer d.flush(handle)
	// PCRs may be extended between the reading and the signing: then once more.
	for range 3 {
		values, err := d.read(p)
		if err != nil {
			return nil, err
		}
		r, err := tpm2.Quote{
			SignHandle:     tpm2.AuthHandle{Handle: handle, Name: name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16)},
			QualifyingData: tpm2.TPM2BData{Buffer: challenge[:]},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			PCRSelect:      p.selection(),
		}.Execute(d.line)
		if err != nil {
			return nil, d.failed("quote", err)
		}
		sig, err := r.Signature.Signature.ECDSA()
		if err != nil || len(sig.SignatureR.Buffer) > 32 || len(sig.SignatureS.Buffer) > 32 {
			return nil, d.failed("quote", errors.Join(ErrDevice, err))
		}
		q := &Quote{Key: tpm2.Marshal(public), Statement: r.Quoted.Bytes(), Signature: make([]byte, 64), PCRs: p, Values: values}
		copy(q.Signature[32-len(sig.SignatureR.Buffer):32], sig.SignatureR.Buffer)
		copy(q.Signature[64-len(sig.SignatureS.Buffer):], sig.SignatureS.Buffer)
		if _, err = q.Verify(challenge); err == nil {
			return q, nil
		}
	}
	return nil, d.failed("quote: its own does not verify", ErrDevice)
}

// Encode is the quote as it travels: canonical CBOR.
func (q *Quote) Encode() ([]byte, error) { return canonical.Marshal(q) }

// DecodeQuote reads what Encode made, at most trust.MaxQuote bytes. Nothing of it is believed yet.
func DecodeQuote(raw []byte) (*Quote, error) {
	var q Quote
	if err := canonical.Unmarshal(raw, &q, trust.MaxQuote); err != nil {
		return nil, fmt.Errorf("tpm: %w: %w", ErrQuote, err)
	}
	if !q.PCRs.valid() || len(q.Values) != q.PCRs.count()*sha256.Size || len(q.Signature) != 64 || len(q.Key) > 256 || len(q.Statement) > 512 {
		return nil, fmt.Errorf("tpm: field sizes: %w", ErrQuote)
	}
	return &q, nil
}

// State is what a quote says beside its PCRs.
type State struct {
	Resets   uint32 // how often the TPM was reset: each start of the host is one
	Restarts uint32 // resumes since
	Clock    uint64 // ms that the TPM was powered, since it was cleared
	Safe     bool   // Clock has not been set back since
	Firmware uint64 // the chip's own version
}

// Verify checks that a TPM's restricted key signed these very PCR values over challenge. Whose TPM that is, the key's
// owner says: compare Key.
func (q *Quote) Verify(challenge [32]byte) (State, error) {
	_, key, err := parseAttestationKey(q.Key)
	if err != nil {
		return State{}, err
	}
	digest := sha256.Sum256(q.Statement)
	r, s := new(big.Int).SetBytes(q.Signature[:32]), new(big.Int).SetBytes(q.Signature[32:])
	if !ecdsa.Verify(key, digest[:], r, s) {
		return State{}, fmt.Errorf("tpm: signature: %w", ErrQuote)
	}
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.Statement)
	if err != nil {
		return State{}, fmt.Errorf("tpm: %w: %w", ErrQuote, err)
	}
	if a.Magic != tpm2.TPMGeneratedValue || a.Type != tpm2.TPMSTAttestQuote {
		return State{}, fmt.Errorf("tpm: not a statement of a TPM on its PCRs: %w", ErrQuote)
	}
	if string(a.ExtraData.Buffer) != string(challenge[:]) {
		return State{}, fmt.Errorf("tpm: made for another nonce, or another host: %w", ErrQuote)
	}
	info, err := a.Attested.Quote()
	if err != nil {
		return State{}, fmt.Errorf("tpm: %w: %w", ErrQuote, err)
	}
	values := sha256.Sum256(q.Values)
	if p, err := selected(info.PCRSelect); err != nil || p != q.PCRs || string(info.PCRDigest.Buffer) != string(values[:]) {
		return State{}, fmt.Errorf("tpm: it states other PCRs than are beside it: %w", ErrQuote)
	}
	return State{
		Resets: a.ClockInfo.ResetCount, Restarts: a.ClockInfo.RestartCount, Clock: a.ClockInfo.Clock, Safe: bool(a.ClockInfo.Safe),
		Firmware: a.FirmwareVersion,
	}, nil
}

// Value is what PCR n held; nil where it was not quoted.
func (q *Quote) Value(n uint) []byte {
	for i, m := range q.PCRs.list() {
		if m == n {
			return q.Values[i*sha256.Size : (i+1)*sha256.Size]
		}
	}
	return nil
}

// List is the numbers in p, lowest first.
func (p PCRs) List() []uint { return p.list() }

// parseAttestationKey takes only a key that cannot sign what is not the TPM's own statement.
func parseAttestationKey(raw []byte) (*tpm2.TPMTPublic, *ecdsa.PublicKey, error) {
	bad := func(why string) (*tpm2.TPMTPublic, *ecdsa.PublicKey, error) {
		return nil, nil, fmt.Errorf("tpm: attestation key: %s: %w", why, ErrQuote)
	}
	if len(raw) > 256 {
		return bad("too long")
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](raw)
	if err != nil {
		return bad(err.Error())
	}
	want := attestationTemplate().ObjectAttributes
	if public.Type != tpm2.TPMAlgECC || public.NameAlg != tpm2.TPMAlgSHA256 || public.ObjectAttributes != want {
		return bad("not a restricted signing key fixed to its TPM")
	}
	params, err := public.Parameters.ECCDetail()
	if err != nil || params.CurveID != tpm2.TPMECCNistP256 {
		return bad("not of P-256")
	}
	point, err := public.Unique.ECC()
	if err != nil || len(point.X.Buffer) > 32 || len(point.Y.Buffer) > 32 {
		return bad("no point")
	}
	uncompressed := make([]byte, 1+32+32) // SEC 1, 2.3.3
	uncompressed[0] = 4
	copy(uncompressed[33-len(point.X.Buffer):33], point.X.Buffer)
	copy(uncompressed[65-len(point.Y.Buffer):], point.Y.Buffer)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
	if err != nil {
		return bad("not a point of the curve")
	}
	return public, key, nil
}
