package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/tlog"
)

// An activity feed is trimmed by removing whole segments from its begin. What makes that safe is a base: the checkpoint
// that begins the first segment that stays, cosigned by witnesses. Bases wait beside the feed as marks, one a segment.
// Trimming copies a mark over the feed's base, in one step, and then removes files; a crash in between leaves files that
// the base says are gone, and the next Open removes them.

// ErrBase is wrapped where a base is refused.
var ErrBase = errors.New("ledger: base refused")

// holds says whether a segment is still the feed's.
func (f *feed) holds(file string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.segments, func(s segment) bool { return s.name == file })
}

// trimmed says whether entry seq is not held any more.
func (f *feed) trimmed(seq uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return seq < f.first()
}

// Markable says whether a base at entry first of a feed is of use: a segment begins there that has no mark, or the feed
// is not there yet.
func (l *Ledger) Markable(id Feed, first uint64) bool {
	f := l.lookup(id)
	if id.Chain != Activity || f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if first >= f.count {
		return first-f.count <= trust.MaxAhead
	}
	return first > f.first() && !slices.Contains(f.marks, first) && slices.ContainsFunc(f.segments, func(s segment) bool { return s.first == first })
}

// Mark keeps the cosignatures of the checkpoint that begins a segment, so that the feed can be trimmed to it. It does
// nothing where Markable says no.
func (l *Ledger) Mark(id Feed, first uint64, cosigned []tlog.Cosignature) error {
	if !l.Markable(id, first) {
		return nil
	}
	f := l.lookup(id)
	f.mu.Lock()
	var tree tlog.Tree
	for _, s := range f.segments {
		if s.first == first {
			tree = s.tree
		}
	}
	f.mu.Unlock()
	if tree.Size() != first {
		return nil // still to come
	}
	e, err := l.stored(f, first)
	if err != nil {
		return err
	}
	b, err := NewBase(e.raw, tree, cosigned)
	if err != nil {
		return err
	}
	if err := l.backed(b); err != nil {
		return err
	}
	raw, err := b.Encode()
	if err != nil {
		return err
	}
	if err := l.disk.Write(markFile(id, first), raw); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.marks = append(f.marks, first)
	slices.Sort(f.marks)
	return nil
}

// Standing is the base at entry first of a feed: where the feed begins here, or what it can be trimmed to. Nil where none is.
func (l *Ledger) Standing(id Feed, first uint64) (*Base, error) {
	f := l.lookup(id)
	if f == nil {
		return nil, nil
	}
	b, _, err := l.baseAt(f, first)
	return b, err
}

// baseAt gives the name of its file, too.
func (l *Ledger) baseAt(f *feed, first uint64) (*Base, string, error) {
	f.mu.Lock()
	base, marked := f.base, slices.Contains(f.marks, first)
	f.mu.Unlock()
	switch {
	case base != nil && base.First == first:
		return base, besideFile(f.id, suffixBase), nil
	case marked:
		name := markFile(f.id, first)
		b, err := l.readMark(f, first)
		if err != nil {
			err = fmt.Errorf("%w: %s: %w", ErrStorage, name, err)
		}
		return b, name, err
	}
	return nil, "", nil
}

// Renew puts a cosignature in the place of its witness's older one in the base that stands at entry first of a feed: a
// rotated witness says again, with its new key, what it said before. Where no base stands, or that witness cosigned none,
// nothing changes.
func (l *Ledger) Renew(id Feed, first uint64, again tlog.Cosignature) error {
	f := l.lookup(id)
	if f == nil {
		return nil
	}
	f.order.Lock() // against Trim and IngestBase, which move the base
	defer f.order.Unlock()
	old, name, err := l.baseAt(f, first)
	if err != nil || old == nil {
		return err
	}
	at := slices.IndexFunc(old.Cosigned, func(c tlog.Cosignature) bool { return c.Witness == again.Witness })
	if at < 0 {
		return nil
	}
	b := *old
	b.Cosigned = slices.Clone(old.Cosigned)
	b.Cosigned[at] = again
	raw, err := b.Encode()
	if err != nil {
		return err
	}
	if err := l.disk.Write(name, raw); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.base == old {
		f.base = &b
	}
	return nil
}

// readMark reads the mark at entry first of a feed.
func (l *Ledger) readMark(f *feed, first uint64) (*Base, error) {
	raw, err := l.disk.Read(markFile(f.id, first), trust.MaxBase)
	if err != nil {
		return nil, err
	}
	b, err := DecodeBase(raw)
	if err == nil && (b.Feed != f.id || b.First != first) {
		err = errors.New("of another feed")
	}
	return b, err
}

func markFile(f Feed, first uint64) string {
	return besideFile(f, fmt.Sprintf("-%016x", first)+suffixMark)
}

// backed asks whether enough witnesses cosigned b.
func (l *Ledger) backed(b *Base) error {
	if l.opt.Backed == nil {
		return fmt.Errorf("%w: nobody here judges cosignatures", ErrBase)
	}
	if err := l.opt.Backed(b); err != nil {
		return fmt.Errorf("%w: %w", ErrBase, err)
	}
	return nil
}

// Trim removes of every activity feed what is older than keep, and more while all of them together take more than
// bytes; but nothing of the last trust.MinRetention, and nothing that is not behind a checkpoint that enough witnesses
// cosigned. It returns how many bytes it freed. Authority feeds are kept for ever.
func (l *Ledger) Trim(keep time.Duration, bytes int64) (freed int64, err error) {
	now := l.opt.Now().UnixNano()
	oldest := now - int64(max(keep, trust.MinRetention))
	var total int64
	var feeds []*feed
	for _, f := range l.sorted() {
		if f.id.Chain == Activity {
			feeds = append(feeds, f)
			total += f.bytes()
		}
	}
	for {
		// The oldest mark of all goes first, so that what one flooded costs the others nothing.
		var next *feed
		var first uint64
		var at int64
		for _, f := range feeds {
			if n, t, ok := f.nextMark(); ok && (next == nil || t < at) {
				next, first, at = f, n, t
			}
		}
		if next == nil || at > oldest && (total <= bytes || at > now-int64(trust.MinRetention)) {
			return freed, nil
		}
		n, err := l.trimTo(next, first)
		if err != nil {
			return freed, err
		}
		freed += n
		total -= n
	}
}

func (f *feed) bytes() (n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.segments {
		n += s.size
	}
	return n
}

// nextMark is the first mark of f, and the time of the checkpoint there.
func (f *feed) nextMark() (first uint64, at int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.segments[1:] {
		if slices.Contains(f.marks, s.first) {
			return s.first, s.time, true
		}
	}
	return 0, 0, false
}

// trimTo makes f begin at a mark.
func (l *Ledger) trimTo(f *feed, first uint64) (freed int64, err error) {
	f.order.Lock()
	defer f.order.Unlock()
	b, err := l.readMark(f, first)
	var raw []byte
	if err == nil {
		raw, err = b.Encode()
	}
	if err != nil {
		f.dropMarks(first)
		return 0, fmt.Errorf("%w: %s: %w", ErrStorage, markFile(f.id, first), err)
	}
	if err := l.disk.Write(besideFile(f.id, suffixBase), raw); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	f.mu.Lock()
	f.base = b
	var gone []segment
	for len(f.segments) > 1 && f.segments[0].first < first {
		gone = append(gone, f.segments[0])
		f.segments = f.segments[1:]
	}
	f.segments = slices.Clone(f.segments)
	f.mu.Unlock()
	for _, s := range gone {
		freed += s.size
	}
	return freed, l.removeOld(f, gone, f.dropMarks(first))
}

// dropMarks forgets the marks up to number through.
func (f *feed) dropMarks(through uint64) (gone []uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.marks) > 0 && f.marks[0] <= through {
		gone = append(gone, f.marks[0])
		f.marks = f.marks[1:]
	}
	return gone
}

// removeOld removes files that the base has made superfluous.
func (l *Ledger) removeOld(f *feed, segments []segment, marks []uint64) error {
	var errs []error
	for _, s := range segments {
		errs = append(errs, l.files.drop(s.name), l.disk.Remove(s.name))
	}
	for _, m := range marks {
		errs = append(errs, l.disk.Remove(markFile(f.id, m)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return nil
}

// IngestBase has a feed begin at a base that a peer gives, because it holds nothing from before: what this host holds of
// the feed from before goes, too. It is refused unless enough witnesses cosigned it and it is older than
// trust.MinRetention, so that nobody can hide news behind it; ErrDuplicate where this host has come as far itself.
func (l *Ledger) IngestBase(_ context.Context, raw []byte) (Feed, error) {
	b, err := DecodeBase(raw)
	if err != nil {
		return Feed{}, l.refuse(err)
	}
	return b.Feed, l.refuse(l.ingestBase(b, raw))
}

func (l *Ledger) ingestBase(b *Base, raw []byte) error {
	key, _, err := l.admit(b.entry)
	if err != nil {
		return err
	}
	if age := l.opt.Now().UnixNano() - b.entry.Time; age < int64(trust.MinRetention) {
		return fmt.Errorf("%w: it is %s old, younger than anything may be trimmed to", ErrBase, time.Duration(age).Round(time.Second))
	}
	if err := b.Verify(l.swarm, key); err != nil {
		return err
	}
	f, err := l.feedOf(b.Feed)
	if err != nil {
		return err
	}
	f.order.Lock()
	defer f.order.Unlock()
	if err := l.writing(f); err != nil {
		return err
	}
	s, _, forked := f.snapshot()
	switch {
	case forked:
		return reject(CauseFork, f.id.Author, "%s chain", f.id.Chain)
	case s.count >= b.First:
		return ErrDuplicate
	}
	if err := l.backed(b); err != nil {
		return err
	}
	if err := l.disk.Write(besideFile(f.id, suffixBase), raw); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	start := segment{name: segmentFile(f.id, b.First), first: b.First, tree: b.tree, size: headerSize}
	if broken, err := l.writeChunk(chunk{name: start.name, buf: segmentHeader(f.id, b.First), fresh: true}, f.own); err != nil {
		return fmt.Errorf("%w (broken %t): %w", ErrStorage, broken, err)
	}
	f.mu.Lock()
	gone := f.segments
	f.segments, f.base, f.state = []segment{start}, b, b.start()
	f.mu.Unlock()
	return l.removeOld(f, gone, f.dropMarks(b.First))
}
