// Package executable hashes what processes run, by the file that the kernel ran and not by what lies under its name now: the
// kernel's half ends what is denied by its hash, and the indicators are asked for it.
package executable

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of hashing.
const (
	MaxSize    = 256 << 20 // bytes of one file; a larger one is an error
	maxDigests = 8192      // remembered; all are forgotten past it
)

// Refusals.
var (
	// ErrLarge is wrapped where a file has more than MaxSize bytes.
	ErrLarge = errors.New("too large to be hashed")
	// ErrNotRegular is wrapped where something is no regular file.
	ErrNotRegular = errors.New("not a regular file")
)

// Image is the file that a process was started from, as the kernel knew it.
type Image struct {
	PID    uint32
	Path   string // absolute; asked for where the process is gone already
	Inode  uint64
	Device uint64 // major<<20 | minor, as the kernel has it
	// Untrusted says that somebody else names the file: what no process runs any more must be executable still, so that nobody is
	// told the digest of a file that is none of his.
	Untrusted bool
}

// Sums are the digests of one file. The weak ones are for published lists that have no other, and zero where not asked for.
type Sums struct {
	SHA256 [sha256.Size]byte
	Weak   bool // SHA1 and MD5 were taken too
	SHA1   [sha1.Size]byte
	MD5    [md5.Size]byte
}

// Stamp is one state of one file: a write moves the time of its inode's change, which nobody sets.
type Stamp struct {
	Device, Inode uint64
	Size          int64
	Changed       unix.Timespec
}

// StampOf is that of an open file; one that has no bytes of its own is an error.
func StampOf(f *os.File) (Stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Stamp{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Stamp{}, fmt.Errorf("%s: %w", f.Name(), ErrNotRegular)
	}
	return Stamp{st.Dev, st.Ino, st.Size, st.Ctim}, nil
}

// Hasher remembers what it hashed. It is safe for concurrent use, one file at a time; its zero value is ready.
type Hasher struct {
	mu     sync.Mutex
	known  map[Stamp]Sums
	buffer []byte
}

// Sum gives the digests of the image that f, from Open, is. It takes some milliseconds for each megabyte that it did not see before.
func (h *Hasher) Sum(ctx context.Context, f *os.File, weak bool) (Sums, error) {
	at, err := StampOf(f)
	if err != nil {
		return Sums{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if sums, ok := h.known[at]; ok && (sums.Weak || !weak) {
		return sums, nil
	}
	if at.Size > MaxSize {
		return Sums{}, fmt.Errorf("%w: %d bytes, more than %d", ErrLarge, at.Size, MaxSize)
	}
	if h.buffer == nil {
		h.buffer = make([]byte, 64<<10)
	}
	strong, first, second := sha256.New(), sha1.New(), md5.New()
	sums := Sums{Weak: weak}
	for left := int64(MaxSize); left > 0; { // it may grow meanwhile
		if err := ctx.Err(); err != nil {
			return Sums{}, err
		}
		n, err := f.Read(h.buffer[:min(int64(len(h.buffer)), left)])
		left -= int64(n)
		strong.Write(h.buffer[:n])
		if weak {
			first.Write(h.buffer[:n])
			second.Write(h.buffer[:n])
		}
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return Sums{}, fmt.Errorf("read %s: %w", f.Name(), err)
		}
	}
	strong.Sum(sums.SHA256[:0])
	if weak {
		first.Sum(sums.SHA1[:0])
		second.Sum(sums.MD5[:0])
	}
	// One changed a moment ago may change again within the clock's grain, and its stamp would not tell.
	if age := time.Since(time.Unix(at.Changed.Unix())); age > time.Second {
		if h.known == nil || len(h.known) >= maxDigests {
			h.known = map[Stamp]Sums{}
		}
		h.known[at] = sums
	}
	return sums, nil
}

// Open opens what was executed: the process's own image or, where that is gone already, its path, if it leads to the same file.
func (i *Image) Open() (*os.File, error) {
	var errs []error
	for n, path := range []string{fmt.Sprintf("/proc/%d/exe", i.PID), i.Path} {
		if !strings.HasPrefix(path, "/") {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f := os.NewFile(uintptr(fd), path)
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		if err == nil && (st.Ino != i.Inode || uint64(unix.Major(st.Dev))<<20|uint64(unix.Minor(st.Dev)) != i.Device || st.Mode&unix.S_IFMT != unix.S_IFREG || n == 1 && i.Untrusted && st.Mode&0o111 == 0) {
			err = fmt.Errorf("%s is another file now", path)
		}
		if err == nil {
			return f, nil
		}
		errs = append(errs, err)
		f.Close()
	}
	return nil, errors.Join(errs...)
}
