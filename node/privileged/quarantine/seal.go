package quarantine

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

const (
	keySize = 32
	block   = 256 << 10 // bytes copied at once
)

// scramble is the seal of a copy, both ways. Each copy has a key of its own, so that the counter may start at zero.
func scramble(key []byte) (cipher.Stream, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewCTR(b, make([]byte, aes.BlockSize)), nil
}

// Seal takes f out of reach under id. blocked is noted in the record: until when, on CLOCK_BOOTTIME, its execution is
// denied. An error leaves the file where it was, unless it says otherwise.
func (s *Store) Seal(id string, f *Found, blocked uint64) (Record, error) {
	s.work.Lock()
	defer s.work.Unlock()
	if !event.ValidResponseID(id) {
		return Record{}, fmt.Errorf("%w: id %.40q", ErrRecord, id)
	}
	if r, ok := s.Get(id); ok {
		return r, fmt.Errorf("%s holds %s already", id, r.Path)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return Record{}, err
	}
	if err := s.room(f.stat.Size); err != nil {
		return Record{}, err
	}
	r := &Record{
		ID: id, State: Sealing, Path: f.path, Device: f.stat.Dev, Inode: f.stat.Ino, Generation: f.generation, Size: f.stat.Size,
		Mode: f.stat.Mode, UID: f.stat.Uid, GID: f.stat.Gid, Links: uint64(f.stat.Nlink), Accessed: timeOf(f.stat.Atim), Modified: timeOf(f.stat.Mtim),
		Flags: f.flags, Key: make([]byte, keySize), At: time.Now().UTC(), Blocked: blocked,
	}
	if _, err := rand.Read(r.Key); err != nil {
		return Record{}, err
	}
	var err error
	if r.Xattrs, err = Xattrs(int(f.file.Fd())); err != nil {
		return Record{}, err
	}
	if err := s.copyIn(r, f); err != nil {
		return Record{}, errors.Join(err, remove(s.file(id, endCopy)))
	}
	if err := s.write(r); err != nil {
		return Record{}, errors.Join(fmt.Errorf("keep its record: %w", err), s.drop(id))
	}
	if err := s.take(r, f); err != nil {
		return Record{}, err
	}
	r.State = Sealed
	if err := s.write(r); err != nil { // the next Open settles it
		s.log.Warn("the record of a quarantined file was not brought up to date", "id", id, "err", err)
	}
	return *r, nil
}

// copyIn writes the sealed copy and its hash, and looks that nobody wrote meanwhile.
func (s *Store) copyIn(r *Record, f *Found) error {
	out, err := os.OpenFile(s.file(r.ID, endCopy), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o400)
	if err != nil {
		return err
	}
	defer out.Close()
	stream, err := scramble(r.Key)
	if err != nil {
		return err
	}
	hash := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{&cipher.StreamWriter{S: stream, W: out}}, io.TeeReader(io.NewSectionReader(f.file, 0, r.Size+1), hash), make([]byte, block))
	if err != nil {
		return fmt.Errorf("copy it: %w", err)
	}
	if err := out.Sync(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &st); err != nil {
		return err
	}
	if n != r.Size || !f.same(&st) {
		return ErrChanged
	}
	r.SHA256 = hex.EncodeToString(hash.Sum(nil))
	return nil
}

// take removes the file's name. It is renamed first, so that what is removed can be held against what was sealed: a name
// may have been given to another file since.
func (s *Store) take(r *Record, f *Found) error {
	dir, fd := int(f.dir.Fd()), int(f.file.Fd())
	aside := asideName(r.ID)
	if f.hasFlags && f.flags&fixed != 0 { // what set it did so against this
		if err := setFlags(fd, f.flags&^fixed); err != nil {
			return errors.Join(fmt.Errorf("it is immutable: %w", err), s.drop(r.ID))
		}
	}
	refuse := func(err error) error {
		if f.hasFlags && f.flags&fixed != 0 {
			err = errors.Join(err, setFlags(fd, f.flags))
		}
		return errors.Join(err, s.drop(r.ID))
	}
	if err := unix.Renameat2(dir, f.base, dir, aside, unix.RENAME_NOREPLACE); err != nil {
		return refuse(fmt.Errorf("take its name: %w", err))
	}
	var st unix.Stat_t
	err := unix.Fstatat(dir, aside, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && !f.same(&st) {
		err = ErrChanged
	}
	if err == nil {
		err = unix.Unlinkat(dir, aside, 0)
	}
	if err == nil {
		return f.dir.Sync()
	}
	if back := unix.Renameat2(dir, aside, dir, f.base, unix.RENAME_NOREPLACE); back != nil {
		err = errors.Join(err, fmt.Errorf("it lies at %s now, and its name was taken: %w", filepath.Join(filepath.Dir(f.path), aside), back))
	}
	return refuse(err)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
