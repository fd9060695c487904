package immutable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/node/privileged/quarantine"
)

// beneath opens a name in a folder: the very one, without a link in it, and nothing that is mounted over it.
func beneath(dir *os.File, name string, flags uint64) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{Flags: flags | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name)), nil
}

// openAbove opens the folder that path lies in.
func openAbove(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	fd, err := unix.Openat2(unix.AT_FDCWD, dir, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if errors.Is(err, unix.ELOOP) {
		to, _ := filepath.EvalSymlinks(path)
		return nil, fmt.Errorf("%s leads over a symbolic link: name %s itself", path, to)
	} else if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// find opens what is to be held, and asks of each whether it may be; it changes nothing. room is how many there may be.
func (h *hold) find(room int, may func(path string, inode, device uint64) error) (err error) {
	h.folders = map[Name]int{}
	if h.above, err = openAbove(h.Path); err != nil {
		return err
	}
	pass := func(dir *os.File, base string, name Name) error {
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if len(h.Passed) >= MaxFiles {
			return fmt.Errorf("%w: more than %d links and the like", ErrFull, MaxFiles)
		}
		h.Passed = append(h.Passed, Passed{name, st.Ino})
		return nil
	}
	var add func(dir *os.File, base string, name Name, depth int) error
	add = func(dir *os.File, base string, name Name, depth int) error {
		path := h.path(name)
		f, err := beneath(dir, base, unix.O_RDONLY)
		if errors.Is(err, unix.ELOOP) && name == "" {
			to, _ := filepath.EvalSymlinks(path)
			return fmt.Errorf("%s is a symbolic link: name %s itself", path, to)
		}
		if errors.Is(err, unix.EXDEV) && name == "" {
			return fmt.Errorf("%s is mounted: name what lies in it", path)
		}
		if name != "" && (errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EXDEV)) { // a link, a socket, a mount
			return pass(dir, base, name)
		} else if err != nil {
			return err
		}
		one, err := describe(f, name)
		if errors.Is(err, ErrNotFile) && name != "" {
			return errors.Join(pass(dir, base, name), f.Close())
		}
		if err == nil {
			var noflags error
			if one.Flags, noflags = unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS); noflags != nil {
				h.Reverted = true
			}
		}
		if err == nil && len(h.Files) >= room {
			err = fmt.Errorf("%w: more than %d files, or %d of all responses together", ErrFull, MaxFiles, maxOpen)
		}
		if err == nil {
			err = may(path, one.Inode, one.Device)
		}
		if err != nil {
			f.Close()
			return err
		}
		if one.folder() {
			h.folders[name] = len(h.files)
		}
		h.Files, h.files, h.seen = append(h.Files, one), append(h.files, f), append(h.seen, unix.Timespec{})
		if !one.folder() {
			return nil
		}
		if depth >= maxDepth {
			return fmt.Errorf("%w: folders nested more than %d deep", ErrFull, maxDepth)
		}
		names, err := list(f)
		for i := 0; err == nil && i < len(names); i++ {
			err = add(f, names[i], Name(filepath.Join(string(name), names[i])), depth+1)
		}
		return err
	}
	return add(h.above, filepath.Base(h.Path), "", 0)
}

// list reads a folder's names, in order; more than are held are an error.
func list(dir *os.File) ([]string, error) {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(MaxFiles + 1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && len(names) > MaxFiles {
		err = fmt.Errorf("%w: %s has more than %d names", ErrFull, dir.Name(), MaxFiles)
	}
	slices.Sort(names)
	return names, err
}

// describe says what an open file is, but for its attributes of the file system.
func describe(f *os.File, name Name) (one File, err error) {
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return one, err
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR || quarantine.Pseudo(fd) {
		return one, fmt.Errorf("%s: %w", f.Name(), ErrNotFile)
	}
	one = File{Name: name, Device: st.Dev, Inode: st.Ino, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Changed: st.Mtim}
	one.Xattrs, err = quarantine.Xattrs(fd)
	return one, err
}

// attribute gives or takes the immutable attribute, where there is one; what else a file has of such stays.
func (h *hold) attribute(f *os.File, on bool) error {
	if h.Reverted {
		return nil
	}
	fd := int(f.Fd())
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", f.Name(), errNoAttribute, err)
	}
	if (flags&flag != 0) == on {
		return nil
	}
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags^flag)); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w: %w", errNoAttribute, err)
		}
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// set denies writing to all of it: what is in a folder before the folder.
func (h *hold) set() error {
	for i := len(h.files) - 1; i >= 0; i-- {
		if h.files[i] == nil {
			continue
		}
		if err := h.attribute(h.files[i], true); err != nil {
			return err
		}
	}
	return nil // what changed since it was copied, the first look sees
}

// clear takes the attribute off again, but for what had it before; what cannot be reached is passed over where it is gone.
func (h *hold) clear() error {
	var errs []error
	for i, f := range h.files {
		if f != nil && h.Files[i].Flags&flag == 0 {
			errs = append(errs, h.attribute(f, false))
		}
	}
	return errors.Join(errs...)
}

func (h *hold) close() {
	for _, f := range h.files {
		if f != nil {
			f.Close()
		}
	}
	if h.above != nil {
		h.above.Close()
	}
	h.files, h.above = nil, nil
}

// reopen opens what an earlier life held. What is not there, or is another now, is nil, and put back by the first look.
func (h *hold) reopen() {
	h.folders, h.files, h.seen = map[Name]int{}, make([]*os.File, len(h.Files)), make([]unix.Timespec, len(h.Files))
	for i := range h.Files {
		if h.Files[i].folder() {
			h.folders[h.Files[i].Name] = i
		}
	}
	above, err := openAbove(h.Path)
	if err != nil {
		return
	}
	h.above = above
	for i := range h.Files {
		dir, base := h.place(i)
		if dir == nil {
			continue
		}
		f, err := beneath(dir, base, unix.O_RDONLY)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) != nil || st.Ino != h.Files[i].Inode || st.Dev != h.Files[i].Device {
			f.Close()
			continue
		}
		h.files[i] = f
	}
}

// place is the folder that file i lies in, nil where that is not there, and its name in it.
func (h *hold) place(i int) (*os.File, string) {
	name := h.Files[i].Name
	if name == "" {
		return h.above, filepath.Base(h.Path)
	}
	return h.files[h.folders[name.in()]], name.base()
}

// path is where a file of the hold was found.
func (h *hold) path(n Name) string { return filepath.Join(h.Path, string(n)) }

// reached says whether the hold's path still leads into the folder that it was found in: that may have been renamed, with another
// in its place, where nothing is denied.
func (h *hold) reached() bool {
	above, err := openAbove(h.Path)
	if err != nil {
		return false
	}
	defer above.Close()
	var now, was unix.Stat_t
	return unix.Fstat(int(above.Fd()), &now) == nil && unix.Fstat(int(h.above.Fd()), &was) == nil && now.Ino == was.Ino && now.Dev == was.Dev
}
