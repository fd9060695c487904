package integrity

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxLook bounds the paths of one Look, maxTree the entries that lie below one of them, beyond which they are left to a scan,
// and maxReport the bytes of the changes that one Look gives; one may pass it.
const (
	MaxLook   = 64
	maxTree   = 2000
	maxReport = 48 << 10
)

// Report is what a Look found.
type Report struct {
	Changes []Change
	// Busy are those of the paths that some process has open to write: what it writes may still come.
	Busy []string
	// Again are those of the paths that were not looked at to the end, there was too much to tell at once.
	Again []string
	// Over says that there was too much to look at, or no baseline yet, and that a scan will.
	Over bool

	size int // bytes of Changes
}

// Look compares these paths, at most MaxLook, with how they were last seen. It gives each difference once: what it saw is
// what the next one compares with. Paths that are not watched are passed over, whoever names them. It takes a path by what
// its folder really is, so that a name that leads there by links is as good.
func (k *Keeper) Look(ctx context.Context, paths []string) (Report, error) {
	var r Report
	for _, p := range paths[:min(len(paths), MaxLook)] {
		if !plain(p) {
			continue
		}
		if r.size >= maxReport {
			r.Again = append(r.Again, p)
			continue
		}
		k.mu.Lock()
		err := k.examine(ctx, p, &r)
		k.mu.Unlock()
		if err != nil {
			return r, err
		}
	}
	if r.Over {
		k.Rescan(false)
	}
	return r, nil
}

// examine is Look for one path. The caller holds mu.
func (k *Keeper) examine(ctx context.Context, named string, r *Report) error {
	path := named
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	if !k.watches(path) {
		return nil
	}
	if k.touched != nil {
		k.touched[path] = struct{}{}
	}
	if k.state == nil {
		r.Over = r.Over || k.phase != PhaseBuilding // the scan that runs looks again itself
		return nil
	}
	var parent unix.Stat_t
	var device *uint64
	if !slices.Contains(k.opt.Paths, path) && unix.Lstat(filepath.Dir(path), &parent) == nil {
		dev := uint64(parent.Dev)
		device = &dev
	}
	known := k.known(path)
	t := newTaker(Options{Exclude: k.opt.Exclude, Before: known, Share: 1, Limit: maxTree})
	var st unix.Stat_t
	if was := known.find(path); was != nil && unix.Lstat(path, &st) == nil {
		// A folder that is still itself: what is in it has its own events.
		t.alone = was.directory() && st.Mode&typeBits == unix.S_IFDIR && was.Inode == st.Ino && was.Device == uint64(st.Dev)
	}
	if st.Mode&typeBits == unix.S_IFREG && written(path) {
		r.Busy = append(r.Busy, named)
	}
	if t.alone {
		known = &Baseline{Entries: slices.DeleteFunc(known.Entries, func(e Entry) bool { return e.Path != path })}
	}
	if err := t.walk(ctx, path, 0, device); err != nil {
		return err
	}
	is := t.sorted()
	if t.over || len(known.Entries) > maxTree {
		r.Over = true
		return nil
	}
	for _, c := range Compare(known, is) {
		if k.touched != nil {
			k.touched[c.Path] = struct{}{}
		}
		if r.size >= maxReport {
			r.Again = append(r.Again, named)
			return nil
		}
		k.see(c)
		r.Changes = append(r.Changes, copied(c))
		r.size += len(c.Path) + size(c.Was) + size(c.Is)
	}
	for i := range is.Entries {
		k.refresh(&is.Entries[i])
	}
	return nil
}

// size is how long an entry's stored form is; 0 where there is none.
func size(e *Entry) int {
	if e == nil {
		return 0
	}
	return len(e.Path) + len(e.Target) + 128
}

// known is how a path and what lies below it were last seen. The caller holds mu.
func (k *Keeper) known(path string) *Baseline {
	var out Baseline
	put := func(e Entry) {
		if is, stands := k.state.Standing[e.Path]; !stands {
			out.Entries = append(out.Entries, e)
		} else if is != nil {
			out.Entries = append(out.Entries, *is)
		}
	}
	if e := k.state.Accepted.find(path); e != nil {
		put(*e)
	}
	for _, e := range k.state.Accepted.below(path) {
		put(e)
	}
	for p, is := range k.state.Standing {
		if is != nil && Covers([]string{path}, p) && k.state.Accepted.find(p) == nil {
			out.Entries = append(out.Entries, *is)
		}
	}
	slices.SortFunc(out.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return &out
}

// written says whether some process has a file open to write, or mapped so: no read lease can be had on it (fcntl(2)). File
// systems without leases say no.
func written(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK) // closing it ends the lease as well
	return false
}
