package root

import (
	"encoding/pem"
	"fmt"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

// Entries and recovery keys go from hand to hand as text (RFC 7468), so that a ceremony can use mail, paper or a stick.
const (
	pemEntry    = "OMEGA ROOT ENTRY"
	pemRecovery = "OMEGA RECOVERY KEY"
	pemSealed   = "OMEGA SEALED RECOVERY KEY"
	purpose     = "omega/key/recovery/1"
	// MaxText bounds the text of an entry: base64 with a line break every 64 characters.
	MaxText = trust.MaxRootBody*3/2 + 256
)

// Text is e as it goes from hand to hand, whatever number of signatures it has.
func (e *Entry) Text() ([]byte, error) {
	raw, err := e.Encode()
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemEntry, Bytes: raw}), nil
}

// ParseText reads what Text wrote; around it may stand what mail adds.
func ParseText(text []byte) (*Entry, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("root: text of %d bytes: %w", len(text), ErrEntry)
	}
	b, _ := pem.Decode(text)
	if b == nil || b.Type != pemEntry {
		return nil, fmt.Errorf("root: no %s: %w", pemEntry, ErrEntry)
	}
	return Decode(b.Bytes)
}

// Text is k's private form, sealed where there is a passphrase.
func (k *RecoveryKey) Text(passphrase []byte) ([]byte, error) {
	raw, err := k.Bytes()
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	defer clear(raw)
	if len(passphrase) == 0 {
		return pem.EncodeToMemory(&pem.Block{Type: pemRecovery, Bytes: raw}), nil
	}
	sealed, err := identity.Seal(purpose, raw, passphrase)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemSealed, Bytes: sealed}), nil
}

// ParseRecoveryText reads what RecoveryKey.Text wrote, at most trust.MaxKeyFile bytes of it.
func ParseRecoveryText(text, passphrase []byte) (*RecoveryKey, error) {
	if len(text) > 2*trust.MaxKeyFile {
		return nil, fmt.Errorf("root: %d bytes: %w", len(text), ErrRecoveryKey)
	}
	b, _ := pem.Decode(text)
	switch {
	case b != nil && b.Type == pemRecovery:
		return ParseRecovery(b.Bytes)
	case b != nil && b.Type == pemSealed:
		raw, err := identity.Unseal(purpose, b.Bytes, passphrase)
		if err != nil {
			return nil, fmt.Errorf("root: recovery key: %w", err)
		}
		defer clear(raw)
		return ParseRecovery(raw)
	}
	return nil, fmt.Errorf("root: no %s: %w", pemRecovery, ErrRecoveryKey)
}
