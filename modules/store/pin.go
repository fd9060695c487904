package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/omega-mesh/omega/modules"
)

// Pin keeps a module's blocks, those that are here and those that come, until Unpin. Its root block must be here.
func (s *Store) Pin(id modules.ID) error {
	s.mu.Lock()
	p, known := s.pins[id]
	full := len(s.pins) >= MaxPins
	if !known && !full {
		s.pins[id] = &pin{}
	}
	s.mu.Unlock()
	switch {
	case known && p.manifest != nil:
		return nil
	case !known && full:
		return fmt.Errorf("%w: %d modules", ErrFull, MaxPins)
	}
	err := s.hold(id)
	if err == nil {
		err = syncDir(s.blockDir())
	}
	if err == nil && !known {
		err = writeSynced(s.pinDir(), filepath.Join(s.pinDir(), id.String()), nil)
	}
	if err == nil && !known {
		err = syncDir(s.pinDir())
	}
	if err != nil && !known {
		s.letGo(id)
	}
	return err
}

// hold reads a pinned module's manifest and marks its blocks.
func (s *Store) hold(id modules.ID) error {
	raw, err := s.Get(id)
	if err != nil {
		return err
	}
	m, err := modules.DecodeManifest(raw)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pins[id]
	if p == nil || p.manifest != nil {
		return nil
	}
	p.manifest, p.size, p.holds = m, len(raw), append([][32]byte{id}, parts(m)...)
	for _, k := range p.holds {
		if b, ok := s.blocks[k]; ok {
			b.pins++
		}
	}
	return nil
}

func (s *Store) letGo(id modules.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pins[id]
	if !ok {
		return
	}
	delete(s.pins, id)
	for _, k := range p.holds {
		if b, ok := s.blocks[k]; ok {
			b.pins--
		}
	}
}

// Unpin lets a module's blocks go when their room is needed.
func (s *Store) Unpin(id modules.ID) error {
	s.letGo(id)
	if err := os.Remove(filepath.Join(s.pinDir(), id.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("let a module go: %w", err)
	}
	return nil
}

// Pinned says whether a module is pinned.
func (s *Store) Pinned(id modules.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.pins[id]
	return ok
}

// Entry is one pinned module.
type Entry struct {
	ID       modules.ID
	Manifest *modules.Manifest // nil while its root block is missing
	Bytes    int64             // of its blocks that are here
	Complete bool
}

// List gives the pinned modules, by name, version and id.
func (s *Store) List() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Entry, 0, len(s.pins))
	for id, p := range s.pins {
		e := Entry{ID: id, Manifest: p.manifest, Complete: p.manifest != nil}
		for _, k := range p.holds {
			b, ok := s.blocks[k]
			if !ok {
				e.Complete = false
				continue
			}
			e.Bytes += int64(b.size)
		}
		out = append(out, e)
	}
	key := func(e Entry) string {
		if e.Manifest == nil {
			return "\xff" + e.ID.String()
		}
		return e.Manifest.Name + "\x00" + e.Manifest.Version + "\x00" + e.ID.String()
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(key(a), key(b)) })
	return out
}

// Stats are how full a store is.
type Stats struct {
	Bytes, Budget  int64
	Blocks, Pinned int
}

// Stats reads them.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Bytes: s.bytes, Budget: s.budget, Blocks: len(s.blocks), Pinned: len(s.pins)}
}
