package ledger

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

// Head is the last entry of a feed that stands.
func (l *Ledger) Head(author identity.DID, chain Chain) (Head, bool) {
	f := l.lookup(Feed{author, chain})
	if f == nil {
		return Head{}, false
	}
	return l.headOf(f)
}

func (l *Ledger) headOf(f *feed) (Head, bool) {
	s, _, _ := f.snapshot()
	if n, cut := l.standing(f.id); cut && n < s.count {
		if n == 0 {
			return Head{}, false
		}
		e, err := l.stored(f, n-1)
		if err != nil {
			return Head{}, false
		}
		return e.Head(), true
	}
	if s.count == 0 {
		return Head{}, false
	}
	return Head{Author: f.id.Author, Chain: f.id.Chain, Seq: s.count - 1, Hash: s.head}, true
}

// Heads are the last entries of all feeds, sorted by author and chain. Feeds of revoked authors end where they were cut.
func (l *Ledger) Heads() []Head {
	var heads []Head
	for _, f := range l.sorted() {
		if h, ok := l.headOf(f); ok {
			heads = append(heads, h)
		}
	}
	return heads
}

func (l *Ledger) sorted() []*feed {
	l.mu.RLock()
	feeds := make([]*feed, 0, len(l.feeds))
	for _, f := range l.feeds {
		feeds = append(feeds, f)
	}
	l.mu.RUnlock()
	slices.SortFunc(feeds, func(a, b *feed) int { return compareFeeds(a.id, b.id) })
	return feeds
}

// SealedThrough is the number of sealed entries of a feed: all below it are sealed.
func (l *Ledger) SealedThrough(author identity.DID, chain Chain) uint64 {
	f := l.lookup(Feed{author, chain})
	if f == nil {
		return 0
	}
	s, _, _ := f.snapshot()
	return s.sealed
}

// Count is the number of entries stored of a feed: the number that its next entry will have.
func (l *Ledger) Count(author identity.DID, chain Chain) uint64 {
	f := l.lookup(Feed{author, chain})
	if f == nil {
		return 0
	}
	s, _, _ := f.snapshot()
	return s.count
}

// walk reads entries of f from number from, which is stored, until fn says stop or the stored ones end.
func (l *Ledger) walk(f *feed, from uint64, buffer int, fn func(raw []byte) (more bool, err error)) error {
	segments, at, seq := f.from(from)
	if segments == nil {
		return fmt.Errorf("%s chain of %s at %d: %w", f.id.Chain, f.id.Author.Short(), from, ErrNotStored)
	}
	for _, seg := range segments {
		more, err := l.walkSegment(f, &seg, at, seq, from, buffer, fn)
		if err != nil || !more {
			return err
		}
		at, seq = headerSize, 0 // the number is the next segment's own
	}
	return nil
}

// walkSegment reads the entries of one segment from offset at on, which is that of entry seq; 0 is its first.
func (l *Ledger) walkSegment(f *feed, seg *segment, at int64, seq, from uint64, buffer int, fn func(raw []byte) (more bool, err error)) (bool, error) {
	h, err := l.files.get(seg.name)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	defer l.files.put(h, false)
	seq = max(seq, seg.first)
	r := bufio.NewReaderSize(io.NewSectionReader(h, at, seg.size-at), buffer)
	for ; ; seq++ {
		raw, _, err := readRecord(r)
		if errors.Is(err, io.EOF) && at == seg.size {
			return true, nil
		}
		if err != nil {
			return false, l.spoilt(f, seg.name, seq, err)
		}
		at += int64(recordHead + len(raw))
		if seq < from {
			continue
		}
		if more, err := fn(raw); err != nil || !more {
			return false, err
		}
	}
}

// spoilt notes damage found while reading. It is cut and healed at the next Open.
func (l *Ledger) spoilt(f *feed, file string, seq uint64, cause error) error {
	if !f.holds(file) {
		return fmt.Errorf("%s: %w", file, ErrNotStored) // trimmed while it was read
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fault := Fault{Feed: f.id, File: file, Detail: fmt.Sprintf("entry %d does not read (%v)", seq, cause), Own: f.own}
	if !slices.Contains(l.faults, fault) && len(l.faults) < 1024 {
		l.faults = append(l.faults, fault)
	}
	return fmt.Errorf("%w: %s: entry %d: %w", ErrStorage, file, seq, cause)
}

// stored reads one entry.
func (l *Ledger) stored(f *feed, seq uint64) (*Entry, error) {
	var e *Entry
	err := l.walk(f, seq, 16<<10, func(raw []byte) (bool, error) {
		var err error
		e, err = decodeOwned(raw)
		return false, err
	})
	if err == nil && e == nil {
		err = fmt.Errorf("%w: %s: no entry %d", ErrStorage, feedFile(f.id), seq)
	}
	return e, err
}

// Range reads raw entries of a feed from number from: at most maxEntries and maxBytes (and the bounds of limits.go), at
// least one if there is one. Where the bounds cut it short it ends at a sealed entry if it can, so that the reader
// verifies one composite signature for the run.
func (l *Ledger) Range(author identity.DID, chain Chain, from uint64, maxEntries, maxBytes int) ([][]byte, error) {
	f := l.lookup(Feed{author, chain})
	if f == nil {
		return nil, nil
	}
	s, _, _ := f.snapshot()
	end := s.count
	if n, cut := l.standing(f.id); cut {
		end = min(end, n)
	}
	if from >= end || f.trimmed(from) {
		return nil, nil
	}
	maxEntries = min(max(maxEntries, 1), trust.MaxRangeEntries)
	maxBytes = min(max(maxBytes, 1), trust.MaxRangeBytes)
	var out [][]byte
	size, sealed, full := 0, 0, false
	err := l.walk(f, from, 64<<10, func(raw []byte) (bool, error) {
		if len(out) > 0 && (len(out) == maxEntries || size+len(raw) > maxBytes) {
			full = true
			return false, nil
		}
		e, err := decodeOwned(raw)
		if err != nil {
			return false, err
		}
		out = append(out, raw)
		size += len(raw)
		if e.Full != nil {
			sealed = len(out)
		}
		return from+uint64(len(out)) < end, nil
	})
	if err != nil {
		return nil, err
	}
	if full && sealed > 0 {
		out = out[:sealed]
	}
	return out, nil
}

// Entry reads one stored entry.
func (l *Ledger) Entry(author identity.DID, chain Chain, seq uint64) (*Entry, error) {
	f := l.lookup(Feed{author, chain})
	if f == nil {
		return nil, fmt.Errorf("ledger: no %s chain of %s", chain, author.Short())
	}
	s, _, _ := f.snapshot()
	if seq >= s.count {
		return nil, fmt.Errorf("ledger: %s chain of %s has %d entries, no number %d", chain, author.Short(), s.count, seq)
	}
	e, err := l.stored(f, seq)
	if err == nil {
		e.sealed.Store(seq < s.sealed)
		_, e.Rotation, _ = l.keyAt(e.Feed(), seq)
	}
	return e, err
}

// Replay calls fn with every stored entry, authority chains first, each feed in order; within a chain kind, feeds come
// sorted by author. It stops at fn's first error.
func (l *Ledger) Replay(fn func(*Entry) error) error {
	feeds := l.sorted()
	for _, chain := range []Chain{Authority, Activity} {
		for _, f := range feeds {
			s, _, _ := f.snapshot()
			if f.id.Chain != chain || s.count == 0 {
				continue
			}
			f.mu.Lock()
			first := f.first()
			f.mu.Unlock()
			if first == s.count {
				continue
			}
			var key uint32 // of the feed's own rotations: whoever resolves keys may be learning them from this replay
			err := l.walk(f, first, 256<<10, func(raw []byte) (bool, error) {
				e, err := decodeOwned(raw)
				if err != nil {
					return false, err
				}
				e.sealed.Store(e.Seq < s.sealed)
				if e.Kind == KindRotate {
					key++
				}
				e.Rotation = key
				return e.Seq+1 < s.count, fn(e)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Base is where a feed begins that this host does not hold from its first entry; nil for the others.
func (l *Ledger) Base(f Feed) *Base {
	x := l.lookup(f)
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.base
}
