package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
)

// Where keys lie. The current key number n is in the folder's own `key` for 0 and in <n>/key after; the next key, number
// n+1, in the next folder's own `key` for 1 and in <n+1>/key after. So no file is ever written over: which of them counts
// is said by the public file `rotations`, whose renaming into place is the one instant in which a rotation happens.
const (
	fileRotations = "rotations"
	// maxRotationsFile bounds it: every record, and the feed entry that carries the last.
	maxRotationsFile = trust.MaxRotations*(trust.MaxRotation+8) + trust.MaxEntry + 64
)

// ErrNextKey: the next key is not where it was looked for, or is not the one that was committed to.
var ErrNextKey = errors.New("the pre-rotated next key is not here")

type rotationsFile struct {
	Records [][]byte `cbor:"1,keyasint"`
	Carrier []byte   `cbor:"2,keyasint"` // the signed feed entry of the last record
}

func keySlot(dir string, n uint32) string {
	if n == 0 {
		return dir
	}
	return filepath.Join(dir, strconv.FormatUint(uint64(n), 10))
}

func nextSlot(nextDir string, n uint32) string {
	if n <= 1 {
		return nextDir
	}
	return keySlot(nextDir, n)
}

// ReadKeys reads the public history of the identity in dir, without lock or passphrase.
func ReadKeys(dir string) (Keys, error) {
	keys, _, err := readKeys(dir)
	return keys, err
}

func readKeys(dir string) (Keys, []byte, error) {
	inception, err := ReadInception(dir)
	if err != nil {
		return Keys{}, nil, err
	}
	keys := Keys{Inception: inception}
	path := filepath.Join(dir, fileRotations)
	raw, err := readBounded(path, maxRotationsFile)
	if errors.Is(err, os.ErrNotExist) {
		return keys, nil, nil
	}
	if err != nil {
		return Keys{}, nil, err
	}
	records, carrier, err := decodeRotations(raw)
	if err != nil {
		return Keys{}, nil, fmt.Errorf("identity: %s: %w: %w", path, ErrCorrupt, err)
	}
	for _, record := range records {
		r, err := DecodeRotation(record)
		if err == nil {
			err = keys.Follows(r)
		}
		if err != nil {
			return Keys{}, nil, fmt.Errorf("identity: %s: %w: %w", path, ErrCorrupt, err)
		}
		keys = keys.Rotated(r)
	}
	return keys, carrier, nil
}

func decodeRotations(raw []byte) ([][]byte, []byte, error) {
	var f rotationsFile
	if len(raw) < 1 || raw[0] != rotationVersion {
		return nil, nil, ErrRotation
	}
	if err := canonical.Unmarshal(raw[1:], &f, maxRotationsFile); err != nil {
		return nil, nil, err
	}
	if len(f.Records) > trust.MaxRotations || len(f.Carrier) > trust.MaxEntry {
		return nil, nil, fmt.Errorf("%d records, entry of %d bytes: %w", len(f.Records), len(f.Carrier), ErrRotation)
	}
	return f.Records, f.Carrier, nil
}

// Carrier is the feed entry that carries the last rotation, as it was signed; nil before the first. Where a crash came
// between the rotation and the feed, it is put there at the next start.
func (i *Identity) Carrier() []byte {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.carrier
}

// Rotate makes key, the one that was committed to, this identity's current key. carry makes the record (NewRotation) of
// that number and the feed entry that carries it, both signed by key; they are on the disk before key signs anything
// else. carry must not use the identity. A crash at any point leaves the old key in use or the new one. The key file is
// protected as the one before where a store keeps that; passphrase is as for Create otherwise.
func (i *Identity) Rotate(key *composite.PrivateKey, passphrase []byte, carry func(number uint32) (*Rotation, []byte, error)) (*Rotation, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := i.keys.Number() + 1
	if n > trust.MaxRotations {
		return nil, fmt.Errorf("identity: %d rotations, the most there may be: %w", n-1, ErrRotation)
	}
	if NextHash(key.Public()) != i.keys.Next() {
		return nil, fmt.Errorf("identity: %w", ErrNextKey)
	}
	r, entry, err := carry(n)
	if err != nil {
		return nil, err
	}
	if err := i.keys.Follows(r); err != nil {
		return nil, err
	}
	keys := i.keys.Rotated(r)
	slot := keySlot(i.dir, n)
	if err := os.MkdirAll(slot, 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	before, _, err := readKeyFile(keySlot(i.dir, n-1))
	if err != nil {
		return nil, err
	}
	g, half := i.guard, []byte(nil)
	if g.store == nil {
		g.passphrase = passphrase
	} else if g.keeper != nil {
		if key, half, err = g.keeper.Adopt(key); err != nil {
			return nil, err
		}
	}
	// No copy of the wrapping key is written: it is the one that has a copy already.
	seed := key.Seed()
	secret := append(append(make([]byte, 0, len(seed)+ed25519.SeedSize), seed...), i.transport.Seed()...)
	defer clear(seed)
	defer clear(secret)
	if err := writeSecret(slot, purposeCurrent, secret, half, g, i.random); err != nil {
		return nil, err
	}
	f := rotationsFile{Carrier: entry}
	for _, r := range keys.Rotations {
		f.Records = append(f.Records, r.Encode())
	}
	b, err := canonical.Marshal(f)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(i.dir, fileRotations), append([]byte{rotationVersion}, b...), 0o644); err != nil {
		return nil, err
	}
	i.key, i.keys, i.carrier, i.kind = key, keys, entry, g.kind()
	if e, err := ReadEndorsement(i.dir); err == nil { // the TPM is the same; only the new key's word on it counts now
		if err := writeEndorsement(i.dir, i.DID(), n, key, e.Key); err != nil {
			return nil, err
		}
	}
	if old := before.Header.Half; old != nil && g.keeper != nil {
		err = g.keeper.Discard(old)
	}
	return r, errors.Join(err, removeSecret(keySlot(i.dir, n-1)))
}

// removeSecret overwrites a key and its wrapping key with zeros, and removes them. On flash and copy-on-write file systems
// the zeros are best effort: what was stolen before is answered by the rotation itself.
func removeSecret(dir string) error {
	var errs []error
	for _, name := range []string{fileKey, fileWrap} {
		errs = append(errs, removeFile(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

// removeFile overwrites a secret file with zeros and removes it; that there is none is no error.
func removeFile(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().IsRegular() {
		err = zero(path, info.Size())
	}
	if err := errors.Join(err, os.Remove(path)); err != nil {
		return fmt.Errorf("identity: remove %s: %w", path, err)
	}
	return nil
}

func zero(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(make([]byte, min(size, trust.MaxKeyFile))); err != nil {
		return err
	}
	return f.Sync()
}

// Succession is the next key, taken out of its folder to become the current one, with the hash of the one made to follow it.
type Succession struct {
	Number uint32                // of Key
	Key    *composite.PrivateKey // to be handed to Rotate
	Next   [32]byte              // of the key after, which lies in the next folder already

	nextDir string
	guard   guard
	random  io.Reader
	lock    *os.File
}

// Succeed reads the next key of the identity in dir from opt.NextDir, and makes the one after it there, both under
// opt.Passphrase. dir's own secrets are not read, and it need not be closed. It may be repeated after a crash: what it made
// then is used again. The caller closes it.
func Succeed(dir string, opt Options) (*Succession, error) {
	nextDir := opt.nextDir(dir)
	keys, err := ReadKeys(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(nextDir); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("identity: %s: %w", nextDir, ErrNextKey)
	}
	lock, err := lockDir(nextDir)
	if err != nil {
		return nil, err
	}
	s := &Succession{Number: keys.Number() + 1, nextDir: nextDir, guard: guard{passphrase: opt.Passphrase}, random: opt.random(), lock: lock}
	if err := s.take(keys); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Succession) take(keys Keys) error {
	if s.Number > trust.MaxRotations {
		return fmt.Errorf("identity: %d rotations, the most there may be: %w", keys.Number(), ErrRotation)
	}
	var err error
	if s.Key, err = readNext(s.nextDir, s.Number, keys.Inception.Suite, s.guard); err != nil {
		return err
	}
	if NextHash(s.Key.Public()) != keys.Next() {
		return fmt.Errorf("identity: %s holds another key than was committed to: %w", nextSlot(s.nextDir, s.Number), ErrNextKey)
	}
	after, err := readNext(s.nextDir, s.Number+1, keys.Inception.Suite, s.guard)
	if errors.Is(err, ErrNextKey) {
		after, err = makeNext(s.nextDir, s.Number+1, keys.Inception.Suite, s.guard, s.random)
	}
	if err != nil {
		return err
	}
	s.Next = NextHash(after.Public())
	if s.Number > 1 {
		err = removeSecret(nextSlot(s.nextDir, s.Number-1)) // what a crash kept Done from
	}
	return err
}

func readNext(nextDir string, n uint32, suite trust.Suite, g guard) (*composite.PrivateKey, error) {
	slot := nextSlot(nextDir, n)
	if !hasSecret(slot) {
		return nil, fmt.Errorf("identity: %s: %w", slot, ErrNextKey)
	}
	o, err := readSecret(slot, purposeNext, g)
	if err != nil {
		return nil, err
	}
	defer clear(o.secret)
	key, err := composite.FromSeed(suite, o.secret)
	if err != nil {
		return nil, fmt.Errorf("identity: %s: %w: %w", slot, ErrCorrupt, err)
	}
	return key, nil
}

func hasSecret(slot string) bool {
	_, err := os.Lstat(filepath.Join(slot, fileKey))
	return err == nil
}

func makeNext(nextDir string, n uint32, suite trust.Suite, g guard, random io.Reader) (*composite.PrivateKey, error) {
	key, err := composite.Generate(suite, random)
	if err != nil {
		return nil, err
	}
	slot := nextSlot(nextDir, n)
	if err := os.MkdirAll(slot, 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	seed := key.Seed()
	defer clear(seed)
	return key, writeSecret(slot, purposeNext, seed, nil, g, random)
}

// Done removes the key that has become the current one from the next folder.
func (s *Succession) Done() error { return removeSecret(nextSlot(s.nextDir, s.Number)) }

// Close lets go of the next folder.
func (s *Succession) Close() error { return s.lock.Close() }

// NextPresent reports whether the next key of an identity that has rotated n times lies in nextDir. It is not opened.
func NextPresent(nextDir string, n uint32) bool { return hasSecret(nextSlot(nextDir, n+1)) }
