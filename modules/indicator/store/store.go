package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omega-mesh/omega/modules/indicator"
	"github.com/omega-mesh/omega/modules/indicator/feed"
)

// Options of a store; the zero value of each is a sound default.
type Options struct {
	// Configured are sources by location, as Locate reads them.
	Configured []string
	// Refresh is how often sources that can change are visited; 0 is an hour.
	Refresh time.Duration
	// Budget bounds the set's bytes; 0 is 512 MiB.
	Budget int64
	Log    *slog.Logger
}

// Names in the store's folder.
const (
	listName     = "sources.json"
	seenName     = "sightings.json"
	filesName    = "files"
	maxListBytes = 32 << 20
)

// Store is safe for concurrent use; Run does the work.
type Store struct {
	// Current is the set that holds.
	Current indicator.Current
	// Sightings are what was seen of it.
	Sightings indicator.Sightings

	dir     string
	opt     Options
	log     *slog.Logger
	now     func() time.Time
	begun   sync.Once  // of loaded
	work    sync.Mutex // held by whoever builds, adds or removes
	mu      sync.Mutex // of sources
	sources []*State
	loaded  chan struct{}
	full    bool
}

// Open reads what a folder holds, which is made where it is not; nothing is read of the sources before Run.
func Open(dir string, opt Options) (*Store, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Budget <= 0 {
		opt.Budget = 512 << 20
	}
	if opt.Refresh <= 0 {
		opt.Refresh = time.Hour
	}
	s := &Store{dir: dir, opt: opt, log: opt.Log, now: time.Now, loaded: make(chan struct{})}
	if err := os.MkdirAll(filepath.Join(dir, filesName), 0o700); err != nil {
		return nil, fmt.Errorf("indicators: %w", err)
	}
	var kept []Source
	if err := readJSON(filepath.Join(dir, listName), &kept); err != nil {
		return nil, fmt.Errorf("indicators: %w", err)
	}
	configured := map[string]bool{}
	for _, l := range opt.Configured {
		src, err := Locate(l)
		if err != nil {
			return nil, fmt.Errorf("indicators: %w", err)
		}
		src.Configured, src.ID = true, identify(src.Name, s.taken)
		configured[src.ID] = true
		s.sources = append(s.sources, &State{Source: src})
	}
	for _, k := range kept {
		if k.ID == "" || k.ID != filepath.Base(k.ID) || k.Validate() != nil || len(s.sources) >= MaxSources {
			s.log.Warn("a source of indicators that does not read is left out", "source", k.ID)
			continue
		}
		if at := s.find(k.ID); at != nil { // a configured one goes on where it was
			if configured[k.ID] && at.Location == k.Location {
				at.Fetched, at.Version, at.Progress = k.Fetched, k.Version, k.Progress
			}
			continue
		}
		s.sources = append(s.sources, &State{Source: k})
	}
	var seen []indicator.Sighting
	if err := readJSON(filepath.Join(dir, seenName), &seen); err != nil {
		s.log.Warn("the sightings of indicators are lost", "err", err)
	}
	s.Sightings.Restore(seen)
	return s, nil
}

// Empty says whether there is nothing to look for.
func (s *Store) Empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sources) == 0
}

// Run visits sources and makes sets until ctx ends; then it keeps what was seen. A host without sources does nothing.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(s.opt.Refresh)
	defer tick.Stop()
	if !s.Empty() {
		s.load(ctx)
	}
	s.begun.Do(func() { close(s.loaded) })
	if !s.Empty() {
		s.refresh(ctx)
	}
	for {
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), s.keepSightings())
		case <-tick.C:
			if !s.Empty() {
				s.refresh(ctx)
				if err := s.keepSightings(); err != nil {
					s.log.Warn("sightings are not kept", "err", err)
				}
			}
		}
	}
}

// Loaded is closed once Run has made a set of what is on this host's disk; what is on the network comes after.
func (s *Store) Loaded() <-chan struct{} { return s.loaded }

func (s *Store) load(ctx context.Context) {
	s.work.Lock()
	defer s.work.Unlock()
	for _, st := range s.all() {
		if st.Kind == Path {
			_, err := s.visit(ctx, st)
			s.note(st, err)
		}
	}
	s.build(ctx)
}

// refresh visits every source, and makes a new set if one has changed or an indicator's end may have come.
func (s *Store) refresh(ctx context.Context) {
	s.work.Lock()
	defer s.work.Unlock()
	changed := s.Current.Load() == nil
	for _, st := range s.all() {
		if ctx.Err() != nil {
			return
		}
		moved, err := s.visit(ctx, st)
		s.note(st, err)
		changed = changed || moved
	}
	if changed {
		s.build(ctx)
	}
}

// Refresh visits one source, or all with "", now.
func (s *Store) Refresh(ctx context.Context, id string) error {
	s.work.Lock()
	defer s.work.Unlock()
	found := id == ""
	var errs []error
	for _, st := range s.all() {
		if id == "" || st.ID == id {
			found = true
			_, err := s.visit(ctx, st)
			s.note(st, err)
			errs = append(errs, err)
		}
	}
	if !found {
		return fmt.Errorf("%w: %.60q", ErrNotFound, id)
	}
	s.build(ctx)
	return errors.Join(errs...)
}

func (s *Store) note(st *State, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Visited, st.Error = s.now(), ""
	if err != nil {
		st.Error = err.Error()
		s.log.Warn("a source of indicators was not read", "source", st.ID, "err", err)
	}
}

// build makes a set of what all sources gave; the caller holds work.
func (s *Store) build(ctx context.Context) {
	start := s.now()
	b := indicator.NewBuilder(s.opt.Budget, start)
	full := false
	for _, st := range s.all() {
		var rep indicator.Report
		err := s.read(ctx, st, b, &rep)
		if ctx.Err() != nil {
			return
		}
		full = full || errors.Is(err, indicator.ErrFull)
		s.mu.Lock()
		st.Report, st.Indicators = rep, rep.Taken
		if err != nil {
			st.Error = err.Error()
		}
		s.mu.Unlock()
	}
	set := b.Set()
	s.Current.Store(set)
	s.mu.Lock()
	s.full = full
	err := s.keepList()
	s.mu.Unlock()
	if err != nil {
		s.log.Warn("the sources of indicators are not kept", "err", err)
	}
	s.log.Info("indicators", "looked_for", set.Len(), "mib", set.Bytes()>>20, "took", s.now().Sub(start).Round(time.Millisecond))
}

// read gives what a source has to a builder.
func (s *Store) read(ctx context.Context, st *State, b *indicator.Builder, rep *indicator.Report) error {
	opt := feed.Options{Source: st.ID, Confidence: st.Confidence, Exact: st.Exact, Now: s.now()}
	files := []string{st.Location}
	if st.Kind != Path {
		files = []string{s.spool(st.ID)}
	}
	if st.Kind == TAXII {
		opt.Keep = newest(files[0])
	}
	files, err := within(files[0])
	if err != nil {
		if st.Kind != Path && errors.Is(err, os.ErrNotExist) {
			return nil // nothing came yet; why, visit has said
		}
		return err
	}
	var errs []error
	for _, name := range files {
		if err := s.readFile(ctx, name, st, opt, b, rep); err != nil {
			if errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(name), err)); len(errs) > 3 || errors.Is(err, indicator.ErrFull) {
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (s *Store) readFile(ctx context.Context, name string, st *State, opt feed.Options, b *indicator.Builder, rep *indicator.Report) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if st.TTL > 0 {
		from := st.Added
		if info, err := f.Stat(); err == nil && st.Kind != Kept {
			from = info.ModTime()
		}
		opt.Expires = from.Add(st.TTL)
	}
	return feed.Read(ctx, f, opt, b, rep)
}

// within lists the regular files at a path: itself, or those of a folder that are not hidden, three folders deep.
func within(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%w: %s is no regular file", ErrInvalid, path)
		}
		return []string{path}, nil
	}
	var out []string
	err = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p != path && strings.HasPrefix(d.Name(), "."), d.IsDir() && strings.Count(p[len(path):], "/") > 3:
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		case len(out) >= MaxFiles:
			return fmt.Errorf("%w: more than %d files in %s", ErrInvalid, MaxFiles, path)
		}
		out = append(out, p)
		return nil
	})
	return out, err
}

// Add takes a source over: of what is kept next gives the files, io.EOF after the last. It returns what became of it, once
// what it has is looked for.
func (s *Store) Add(ctx context.Context, src Source, next func() (io.Reader, error)) (State, error) {
	if err := src.Validate(); err != nil {
		return State{}, err
	}
	s.work.Lock()
	defer s.work.Unlock()
	s.mu.Lock()
	src.ID, src.Added = identify(src.Name, s.taken), s.now()
	room := len(s.sources) < MaxSources
	s.mu.Unlock()
	if !room {
		return State{}, fmt.Errorf("%w: %d sources are as many as there may be", ErrInvalid, MaxSources)
	}
	st := &State{Source: src}
	forget := func(err error) (State, error) {
		_ = os.RemoveAll(s.spool(src.ID))
		return State{}, err
	}
	var err error
	if src.Kind == Kept {
		err = s.spoolAll(ctx, src.ID, next)
	} else {
		_, err = s.visit(ctx, st)
	}
	if err != nil {
		return forget(err)
	}
	st.Visited = s.now()
	s.mu.Lock()
	s.sources = append(s.sources, st)
	s.mu.Unlock()
	s.build(ctx)
	if err := ctx.Err(); err != nil {
		return State{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.Report.Read > 0 && st.Report.Taken+st.Report.Duplicate == 0 && st.Kind == Kept {
		s.sources = slices.DeleteFunc(s.sources, func(x *State) bool { return x == st })
		why := "all of it has ended"
		for _, of := range []map[string]*indicator.Refusal{st.Report.Rejected, st.Report.NotApplicable} {
			if r := indicator.Refusals(of); len(r) > 0 {
				why = fmt.Sprintf("%s: %s", r[0].Example, r[0].Reason)
			}
		}
		_ = s.keepList()
		return forget(fmt.Errorf("%w: none of %d values can be looked for, such as %s", ErrInvalid, st.Report.Read, why))
	}
	return *st, nil
}

// spoolAll writes what is handed over into the store.
func (s *Store) spoolAll(ctx context.Context, id string, next func() (io.Reader, error)) error {
	dir := s.spool(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	left := int64(feed.MaxFile)
	for n := 0; ; n++ {
		r, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n >= MaxFiles {
			return fmt.Errorf("%w: more than %d files", ErrInvalid, MaxFiles)
		}
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%04d", n)), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		written, err := io.Copy(f, io.LimitReader(r, left+1))
		err = errors.Join(err, f.Close(), ctx.Err())
		if left -= written; err == nil && left < 0 {
			err = fmt.Errorf("%w: more than %d MiB", ErrInvalid, feed.MaxFile>>20)
		}
		if err != nil {
			return err
		}
	}
}

// Remove forgets a source and what it gave.
func (s *Store) Remove(ctx context.Context, id string) error {
	s.work.Lock()
	defer s.work.Unlock()
	s.mu.Lock()
	st := s.find(id)
	if st == nil {
		s.mu.Unlock()
		return fmt.Errorf("%w: %.60q", ErrNotFound, id)
	}
	if st.Configured {
		s.mu.Unlock()
		return fmt.Errorf("%w: %s is in this node's configuration: take it out of indicator_sources", ErrInvalid, id)
	}
	s.sources = slices.DeleteFunc(s.sources, func(x *State) bool { return x == st })
	s.mu.Unlock()
	if err := os.RemoveAll(s.spool(id)); err != nil {
		return err
	}
	s.build(ctx)
	return nil
}

// Sources lists them with what became of them.
func (s *Store) Sources() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]State, 0, len(s.sources))
	for _, st := range s.sources {
		c := *st
		c.Password, c.Token = "", ""
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b State) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Full says whether a source had more than the set has room for.
func (s *Store) Full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// Budget is the bound of the set's bytes.
func (s *Store) Budget() int64 { return s.opt.Budget }

// Lookup looks a value up now, as modules and people ask.
func (s *Store) Lookup(kind, value string) (indicator.Match, bool) {
	return s.Current.Load().Lookup(kind, value, indicator.Unix(s.now()))
}

func (s *Store) all() []*State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sources)
}

func (s *Store) find(id string) *State {
	for _, st := range s.sources {
		if st.ID == id {
			return st
		}
	}
	return nil
}

func (s *Store) taken(id string) bool { return s.find(id) != nil }

func (s *Store) spool(id string) string { return filepath.Join(s.dir, filesName, id) }

// keepList writes the sources; the caller holds mu.
func (s *Store) keepList() error {
	list := make([]Source, 0, len(s.sources))
	for _, st := range s.sources {
		list = append(list, st.Source)
	}
	return writeJSON(filepath.Join(s.dir, listName), list)
}

func (s *Store) keepSightings() error {
	return writeJSON(filepath.Join(s.dir, seenName), s.Sightings.All())
}

func readJSON(name string, to any) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxListBytes))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return nil
}

// writeJSON replaces a file at once: a crash leaves the old one or the new one.
func writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
