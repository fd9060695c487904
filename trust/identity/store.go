package identity

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
)

// ErrStore: the key is kept by a TPM or a token, and it was not given, or was another kind.
var ErrStore = errors.New("the key is kept in hardware that was not named")

// Kind says what keeps the wrapping key of a key file.
type Kind uint8

// The kinds, by the number that stands in the key file.
const (
	KindFile       Kind = 0 // the file "wrap" beside it: whoever reads the folder has the key
	KindPassphrase Kind = 1 // nobody: Argon2id makes it from a passphrase
	KindTPM        Kind = 2 // a TPM, which gives it up while the host starts as it did
	KindPKCS11     Kind = 3 // a token behind PKCS#11, which may keep a part of the signing key itself
)

// String is the name on screen: "file", "passphrase", "tpm" or "pkcs11".
func (k Kind) String() string {
	switch k {
	case KindFile:
		return "file"
	case KindPassphrase:
		return "passphrase"
	case KindTPM:
		return "tpm"
	case KindPKCS11:
		return "pkcs11"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// WrapSize is the size of a wrapping key in bytes.
const WrapSize = chacha20poly1305.KeySize

// Store keeps wrapping keys where neither a file nor a person has them. It is for one goroutine at a time.
type Store interface {
	Kind() Kind
	// NewWrap gives a wrapping key, WrapSize bytes from random, and what Open takes to give it again: at most
	// trust.MaxSealed bytes, which stand in the key file for all to read.
	NewWrap(random io.Reader) (wrap, sealed []byte, err error)
	// Open gives the wrapping key that NewWrap gave with sealed.
	Open(sealed []byte) (wrap []byte, err error)
}

// Keeper is a Store that keeps a part of the signing key as well, which then cannot be read by anybody. What stands of it
// in the key file is half: at most trust.MaxSealed bytes, nothing of them secret.
type Keeper interface {
	Store
	// Generate makes a key of which it keeps a part; half is nil where it can keep none of that suite.
	Generate(s trust.Suite, random io.Reader) (key *composite.PrivateKey, half []byte, err error)
	// Adopt takes a part of a key that was made outside; half is nil where it can keep none.
	Adopt(key *composite.PrivateKey) (kept *composite.PrivateKey, half []byte, err error)
	// Load joins the part that this process has, seed, with the part that half names.
	Load(s trust.Suite, seed, half []byte) (*composite.PrivateKey, error)
	// Discard destroys what half names: the key has been rotated away.
	Discard(half []byte) error
}

// Kept is a Store whose wrapping key is known already: what a process that reaches the store hands to one that does not.
// A key file that it writes is bound to the same wrapping key.
type Kept struct {
	From   Kind
	Sealed []byte
	Wrap   []byte // secret
}

// Kind implements Store.
func (k *Kept) Kind() Kind { return k.From }

// NewWrap implements Store: it is the one it has.
func (k *Kept) NewWrap(io.Reader) (wrap, sealed []byte, err error) {
	return append([]byte(nil), k.Wrap...), append([]byte(nil), k.Sealed...), nil
}

// Open implements Store.
func (k *Kept) Open(sealed []byte) ([]byte, error) {
	if subtle.ConstantTimeCompare(sealed, k.Sealed) != 1 || len(k.Wrap) != WrapSize {
		return nil, fmt.Errorf("identity: another wrapping key than was handed over: %w", ErrCorrupt)
	}
	return append([]byte(nil), k.Wrap...), nil
}

// Protection is how the current key of an identity is protected, as its key file says; nothing is opened.
type Protection struct {
	Kind   Kind
	Sealed []byte // of KindTPM and KindPKCS11: the wrapping key as the store sealed it
	Half   []byte // of KindPKCS11: what the token keeps of the key itself; nil where nothing
}

// ReadProtection reads it from the identity in dir, without lock or passphrase.
func ReadProtection(dir string) (Protection, error) {
	keys, err := ReadKeys(dir)
	if err != nil {
		return Protection{}, err
	}
	f, _, err := readKeyFile(keySlot(dir, keys.Number()))
	if err != nil {
		return Protection{}, err
	}
	return Protection{Kind: f.Header.KDF, Sealed: f.Header.Sealed, Half: f.Header.Half}, nil
}

// Unwrap has store give up the wrapping key of the identity in dir.
func Unwrap(dir string, store Store) (*Kept, error) {
	p, err := ReadProtection(dir)
	if err != nil {
		return nil, err
	}
	if store == nil || p.Kind != store.Kind() {
		return nil, fmt.Errorf("identity: %s: %w: %s", dir, ErrStore, p.Kind)
	}
	wrap, err := openWrap(store, p.Sealed)
	if err != nil {
		return nil, err
	}
	return &Kept{From: p.Kind, Sealed: p.Sealed, Wrap: wrap}, nil
}

func openWrap(store Store, sealed []byte) ([]byte, error) {
	wrap, err := store.Open(sealed)
	if err == nil && len(wrap) != WrapSize {
		err = fmt.Errorf("a wrapping key of %d bytes, want %d: %w", len(wrap), WrapSize, ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return wrap, nil
}

// fileKey of a stored wrapping key: HKDF-SHA-256 by the file's salt and purpose, since one wrapping key may serve more than one file.
func fileWrapOf(wrap, salt []byte, purpose string) ([]byte, error) {
	return hkdf.Key(sha256.New, wrap, salt, purpose, chacha20poly1305.KeySize)
}

// folderRecovery lies in the next folder: a copy of the stored wrapping key, protected as the next key is.
const folderRecovery = "recovery"

const purposeRecovery = "omega/key/recovery/1"

// writeRecovery leaves a way back for the day when the TPM keeps what it has: new firmware, a new board.
func writeRecovery(nextDir string, wrap, passphrase []byte, random io.Reader) error {
	dir := filepath.Join(nextDir, folderRecovery)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return writeSecret(dir, purposeRecovery, wrap, nil, guard{passphrase: passphrase}, random)
}

// RecoveryPresent reports whether nextDir holds a copy of a stored wrapping key. It is not opened.
func RecoveryPresent(nextDir string) bool { return hasSecret(filepath.Join(nextDir, folderRecovery)) }

// Protect protects the current key of the identity in dir anew: with opt.Store, or with opt.Passphrase, or with neither.
// from is the store that keeps it now, nil where none does or it gives nothing up; then the copy in opt.NextDir does.
// The identity must not be open. It may be repeated after a crash.
func Protect(dir string, opt Options, from Store) error {
	keys, err := ReadKeys(dir)
	if err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	slot := keySlot(dir, keys.Number())
	g := opt.guard()
	keeper, _ := from.(Keeper)
	old, err := openCurrent(dir, keys, guard{passphrase: opt.Passphrase, store: from, keeper: keeper})
	if err != nil {
		kept, rerr := recovered(slot, opt)
		if rerr != nil {
			return errors.Join(err, rerr)
		}
		if old, err = openCurrent(dir, keys, guard{store: kept, keeper: keeper}); err != nil {
			return err
		}
	}
	half, key := old.half, old.key
	if g.keeper != nil && half == nil {
		if key, half, err = g.keeper.Adopt(key); err != nil {
			return err
		}
	} else if g.keeper == nil && half != nil { // nobody has the whole key
		return fmt.Errorf("identity: the token keeps a part of this key, and gives it to nobody: rotate to the next key instead: %w", ErrStore)
	}
	_, err = g.writeCurrent(slot, opt.nextDir(dir), key, old.transport, half, opt.random())
	return err
}

// recovered is the wrapping key of slot's key file by its copy in the next folder.
func recovered(slot string, opt Options) (*Kept, error) {
	f, _, err := readKeyFile(slot)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(opt.NextDir, folderRecovery)
	if !hasSecret(dir) {
		return nil, fmt.Errorf("identity: no copy of the wrapping key in %s: %w", dir, ErrNextKey)
	}
	s, err := readSecret(dir, purposeRecovery, guard{passphrase: opt.Passphrase})
	if err != nil {
		return nil, err
	}
	if len(s.secret) != WrapSize {
		return nil, fmt.Errorf("identity: %s: %w", dir, ErrCorrupt)
	}
	return &Kept{From: f.Header.KDF, Sealed: f.Header.Sealed, Wrap: s.secret}, nil
}
