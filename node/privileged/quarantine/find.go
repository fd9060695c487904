package quarantine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Found is a file that was opened to be quarantined. It stays the same file whatever becomes of its name.
type Found struct {
	path       string // resolved
	base       string
	dir        *os.File
	file       *os.File
	stat       unix.Stat_t
	flags      uint32
	hasFlags   bool
	generation uint32
}

// Refusals of Find and Seal.
var (
	ErrNotRegular = errors.New("not a regular file")
	ErrTooLarge   = fmt.Errorf("larger than the %d MiB that can be quarantined", MaxSize>>20)
	ErrChanged    = errors.New("it changed while it was sealed")
)

// pseudo are file systems whose files are no files.
var pseudo = [...]int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.BPF_FS_MAGIC, unix.TRACEFS_MAGIC, unix.DEBUGFS_MAGIC, unix.SECURITYFS_MAGIC}

// Pseudo says whether the file that is open as fd is none, but a way to ask the kernel; so is one whose file system is not to be known.
func Pseudo(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) != nil || slices.Contains(pseudo[:], int64(fs.Type))
}

// Find opens a file for Seal without touching it. path is absolute; a symbolic link at its end is not followed, so that
// what is taken away is what was named. The caller closes it.
func Find(path string) (*Found, error) {
	if !filepath.IsAbs(path) || len(path) > maxPath || strings.IndexByte(path, 0) >= 0 || filepath.Clean(path) != path || path == "/" {
		return nil, fmt.Errorf("%.80q is no clean absolute path of a file", path)
	}
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := &Found{dir: dir, base: filepath.Base(path)}
	if err := f.open(path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (f *Found) open(path string) error {
	where, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.dir.Fd()))
	if err != nil {
		return err
	}
	f.path = filepath.Join(where, f.base)
	// A FIFO must not hold us up, and reading must not be seen in the file's times.
	fd, err := unix.Openat(int(f.dir.Fd()), f.base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EPERM) { // O_NOATIME is the owner's and root's
		fd, err = unix.Openat(int(f.dir.Fd()), f.base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if errors.Is(err, unix.ELOOP) {
		to, _ := filepath.EvalSymlinks(path)
		return fmt.Errorf("%s: %w: a symbolic link to %s, which is to be named itself", path, ErrNotRegular, to)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	f.file = os.NewFile(uintptr(fd), path)
	if err := unix.Fstat(fd, &f.stat); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if Pseudo(fd) {
		return fmt.Errorf("%s: %w: it lies in a file system of the kernel's", path, ErrNotRegular)
	}
	switch {
	case f.stat.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s: %w", path, ErrNotRegular)
	case f.stat.Size > MaxSize:
		return fmt.Errorf("%s: %w: %d bytes", path, ErrTooLarge, f.stat.Size)
	}
	if flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS); err == nil {
		f.flags, f.hasFlags = flags, true
	}
	f.generation = Generation(fd)
	return nil
}

// Generation tells the files apart that an inode's number was given to one after the other; 0 where the file system of
// fd does not say.
func Generation(fd int) uint32 {
	g, err := unix.IoctlGetUint32(fd, fsIocGetVersion)
	if err != nil {
		return 0
	}
	return g
}

// fsIocGetVersion is FS_IOC_GETVERSION, _IOR('v', 1, long): the number of FS_IOC_GETFLAGS but for its letter.
const fsIocGetVersion = unix.FS_IOC_GETFLAGS + ('v'-'f')<<8

// Path is where it was found, every symbolic link resolved.
func (f *Found) Path() string { return f.path }

// Inode is its number, its device as stat(2) gives it, and its generation, 0 where not known.
func (f *Found) Inode() (inode, device uint64, generation uint32) {
	return f.stat.Ino, f.stat.Dev, f.generation
}

// Links is how many names it has.
func (f *Found) Links() uint64 { return uint64(f.stat.Nlink) }

// Close lets go of the file.
func (f *Found) Close() {
	if f.file != nil {
		f.file.Close()
	}
	f.dir.Close()
}

// same says whether st is of the file that was opened, unchanged since.
func (f *Found) same(st *unix.Stat_t) bool {
	return st.Ino == f.stat.Ino && st.Dev == f.stat.Dev && st.Size == f.stat.Size && st.Mtim == f.stat.Mtim
}

// Xattrs reads the extended attributes of the file that is open as fd, by name; more than a record holds are an error.
func Xattrs(fd int) ([]Xattr, error) {
	names := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(fd, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	var all []Xattr
	total := 0
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, maxXattr)
		n, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		if total += n; len(all) == maxXattrs || total > maxRecord/4 {
			return nil, errors.New("more extended attributes than a record holds")
		}
		all = append(all, Xattr{name, append([]byte(nil), value[:n]...)})
	}
	slices.SortFunc(all, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// fixed are the attributes of a file that keep root from renaming it.
const fixed = 0x10 | 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL of linux/fs.h

func setFlags(fd int, flags uint32) error {
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags))
}

func timeOf(t unix.Timespec) time.Time { return time.Unix(t.Unix()).UTC() }
