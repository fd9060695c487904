package integrity

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"lukechampine.com/blake3"
)

// DefaultPaths are what a host's baseline is of when nobody says otherwise: what it starts, who may enter, and what runs by
// itself. Those that are not there are left out.
func DefaultPaths() []string {
	return []string{"/etc", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/boot", "/root/.ssh", "/root/.bashrc", "/root/.profile",
		"/var/spool/cron", "/usr/lib/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/security"}
}

// DefaultExclude are paths below those that change by themselves.
func DefaultExclude() []string {
	return []string{"/etc/mtab", "/etc/ld.so.cache", "/etc/adjtime", "/etc/resolv.conf", "/etc/machine-id"}
}

// Options of Take.
type Options struct {
	Paths   []string  // absolute and clean
	Exclude []string  // absolute and clean, each with all below it
	Before  *Baseline // digests are taken over from it where nothing has happened to a file; may be nil
	// Share is how much of one core it may take, 0 to 1; 0 means 0.5 %. It is the thread's CPU time that counts.
	Share float64
	// Rate bounds the bytes read a second; 0 means no bound.
	Rate int64
	// Limit bounds the entries; 0 means MaxEntries.
	Limit int
	// Done, if set, takes how many entries and how many bytes were done so far, after each stretch of work.
	Done func(entries int, bytes int64)
}

const defaultShare = 0.005

// Take reads the watched paths. It does not follow links nor cross into other file systems, and paces itself: after each
// stretch of work it rests so long that its share of a core holds. It ends early, with an error, only when ctx does.
func Take(ctx context.Context, opt Options) (*Baseline, error) {
	if opt.Share <= 0 || opt.Share > 1 {
		opt.Share = defaultShare
	}
	if opt.Limit <= 0 || opt.Limit > MaxEntries {
		opt.Limit = MaxEntries
	}
	for _, p := range append(slices.Clone(opt.Paths), opt.Exclude...) {
		if !plain(p) {
			return nil, fmt.Errorf("%q: a watched path is absolute and clean", p)
		}
	}
	// Its CPU time is its thread's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t := newTaker(opt)
	for _, p := range opt.Paths {
		if err := t.walk(ctx, p, 0, nil); err != nil {
			return nil, err
		}
	}
	return t.sorted(), nil
}

// plain says whether a path is one that can be watched.
func plain(p string) bool {
	return len(p) <= MaxPath && filepath.IsAbs(p) && filepath.Clean(p) == p && strings.IndexByte(p, 0) < 0
}

func newTaker(opt Options) *taker {
	return &taker{opt: opt, out: &Baseline{}, hash: blake3.New(32, nil), buf: make([]byte, 64<<10), seen: map[string]bool{}, worked: threadTime()}
}

// sorted is what was taken, in the order of paths.
func (t *taker) sorted() *Baseline {
	slices.SortFunc(t.out.Entries, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	return t.out
}

type taker struct {
	opt    Options
	out    *Baseline
	hash   *blake3.Hasher
	buf    []byte
	seen   map[string]bool
	worked time.Duration // CPU time up to when it rested last
	read   int64         // bytes since then
	bytes  int64         // bytes at all
	over   bool          // there was more than Limit
	alone  bool          // folders are looked at without what lies in them
}

// It works for stretch at a time, or until it has read part.
const (
	stretch = 5 * time.Millisecond
	part    = 1 << 20
)

// rest sleeps so that the share of a core and the rate hold.
func (t *taker) rest(ctx context.Context) error {
	worked := threadTime() - t.worked
	if worked < stretch && (t.read < part || t.opt.Rate == 0) {
		return ctx.Err()
	}
	if t.opt.Done != nil {
		t.opt.Done(len(t.out.Entries), t.bytes)
	}
	var pause time.Duration
	if t.opt.Share < 1 {
		pause = time.Duration(float64(worked) * (1 - t.opt.Share) / t.opt.Share)
	}
	if t.opt.Rate > 0 {
		pause = max(pause, time.Duration(float64(t.read)/float64(t.opt.Rate)*float64(time.Second))-worked)
	}
	t.read = 0
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	t.worked = threadTime()
	return ctx.Err()
}

// threadTime is the CPU time of the calling thread.
func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Covers says whether path is one of these or lies below one.
func Covers(list []string, path string) bool {
	for _, x := range list {
		if path == x || x == "/" || len(path) > len(x) && path[len(x)] == '/' && path[:len(x)] == x {
			return true
		}
	}
	return false
}

// carry keeps what was known of a path and of all below it: it is there, and cannot be looked at now.
func (t *taker) carry(path string, self bool) {
	t.out.Skipped++
	if t.opt.Before == nil {
		return
	}
	all := t.opt.Before.Entries
	i, _ := slices.BinarySearchFunc(all, path, func(e Entry, p string) int { return strings.Compare(e.Path, p) })
	if self && i < len(all) && all[i].Path == path {
		t.seen[path] = true
		t.out.Entries = append(t.out.Entries, all[i])
	}
	for _, e := range t.opt.Before.below(path) {
		if !t.seen[e.Path] && len(t.out.Entries) < MaxEntries {
			t.seen[e.Path] = true
			t.out.Entries = append(t.out.Entries, e)
		}
	}
}

// walk takes one path and what lies below it on the same device.
func (t *taker) walk(ctx context.Context, path string, depth int, device *uint64) error {
	if err := t.rest(ctx); err != nil {
		return err
	}
	if t.seen[path] || Covers(t.opt.Exclude, path) {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		if !gone(err) {
			t.carry(path, true)
		}
		return nil
	}
	var before *Entry
	if t.opt.Before != nil {
		before = t.opt.Before.find(path)
	}
	dev := uint64(st.Dev)
	// What was known and now lies under a mount is looked at: to be hidden by one is a change.
	if device != nil && dev != *device && before == nil || len(path) > MaxPath || depth > maxDepth {
		t.out.Skipped++
		return nil
	}
	if len(t.out.Entries) >= t.opt.Limit {
		t.over = true
		t.out.Skipped++
		return nil
	}
	t.seen[path] = true
	e := Entry{Path: path, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Inode: st.Ino, Device: dev, Changed: st.Ctim.Nano(), Modified: st.Mtim.Nano()}
	if before != nil {
		e.Path = before.Path // one copy of the name
	}
	switch {
	case before != nil && before.same(&e):
		e.Digest, e.Xattrs, e.Target = before.Digest, before.Xattrs, before.Target
	default:
		if err := t.examine(ctx, &e); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if gone(err) {
				return nil
			}
			t.out.Skipped++ // it is still known by its owner and mode
			e.Digest = [32]byte{}
			if before != nil {
				e.Xattrs, e.Target = before.Xattrs, before.Target
			}
		}
	}
	t.out.Entries = append(t.out.Entries, e)
	if !e.directory() || t.alone {
		return nil
	}
	names, err := list(path)
	if err != nil && !gone(err) {
		t.carry(path, false)
		return nil
	}
	for _, name := range names {
		if err := t.walk(ctx, filepath.Join(path, name), depth+1, &dev); err != nil {
			return err
		}
	}
	return nil
}

// gone says that what was to be looked at is not there any more, or is another thing by now.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// list gives the names of a folder, at most maxDirectory.
func list(path string) ([]string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	names, err := dir.Readdirnames(maxDirectory)
	if errors.Is(err, io.EOF) {
		err = nil // it is empty
	}
	slices.Sort(names)
	return names, err
}

// examine reads what lstat does not tell.
func (t *taker) examine(ctx context.Context, e *Entry) error {
	if err := t.xattrs(e); err != nil {
		return err
	}
	switch e.Mode & typeBits {
	case unix.S_IFLNK:
		n, err := unix.Readlink(e.Path, t.buf[:maxTarget])
		if err != nil {
			return err
		}
		e.Target = string(t.buf[:n])
	case unix.S_IFREG:
		return t.digest(ctx, e)
	}
	return nil
}

// digest hashes a file, if it is still the one that was looked at: a name can be another's, or a pipe, by now.
func (t *taker) digest(ctx context.Context, e *Entry) error {
	fd, err := unix.Open(e.Path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Ino != e.Inode || uint64(st.Dev) != e.Device {
		return fmt.Errorf("%s: changed while it was looked at", e.Path)
	}
	t.hash.Reset()
	for read := 0; read < MaxFile; {
		n, err := unix.Read(fd, t.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		t.hash.Write(t.buf[:n])
		read += n
		t.read += int64(n)
		t.bytes += int64(n)
		if err := t.rest(ctx); err != nil {
			return err
		}
	}
	t.hash.Sum(e.Digest[:0])
	return nil
}

// xattrs hashes the extended attributes by their names' order; security.capability is one of them.
func (t *taker) xattrs(e *Entry) error {
	n, err := unix.Llistxattr(e.Path, t.buf)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil
	}
	if err != nil {
		return err
	}
	names := strings.Split(strings.TrimRight(string(t.buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	t.hash.Reset()
	total := n
	for _, name := range names {
		n, err := unix.Lgetxattr(e.Path, name, t.buf)
		if err != nil {
			return fmt.Errorf("%s: attribute %q: %w", e.Path, name, err)
		}
		if total += n; total > MaxXattrs {
			return fmt.Errorf("%s: attributes of more than %d bytes", e.Path, MaxXattrs)
		}
		var lengths [8]byte
		binary.BigEndian.PutUint32(lengths[:], uint32(len(name)))
		binary.BigEndian.PutUint32(lengths[4:], uint32(n))
		t.hash.Write(lengths[:])
		t.hash.Write([]byte(name))
		t.hash.Write(t.buf[:n])
	}
	t.hash.Sum(e.Xattrs[:0])
	return nil
}
