package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/token"
	"github.com/omega-mesh/omega/trust/tpm"
)

// ErrNoWayBack says that a key was to be kept in hardware with nothing to open it by when that keeps it.
var ErrNoWayBack = errors.New("a key kept in hardware needs a way back, for new firmware or a new board: name a file with --passphrase-file, or with --next-key a folder on media that you carry away")

// KeyStore opens what keeps a key of kind, as cfg names it; nil for a file or a passphrase. A new key is sealed to pcrs
// (zero is Secure Boot's). The caller calls what is returned with it when the key is not used any more.
func KeyStore(ctx context.Context, cfg *config.Config, kind identity.Kind, pcrs tpm.PCRs) (identity.Store, func(), error) {
	switch kind {
	case identity.KindTPM:
		d, err := tpm.Open(ctx, cfg.TPM)
		if errors.Is(err, tpm.ErrNone) {
			err = fmt.Errorf("%w: name its device with --tpm, or in the configuration", err)
		}
		if err != nil {
			return nil, nil, err
		}
		return &tpm.Store{Device: d, PCRs: pcrs}, func() { _ = d.Close() }, nil
	case identity.KindPKCS11:
		if cfg.PKCS11Module == "" && token.Built {
			return nil, nil, fmt.Errorf("%w: name the token's library with --pkcs11-module, or in the configuration", token.ErrNone)
		}
		pin, err := readLine("pkcs11_pin_file", cfg.PKCS11PINFile)
		if err != nil {
			return nil, nil, err
		}
		defer clear(pin)
		t, err := token.Open(token.Options{Module: cfg.PKCS11Module, Label: cfg.PKCS11Token, PIN: pin})
		if err != nil {
			return nil, nil, err
		}
		return t, func() { _ = t.Close() }, nil
	default:
		return nil, func() {}, nil
	}
}

// openKeyStore gives what the node of cfg opens its identity by: of a TPM, the wrapping key, so that the device is let go
// of at once.
func openKeyStore(ctx context.Context, cfg *config.Config, split bool) (identity.Store, func(), error) {
	dir := Layout{cfg.Dir}.Identity()
	p, err := identity.ReadProtection(dir)
	if err != nil {
		return nil, nil, err
	}
	if split && p.Kind == identity.KindPKCS11 {
		return nil, nil, errors.New("this node's key is in a PKCS#11 token, whose library this process must load: set split: false, and see `omega doctor` for what that costs")
	}
	store, closeStore, err := KeyStore(ctx, cfg, p.Kind, 0)
	if err != nil || p.Kind != identity.KindTPM {
		return store, closeStore, err
	}
	defer closeStore()
	kept, err := identity.Unwrap(dir, store)
	if err != nil {
		return nil, nil, fmt.Errorf("this node's key: %w", err)
	}
	return kept, func() { clear(kept.Wrap) }, nil
}

// endorse has a new identity say which attestation key its host's TPM has.
func endorse(self *identity.Identity, store identity.Store) error {
	s, ok := store.(*tpm.Store)
	if !ok {
		return nil
	}
	key, err := s.Device.AttestationKey()
	if err != nil {
		return err
	}
	return self.Endorse(key)
}

// Protect protects the key of the node in dir anew, as opt says; from keeps it now. The node must not be running.
func Protect(dir string, opt identity.Options, from identity.Store) error {
	l := Layout{dir}
	unlock, err := lock(l.Lock())
	if err != nil {
		return err
	}
	defer unlock()
	if opt.Store != nil && len(opt.Passphrase) == 0 && opt.NextDir == "" {
		return ErrNoWayBack
	}
	opt.NextDir = NextDir(dir, opt.NextDir)
	if err := identity.Protect(l.Identity(), opt, from); err != nil {
		return err
	}
	self, err := identity.Open(l.Identity(), opt)
	if err != nil {
		return err
	}
	defer self.Close()
	return endorse(self, opt.Store)
}

// Quote has this host's TPM sign its PCRs for a verifier's nonce, with what shows whose TPM it is.
func Quote(ctx context.Context, cfg *config.Config, pcrs tpm.PCRs, nonce []byte) (*identity.Attestation, error) {
	dir := Layout{cfg.Dir}.Identity()
	keys, err := identity.ReadKeys(dir)
	if errors.Is(err, identity.ErrNone) {
		return nil, fmt.Errorf("%s: %w", cfg.Dir, ErrNotInitialised)
	}
	if err != nil {
		return nil, err
	}
	e, err := identity.ReadEndorsement(dir)
	if errors.Is(err, identity.ErrNone) {
		return nil, fmt.Errorf("%w: `omega key protect --key-store tpm` has it do so", err)
	}
	if err != nil {
		return nil, err
	}
	store, closeStore, err := KeyStore(ctx, cfg, identity.KindTPM, 0)
	if err != nil {
		return nil, err
	}
	defer closeStore()
	q, err := store.(*tpm.Store).Device.Quote(pcrs, identity.Challenge(keys.Inception.DID(), nonce))
	if err != nil {
		return nil, err
	}
	if string(q.Key) != string(e.Key) {
		return nil, fmt.Errorf("%w: this host's TPM has another attestation key than its identity endorsed: the TPM was cleared or replaced; `omega key protect` endorses the new one", identity.ErrAttestation)
	}
	raw, err := q.Encode()
	if err != nil {
		return nil, err
	}
	return &identity.Attestation{Keys: keys, Endorsement: *e, Quote: raw}, nil
}

// keyAtRest is doctor's check of what protects the key.
func (n *Node) keyAtRest() (ok bool, detail, lost string) {
	kind := n.self.Protection()
	switch kind {
	case identity.KindTPM:
		detail = "sealed by this host's TPM"
		if k, ok := n.parts.Store.(*identity.Kept); ok {
			if p, err := tpm.SealedTo(k.Sealed); err == nil {
				detail += " to PCR " + p.Names()
			}
		}
		return true, detail + ": a copy of the disk has it not, nor has this host when it starts otherwise; root on the running host has it in memory", ""
	case identity.KindPKCS11:
		return true, "in a PKCS#11 token: what the token keeps cannot be copied, even by root; root on the running host can have it sign", ""
	case identity.KindPassphrase:
		return true, "passphrase: a copy of the disk has the key not without it; root on the running host has it in memory", ""
	}
	return false, kind.String(), "root on this host and every backup of the state folder can read the node's key: keep " + Layout{n.cfg.Dir}.Identity() +
		" out of backups, set a passphrase, or give it to a TPM with `omega key protect --key-store tpm`"
}
