package quarantine

import (
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Restore gives a file back as it was: the same bytes under the same name with the same owner, mode, times and
// attributes. Its inode is another. Where its folder is gone, or was replaced by a link, or its name was given away,
// nothing is done and the file stays sealed.
func (s *Store) Restore(id string) (Record, error) {
	s.work.Lock()
	defer s.work.Unlock()
	r, ok := s.Get(id)
	if !ok {
		return Record{}, ErrUnknown
	}
	if err := s.copyOut(&r); err != nil {
		return r, fmt.Errorf("%s stays sealed: %w", r.Path, err)
	}
	if err := s.drop(id); err != nil { // it is back; the next try would find its name taken
		s.log.Warn("the record of a released file was not removed", "id", id, "err", err)
	}
	return r, nil
}

// RestoreAll gives every file back and returns how many.
func (s *Store) RestoreAll() (int, error) {
	n := 0
	var errs []error
	for _, r := range s.List() {
		if _, err := s.Restore(r.ID); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

func (s *Store) copyOut(r *Record) error {
	in, err := os.OpenFile(s.file(r.ID, endCopy), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	// The path had no link in it: one there now was put there since, to have the file put elsewhere.
	folder, err := unix.Openat2(unix.AT_FDCWD, filepath.Dir(r.Path), &unix.OpenHow{Flags: unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return &os.PathError{Op: "open its folder", Path: filepath.Dir(r.Path), Err: err}
	}
	dir := os.NewFile(uintptr(folder), filepath.Dir(r.Path))
	defer dir.Close()
	var st unix.Stat_t
	base := filepath.Base(r.Path)
	if unix.Fstatat(folder, base, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return ErrTaken
	}
	temporary := ".omega-restore-" + r.ID
	if err := unix.Unlinkat(folder, temporary, 0); err != nil && !errors.Is(err, unix.ENOENT) { // of a try that was cut short
		return err
	}
	fd, err := unix.Openat(folder, temporary, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: r.Path, Err: err}
	}
	out := os.NewFile(uintptr(fd), r.Path)
	defer out.Close()
	err = unseal(r, in, out)
	if err == nil {
		err = dress(r, out)
	}
	if err == nil {
		err = out.Sync()
	}
	if err == nil {
		err = unix.Renameat2(folder, temporary, folder, base, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			err = ErrTaken
		}
	}
	if err != nil {
		return errors.Join(err, ignoreGone(unix.Unlinkat(folder, temporary, 0)))
	}
	if r.Flags&fixed != 0 {
		if err := setFlags(fd, r.Flags); err != nil {
			s.log.Warn("a released file is not immutable again", "path", r.Path, "err", err)
		}
	}
	return dir.Sync()
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// Reader gives the bytes of a sealed file to whoever only looks at them; they are not held against their hash.
func (s *Store) Reader(id string) (io.ReadCloser, Record, error) {
	r, ok := s.Get(id)
	if !ok {
		return nil, r, ErrUnknown
	}
	in, err := os.OpenFile(s.file(id, endCopy), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, r, err
	}
	stream, err := scramble(r.Key)
	if err != nil {
		in.Close()
		return nil, r, err
	}
	return struct {
		io.Reader
		io.Closer
	}{&cipher.StreamReader{S: stream, R: io.LimitReader(in, r.Size)}, in}, r, nil
}

// unseal writes the bytes and holds them against the record.
func unseal(r *Record, in io.Reader, out io.Writer) error {
	stream, err := scramble(r.Key)
	if err != nil {
		return err
	}
	hash := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(out, hash)}, &cipher.StreamReader{S: stream, R: io.LimitReader(in, r.Size+1)}, make([]byte, block))
	if err != nil {
		return err
	}
	if n != r.Size || hex.EncodeToString(hash.Sum(nil)) != r.SHA256 {
		return errors.New("its sealed copy was changed")
	}
	return nil
}

// dress gives out what the record says. The owner comes first, since a change of it takes capabilities and the bits of
// set-user-ID away; the times last.
func dress(r *Record, out *os.File) error {
	fd := int(out.Fd())
	if err := unix.Fchown(fd, int(r.UID), int(r.GID)); err != nil {
		return fmt.Errorf("give it its owner: %w", err)
	}
	for _, x := range r.Xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("give it its extended attribute %s: %w", x.Name, err)
		}
	}
	if err := unix.Fchmod(fd, r.Mode&0o7777); err != nil {
		return fmt.Errorf("give it its mode: %w", err)
	}
	times := []unix.Timespec{unix.NsecToTimespec(r.Accessed.UnixNano()), unix.NsecToTimespec(r.Modified.UnixNano())}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times, 0); err != nil {
		return fmt.Errorf("give it its times: %w", err)
	}
	return nil
}
