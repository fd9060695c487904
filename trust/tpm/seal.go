package tpm

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
)

// maxSecret is the most a TPM seals at once (MAX_SYM_DATA of the PC Client profile), in bytes.
const maxSecret = 128

// sealed is what Seal gives back: nothing in it is secret but to the TPM that made it.
type sealed struct {
	PCRs    uint32 `cbor:"1,keyasint"`
	Values  []byte `cbor:"2,keyasint"` // of the PCRs at the sealing, so that a refusal can name those that changed
	Root    []byte `cbor:"3,keyasint"` // name of the storage key
	Public  []byte `cbor:"4,keyasint"` // TPMT_PUBLIC
	Private []byte `cbor:"5,keyasint"` // TPM2B_PRIVATE, opaque
}

const nameSize = 2 + sha256.Size // of an object: algorithm, hash

// decodeSealed reads what Seal made, at most trust.MaxSealed bytes, and checks every size before the TPM sees any of it.
func decodeSealed(blob []byte) (*sealed, *tpm2.TPMTPublic, error) {
	var s sealed
	if err := canonical.Unmarshal(blob, &s, trust.MaxSealed); err != nil {
		return nil, nil, fmt.Errorf("tpm: sealed secret: %w: %w", ErrMalformed, err)
	}
	if p := PCRs(s.PCRs); !p.valid() || len(s.Values) != p.count()*sha256.Size || len(s.Root) != nameSize || len(s.Public) > 256 || len(s.Private) > 512 {
		return nil, nil, fmt.Errorf("tpm: sealed secret: field sizes: %w", ErrMalformed)
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.Public)
	if err != nil {
		return nil, nil, fmt.Errorf("tpm: sealed secret: %w: %w", ErrMalformed, err)
	}
	if public.Type != tpm2.TPMAlgKeyedHash || public.NameAlg != tpm2.TPMAlgSHA256 || public.ObjectAttributes.UserWithAuth {
		return nil, nil, fmt.Errorf("tpm: sealed secret: not an object that a policy guards: %w", ErrMalformed)
	}
	return &s, public, nil
}

// SealedTo says to which PCRs a sealed secret is bound, without asking a TPM.
func SealedTo(blob []byte) (PCRs, error) {
	s, _, err := decodeSealed(blob)
	if err != nil {
		return 0, err
	}
	return PCRs(s.PCRs), nil
}

// Seal binds secret, at most 128 bytes, to this TPM and to what p hold now (TPM2_PolicyPCR). What it returns only Unseal
// here can use. It is opened once before it is given away, so that a chip that seals and cannot unseal is found out now.
func (d *Device) Seal(secret []byte, p PCRs) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(secret) == 0 || len(secret) > maxSecret {
		return nil, fmt.Errorf("tpm: a secret of %d bytes, want 1 to %d: %w", len(secret), maxSecret, ErrMalformed)
	}
	values, err := d.read(p)
	if err != nil {
		return nil, err
	}
	policy, err := policyOf(p, values)
	if err != nil {
		return nil, err
	}
	root, err := d.storageRoot()
	if err != nil {
		return nil, err
	}
	defer root.flush()
	made, err := tpm2.Create{
		ParentHandle: root.use(tpm2.AESEncryption(128, tpm2.EncryptIn)),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
			// A wrong PCR is no guess at a password: it must not lock others out of the TPM.
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true},
		}),
	}.Execute(d.line)
	if err != nil {
		return nil, d.failed("seal", err)
	}
	public, err := made.OutPublic.Contents()
	if err != nil {
		return nil, d.failed("seal", fmt.Errorf("%w: %w", ErrDevice, err))
	}
	blob, err := canonical.Marshal(sealed{
		PCRs: uint32(p), Values: values, Root: root.name.Buffer, Public: tpm2.Marshal(public), Private: made.OutPrivate.Buffer,
	})
	if err != nil {
		return nil, err
	}
	again, err := d.unseal(root, blob)
	if err != nil {
		return nil, err
	}
	defer clear(again)
	if subtle.ConstantTimeCompare(again, secret) != 1 {
		return nil, d.failed("seal: it gives back another secret", ErrDevice)
	}
	return blob, nil
}

// policyOf is the digest that TPM2_PolicyPCR leaves in a session where p hold values (part 3, 23.7).
func policyOf(p PCRs, values []byte) ([]byte, error) {
	calculator, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, fmt.Errorf("tpm: %w", err)
	}
	digest := sha256.Sum256(values)
	if err := (tpm2.PolicyPCR{PcrDigest: tpm2.TPM2BDigest{Buffer: digest[:]}, Pcrs: p.selection()}).Update(calculator); err != nil {
		return nil, fmt.Errorf("tpm: %w", err)
	}
	return calculator.Hash().Digest, nil
}

// Unseal gives back what Seal took, where this is the same TPM and the PCRs are what they were; ErrOtherTPM and ErrPCRs
// otherwise, the latter naming the PCRs. The caller clears the secret.
func (d *Device) Unseal(blob []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	root, err := d.storageRoot()
	if err != nil {
		return nil, err
	}
	defer root.flush()
	return d.unseal(root, blob)
}

func (d *Device) unseal(root *storageRoot, blob []byte) ([]byte, error) {
	s, public, err := decodeSealed(blob)
	if err != nil {
		return nil, err
	}
	if string(s.Root) != string(root.name.Buffer) {
		return nil, d.failed("unseal", ErrOtherTPM)
	}
	object, err := tpm2.Load{
		ParentHandle: root.use(tpm2.AESEncryption(128, tpm2.EncryptIn)),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: s.Private},
		InPublic:     tpm2.New2B(*public),
	}.Execute(d.line)
	if errors.Is(err, tpm2.TPMRCIntegrity) {
		return nil, d.failed("unseal", fmt.Errorf("%w: %w", ErrOtherTPM, err))
	}
	if err != nil {
		return nil, d.failed("unseal", err)
	}
	defer d.flush(object.ObjectHandle)
	p := PCRs(s.PCRs)
	r, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{
		Handle: object.ObjectHandle, Name: object.Name,
		Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t transport.TPM, session tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
			_, err := tpm2.PolicyPCR{PolicySession: session, Pcrs: p.selection()}.Execute(t)
			return err
		}, tpm2.AESEncryption(128, tpm2.EncryptOut), tpm2.Salted(root.handle, root.public)),
	}}.Execute(d.line)
	switch {
	case errors.Is(err, tpm2.TPMRCPolicyFail) || errors.Is(err, tpm2.TPMRCPCRChanged):
		return nil, d.refused(p, s.Values)
	case err != nil:
		return nil, d.failed("unseal", err)
	}
	return r.OutData.Buffer, nil
}

// refused names the PCRs that are not what they were.
func (d *Device) refused(p PCRs, was []byte) error {
	is, err := d.read(p)
	if err != nil {
		return errors.Join(d.failed("unseal", ErrPCRs), err)
	}
	if changed := p.changed(was, is); changed != 0 {
		return d.failed("unseal", fmt.Errorf("%w: PCR %s changed", ErrPCRs, changed.Names()))
	}
	return d.failed("unseal: the policy of the sealed secret is not of its PCRs", ErrPCRs)
}
