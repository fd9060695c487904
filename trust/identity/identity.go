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
	Store      Store       // keeps the current key's wrapping key instead; Passphrase is then the next key's
	NextDir    string      // where the pre-rotated next key is put; default <dir>/next, which a thief of dir has as well
	Random     io.Reader   // of new keys; default crypto/rand
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
	dir       string
	inception *Inception
	transport ed25519.PrivateKey
	guard     guard // of the key file that Rotate writes
	random    io.Reader
	lock      *os.File

	mu      sync.RWMutex // what Rotate changes
	kind    Kind
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
	random := opt.random()
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
	g := opt.guard()
	var key *composite.PrivateKey
	var half []byte
	if g.keeper != nil {
		key, half, err = g.keeper.Generate(suite, random)
	} else {
		key, err = composite.Generate(suite, random)
	}
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
	nextSeed := next.Seed()
	defer clear(nextSeed)
	if err := writeSecret(nextDir, purposeNext, nextSeed, nil, guard{passphrase: opt.Passphrase}, random); err != nil {
		return nil, err
	}
	kept, err := g.writeCurrent(dir, nextDir, key, transport, half, random)
	if err != nil {
		return nil, err
	}
	// The inception is written last: where it is, everything is.
	if err := writeFile(filepath.Join(dir, fileInception), inception.Encode(), 0o644); err != nil {
		return nil, err
	}
	done = true
	return &Identity{
		dir: dir, inception: inception, key: key, keys: Keys{Inception: inception}, transport: transport, lock: lock,
		guard: g.after(kept), random: random, kind: g.kind(),
	}, nil
}

func (o Options) random() io.Reader {
	if o.Random != nil {
		return o.Random
	}
	return rand.Reader
}

func (o Options) guard() guard {
	if o.Store == nil {
		return guard{passphrase: o.Passphrase}
	}
	keeper, _ := o.Store.(Keeper)
	return guard{store: o.Store, keeper: keeper, recovery: o.Passphrase}
}

// after is what protects the key file that a rotation writes: the same wrapping key, where a store keeps it, since the
// running node may not reach the store.
func (g guard) after(kept *Kept) guard {
	if kept != nil {
		g.store = kept
	}
	return g
}

// writeCurrent writes the key file of the current key, and where a store keeps the wrapping key a copy of that for the
// day the store gives nothing up.
func (g guard) writeCurrent(slot, nextDir string, key *composite.PrivateKey, transport ed25519.PrivateKey, half []byte, random io.Reader) (*Kept, error) {
	seed := key.Seed()
	defer clear(seed)
	secret := append(append(make([]byte, 0, len(seed)+ed25519.SeedSize), seed...), transport.Seed()...)
	defer clear(secret)
	wrap, err := writeKept(slot, purposeCurrent, secret, half, guard{store: g.store, passphrase: g.passphrase}, random)
	if err != nil || wrap == nil {
		return nil, err
	}
	f, _, err := readKeyFile(slot)
	if err != nil {
		return nil, err
	}
	return &Kept{From: f.Header.KDF, Sealed: f.Header.Sealed, Wrap: wrap}, writeRecovery(nextDir, wrap, g.recovery, random)
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
	g := opt.guard()
	g.passphrase = opt.Passphrase // a file of another kind than the store's is opened by what it needs
	c, err := openCurrent(dir, keys, g)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	g = g.after(c.kept)
	if c.kept == nil {
		g = guard{passphrase: opt.Passphrase}
	}
	return &Identity{
		dir: dir, inception: keys.Inception, transport: c.transport, lock: lock, guard: g, random: opt.random(), kind: c.kind,
		key: c.key, keys: keys, carrier: carrier,
	}, nil
}

// current is the current key, open.
type current struct {
	opened
	key       *composite.PrivateKey
	transport ed25519.PrivateKey
}

// openCurrent reads the private keys that keys say are in use.
func openCurrent(dir string, keys Keys, g guard) (*current, error) {
	folder := keySlot(dir, keys.Number())
	o, err := readSecret(folder, purposeCurrent, g)
	if err != nil {
		return nil, err
	}
	defer clear(o.secret)
	path, suite := filepath.Join(folder, fileKey), keys.Inception.Suite
	size := len(o.secret) - ed25519.SeedSize
	if size < 0 || o.half == nil && size != composite.SeedSize(suite) {
		return nil, fmt.Errorf("identity: %s: %d bytes of seeds: %w", path, len(o.secret), ErrCorrupt)
	}
	c := &current{opened: *o, transport: ed25519.NewKeyFromSeed(o.secret[size:])}
	c.secret = nil
	if o.half == nil {
		c.key, err = composite.FromSeed(suite, o.secret[:size])
	} else if g.keeper == nil {
		err = fmt.Errorf("identity: %s: a part of the key is in the token: %w", path, ErrStore)
	} else {
		c.key, err = g.keeper.Load(suite, o.secret[:size], o.half)
	}
	if err != nil {
		return nil, err
	}
	if !c.key.Public().Equal(keys.Current()) || !keys.Inception.TransportKey().Equal(c.transport.Public()) {
		return nil, fmt.Errorf("identity: %s: the key does not belong to the public record beside it: %w", path, ErrCorrupt)
	}
	return c, nil
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

// Derive is a secret of this identity for one purpose, named by label: HKDF-SHA-256 (RFC 5869) of the current key's seed;
// where a token keeps a part of that, of what the file has, the transport key's included. Who knows it learns nothing of
// the seed or of other labels'.
func (i *Identity) Derive(label string) (secret [32]byte, err error) {
	i.mu.RLock()
	seed := i.key.Seed()
	i.mu.RUnlock()
	if len(seed) < composite.SeedSize(i.Suite()) {
		seed = append(seed, i.transport.Seed()...)
	}
	defer clear(seed)
	b, err := hkdf.Key(sha256.New, seed, nil, label, len(secret))
	if err != nil {
		return secret, fmt.Errorf("identity: derive: %w", err)
	}
	defer clear(b)
	copy(secret[:], b)
	return secret, nil
}

// Protection is what protects the key file. Of KindFile, whoever reads the folder (root, a backup) has the key.
func (i *Identity) Protection() Kind {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.kind
}

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
