package root

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/sign/slhdsa"
)

// RecoveryKeySize is the private form of an SLH-DSA-SHA2-128s key in bytes (FIPS 205 table 2), its public half included.
const RecoveryKeySize = 64

// ErrRecoveryKey is wrapped where bytes are no recovery key.
var ErrRecoveryKey = errors.New("not a recovery key")

// RecoveryKey is one of the keys that genesis names for the worst day. It rests on nothing but SHA-256, and lies in a
// safe: signing takes a third of a second.
type RecoveryKey struct {
	private slhdsa.PrivateKey
	public  []byte
}

// GenerateRecovery makes a key from random, crypto/rand where it is nil.
func GenerateRecovery(random io.Reader) (*RecoveryKey, error) {
	if random == nil {
		random = rand.Reader
	}
	_, private, err := slhdsa.GenerateKey(random, slhdsa.SHA2_128s)
	if err != nil {
		return nil, fmt.Errorf("root: recovery key: %w", err)
	}
	return recoveryKey(private)
}

// ParseRecovery reads the private form.
func ParseRecovery(raw []byte) (*RecoveryKey, error) {
	private := slhdsa.PrivateKey{ID: slhdsa.SHA2_128s}
	if len(raw) != RecoveryKeySize {
		return nil, fmt.Errorf("root: %d bytes: %w", len(raw), ErrRecoveryKey)
	}
	if err := private.UnmarshalBinary(raw); err != nil {
		return nil, fmt.Errorf("root: %w: %w", ErrRecoveryKey, err)
	}
	return recoveryKey(private)
}

func recoveryKey(private slhdsa.PrivateKey) (*RecoveryKey, error) {
	public := private.PublicKey()
	raw, err := public.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("root: recovery key: %w", err)
	}
	return &RecoveryKey{private: private, public: raw}, nil
}

// Public is the key as genesis names it, 32 bytes. The caller must not change it.
func (k *RecoveryKey) Public() []byte { return k.public }

// Bytes is the private form, RecoveryKeySize bytes.
func (k *RecoveryKey) Bytes() ([]byte, error) { return k.private.MarshalBinary() }

// Recover is e, a recovery, with the signature of k added.
func (e *Entry) Recover(k *RecoveryKey) (*Entry, error) {
	sig, err := slhdsa.SignRandomized(&k.private, rand.Reader, slhdsa.NewMessage(e.content), []byte(contextRecovery))
	if err != nil {
		return nil, fmt.Errorf("root: recovery signature: %w", err)
	}
	return e.with(Signature{Signer: k.public, Bytes: sig}), nil
}
