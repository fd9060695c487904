package identity

import (
	"crypto/rand"
	"fmt"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/omega-mesh/omega/trust"
)

// Seal encrypts a secret that is no identity's under a passphrase, in the form of a key file (Argon2id,
// XChaCha20-Poly1305). Purpose says what it is for: only Unseal with the same one opens it.
func Seal(purpose string, secret, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 || len(passphrase) > trust.MaxPassphrase {
		return nil, fmt.Errorf("identity: %w", ErrPassphrase)
	}
	h := keyHeader{
		KDF: KindPassphrase, Time: trust.KDFTime, Memory: trust.KDFMemory, Threads: trust.KDFThreads,
		Salt: make([]byte, saltSize), Nonce: make([]byte, chacha20poly1305.NonceSizeX),
	}
	for _, b := range [][]byte{h.Salt, h.Nonce} {
		if _, err := rand.Read(b); err != nil {
			return nil, fmt.Errorf("identity: read random: %w", err)
		}
	}
	wrap := argon2.IDKey(passphrase, h.Salt, h.Time, h.Memory, h.Threads, chacha20poly1305.KeySize)
	defer clear(wrap)
	return sealKey(h, wrap, purpose, secret)
}

// Unseal opens what Seal made, at most trust.MaxKeyFile bytes.
func Unseal(purpose string, raw, passphrase []byte) ([]byte, error) {
	f, err := decodeKeyFile(raw)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if f.Header.KDF != KindPassphrase || len(passphrase) == 0 || len(passphrase) > trust.MaxPassphrase {
		return nil, fmt.Errorf("identity: %w", ErrPassphrase)
	}
	wrap := argon2.IDKey(passphrase, f.Header.Salt, f.Header.Time, f.Header.Memory, f.Header.Threads, chacha20poly1305.KeySize)
	defer clear(wrap)
	secret, err := f.open(wrap, purpose)
	if err != nil { // an AEAD cannot tell a wrong passphrase from a damaged file; the likelier is named
		return nil, fmt.Errorf("identity: %w", ErrPassphrase)
	}
	return secret, nil
}
