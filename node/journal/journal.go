package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Options of a journal.
type Options struct {
	// Budget is how many bytes it may take on disk, at least 8 MiB; 0 is 2 GiB or a tenth of the disk, whichever is less.
	Budget int64
	// Reserve is how many bytes of the disk stay free for others: below it the oldest goes.
	Reserve int64
	Log     *slog.Logger
}

// Journal is a store of events. Append, Read, Flush and Stats may be called from any goroutine.
type Journal struct {
	dir    string
	opt    Options
	full   chan *builder // filled, to be written
	kick   chan struct{} // the first event of a block came, or somebody follows
	flush  chan chan struct{}
	packer packer
	dirty  atomic.Bool

	filling sync.Mutex // of the block that is being filled
	active  *builder
	free    []*builder
	made    int

	mu       sync.Mutex // of the segments
	segments []*segment // oldest first; only the last may take more
	file     *os.File   // of the last, while it takes more
	total    int64
	wake     chan struct{} // closed at each new block
	closed   bool
	ended    chan struct{} // closed when Run is over

	followers atomic.Int32
	appended  atomic.Uint64
	written   atomic.Uint64
	cut       atomic.Uint64
	evicted   atomic.Uint64
	torn      atomic.Int64
	failures  atomic.Uint64
	dropped   [classCount]atomic.Uint64
}

// Open opens the journal in dir, which it makes where it is not there. A segment that a crash left is cut at its last whole
// block. Nothing is written before Run.
func Open(dir string, opt Options) (*Journal, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if opt.Budget == 0 {
		opt.Budget = defaultBudget
		if disk, _, err := space(dir); err == nil {
			opt.Budget = min(opt.Budget, disk/10)
		}
	}
	opt.Budget = max(opt.Budget, minBudget)
	j := &Journal{dir: dir, opt: opt, full: make(chan *builder, builders), kick: make(chan struct{}, 1), flush: make(chan chan struct{}), wake: make(chan struct{}), ended: make(chan struct{})}
	paths, ids, err := listSegments(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	for i, path := range paths {
		s, cut, err := openSegment(path, ids[i])
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if cut > 0 {
			j.torn.Add(cut)
			opt.Log.Warn("the journal's last block was not whole: cut", "file", path, "bytes", cut)
		}
		if s.events == 0 {
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("journal: %w", err)
			}
			continue
		}
		j.segments = append(j.segments, s)
		j.total += s.size
	}
	return j, nil
}

// space is how large the disk below dir is, and what of it is free, in bytes.
func space(dir string) (size, free int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

// Append stores e. It allocates nothing once warm and never waits: where the writer is too far behind, e is counted as dropped.
func (j *Journal) Append(e *event.Event) {
	j.filling.Lock()
	b := j.active
	if b == nil {
		if b = j.take(); b == nil {
			j.filling.Unlock()
			j.dropped[classIndex(e.Class)].Add(1)
			return
		}
		j.active = b
		select {
		case j.kick <- struct{}{}:
		default:
		}
	}
	b.add(e)
	if b.full() {
		j.active = nil
		j.full <- b // has room for all there are
	}
	j.filling.Unlock()
	j.appended.Add(1)
}

// take gives an empty builder, nil where all are in use.
func (j *Journal) take() *builder {
	if n := len(j.free); n > 0 {
		b := j.free[n-1]
		j.free = j.free[:n-1]
		return b
	}
	if j.made == builders {
		return nil
	}
	j.made++
	return newBuilder()
}

func (j *Journal) giveBack(b *builder) {
	b.reset()
	j.filling.Lock()
	defer j.filling.Unlock()
	if len(j.free) >= keptBuilders {
		j.made--
		return
	}
	j.free = append(j.free, b)
}

// Run writes what is appended until ctx ends; then it writes the rest and closes the last segment.
func (j *Journal) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	synced, stop := context.WithCancel(context.Background())
	wg.Go(func() { j.keepSynced(synced) })
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for {
		select {
		case b := <-j.full:
			j.write(b)
		case <-j.kick:
			every := flushEvery
			if j.followers.Load() > 0 {
				every = followEvery
			}
			timer.Reset(every)
		case <-timer.C:
			j.writeAll()
		case done := <-j.flush:
			j.writeAll()
			close(done)
		case <-ctx.Done():
			j.writeAll()
			stop()
			wg.Wait()
			return j.close()
		}
	}
}

// writeAll writes the full blocks and the one that is being filled.
func (j *Journal) writeAll() {
	for {
		select {
		case b := <-j.full:
			j.write(b)
			continue
		default:
		}
		break
	}
	j.filling.Lock()
	b := j.active
	j.active = nil
	j.filling.Unlock()
	if b != nil {
		j.write(b)
	}
}

// Flush has everything appended so far where Read finds it.
func (j *Journal) Flush(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case j.flush <- done:
	case <-j.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write packs one block and appends it to the last segment; what cannot be written is counted as dropped.
func (j *Journal) write(b *builder) {
	defer j.giveBack(b)
	j.cut.Add(b.cut)
	block, err := j.packer.pack(b)
	if err == nil {
		err = j.store(block)
	}
	if err != nil {
		for i, n := range b.classes {
			j.dropped[i].Add(uint64(n))
		}
		if j.failures.Add(1) == 1 { // status has the count of those that follow
			j.opt.Log.Warn("the journal cannot be written; its events are counted as dropped until it can", "err", err)
		}
		return
	}
	j.written.Add(uint64(b.events))
}

func (j *Journal) store(block []byte) error {
	h, err := parseHeader(block)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.makeRoom(int64(len(block))); err != nil {
		return err
	}
	s, err := j.last()
	if err != nil {
		return err
	}
	_, err = j.file.WriteAt(block, s.blocks)
	for errors.Is(err, syscall.ENOSPC) && j.dropOldest() {
		_, err = j.file.WriteAt(block, s.blocks)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("journal: %w", err), j.file.Truncate(s.blocks))
	}
	s.note(&h, block)
	j.total += int64(len(block))
	j.dirty.Store(true)
	close(j.wake)
	j.wake = make(chan struct{})
	return nil
}

// segmentSize is the size at which a segment takes no more blocks.
func (j *Journal) segmentSize() int64 {
	return min(max(j.opt.Budget/segmentShare, minSegment), maxSegment)
}

// last is the segment that takes blocks, a new one where there is none or it is full.
func (j *Journal) last() (*segment, error) {
	id := uint64(1)
	if n := len(j.segments); n > 0 {
		s := j.segments[n-1]
		if j.file != nil && s.blocks < j.segmentSize() {
			return s, nil
		}
		id = s.id + 1
		if err := j.sealLast(); err != nil {
			return nil, err
		}
	}
	s := newSegment(j.dir, id)
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j.file = f
	j.segments = append(j.segments, s)
	return s, nil
}

// sealLast ends the segment that takes blocks.
func (j *Journal) sealLast() error {
	if j.file == nil {
		return nil
	}
	s := j.segments[len(j.segments)-1]
	before := s.size
	err := s.seal(j.file)
	if err != nil { // it is read through at the next start; here its index stays in memory
		err = j.file.Truncate(s.blocks)
	}
	j.total += s.size - before
	err = errors.Join(err, j.file.Close())
	j.file = nil
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// makeRoom lets the oldest segments go until n more bytes fit the budget and the disk keeps its reserve.
func (j *Journal) makeRoom(n int64) error {
	for j.total+n > j.opt.Budget {
		if !j.dropOldest() {
			return fmt.Errorf("journal: a block of %d bytes and a budget of %d", n, j.opt.Budget)
		}
	}
	if j.opt.Reserve == 0 {
		return nil
	}
	for {
		_, free, err := space(j.dir)
		if err != nil || free-n >= j.opt.Reserve {
			return nil // where the disk does not tell, writing will
		}
		if !j.dropOldest() {
			return fmt.Errorf("journal: %w: %d bytes of the disk are free, and %d are kept for others", syscall.ENOSPC, free, j.opt.Reserve)
		}
	}
}

// dropOldest removes the oldest segment; false if that one takes blocks now, or cannot be removed.
func (j *Journal) dropOldest() bool {
	if len(j.segments) == 0 || len(j.segments) == 1 && j.file != nil {
		return false
	}
	s := j.segments[0]
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false
	}
	j.segments = append([]*segment(nil), j.segments[1:]...)
	j.total -= s.size
	j.evicted.Add(s.events)
	return true
}

// keepSynced has what was written on the disk within a second of it, and does nothing while nothing is written.
func (j *Journal) keepSynced(ctx context.Context) {
	for {
		j.mu.Lock()
		wake := j.wake
		j.mu.Unlock()
		if !j.dirty.Swap(false) {
			select {
			case <-wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		j.sync()
		select {
		case <-time.After(syncEvery):
		case <-ctx.Done():
			return
		}
	}
}

func (j *Journal) sync() {
	j.mu.Lock()
	var err error
	fd := -1
	if j.file != nil {
		fd, err = syscall.Dup(int(j.file.Fd())) // the segment may be sealed meanwhile
	}
	j.mu.Unlock()
	if fd >= 0 {
		err = errors.Join(syscall.Fdatasync(fd), syscall.Close(fd))
	}
	if err != nil {
		j.failures.Add(1)
		j.opt.Log.Warn("the journal is not safe on the disk", "err", err)
	}
}

func (j *Journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	close(j.ended)
	close(j.wake)
	j.wake = make(chan struct{})
	return j.sealLast()
}

// Stats is what a journal holds and what it could not.
type Stats struct {
	Appended uint64 // events since Open
	Written  uint64
	Events   uint64 // on disk now
	Bytes    int64
	Budget   int64
	Evicted  uint64 // events that went with the oldest segments
	Cut      uint64 // strings that were too long
	Torn     int64  // bytes that a crash left behind
	Failures uint64 // blocks that could not be written
	Dropped  map[string]uint64
	Waiting  int // blocks in memory
}

// Stats tells of now.
func (j *Journal) Stats() Stats {
	s := Stats{Appended: j.appended.Load(), Written: j.written.Load(), Budget: j.opt.Budget, Evicted: j.evicted.Load(), Cut: j.cut.Load(), Torn: j.torn.Load(), Failures: j.failures.Load(),
		Dropped: map[string]uint64{}, Waiting: len(j.full)}
	for _, c := range event.Classes() {
		if n := j.dropped[classIndex(c)].Load(); n > 0 {
			s.Dropped[c.String()] = n
		}
	}
	if n := j.dropped[classCount-1].Load(); n > 0 {
		s.Dropped["other"] = n
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, seg := range j.segments {
		s.Events += seg.events
	}
	s.Bytes = j.total
	return s
}
