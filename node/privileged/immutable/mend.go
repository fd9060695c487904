package immutable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/node/privileged/durable"
	"github.com/omega-mesh/omega/node/privileged/quarantine"
)

// mend puts back what was changed in a hold since the last look: somebody took the attribute off first, or wrote through what was
// mapped or opened before. Folders come before what is in them.
func (k *Keeper) mend(h *hold) {
	if h.above == nil {
		h.reopen()
		if h.above == nil {
			k.cannot(h, filepath.Dir(h.Path), "it is gone")
			return
		}
	}
	if h.reached() {
		delete(h.lost, filepath.Dir(h.Path))
	} else {
		k.cannot(h, filepath.Dir(h.Path), "it was renamed or replaced: the path leads to what is not held")
	}
	changed := false
	for i := range h.Files {
		path := h.path(h.Files[i].Name)
		moved, err := k.mendFile(h, i)
		changed = changed || moved
		if err != nil {
			k.cannot(h, path, err.Error())
		} else {
			delete(h.lost, path)
		}
	}
	if changed { // inodes of what was made anew
		if err := k.write(&h.Record); err != nil {
			k.opt.Log.Error("the record of what may not be written is not up to date", "response", h.ID, "err", err)
		}
	}
}

// undone counts and tells.
func (k *Keeper) undone(h *hold, path, what string) {
	h.undone++
	k.opt.Log.Warn("a denied write was undone", "response", h.ID, "path", path, "what", what)
}

// cannot notes what is not as it was and cannot be put back, and tells of it once.
func (k *Keeper) cannot(h *hold, path, why string) {
	if h.lost == nil {
		h.lost = map[string]string{}
	}
	if _, said := h.lost[path]; !said {
		k.opt.Log.Error("a denied write is not undone", "response", h.ID, "path", path, "why", why)
	}
	h.lost[path] = why
}

// mendFile looks at one file; moved says that it is another inode now.
func (k *Keeper) mendFile(h *hold, i int) (moved bool, err error) {
	one := &h.Files[i]
	path := h.path(one.Name)
	dir, base := h.place(i)
	if dir == nil {
		return false, nil // its folder is said to be gone
	}
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if h.files[i] == nil || err != nil || st.Ino != one.Inode || st.Dev != one.Device {
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return false, err
		}
		return k.remake(h, i, dir, base, err == nil, st)
	}
	f := h.files[i]
	off := false
	if !h.Reverted {
		flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if err != nil {
			return false, err
		}
		off = flags&flag == 0
	}
	// First the attribute, and then the look: what changes between a look and the attribute would be seen by nobody.
	if off {
		if err := h.attribute(f, true); err != nil {
			return false, err
		}
	}
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, err
	}
	if !off && st.Ctim == h.seen[i] && k.looks%wholeLook != 0 {
		return false, nil
	}
	what := ""
	switch {
	case one.folder():
		what, err = k.mendFolder(h, i)
	case one.Copied:
		what, err = k.mendContent(h, i, &st)
	case st.Size != one.Size || st.Mtim != one.Changed:
		err = errors.New("it was written to, and is too large to have been copied")
	}
	if now, derr := describe(f, one.Name); derr != nil {
		err = errors.Join(err, derr)
	} else if what == "content" || !now.dressedAs(one) {
		if what == "" {
			what = "mode, owner or attributes"
		}
		err = errors.Join(err, h.dress(f, one, now.Xattrs))
	}
	if what != "" || err != nil { // it was open to changes for a moment: the next look is another whole one
		err = errors.Join(err, h.attribute(f, true))
		h.seen[i] = unix.Timespec{}
	} else if h.Reverted && time.Since(time.Unix(st.Ctim.Unix())) < settled {
		h.seen[i] = unix.Timespec{} // a write in the same tick of that clock leaves it the same
	} else {
		h.seen[i] = st.Ctim
	}
	if off && what == "" {
		what = "the immutable attribute"
	}
	if what != "" {
		k.undone(h, path, what)
	}
	return false, err
}

// open lets a folder of the hold be changed for a moment; the result denies it again.
func (h *hold) open(dir *os.File) (func(), error) {
	i := slices.Index(h.files, dir)
	if i < 0 { // what lies above the hold is nobody's to change
		return func() {}, nil
	}
	if err := h.attribute(dir, false); err != nil {
		return nil, err
	}
	return func() {
		_ = h.attribute(dir, true) // the next look sees where it is not
		h.seen[i] = unix.Timespec{}
	}, nil
}

// mendFolder takes away what is new in a folder.
func (k *Keeper) mendFolder(h *hold, i int) (what string, err error) {
	f := h.files[i]
	names, err := list(f)
	if err != nil {
		return "", err
	}
	known, passed := map[string]bool{}, map[string]uint64{}
	for _, other := range h.Files {
		if other.Name != "" && other.Name.in() == h.Files[i].Name {
			known[other.Name.base()] = true
		}
	}
	for _, p := range h.Passed {
		if p.Name.in() == h.Files[i].Name {
			passed[p.Name.base()] = p.Inode
		}
	}
	for _, name := range names {
		var st unix.Stat_t
		if known[name] || unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || passed[name] == st.Ino {
			continue
		}
		again, oerr := h.open(f)
		if oerr != nil {
			return what, oerr
		}
		eerr := k.evict(f, name, &st)
		again()
		if eerr != nil {
			err = errors.Join(err, fmt.Errorf("%s was made there: %w", name, eerr))
			continue
		}
		what = "new: " + name
	}
	return what, err
}

// evict takes a name out of a folder: a file is kept elsewhere, an empty folder or a link is removed.
func (k *Keeper) evict(dir *os.File, name string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		where, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
		if err != nil {
			return err
		}
		return k.opt.Evict(filepath.Join(where, name), st.Ino, st.Dev)
	case unix.S_IFDIR:
		return unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	}
	return unix.Unlinkat(int(dir.Fd()), name, 0)
}

// mendContent puts a file's bytes back.
func (k *Keeper) mendContent(h *hold, i int, st *unix.Stat_t) (what string, err error) {
	one := &h.Files[i]
	was, err := k.copyOf(h, i)
	if err != nil {
		return "", err
	}
	if st.Size == one.Size {
		now := make([]byte, one.Size)
		if n, err := h.files[i].ReadAt(now, 0); (err == nil || errors.Is(err, io.EOF)) && bytes.Equal(now[:n], was) {
			return "", nil
		}
	}
	if err := h.attribute(h.files[i], false); err != nil {
		return "", err
	}
	// The descriptor is for reading, so that a program that is held can be started; this is the same inode, for writing.
	w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", h.files[i].Fd()), os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	_, err = w.WriteAt(was, 0)
	err = errors.Join(err, w.Truncate(int64(len(was))), w.Sync())
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, one.Changed}
	if terr := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", w.Fd()), times, 0); terr != nil {
		err = errors.Join(err, terr)
	}
	return "content", errors.Join(err, w.Close())
}

func (k *Keeper) copyOf(h *hold, i int) ([]byte, error) {
	b, err := durable.Read(filepath.Join(k.file(h.ID, ""), fmt.Sprint(i)), MaxCopy)
	if err == nil && int64(len(b)) != h.Files[i].Size {
		err = errors.New("it is damaged")
	}
	if err != nil {
		return nil, fmt.Errorf("its copy: %w", err)
	}
	return b, nil
}

// dressedAs says whether mode, owner and extended attributes are another's.
func (f *File) dressedAs(was *File) bool {
	return f.Mode == was.Mode && f.UID == was.UID && f.GID == was.GID &&
		slices.EqualFunc(f.Xattrs, was.Xattrs, func(a, b quarantine.Xattr) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) })
}

// dress gives a file the mode, owner and extended attributes it had; has are those it has.
func (h *hold) dress(f *os.File, one *File, has []quarantine.Xattr) error {
	if err := h.attribute(f, false); err != nil {
		return err
	}
	fd := int(f.Fd())
	errs := []error{unix.Fchown(fd, int(one.UID), int(one.GID)), unix.Fchmod(fd, one.Mode&0o7777)}
	for _, x := range has {
		if !slices.ContainsFunc(one.Xattrs, func(y quarantine.Xattr) bool { return x.Name == y.Name }) {
			if err := unix.Fremovexattr(fd, x.Name); err != nil && !errors.Is(err, unix.ENODATA) {
				errs = append(errs, err)
			}
		}
	}
	for _, x := range one.Xattrs {
		errs = append(errs, unix.Fsetxattr(fd, x.Name, x.Value, 0))
	}
	return errors.Join(errs...)
}

// remake makes anew what was removed, renamed or replaced. What has its name now is taken away first.
func (k *Keeper) remake(h *hold, i int, dir *os.File, base string, taken bool, st unix.Stat_t) (moved bool, err error) {
	one := &h.Files[i]
	path := h.path(one.Name)
	if !one.folder() && !one.Copied {
		return false, errors.New("it is gone from its name, and was too large to be copied")
	}
	again, err := h.open(dir)
	if err != nil {
		return false, err
	}
	defer again()
	if taken {
		if err := k.evict(dir, base, &st); err != nil {
			return false, fmt.Errorf("another has its name: %w", err)
		}
	}
	var f *os.File
	if one.folder() {
		if err := unix.Mkdirat(int(dir.Fd()), base, one.Mode&0o777); err != nil {
			return false, err
		}
		f, err = beneath(dir, base, unix.O_RDONLY)
	} else {
		f, err = k.make(h, i, dir, base)
	}
	if err != nil {
		return false, err
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		f.Close()
		return false, err
	}
	err = h.dress(f, one, nil)
	if h.files[i] != nil { // it may live under another name: there it may be written again
		if one.Flags&flag == 0 {
			_ = h.attribute(h.files[i], false)
		}
		h.files[i].Close()
	}
	h.files[i], one.Inode, one.Device = f, now.Ino, now.Dev
	one.Changed = now.Mtim
	err = errors.Join(err, h.attribute(f, true))
	h.seen[i] = unix.Timespec{}
	k.undone(h, path, "it was removed or replaced")
	return true, err
}

// make writes a copy out under a name that is free, whole before it has the name.
func (k *Keeper) make(h *hold, i int, dir *os.File, base string) (*os.File, error) {
	was, err := k.copyOf(h, i)
	if err != nil {
		return nil, err
	}
	w, give, err := unnamed(dir)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		w, give, err = aside(dir, ".omega-"+h.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("a file that has not its name yet: %w", err)
	}
	_, err = w.Write(was)
	if err = errors.Join(err, w.Sync()); err == nil {
		err = give(base)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return beneath(dir, base, unix.O_RDONLY)
}

// unnamed makes a file that has no name, and a function that gives it a free one.
func unnamed(dir *os.File) (*os.File, func(base string) error, error) {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), dir.Name()), func(base string) error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), int(dir.Fd()), base, unix.AT_SYMLINK_FOLLOW)
	}, nil
}

// aside is unnamed where a file system has no such files (vfat, NFS): it lies under another name until then, and one of that name,
// which a crash left, is removed.
func aside(dir *os.File, name string) (*os.File, func(base string) error, error) {
	at := int(dir.Fd())
	if err := unix.Unlinkat(at, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, nil, err
	}
	fd, err := unix.Openat(at, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name)), func(base string) error {
		err := unix.Renameat2(at, name, at, base, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) { // NFS
			if err = unix.Linkat(at, name, at, base, 0); err == nil {
				return unix.Unlinkat(at, name, 0)
			}
		}
		if err != nil {
			_ = unix.Unlinkat(at, name, 0)
		}
		return err
	}, nil
}
