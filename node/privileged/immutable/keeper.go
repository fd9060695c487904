package immutable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/privileged/durable"
	"github.com/omega-mesh/omega/swarm/event"
)

// Refusals of Hold.
var (
	// ErrUnsupported: a file system without the attribute, and a file too large to be put back.
	ErrUnsupported = errors.New("its file system has no immutable attribute, and it is too large to be put back")
	ErrNotFile     = errors.New("no file and no folder")
	ErrFull        = errors.New("more than can be held")

	errNoAttribute = errors.New("its file system has no immutable attribute")
)

const (
	endRecord = ".json"
	flag      = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
	// lookEvery is how often what stands is looked at: taking the attribute off tells nobody.
	lookEvery = 500 * time.Millisecond
	// wholeLook: each so many looks the contents themselves are held against their copies. What was mapped for writing before moves
	// no time of the file where nothing is written to a disk (tmpfs).
	wholeLook = 20
	// settled is how old a change time must be before one write more must move it: the clock it is of has ticks of up to 10 ms.
	settled = 100 * time.Millisecond
)

// Held is one hold as it stands.
type Held struct {
	ID      string
	Path    string
	Expires uint64 // CLOCK_BOOTTIME, nanoseconds
	Undone  uint64 // changes that were put back
	Adopted bool   // found on disk by this process
	// Lost is how much is not as it was and could not be put back; Example is one of them, and why.
	Lost    int
	Example string
}

// Report is what a Hold did.
type Report struct {
	Files, Folders int
	Uncopied       int  // too large to be put back if somebody takes the attribute off
	Reverted       bool // there is no attribute: nothing is refused, and what is written is put back
	Passed         int  // links, sockets and the like: their folder keeps them from being replaced
}

// Options are what a Keeper is given.
type Options struct {
	Dir string // of records and copies; made with the first hold, for root alone
	Log *slog.Logger
	// Evict takes a file away that was made in a held folder, and keeps it for a person; path leads to it, and inode and device say
	// which one it must be.
	Evict func(path string, inode, device uint64) error
}

// Keeper keeps holds. Its methods are safe for concurrent use.
type Keeper struct {
	opt  Options
	boot string
	wake chan struct{}

	mu    sync.Mutex
	holds map[string]*hold
	looks uint64
}

// hold is a record with what it is of opened.
type hold struct {
	Record
	above   *os.File // the folder that Path lies in
	files   []*os.File
	folders map[Name]int    // which of the files are
	seen    []unix.Timespec // change time of each at a look that found nothing; zero is to be looked at
	undone  uint64
	adopted bool
	lost    map[string]string // what is not as it was and could not be put back, and why
}

// Open reads what an earlier life left in opt.Dir, and takes it over.
func Open(opt Options) (*Keeper, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("what may not be written: %w", err)
	}
	k := &Keeper{opt: opt, boot: strings.TrimSpace(string(boot)), wake: make(chan struct{}, 1), holds: map[string]*hold{}}
	entries, err := os.ReadDir(opt.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return k, nil
	} else if err != nil {
		return nil, fmt.Errorf("what may not be written: %w", err)
	}
	known := map[string]bool{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), endRecord)
		if !ok {
			continue
		}
		known[id] = true // however many there are: what is not taken over is not freed
		r, err := k.read(id)
		if err != nil {
			opt.Log.Error("a record of what may not be written cannot be read, and is kept for a person to look at: chattr -i frees its files", "id", id, "err", err)
			continue
		}
		h := &hold{Record: *r, adopted: true}
		if r.Boot != k.boot { // its clock is gone
			h.Expires, h.Boot = bpf.BootTime()+uint64(max(0, time.Until(r.Until))), k.boot
		}
		h.reopen()
		k.holds[id] = h
	}
	for _, e := range entries {
		id, _, _ := strings.Cut(e.Name(), ".")
		if !known[id] || strings.HasSuffix(e.Name(), durable.New) { // copies whose record was never written: nothing was changed yet
			if err := os.RemoveAll(filepath.Join(opt.Dir, e.Name())); err != nil {
				return nil, fmt.Errorf("what may not be written: %w", err)
			}
		}
	}
	return k, nil
}

func (k *Keeper) file(id, end string) string { return filepath.Join(k.opt.Dir, id+end) }

func (k *Keeper) read(id string) (*Record, error) {
	raw, err := durable.Read(k.file(id, endRecord), maxRecord)
	if err != nil {
		return nil, err
	}
	r, err := Parse(raw)
	if err == nil && r.ID != id {
		err = fmt.Errorf("%w: it is of %s", ErrRecord, r.ID)
	}
	return r, err
}

// write makes a record durable. One that the next life would not read is refused: nobody would free its files.
func (k *Keeper) write(r *Record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(raw) > maxRecord {
		return fmt.Errorf("%w: names and attributes of %d bytes", ErrFull, len(raw))
	}
	return durable.Write(k.file(r.ID, endRecord), raw)
}

// List gives what is held, by id.
func (k *Keeper) List() []Held {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Held
	for _, h := range k.holds {
		one := Held{ID: h.ID, Path: h.Path, Expires: h.Expires, Undone: h.undone, Adopted: h.adopted, Lost: len(h.lost)}
		if one.Lost > 0 {
			path := slices.Min(slices.Collect(maps.Keys(h.lost)))
			one.Example = path + ": " + h.lost[path]
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Held) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Holds says whether a response is held here.
func (k *Keeper) Holds(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.holds[id] != nil
}

// Hold denies writing to path and, where it is a folder, to all in it, until expires (CLOCK_BOOTTIME, nanoseconds). may is asked of
// each file before anything is done to any.
func (k *Keeper) Hold(id, path string, expires uint64, may func(path string, inode, device uint64) error) (Report, error) {
	if !event.ValidResponseID(id) || !validPath(path) {
		return Report{}, fmt.Errorf("%.80q is no clean absolute path of a file or folder", path)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.holds[id]; h != nil {
		return h.report(), nil
	}
	if len(k.holds) >= MaxHolds {
		return Report{}, fmt.Errorf("%w: %d already", ErrFull, MaxHolds)
	}
	room := maxOpen
	for _, h := range k.holds {
		room -= len(h.Files)
		if h.Path == path || strings.HasPrefix(h.Path, path+"/") || strings.HasPrefix(path, h.Path+"/") {
			return Report{}, fmt.Errorf("writing to %s is denied already, by response %s", h.Path, h.ID)
		}
	}
	h := &hold{Record: Record{ID: id, Path: path, Boot: k.boot, Expires: expires, Until: time.Now().Add(time.Duration(expires - bpf.BootTime())).UTC()}}
	err := h.find(min(MaxFiles, room), may)
	if err == nil {
		err = k.keep(h)
	}
	if err == nil {
		err = k.set(h)
	}
	if err != nil {
		errs := []error{err, h.clear()}
		if rerr := k.drop(id); rerr != nil {
			errs = append(errs, rerr)
		}
		h.close()
		return Report{}, errors.Join(errs...)
	}
	k.holds[id] = h
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return h.report(), nil
}

func (h *hold) report() (r Report) {
	r.Passed, r.Reverted = len(h.Passed), h.Reverted
	for i := range h.Files {
		switch f := &h.Files[i]; {
		case f.folder():
			r.Folders++
		case !f.Copied:
			r.Uncopied++
			r.Files++
		default:
			r.Files++
		}
	}
	return r
}

// keep copies what is to be put back, and writes the record.
func (k *Keeper) keep(h *hold) error {
	if err := os.MkdirAll(k.opt.Dir, 0o700); err != nil {
		return err
	}
	total := int64(0)
	for _, other := range k.holds {
		for i := range other.Files {
			if other.Files[i].Copied {
				total += other.Files[i].Size
			}
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(k.opt.Dir, &fs); err != nil {
		return err
	}
	room := min(maxCopies, maxAll-total, int64(fs.Bavail)*fs.Bsize-spare)
	copies := k.file(h.ID, "")
	if err := os.Mkdir(copies, 0o700); err != nil {
		return err
	}
	for i := range h.Files {
		f := &h.Files[i]
		if f.folder() || f.Size > MaxCopy || f.Size > room {
			continue
		}
		b := make([]byte, f.Size+1)
		n, err := h.files[i].ReadAt(b, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if int64(n) > f.Size {
			return fmt.Errorf("%s is written to right now", h.path(f.Name))
		}
		f.Size = int64(n)
		if err := durable.Write(filepath.Join(copies, fmt.Sprint(i)), b[:n]); err != nil {
			return err
		}
		f.Copied = true
		room -= f.Size
	}
	return k.write(&h.Record)
}

// set denies writing; from its return on what changed since it was copied is seen by the first look.
func (k *Keeper) set(h *hold) error {
	err := h.set()
	if errors.Is(err, errNoAttribute) { // it can be asked for, and not given
		if err = h.clear(); err == nil {
			h.Reverted = true
			err = k.write(&h.Record)
		}
	}
	if err == nil && h.Reverted && h.report().Uncopied > 0 {
		err = fmt.Errorf("%s: %w", h.Path, ErrUnsupported)
	}
	return err
}

// drop forgets a record and its copies, record first.
func (k *Keeper) drop(id string) error {
	if err := os.Remove(k.file(id, endRecord)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(k.file(id, ""))
}

// Release lets what a response holds be written again.
func (k *Keeper) Release(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.holds[id]
	if h == nil {
		return fmt.Errorf("response %s denies no writing here", id)
	}
	h.Expires, h.Until = 0, time.Time{}        // so that a power cut on the way does not deny it anew
	if err := k.write(&h.Record); err != nil { // a full disk must keep nobody from letting go, least of all a panic
		k.opt.Log.Warn("the record of what may be written again is not up to date", "response", id, "err", err)
	}
	if err := h.clear(); err != nil {
		return err
	}
	delete(k.holds, id)
	h.close()
	return k.drop(id)
}

// ReleaseAll ends every hold, and says how many.
func (k *Keeper) ReleaseAll() (n int, err error) {
	for _, h := range k.List() {
		if rerr := k.Release(h.ID); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		n++
	}
	return n, err
}

// Close lets go of the files; what is held stays so.
func (k *Keeper) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.holds {
		h.close()
	}
	clear(k.holds)
}

// Run puts back what was changed and ends what is over, until ctx ends. While nothing is held it sleeps.
func (k *Keeper) Run(ctx context.Context) {
	for {
		var due <-chan time.Time
		if k.look() > 0 {
			due = time.After(lookEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-due:
		}
	}
}

// look looks at every hold once, and says how many stand.
func (k *Keeper) look() int {
	now := bpf.BootTime()
	var over []string
	k.mu.Lock()
	k.looks++
	for id, h := range k.holds {
		if h.Expires <= now {
			over = append(over, id)
			continue
		}
		k.mend(h)
	}
	n := len(k.holds)
	k.mu.Unlock()
	for _, id := range over {
		if err := k.Release(id); err != nil {
			k.opt.Log.Error("what may be written again is not freed yet", "response", id, "err", err)
			continue
		}
		n--
	}
	return n
}
