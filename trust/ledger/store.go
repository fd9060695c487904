package ledger

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/trust"
)

// file is one feed's file.
type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error // fdatasync
	Size() (int64, error)
	Close() error
}

// disk is the folder the ledger lives in. The operating system's is the one in use; tests put one in its place that
// forgets what was not synced.
type disk interface {
	Open(name string) (file, error) // creates it where there is none
	Sync() error                    // makes names durable
	List() ([]string, error)        // names, without temporary ones
	Read(name string, limit int) ([]byte, error)
	Write(name string, data []byte) error // atomic and durable
	Remove(name string) error             // durable; nothing where it is not there
	Lock() (io.Closer, error)
}

// folder is disk on the operating system.
type folder string

type osFile struct{ *os.File }

func (f osFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (d folder) Open(name string) (file, error) {
	path := filepath.Join(string(d), name)
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d folder) Sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}

func (d folder) Remove(name string) error {
	err := os.Remove(filepath.Join(string(d), name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Join(err, d.Sync())
}

func (d folder) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d folder) Read(name string, limit int) ([]byte, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(b) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", name, limit)
	}
	return b, err
}

func (d folder) Write(name string, data []byte) (err error) {
	f, err := os.CreateTemp(string(d), "."+name+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), filepath.Join(string(d), name)); err != nil {
		return err
	}
	return d.Sync()
}

func (d folder) Lock() (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(string(d), ".lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, err
	}
	return f, nil
}

// handles keeps at most trust.MaxOpenFeeds files open and hands them out.
type handles struct {
	disk disk
	mu   sync.Mutex
	open map[string]*handle
	tick uint64
}

type handle struct {
	file
	users int
	used  uint64
	dirty bool // written since its last Sync
	gone  bool // removed: closed with its last user
}

// get hands out a file until put.
func (h *handles) get(name string) (*handle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tick++
	if f := h.open[name]; f != nil {
		f.users++
		f.used = h.tick
		return f, nil
	}
	if len(h.open) >= trust.MaxOpenFeeds {
		if err := h.evict(); err != nil {
			return nil, err
		}
	}
	f, err := h.disk.Open(name)
	if err != nil {
		return nil, err
	}
	n := &handle{file: f, users: 1, used: h.tick}
	h.open[name] = n
	return n, nil
}

func (h *handles) put(f *handle, wrote bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f.users--
	f.dirty = f.dirty || wrote
	if f.gone && f.users == 0 {
		_ = f.Close() // the file is gone: what could not be written of it is, too
	}
}

// drop forgets a file that is about to be removed. Who reads it goes on reading; the last to put it closes it.
func (h *handles) drop(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.open[name]
	if f == nil {
		return nil
	}
	delete(h.open, name)
	if f.users == 0 {
		return f.Close()
	}
	f.gone = true
	return nil
}

// evict closes the file unused for longest.
func (h *handles) evict() error {
	var oldest string
	for name, f := range h.open {
		if f.users == 0 && (oldest == "" || f.used < h.open[oldest].used) {
			oldest = name
		}
	}
	if oldest == "" {
		return nil // all in use: their number is bounded by the callers
	}
	f := h.open[oldest]
	delete(h.open, oldest)
	var err error
	if f.dirty {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// sync makes everything written durable.
func (h *handles) sync() error {
	h.mu.Lock()
	var dirty []*handle
	for _, f := range h.open {
		if f.dirty {
			f.dirty = false
			f.users++
			dirty = append(dirty, f)
		}
	}
	h.mu.Unlock()
	var errs []error
	for _, f := range dirty {
		errs = append(errs, f.Sync())
		h.put(f, false)
	}
	return errors.Join(errs...)
}

func (h *handles) close() error {
	errs := []error{h.sync()}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, f := range h.open {
		errs = append(errs, f.Close())
		delete(h.open, name)
	}
	return errors.Join(errs...)
}
