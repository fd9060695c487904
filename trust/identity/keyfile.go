package identity

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
)

// A key file is keyMagic (its last byte is the version), then canonical CBOR: header and sealed seeds. The header is the
// AEAD's associated data together with the purpose, so that neither can be swapped.
const keyMagic = "OMEGAKEY\x01"

// What a key file is for: part of the associated data, so that a next key cannot be put in place of the current one.
const (
	purposeCurrent = "omega/key/current/1"
	purposeNext    = "omega/key/next/1"
)

// How the wrapping key comes about.
const (
	kdfFile     = 0 // 32 random bytes in the file "wrap" beside it
	kdfArgon2id = 1 // from a passphrase
)

type keyHeader struct {
	KDF     uint8  `cbor:"1,keyasint"`
	Time    uint32 `cbor:"2,keyasint"` // Argon2id passes; 0 for kdfFile, as are the next two
	Memory  uint32 `cbor:"3,keyasint"` // KiB
	Threads uint8  `cbor:"4,keyasint"`
	Salt    []byte `cbor:"5,keyasint"` // 16 bytes
	Nonce   []byte `cbor:"6,keyasint"` // 24 bytes
}

type keyFile struct {
	Header keyHeader `cbor:"1,keyasint"`
	Sealed []byte    `cbor:"2,keyasint"`
}

const saltSize = 16

// decodeKeyFile reads a key file and checks every parameter against its bounds, before any is used.
func decodeKeyFile(raw []byte) (*keyFile, error) {
	if len(raw) > trust.MaxKeyFile {
		return nil, fmt.Errorf("%d bytes, at most %d: %w", len(raw), trust.MaxKeyFile, ErrCorrupt)
	}
	if len(raw) < len(keyMagic) || string(raw[:len(keyMagic)]) != keyMagic {
		return nil, fmt.Errorf("not a key file of version 1: %w", ErrCorrupt)
	}
	var f keyFile
	if err := canonical.Unmarshal(raw[len(keyMagic):], &f, trust.MaxKeyFile); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	h := f.Header
	if len(h.Salt) != saltSize || len(h.Nonce) != chacha20poly1305.NonceSizeX || len(f.Sealed) < chacha20poly1305.Overhead {
		return nil, fmt.Errorf("field sizes: %w", ErrCorrupt)
	}
	switch h.KDF {
	case kdfFile:
		if h.Time != 0 || h.Memory != 0 || h.Threads != 0 {
			return nil, fmt.Errorf("parameters where none belong: %w", ErrCorrupt)
		}
	case kdfArgon2id:
		if h.Time < 1 || h.Time > trust.MaxKDFTime || h.Memory < trust.MinKDFMemory || h.Memory > trust.MaxKDFMemory || h.Threads < 1 || h.Threads > trust.MaxKDFThreads {
			return nil, fmt.Errorf("argon2id t=%d m=%d KiB p=%d out of bounds: %w", h.Time, h.Memory, h.Threads, ErrCorrupt)
		}
	default:
		return nil, fmt.Errorf("key derivation %d unknown: %w", h.KDF, ErrCorrupt)
	}
	return &f, nil
}

func (h *keyHeader) associated(purpose string) ([]byte, error) {
	b, err := canonical.Marshal(h)
	if err != nil {
		return nil, err
	}
	return append(append([]byte(keyMagic+purpose), 0), b...), nil
}

// sealKey encrypts secret under wrap.
func sealKey(h keyHeader, wrap []byte, purpose string, secret []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(wrap)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	ad, err := h.associated(purpose)
	if err != nil {
		return nil, err
	}
	body, err := canonical.Marshal(keyFile{Header: h, Sealed: aead.Seal(nil, h.Nonce, secret, ad)})
	if err != nil {
		return nil, err
	}
	return append([]byte(keyMagic), body...), nil
}

func (f *keyFile) open(wrap []byte, purpose string) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(wrap)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	ad, err := f.Header.associated(purpose)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, f.Header.Nonce, f.Sealed, ad)
}

// writeSecret writes dir/key (and dir/wrap where there is no passphrase), mode 0600.
func writeSecret(dir, purpose string, secret, passphrase []byte, random io.Reader) error {
	if len(passphrase) > trust.MaxPassphrase {
		return fmt.Errorf("identity: passphrase of %d bytes, at most %d", len(passphrase), trust.MaxPassphrase)
	}
	if random == nil {
		random = rand.Reader
	}
	h := keyHeader{Salt: make([]byte, saltSize), Nonce: make([]byte, chacha20poly1305.NonceSizeX)}
	wrap := make([]byte, chacha20poly1305.KeySize)
	defer clear(wrap)
	for _, b := range [][]byte{h.Salt, h.Nonce, wrap} {
		if _, err := io.ReadFull(random, b); err != nil {
			return fmt.Errorf("identity: read random: %w", err)
		}
	}
	if len(passphrase) > 0 {
		h.KDF, h.Time, h.Memory, h.Threads = kdfArgon2id, trust.KDFTime, trust.KDFMemory, trust.KDFThreads
		wrap = argon2.IDKey(passphrase, h.Salt, h.Time, h.Memory, h.Threads, chacha20poly1305.KeySize)
	} else if err := writeFile(filepath.Join(dir, fileWrap), wrap, 0o600); err != nil {
		return err
	}
	sealed, err := sealKey(h, wrap, purpose, secret)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, fileKey), sealed, 0o600)
}

// readSecret reads dir/key, want bytes of it, and says how it was protected.
func readSecret(dir, purpose string, want int, passphrase []byte) (secret []byte, protection string, err error) {
	path := filepath.Join(dir, fileKey)
	raw, err := readPrivate(path, trust.MaxKeyFile)
	if err != nil {
		return nil, "", err
	}
	f, err := decodeKeyFile(raw)
	if err != nil {
		return nil, "", fmt.Errorf("identity: %s: %w", path, err)
	}
	var wrap []byte
	switch f.Header.KDF {
	case kdfArgon2id:
		if len(passphrase) == 0 || len(passphrase) > trust.MaxPassphrase {
			return nil, "", fmt.Errorf("identity: %s: %w", path, ErrPassphrase)
		}
		protection = protectionOf(passphrase)
		wrap = argon2.IDKey(passphrase, f.Header.Salt, f.Header.Time, f.Header.Memory, f.Header.Threads, chacha20poly1305.KeySize)
	default:
		protection = protectionOf(nil)
		if wrap, err = readPrivate(filepath.Join(dir, fileWrap), chacha20poly1305.KeySize); err != nil {
			return nil, "", err
		}
		if len(wrap) != chacha20poly1305.KeySize {
			return nil, "", fmt.Errorf("identity: %s: %d bytes: %w", filepath.Join(dir, fileWrap), len(wrap), ErrCorrupt)
		}
	}
	defer clear(wrap)
	secret, err = f.open(wrap, purpose)
	if err != nil {
		if f.Header.KDF == kdfArgon2id {
			// An AEAD cannot tell a wrong passphrase from a damaged file; the likelier is named.
			return nil, "", fmt.Errorf("identity: %s: %w", path, ErrPassphrase)
		}
		return nil, "", fmt.Errorf("identity: %s does not open with the key beside it: %w", path, ErrCorrupt)
	}
	if len(secret) != want {
		clear(secret)
		return nil, "", fmt.Errorf("identity: %s: %d bytes of seed, want %d: %w", path, len(secret), want, ErrCorrupt)
	}
	return secret, protection, nil
}

func protectionOf(passphrase []byte) string {
	if len(passphrase) > 0 {
		return "passphrase"
	}
	return "file"
}

// readPrivate reads a secret file, and refuses one that group or others can read.
func readPrivate(path string, limit int) ([]byte, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("identity: %s is missing: %w", path, ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("identity: %s has mode %04o, want 0600: %w", path, info.Mode().Perm(), ErrMode)
	}
	return readBounded(path, limit)
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("identity: read %s: %w", path, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("identity: %s is longer than %d bytes: %w", path, limit, ErrCorrupt)
	}
	return b, nil
}

// writeFile puts data at path so that a crash leaves the old file or the new one, never a part.
func writeFile(path string, data []byte, mode os.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("identity: write %s: %w", path, err)
		}
	}()
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
