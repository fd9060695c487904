package quarantine

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/node/privileged/durable"
)

// Bounds of a store.
const (
	MaxSize   = 256 << 20 // bytes of one file
	MaxSealed = 256       // files
	maxTotal  = 1 << 30   // bytes of all of them
	minFree   = 64 << 20  // bytes that the store leaves free on its file system
)

// Errors of a store.
var (
	ErrUnknown = errors.New("no file is quarantined under that id")
	ErrFull    = fmt.Errorf("the store of quarantined files is full: %d files, %d MiB, or its disk", MaxSealed, maxTotal>>20)
	ErrTaken   = errors.New("another file has its name now: move that away and release again")
)

// Endings of a store's own files.
const (
	endRecord = ".json"
	endCopy   = ".sealed"
)

// Store is a folder of sealed files. Its methods may be called at once.
type Store struct {
	dir string
	log *slog.Logger

	work    sync.Mutex // held while a file is sealed or given back, and taken before mu
	mu      sync.Mutex
	records map[string]Record
}

// Open opens the store in dir, which need not exist yet, and settles what a power cut left half done.
func Open(dir string, log *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, log: log, records: map[string]Record{}}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("quarantine: %w", err)
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), endRecord)
		if !ok {
			continue
		}
		r, err := s.read(id)
		if err != nil {
			log.Error("a quarantined file cannot be given back: its record is kept for a person to look at", "id", id, "err", err)
			continue
		}
		s.records[id] = *r
	}
	for id, r := range s.records {
		if r.State == Sealing {
			if err := s.settle(&r); err != nil {
				log.Error("a quarantine that was cut short is not settled: a release gives the file back all the same", "id", id, "err", err)
			}
		}
	}
	for _, e := range entries { // copies whose record was never written: their file has its name
		id, _, _ := strings.Cut(e.Name(), ".")
		_, err := os.Lstat(s.file(id, endRecord))
		if strings.HasSuffix(e.Name(), durable.New) || strings.HasSuffix(e.Name(), endCopy) && errors.Is(err, os.ErrNotExist) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("quarantine: %w", err)
			}
		}
	}
	return s, nil
}

func (s *Store) file(id, end string) string { return filepath.Join(s.dir, id+end) }

func (s *Store) read(id string) (*Record, error) {
	raw, err := durable.Read(s.file(id, endRecord), maxRecord)
	if err != nil {
		return nil, err
	}
	r, err := Parse(raw)
	if err == nil && r.ID != id {
		err = fmt.Errorf("%w: it is of %s", ErrRecord, r.ID)
	}
	return r, err
}

// write makes a record durable, the one before it whole until then.
func (s *Store) write(r *Record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := durable.Write(s.file(r.ID, endRecord), raw); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[r.ID] = *r
	return nil
}

// drop forgets a record and its copy, record first: a copy alone is removed by the next Open.
func (s *Store) drop(id string) error {
	if err := os.Remove(s.file(id, endRecord)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	delete(s.records, id)
	s.mu.Unlock()
	if err := durable.SyncFolder(s.dir); err != nil {
		return err
	}
	if err := os.Remove(s.file(id, endCopy)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// settle ends what a power cut left between the copy and the taking of the name.
func (s *Store) settle(r *Record) error {
	is := func(path string) bool {
		var st unix.Stat_t
		return unix.Lstat(path, &st) == nil && st.Ino == r.Inode && st.Dev == r.Device && st.Size == r.Size && timeOf(st.Mtim).Equal(r.Modified)
	}
	aside := filepath.Join(filepath.Dir(r.Path), asideName(r.ID))
	switch {
	case is(aside):
		if err := os.Remove(aside); err != nil {
			return err
		}
	case is(r.Path): // its name was never touched
		if r.Flags&fixed != 0 { // but what kept it may have been taken off
			if f, err := os.OpenFile(r.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0); err == nil {
				err = setFlags(int(f.Fd()), r.Flags)
				if f.Close(); err != nil {
					s.log.Warn("a file that was not quarantined is not immutable again", "path", r.Path, "err", err)
				}
			}
		}
		return s.drop(r.ID)
	}
	r.State = Sealed
	return s.write(r)
}

func asideName(id string) string { return ".omega-aside-" + id }

// Get finds the record of a sealed file.
func (s *Store) Get(id string) (Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[id]
	return r, ok
}

// List gives the records of all sealed files, by id.
func (s *Store) List() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Record, 0, len(s.records))
	for _, r := range s.records {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Record) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Spare says whether f fits into the half of the store, of its places and of its bytes, that is for what nobody ordered: whoever may
// make files where none may be could fill it, and nothing else could be quarantined.
func (s *Store) Spare(f *Found) error {
	if !s.fits(f.stat.Size, 2) {
		return fmt.Errorf("half of the quarantine is left to responses, and the other half is full: omega respond release ID gives a file back: %w", ErrFull)
	}
	return nil
}

// fits says whether one file more, of size bytes, has a place in one of so many parts of the store.
func (s *Store) fits(size int64, parts int) bool {
	records := s.List()
	for _, r := range records {
		size += r.Size
	}
	return len(records) < MaxSealed/parts && size <= maxTotal/int64(parts)
}

// room says whether size more bytes fit, on the disk too.
func (s *Store) room(size int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(s.dir, &fs); err != nil {
		return err
	}
	if !s.fits(size, 1) || int64(fs.Bavail)*int64(fs.Bsize) < size+minFree {
		return ErrFull
	}
	return nil
}
