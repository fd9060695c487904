package ledger

import (
	"errors"
	"io"
	"os"
	"sync"
)

// memDisk is a disk that remembers what was synced: crash leaves that, and as many bytes of the rest as it is told.
type memDisk struct {
	mu      sync.Mutex
	files   map[string]*memFile
	plain   map[string][]byte
	n       int
	room    int // bytes that may still be written; below 0: any
	failing error
	before  func() // a step that changes names or whole files
	syncing func() // a sync
}

type memFile struct {
	d       *memDisk
	data    []byte
	durable []byte
}

func newMemDisk() *memDisk {
	return &memDisk{files: make(map[string]*memFile), plain: make(map[string][]byte), room: -1}
}

func (d *memDisk) syncs() int { d.mu.Lock(); defer d.mu.Unlock(); return d.n }

func (d *memDisk) Open(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil {
		f = &memFile{d: d}
		d.files[name] = f
	}
	return f, nil
}

func (d *memDisk) Remove(name string) error {
	if d.before != nil {
		d.before()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, name)
	delete(d.plain, name)
	return nil
}

func (d *memDisk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for n := range d.files {
		names = append(names, n)
	}
	for n := range d.plain {
		names = append(names, n)
	}
	return names, nil
}

func (d *memDisk) Read(name string, limit int) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.plain[name]
	if !ok {
		return nil, os.ErrNotExist
	}
	return b, nil
}

func (d *memDisk) Write(name string, data []byte) error {
	if d.before != nil {
		d.before()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plain[name] = append([]byte(nil), data...)
	return nil
}

func (d *memDisk) Sync() error { return nil }

func (d *memDisk) Lock() (io.Closer, error) { return io.NopCloser(nil), nil }

// crash is the disk as a power cut leaves it: of each file the synced bytes, and keep bytes of what was written since.
func (d *memDisk) crash(keep int) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := newMemDisk()
	for name, f := range d.files {
		tail := f.data[min(len(f.durable), len(f.data)):]
		data := append(append([]byte(nil), f.durable...), tail[:min(keep, len(tail))]...)
		after.files[name] = &memFile{d: after, data: data, durable: append([]byte(nil), data...)}
	}
	for name, b := range d.plain {
		after.plain[name] = b
	}
	return after
}

var errFull = errors.New("no space left on device")

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	n := len(p)
	if f.d.room >= 0 && n > f.d.room {
		n = f.d.room
	}
	if need := int(off) + n; need > len(f.data) {
		f.data = append(f.data, make([]byte, need-len(f.data))...)
	}
	copy(f.data[off:], p[:n])
	if f.d.room >= 0 {
		f.d.room -= n
	}
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.data = f.data[:min(int(size), len(f.data))]
	return nil
}

func (f *memFile) Sync() error {
	if f.d.syncing != nil {
		f.d.syncing()
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.failing != nil {
		return f.d.failing
	}
	f.d.n++
	f.durable = append([]byte(nil), f.data...)
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.data)), nil
}

func (f *memFile) Close() error { return nil }
