package identity

import (
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

type keyHeader struct {
	KDF     Kind   `cbor:"1,keyasint"`
	Time    uint32 `cbor:"2,keyasint"` // Argon2id passes; 0 but for KindPassphrase, as are the next two
	Memory  uint32 `cbor:"3,keyasint"` // KiB
	Threads uint8  `cbor:"4,keyasint"`
	Salt    []byte `cbor:"5,keyasint"` // 16 bytes
	Nonce   []byte `cbor:"6,keyasint"` // 24 bytes
	// Of KindTPM and KindPKCS11: what the store takes to give the wrapping key, and what names the part of the key it keeps.
	Sealed []byte `cbor:"7,keyasint,omitempty"`
	Half   []byte `cbor:"8,keyasint,omitempty"`
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
	stored := h.KDF == KindTPM || h.KDF == KindPKCS11
	if stored != (len(h.Sealed) > 0) || len(h.Sealed) > trust.MaxSealed || len(h.Half) > 0 && h.KDF != KindPKCS11 || len(h.Half) > trust.MaxSealed {
		return nil, fmt.Errorf("a wrapping key of %d bytes sealed: %w", len(h.Sealed), ErrCorrupt)
	}
	switch h.KDF {
	case KindFile, KindTPM, KindPKCS11:
		if h.Time != 0 || h.Memory != 0 || h.Threads != 0 {
			return nil, fmt.Errorf("parameters where none belong: %w", ErrCorrupt)
		}
	case KindPassphrase:
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

// guard says what protects a key file: a store, or a passphrase, or where there is neither the file beside it.
type guard struct {
	passphrase []byte
	store      Store
	keeper     Keeper // of store, where it keeps a part of the key as well
	recovery   []byte // passphrase of the copy of store's wrapping key
}

func (g guard) kind() Kind {
	switch {
	case g.store != nil:
		return g.store.Kind()
	case len(g.passphrase) > 0:
		return KindPassphrase
	}
	return KindFile
}

// writeSecret writes dir/key (and dir/wrap where nothing else keeps the wrapping key), mode 0600. half is what a keeper
// keeps of the secret itself.
func writeSecret(dir, purpose string, secret, half []byte, g guard, random io.Reader) error {
	_, err := writeKept(dir, purpose, secret, half, g, random)
	return err
}

// writeKept is writeSecret, and gives the wrapping key where a store keeps it.
func writeKept(dir, purpose string, secret, half []byte, g guard, random io.Reader) (kept []byte, err error) {
	if len(g.passphrase) > trust.MaxPassphrase {
		return nil, fmt.Errorf("identity: passphrase of %d bytes, at most %d", len(g.passphrase), trust.MaxPassphrase)
	}
	h := keyHeader{KDF: g.kind(), Half: half, Salt: make([]byte, saltSize), Nonce: make([]byte, chacha20poly1305.NonceSizeX)}
	wrap := make([]byte, chacha20poly1305.KeySize)
	defer clear(wrap)
	for _, b := range [][]byte{h.Salt, h.Nonce, wrap} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, fmt.Errorf("identity: read random: %w", err)
		}
	}
	wrapPath := filepath.Join(dir, fileWrap)
	switch h.KDF {
	case KindPassphrase:
		h.Time, h.Memory, h.Threads = trust.KDFTime, trust.KDFMemory, trust.KDFThreads
		wrap = argon2.IDKey(g.passphrase, h.Salt, h.Time, h.Memory, h.Threads, chacha20poly1305.KeySize)
	case KindFile:
		if err := writeFile(wrapPath, wrap, 0o600); err != nil {
			return nil, err
		}
	default:
		if kept, h.Sealed, err = g.store.NewWrap(random); err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		if len(kept) != WrapSize || len(h.Sealed) == 0 || len(h.Sealed) > trust.MaxSealed {
			return nil, fmt.Errorf("identity: the store sealed %d bytes into %d: %w", len(kept), len(h.Sealed), ErrCorrupt)
		}
		if wrap, err = fileWrapOf(kept, h.Salt, purpose); err != nil {
			return nil, err
		}
	}
	sealed, err := sealKey(h, wrap, purpose, secret)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, fileKey), sealed, 0o600); err != nil {
		return nil, err
	}
	if h.KDF != KindFile { // what an earlier file of that kind left opens this one no longer, and must not look as if
		err = removeFile(wrapPath)
	}
	return kept, err
}

// readKeyFile reads dir/key without opening it.
func readKeyFile(dir string) (*keyFile, string, error) {
	path := filepath.Join(dir, fileKey)
	raw, err := readPrivate(path, trust.MaxKeyFile)
	if err != nil {
		return nil, path, err
	}
	f, err := decodeKeyFile(raw)
	if err != nil {
		return nil, path, fmt.Errorf("identity: %s: %w", path, err)
	}
	return f, path, nil
}

// opened is what was in a key file.
type opened struct {
	secret []byte
	half   []byte
	kind   Kind
	kept   *Kept // the wrapping key, where a store keeps it
}

// readSecret reads dir/key. The caller clears the secret, and checks its length.
func readSecret(dir, purpose string, g guard) (*opened, error) {
	f, path, err := readKeyFile(dir)
	if err != nil {
		return nil, err
	}
	h := &f.Header
	o := &opened{kind: h.KDF, half: h.Half}
	var wrap []byte
	switch h.KDF {
	case KindPassphrase:
		if len(g.passphrase) == 0 || len(g.passphrase) > trust.MaxPassphrase {
			return nil, fmt.Errorf("identity: %s: %w", path, ErrPassphrase)
		}
		wrap = argon2.IDKey(g.passphrase, h.Salt, h.Time, h.Memory, h.Threads, chacha20poly1305.KeySize)
	case KindFile:
		if wrap, err = readPrivate(filepath.Join(dir, fileWrap), chacha20poly1305.KeySize); err != nil {
			return nil, err
		}
		if len(wrap) != chacha20poly1305.KeySize {
			return nil, fmt.Errorf("identity: %s: %d bytes: %w", filepath.Join(dir, fileWrap), len(wrap), ErrCorrupt)
		}
	default:
		if g.store == nil || g.store.Kind() != h.KDF {
			return nil, fmt.Errorf("identity: %s: %w: %s", path, ErrStore, h.KDF)
		}
		o.kept = &Kept{From: h.KDF, Sealed: h.Sealed}
		if o.kept.Wrap, err = openWrap(g.store, h.Sealed); err != nil {
			return nil, err
		}
		if wrap, err = fileWrapOf(o.kept.Wrap, h.Salt, purpose); err != nil {
			return nil, err
		}
	}
	defer clear(wrap)
	if o.secret, err = f.open(wrap, purpose); err != nil {
		if h.KDF == KindPassphrase {
			// An AEAD cannot tell a wrong passphrase from a damaged file; the likelier is named.
			return nil, fmt.Errorf("identity: %s: %w", path, ErrPassphrase)
		}
		return nil, fmt.Errorf("identity: %s does not open with its wrapping key: %w", path, ErrCorrupt)
	}
	return o, nil
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
