package identity

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
)

// Typed refusals of Create and Open; each is wrapped with the path.
var (
	// ErrExists: Create found an identity; it never overwrites one.
	ErrExists = errors.New("an identity is already here")
	// ErrNone: Open found no identity.
	ErrNone = errors.New("no identity here")
	// ErrLocked: another process has this identity open. Two at once would make its feed fork.
	ErrLocked = errors.New("in use by another process")
	// ErrCorrupt: a file is there and is not what was written. Restore it from a backup; nothing was changed.
	ErrCorrupt = errors.New("damaged")
	// ErrPassphrase: the file is whole but the passphrase does not open it, or one is needed and none was given.
	ErrPassphrase = errors.New("wrong or missing passphrase")
	// ErrMode: a secret file can be read by others than its owner.
	ErrMode = errors.New("readable by other users")
)

// Options of Create and Open.
type Options struct {
	Name       string      // Create: the peer's name, see CheckName
	Suite      trust.Suite // Create: of its keys; zero is trust.SuiteDefault
	Passphrase []byte      // Argon2id where set; otherwise an unattended key file
	NextDir    string      // Create: where the pre-rotated next key is put; default <dir>/next, which a thief of dir has as well
	Random     io.Reader   // default crypto/rand: only tests set it
}

// File names within an identity's folder. Next's folder holds key and wrap of its own.
const (
	fileInception = "inception"
	fileKey       = "key"
	fileWrap      = "wrap"
	fileLock      = "lock"
	folderNext    = "next"
)

// Identity is a peer's (or an operator's) own keys, open. Close releases the lock on its folder. It is safe for
// concurrent use.
type Identity struct {
	dir        string
	inception  *Inception
	transport  ed25519.PrivateKey
	protection string
	lock       *os.File

	mu      sync.RWMutex // what Rotate changes
	key     *composite.PrivateKey
	keys    Keys
	carrier []byte
}

// Create makes a new identity in dir (mode 0700) and opens it. The next key's private half is written to opt.NextDir and
// forgotten.
func Create(dir string, opt Options) (*Identity, error) {
	if err := CheckName(opt.Name); err != nil {
		return nil, err
	}
	suite := opt.Suite
	if suite == 0 {
		suite = trust.SuiteDefault
	}
	random := opt.Random
	if random == nil {
		random = rand.Reader
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	done := false
	defer func() {
		if !done {
			_ = lock.Close()
		}
	}()
	if _, err := os.Lstat(filepath.Join(dir, fileInception)); err == nil {
		return nil, fmt.Errorf("identity: %s: %w", dir, ErrExists)
	}
	key, err := composite.Generate(suite, random)
	if err != nil {
		return nil, err
	}
	next, err := composite.Generate(suite, random)
	if err != nil {
		return nil, err
	}
	var transportSeed [ed25519.SeedSize]byte
	if _, err := io.ReadFull(random, transportSeed[:]); err != nil {
		return nil, fmt.Errorf("identity: read seed: %w", err)
	}
	transport := ed25519.NewKeyFromSeed(transportSeed[:])
	inception, err := newInception(opt.Name, key, next, transport)
	if err != nil {
		return nil, err
	}
	nextDir := opt.nextDir(dir)
	if err := os.MkdirAll(nextDir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	seed, nextSeed := key.Seed(), next.Seed()
	defer clear(seed)
	defer clear(nextSeed)
	secret := append(append(make([]byte, 0, len(seed)+len(transportSeed)), seed...), transportSeed[:]...)
	defer clear(secret)
	if err := writeSecret(nextDir, purposeNext, nextSeed, opt.Passphrase, random); err != nil {
		return nil, err
	}
	if err := writeSecret(dir, purposeCurrent, secret, opt.Passphrase, random); err != nil {
		return nil, err
	}
	// The inception is written last: where it is, everything is.
	if err := writeFile(filepath.Join(dir, fileInception), inception.Encode(), 0o644); err != nil {
		return nil, err
	}
	done = true
	return &Identity{
		dir: dir, inception: inception, key: key, keys: Keys{Inception: inception}, transport: transport, protection: protectionOf(opt.Passphrase), lock: lock,
	}, nil
}

func (o Options) nextDir(dir string) string {
	if o.NextDir != "" {
		return o.NextDir
	}
	return filepath.Join(dir, folderNext)
}

// Open reads the identity in dir and locks it. Its next key is not read: it is needed only to rotate.
func Open(dir string, opt Options) (*Identity, error) {
	keys, carrier, err := readKeys(dir)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	key, transport, protection, err := readCurrent(dir, keys, opt.Passphrase)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return &Identity{
		dir: dir, inception: keys.Inception, transport: transport, protection: protection, lock: lock,
		key: key, keys: keys, carrier: carrier,
	}, nil
}

// readCurrent reads the private keys that keys say are in use.
func readCurrent(dir string, keys Keys, passphrase []byte) (*composite.PrivateKey, ed25519.PrivateKey, string, error) {
	folder := keySlot(dir, keys.Number())
	size := composite.SeedSize(keys.Inception.Suite)
	secret, protection, err := readSecret(folder, purposeCurrent, size+ed25519.SeedSize, passphrase)
	if err != nil {
		return nil, nil, "", err
	}
	defer clear(secret)
	key, err := composite.FromSeed(keys.Inception.Suite, secret[:size])
	if err != nil {
		return nil, nil, "", err
	}
	transport := ed25519.NewKeyFromSeed(secret[size:])
	if !key.Public().Equal(keys.Current()) || !keys.Inception.TransportKey().Equal(transport.Public()) {
		return nil, nil, "", fmt.Errorf("identity: %s: the key does not belong to the public record beside it: %w", filepath.Join(folder, fileKey), ErrCorrupt)
	}
	return key, transport, protection, nil
}

// ReadInception reads the public record in dir, without lock or passphrase.
func ReadInception(dir string) (*Inception, error) {
	path := filepath.Join(dir, fileInception)
	raw, err := readBounded(path, trust.MaxInception)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("identity: %s: %w", dir, ErrNone)
	}
	if err != nil {
		return nil, err
	}
	inception, err := DecodeInception(raw)
	if err != nil {
		return nil, fmt.Errorf("identity: %s: %w: %w", path, ErrCorrupt, err)
	}
	return inception, nil
}

// DID is the identity's name.
func (i *Identity) DID() DID { return i.inception.DID() }

// Inception is the public record.
func (i *Identity) Inception() *Inception { return i.inception }

// Transport is the private key of the libp2p host.
func (i *Identity) Transport() ed25519.PrivateKey { return i.transport }

// Suite is what the identity signs with; a swarm takes only members of its own.
func (i *Identity) Suite() trust.Suite { return i.inception.Suite }

// Sign signs msg with the composite key under context (at most 255 bytes, domain-separated by its caller).
func (i *Identity) Sign(context string, msg []byte) ([]byte, error) {
	i.mu.RLock()
	key := i.key
	i.mu.RUnlock()
	return key.Sign(context, msg)
}

// Keys is the public history of this identity's key.
func (i *Identity) Keys() Keys {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.keys
}

// Derive is a secret of this identity for one purpose, named by label: HKDF-SHA-256 (RFC 5869) of the current key's seed.
// Who knows it learns nothing of the seed or of other labels'.
func (i *Identity) Derive(label string) (secret [32]byte, err error) {
	seed := i.key.Seed()
	defer clear(seed[:])
	b, err := hkdf.Key(sha256.New, seed[:], nil, label, len(secret))
	if err != nil {
		return secret, fmt.Errorf("identity: derive: %w", err)
	}
	defer clear(b)
	copy(secret[:], b)
	return secret, nil
}

// Protection is "passphrase", or "file": then whoever reads the folder (root, a backup) has the key.
func (i *Identity) Protection() string { return i.protection }

// Close releases the lock. The keys stay in memory until the value is collected.
func (i *Identity) Close() error {
	if i.lock == nil {
		return nil
	}
	return i.lock.Close()
}

// lockDir takes the exclusive lock of dir; the kernel releases it with the process, so that none is ever stale.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, fileLock)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("identity: %s: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("identity: lock %s: %w", path, err)
	}
	return f, nil
}
