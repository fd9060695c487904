// Package store keeps modules on disk by content: blocks of at most 256 KiB, each in a file named by its SHA-256 and held
// against that name whenever it is read, so that a bad disk is found before anything runs. What is pinned stays; the rest
// is a cache, and what was used least goes first where the byte budget is reached.
//
// It lies between the network, which brings blocks in any order, and the engines, which are given a whole bundle.
package store

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
)

// Bounds of a store, whatever its budget.
const (
	// MaxBlocks is the most blocks: a small one costs a file all the same.
	MaxBlocks = 65_536
	// MaxPins is the most modules pinned: as many as may be released at once.
	MaxPins = 1024
	// partPrefix begins the names of files that are not whole yet.
	partPrefix = ".part-"
)

// Errors of a store.
var (
	ErrNone    = errors.New("the store has no such block")
	ErrDamaged = errors.New("a block on disk is not what its name says")
	ErrFull    = errors.New("the store of modules is full of what is pinned")
)

// Store is one folder of modules. It is safe for concurrent use; one process opens it at a time.
type Store struct {
	dir    string
	budget int64
	log    *slog.Logger

	mu     sync.Mutex
	blocks map[[32]byte]*block
	pins   map[modules.ID]*pin
	bytes  int64
	clock  uint64 // of uses
}

type block struct {
	size int
	used uint64
	pins int
}

type pin struct {
	manifest *modules.Manifest // nil while the root block is missing
	size     int
	holds    [][32]byte // the root among them
}

// Open opens the store in dir, which it makes; budget is the most bytes of blocks. What a crash left half written is
// removed.
func Open(dir string, budget int64, log *slog.Logger) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{dir: dir, budget: budget, log: log, blocks: map[[32]byte]*block{}, pins: map[modules.ID]*pin{}}
	for _, d := range []string{s.blockDir(), s.pinDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("store of modules: %w", err)
		}
	}
	if err := s.readBlocks(); err != nil {
		return nil, fmt.Errorf("store of modules: %w", err)
	}
	if err := s.readPins(); err != nil {
		return nil, fmt.Errorf("store of modules: %w", err)
	}
	s.mu.Lock()
	_ = s.room(0, 0) // what is pinned may be more than the budget is now
	s.mu.Unlock()
	return s, nil
}

func (s *Store) blockDir() string { return filepath.Join(s.dir, "blocks") }
func (s *Store) pinDir() string   { return filepath.Join(s.dir, "pins") }
func (s *Store) blockFile(k [32]byte) string {
	return filepath.Join(s.blockDir(), hex.EncodeToString(k[:]))
}

// entries lists a folder, at most limit names of it.
func entries(dir string, limit int) ([]fs.DirEntry, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list, err := d.ReadDir(limit)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return list, err
}

func (s *Store) readBlocks() error {
	list, err := entries(s.blockDir(), 2*MaxBlocks)
	if err != nil {
		return err
	}
	type found struct {
		key  [32]byte
		size int
		time int64
	}
	var all []found
	for _, e := range list {
		name := e.Name()
		if strings.HasPrefix(name, partPrefix) {
			if err := os.Remove(filepath.Join(s.blockDir(), name)); err != nil {
				return err
			}
			continue
		}
		var f found
		info, err := e.Info()
		raw, bad := hex.DecodeString(name)
		if err != nil || bad != nil || len(raw) != len(f.key) || !info.Mode().IsRegular() || info.Size() > modules.MaxBlock || len(all) >= MaxBlocks {
			s.log.Warn("a file among the modules' blocks is none", "file", name)
			continue
		}
		f.key, f.size, f.time = [32]byte(raw), int(info.Size()), info.ModTime().UnixNano()
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(a.time, b.time) })
	for _, f := range all {
		s.clock++
		s.blocks[f.key] = &block{size: f.size, used: s.clock}
		s.bytes += int64(f.size)
	}
	return nil
}

func (s *Store) readPins() error {
	list, err := entries(s.pinDir(), 2*MaxPins)
	if err != nil {
		return err
	}
	for _, e := range list {
		id, err := modules.ParseID(e.Name())
		if err != nil || len(s.pins) >= MaxPins {
			s.log.Warn("a file among the pinned modules' names is none", "file", e.Name())
			continue
		}
		s.pins[id] = &pin{}
		if err := s.hold(id); err != nil {
			s.log.Warn("a pinned module does not read; it is fetched again where it is wanted", "module", id, "err", err)
		}
	}
	return nil
}

// Has says whether a block is there, without reading it.
func (s *Store) Has(sum [32]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.blocks[sum]
	return ok
}

// Get reads a block and holds it against its name. One that is not what it should be is removed, and ErrDamaged wrapped.
func (s *Store) Get(sum [32]byte) ([]byte, error) {
	s.mu.Lock()
	b, ok := s.blocks[sum]
	if ok {
		s.clock++
		b.used = s.clock
	}
	s.mu.Unlock()
	if !ok {
		return nil, ErrNone
	}
	data, err := readBlock(s.blockFile(sum), b.size)
	if err == nil && sha256.Sum256(data) == sum {
		return data, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrDamaged) {
		return nil, fmt.Errorf("open a block: %w", err) // it may be whole
	}
	s.mu.Lock()
	s.drop(sum)
	s.mu.Unlock()
	return nil, fmt.Errorf("%w: %s", ErrDamaged, modules.BlockCID(sum))
}

func readBlock(path string, size int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, size+1)
	n, err := io.ReadFull(f, data)
	if n != size || !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, errors.Join(ErrDamaged, err)
	}
	return data[:n], nil
}

// Put keeps a block and gives its name. A power cut leaves it whole or not there; that it is there is certain once its
// module is pinned, or Add returned. ErrFull where there is no room that is not pinned.
func (s *Store) Put(data []byte) ([32]byte, error) {
	sum := sha256.Sum256(data)
	if len(data) == 0 || len(data) > modules.MaxBlock {
		return sum, fmt.Errorf("%w: a block of %d bytes, at most %d", modules.ErrRefused, len(data), modules.MaxBlock)
	}
	s.mu.Lock()
	if b, ok := s.blocks[sum]; ok {
		s.clock++
		b.used = s.clock
		s.mu.Unlock()
		return sum, nil
	}
	err := s.room(len(data), 1)
	if err == nil {
		s.bytes += int64(len(data)) // its room is taken before it is written
	}
	s.mu.Unlock()
	if err != nil {
		return sum, err
	}
	err = writeSynced(s.blockDir(), s.blockFile(sum), data)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, twice := s.blocks[sum]
	if err != nil || twice { // another put the same meanwhile
		s.bytes -= int64(len(data))
		return sum, err
	}
	s.clock++
	b := &block{size: len(data), used: s.clock}
	for _, p := range s.pins {
		if slices.Contains(p.holds, sum) {
			b.pins++
		}
	}
	s.blocks[sum] = b
	return sum, nil
}

// writeSynced makes a file of data that is whole or not there, whenever the power goes.
func writeSynced(dir, path string, data []byte) error {
	f, err := os.CreateTemp(dir, partPrefix)
	if err != nil {
		return fmt.Errorf("keep a module: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("keep a module: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("keep a module: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("keep a module: %w", err)
	}
	return nil
}

// room drops what is used least until size bytes and count blocks more fit. The caller holds mu.
func (s *Store) room(size, count int) error {
	over := func() bool { return s.bytes+int64(size) > s.budget || len(s.blocks)+count > MaxBlocks }
	if !over() {
		return nil
	}
	var loose [][32]byte
	for k, b := range s.blocks {
		if b.pins == 0 {
			loose = append(loose, k)
		}
	}
	slices.SortFunc(loose, func(a, b [32]byte) int { return cmp.Compare(s.blocks[a].used, s.blocks[b].used) })
	for _, k := range loose {
		if !over() {
			return nil
		}
		s.drop(k)
	}
	if over() {
		return fmt.Errorf("%w: %d of %d bytes", ErrFull, s.bytes, s.budget)
	}
	return nil
}

// drop removes a block. The caller holds mu, so that none is removed that was put again meanwhile.
func (s *Store) drop(k [32]byte) {
	if b, ok := s.blocks[k]; ok {
		delete(s.blocks, k)
		s.bytes -= int64(b.size)
	}
	if err := os.Remove(s.blockFile(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("a block of a module was not removed", "err", err)
	}
}

// Collect removes every block that nothing pinned holds, and says how many bytes that freed.
func (s *Store) Collect() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.bytes
	for k, b := range s.blocks {
		if b.pins == 0 {
			s.drop(k)
		}
	}
	return before - s.bytes
}

// Manifest reads a module's root block.
func (s *Store) Manifest(id modules.ID) (*modules.Manifest, error) {
	raw, err := s.Get(id)
	if err != nil {
		return nil, err
	}
	return modules.DecodeManifest(raw)
}

// parts are the blocks of a module but its root, each once.
func parts(m *modules.Manifest) [][32]byte {
	var out [][32]byte
	seen := map[[32]byte]bool{}
	add := func(name []byte) {
		if k := [32]byte(name); !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	for _, b := range m.Blocks {
		add(b)
	}
	for _, t := range m.Tests {
		add(t.Events)
	}
	return out
}

// Missing lists the blocks of a module that are not here: its root alone where that is not.
func (s *Store) Missing(id modules.ID) ([][32]byte, error) {
	m, err := s.Manifest(id)
	switch {
	case errors.Is(err, ErrNone), errors.Is(err, ErrDamaged):
		return [][32]byte{id}, nil
	case err != nil:
		return nil, err
	}
	out := parts(m)
	return slices.DeleteFunc(out, s.Has), nil
}

// Bundle reads a whole module, each block held against its name.
func (s *Store) Bundle(id modules.ID) (*bundle.Bundle, error) {
	m, err := s.Manifest(id)
	if err != nil {
		return nil, err
	}
	var failed error
	b, err := bundle.Assemble(m, func(sum [32]byte) ([]byte, bool) {
		data, err := s.Get(sum)
		failed = errors.Join(failed, err)
		return data, err == nil
	}, -1)
	if failed != nil {
		return nil, failed
	}
	return b, err
}

// Add keeps a whole module, and gives its name.
func (s *Store) Add(b *bundle.Bundle) (modules.ID, error) {
	id, err := b.Manifest.ID()
	if err != nil {
		return id, err
	}
	err = b.Blocks(func(_ cid.Cid, data []byte) error {
		_, err := s.Put(data)
		return err
	})
	if err != nil {
		return id, err
	}
	return id, syncDir(s.blockDir())
}
