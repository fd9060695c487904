package ledger

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
)

// writer signs one of this peer's own feeds. feed.order guards it.
type writer struct {
	feed     *feed
	tip      state // after the last entry signed, which may not be stored yet
	pending  int   // signed and not stored; guarded by queue.mu
	key      ed25519.PrivateKey
	number   uint64 // of the epoch entry that certified key, plus 1
	notAfter int64
	oldest   time.Time // when the first unsealed entry was signed
}

// signed is an entry on its way to the disk.
type signed struct {
	entry  *Entry
	epoch  *epochKey
	writer *writer
}

// batch is what one fdatasync makes durable.
type batch struct {
	entries []signed
	done    chan struct{}
	err     error // set before done is closed
}

// queue gathers signed entries for the committer: one goroutine, from start to stop. While it syncs one batch the next
// one fills.
type queue struct {
	mu      sync.Mutex
	next    *batch
	broken  error // the disk cannot be trusted until the ledger is opened again
	failing error // the last write failed, and was undone
	closed  bool
	slots   chan struct{}
	wake    chan struct{}
	quit    chan struct{}
	ended   chan struct{}
}

func (q *queue) start(commit func(*batch)) {
	q.next = &batch{done: make(chan struct{})}
	q.slots = make(chan struct{}, trust.MaxPendingAppends)
	q.wake, q.quit, q.ended = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(q.ended)
		for {
			quit := false
			select {
			case <-q.wake:
			case <-q.quit:
				quit = true
			}
			if b := q.take(); b != nil {
				commit(b)
				close(b.done)
			}
			if quit {
				return
			}
		}
	}()
}

// take empties the queue; nil where it is empty.
func (q *queue) take() *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.next.entries) == 0 {
		return nil
	}
	b := q.next
	q.next = &batch{done: make(chan struct{})}
	return b
}

// add queues entries of one writer and gives the batch they are in.
func (q *queue) add(entries ...signed) (*batch, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, ErrClosed
	}
	if q.broken != nil {
		return nil, q.broken
	}
	q.next.entries = append(q.next.entries, entries...)
	entries[0].writer.pending += len(entries)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return q.next, nil
}

func (q *queue) trouble() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return errors.Join(q.broken, q.failing)
}

// stop ends the committer after what is queued; false where it was stopped before.
func (q *queue) stop() bool {
	q.mu.Lock()
	was := q.closed
	q.closed = true
	q.mu.Unlock()
	if !was {
		close(q.quit)
	}
	<-q.ended
	return !was
}

// Append signs and stores an entry of this peer, and returns when it is on the disk: many appenders share one fdatasync.
// full asks for a composite signature; authority entries always carry one. It waits for Ready where Options.Hold is set.
// Where ctx ends first, the entry may be stored all the same. Over its own quota it returns a *RejectError with CauseRate
// at once.
func (l *Ledger) Append(ctx context.Context, chain Chain, kind Kind, body []byte, full bool) (*Entry, error) {
	w := l.writers[chain]
	if w == nil {
		return nil, ErrReadOnly
	}
	if kind.Chain() != chain {
		return nil, reject(CauseKind, l.self.DID(), "%s in the %s chain", kind, chain)
	}
	select {
	case <-l.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("ledger: waiting for this peer's own head: %w", ctx.Err())
	case <-l.queue.quit:
		return nil, ErrClosed
	}
	select {
	case l.queue.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("ledger: append: %w", ctx.Err())
	}
	defer func() { <-l.queue.slots }()
	e, b, err := l.sign(w, kind, body, full || chain == Authority || kind == KindSeal)
	if err != nil {
		return nil, err
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("ledger: append: %w", ctx.Err())
	}
	if b.err != nil {
		return nil, b.err
	}
	return e, nil
}

// sign makes the entry, with an epoch certificate before it and a seal after it where they are due, and queues them.
func (l *Ledger) sign(w *writer, kind Kind, body []byte, full bool) (*Entry, *batch, error) {
	w.feed.order.Lock()
	defer w.feed.order.Unlock()
	// First whether all that was signed is stored, then what is stored: the other way round, a commit in between would make
	// the tip fall back behind entries that have left the host.
	l.queue.mu.Lock()
	idle := w.pending == 0
	l.queue.mu.Unlock()
	stored, _, forked := w.feed.snapshot()
	if forked {
		return nil, nil, fmt.Errorf("%w: this peer's own %s chain", ErrFork, w.feed.id.Chain)
	}
	if w.feed.lost > stored.count {
		return nil, nil, fmt.Errorf("%w: %s chain has %d entries of at least %d", ErrDamaged, w.feed.id.Chain, stored.count, w.feed.lost)
	}
	if _, number, ok := l.keyAt(w.feed.id, w.tip.count); ok && number != l.self.Keys().Number() {
		return nil, nil, fmt.Errorf("%w: key %d is in use", ErrRotated, number)
	}
	if idle {
		w.tip = stored // a peer may have given back entries that a restored snapshot lacked
	}
	tip, key, number, notAfter, oldest := w.tip, w.key, w.number, w.notAfter, w.oldest
	restore := func() { w.tip, w.key, w.number, w.notAfter, w.oldest = tip, key, number, notAfter, oldest }
	t := max(l.opt.Now().UnixNano(), w.tip.time)
	var group []signed
	if !full && (w.key == nil || w.tip.epoch == nil || w.tip.epoch.number != w.number || t > w.notAfter || t < w.notAfter-int64(trust.EpochLifetime)) {
		s, err := l.signEpoch(w, t)
		if err != nil {
			restore()
			return nil, nil, err
		}
		group = append(group, s)
	}
	var err error
	if kind == KindCheckpoint {
		body, err = l.checkpointBody(&w.tip)
	}
	var s signed
	if err == nil {
		s, err = l.signOne(w, kind, body, t, full)
	}
	if err != nil {
		restore()
		return nil, nil, err
	}
	group = append(group, s)
	if w.tip.count-w.tip.sealed >= trust.SealEvery {
		seal, err := l.signOne(w, KindSeal, nil, t, true)
		if err != nil {
			restore()
			return nil, nil, err
		}
		group = append(group, seal)
	}
	q := tip.quota
	var wait time.Duration
	for _, g := range group {
		q, wait = q.after(w.feed.id.Chain, t, t, len(g.entry.raw)) // not now: a clock set back must not silence this host
	}
	if wait > 0 {
		restore()
		err := reject(CauseRate, l.self.DID(), "over this peer's own quota for another %s", wait)
		l.rejected.add(CauseRate)
		return nil, nil, err
	}
	b, err := l.queue.add(group...)
	if err != nil {
		restore()
		return nil, nil, err
	}
	switch {
	case w.tip.sealed == w.tip.count:
		w.oldest = time.Time{}
	case w.oldest.IsZero():
		w.oldest = time.Now()
	}
	return s.entry, b, nil
}

// signEpoch makes a new Ed25519 key, held in memory only, and the entry that certifies it.
func (l *Ledger) signEpoch(w *writer, t int64) (signed, error) {
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	if _, err := io.ReadFull(l.opt.Random, seed); err != nil {
		return signed{}, fmt.Errorf("ledger: epoch key: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	b := epochBody{Key: key[ed25519.SeedSize:], NotBefore: t, NotAfter: t + int64(trust.EpochLifetime)}
	body, err := canonical.Marshal(b)
	if err != nil {
		return signed{}, err
	}
	s, err := l.signOne(w, KindEpoch, body, t, true)
	if err != nil {
		return signed{}, err
	}
	w.key, w.number, w.notAfter = key, s.entry.Seq+1, b.NotAfter
	return s, nil
}

// signOne signs the next entry of w and moves its tip.
func (l *Ledger) signOne(w *writer, kind Kind, body []byte, t int64, full bool) (signed, error) {
	e := &Entry{
		Version: entryVersion, Swarm: l.swarm, Chain: w.feed.id.Chain, Seq: w.tip.count, Prev: w.tip.head,
		BootEpoch: max(l.boot.Load(), w.tip.boot), Time: t, Kind: kind, Body: body,
	}
	if full {
		e.Seen = l.takeSeen()
		if err := e.signFull(l.self); err != nil {
			return signed{}, err
		}
		_, e.Rotation, _ = l.keyAt(w.feed.id, e.Seq) // as whoever takes it finds
	} else {
		e.Epoch = w.number
		if err := e.signEpoch(l.self.DID(), w.key); err != nil {
			return signed{}, err
		}
	}
	epoch, err := w.tip.link(e)
	if err != nil {
		return signed{}, fmt.Errorf("ledger: own entry: %w", err)
	}
	w.tip = w.tip.next(e, epoch)
	return signed{entry: e, epoch: epoch, writer: w}, nil
}

func (l *Ledger) takeSeen() []Head {
	var heads []Head
	for _, id := range l.seen.take() {
		if h, ok := l.Head(id.Author, id.Chain); ok {
			heads = append(heads, h)
		}
	}
	return sortHeads(heads)
}

// commit writes a batch, makes it durable with one fdatasync a feed, and hands its entries out.
func (l *Ledger) commit(b *batch) {
	groups := make(map[*writer][]signed, 2)
	for _, s := range b.entries {
		groups[s.writer] = append(groups[s.writer], s)
	}
	var err error
	broken := false
	for w, entries := range groups {
		if err == nil {
			broken, err = l.writeGroup(w, entries)
		}
	}
	if err != nil {
		b.err = fmt.Errorf("%w: %w", ErrStorage, err)
		l.undo(b.err, broken)
		return
	}
	l.queue.mu.Lock()
	l.queue.failing = nil
	l.queue.mu.Unlock()
	for _, s := range b.entries {
		f := s.writer.feed
		f.mu.Lock()
		f.advance(s.entry, s.epoch, int64(recordHead+len(s.entry.raw)))
		f.mu.Unlock()
		l.queue.mu.Lock()
		s.writer.pending--
		l.queue.mu.Unlock()
		l.handOut(s.entry)
	}
}

// writeGroup puts entries at the end of w's file and syncs it. broken says that the file's state is not known.
func (l *Ledger) writeGroup(w *writer, entries []signed) (broken bool, err error) {
	stored, tail, _ := w.feed.snapshot()
	next := stored
	list := make([]*Entry, 0, len(entries))
	for _, s := range entries {
		if _, err := next.link(s.entry); err != nil {
			return true, fmt.Errorf("own entries do not link, so none leaves: %w", err)
		}
		next = next.next(s.entry, s.epoch)
		list = append(list, s.entry)
	}
	return l.write(w.feed, tail, list, stored.count, true)
}

// undo fails everything that was signed on top of what could not be stored. None of it has left the host.
func (l *Ledger) undo(err error, broken bool) {
	for _, c := range []Chain{Authority, Activity} {
		l.writers[c].feed.order.Lock()
		defer l.writers[c].feed.order.Unlock()
	}
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	l.queue.failing = err
	if broken {
		l.queue.broken = err
	}
	b := l.queue.next
	l.queue.next = &batch{done: make(chan struct{})}
	b.err = err
	close(b.done)
	for _, w := range l.writers {
		stored, _, _ := w.feed.snapshot()
		w.tip, w.pending, w.oldest = stored, 0, time.Time{}
	}
	l.log.Error("the ledger cannot be written", "err", err, "until_reopened", broken)
}

// handOut tells of a stored entry.
func (l *Ledger) handOut(e *Entry) {
	if l.opt.OnEntry != nil {
		l.opt.OnEntry(e)
	}
	if e.Full != nil && l.opt.OnSealed != nil {
		l.opt.OnSealed(e.Feed(), e.Seq)
	}
}

// Run seals what stands unsealed for trust.SealAfter and writes others' entries through to the disk, until ctx ends; then
// it seals what is left.
func (l *Ledger) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(l.sealOlder(0), ctx.Err())
		case <-l.queue.quit:
			return ErrClosed
		case <-tick.C:
		}
		if err := errors.Join(l.sealOlder(trust.SealAfter), l.files.sync()); err != nil {
			l.log.Warn("the ledger could not seal or sync", "err", err)
		}
	}
}

// sealOlder seals the activity chain if its oldest unsealed entry has stood for age. A chain that may not be signed now
// (Hold, damage) is left.
func (l *Ledger) sealOlder(age time.Duration) error {
	w := l.writers[Activity]
	if w == nil {
		return nil
	}
	select {
	case <-l.ready:
	default:
		return nil
	}
	w.feed.order.Lock()
	stored, _, _ := w.feed.snapshot()
	if w.oldest.IsZero() && stored.count > stored.sealed {
		w.oldest = time.Now() // left unsealed by an earlier process
	}
	due := !w.oldest.IsZero() && time.Since(w.oldest) >= age
	w.feed.order.Unlock()
	if !due {
		return nil
	}
	// Not ctx: on the way out the seal is still wanted, and the disk ends it one way or the other.
	_, err := l.Append(context.Background(), Activity, KindSeal, nil, true)
	return err
}
