package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/tlog"
)

// ErrInconsistent says that a feed is not the one this peer cosigned before: it refuses to cosign it again.
var ErrInconsistent = errors.New("witness: the feed does not extend what this peer cosigned")

const (
	// keyLabel derives the ML-DSA-44 key from the identity's.
	keyLabel = "omega/witness-key/1"
	// waiting bounds the checkpoints that wait to be cosigned; one that finds no room goes without this peer's word.
	waiting = 1024
	// lookEvery is how often it is looked whether a checkpoint is due.
	lookEvery = 10 * time.Second
)

// Options of New.
type Options struct {
	Self   *identity.Identity
	Ledger *ledger.Ledger
	Swarm  trust.SwarmID
	// State is the fold as it stands.
	State func() *authority.State
	// Now is the clock by which checkpoints are due; default time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// Witness has this peer's own feeds witnessed, and witnesses those of others. Observe and Problems are for any
// goroutine; Run for one.
type Witness struct {
	*Registry
	opt   Options
	queue chan *ledger.Entry // checkpoints of others, and cosignatures that may let a feed be trimmed

	pending map[place]map[string]tlog.Cosignature // Run's own
	read    map[identity.DID]uint64               // and this: how far a rotated witness's feed was read for what it said again

	mu        sync.Mutex
	key       *tlog.Key
	certified bool  // own key stands in the own authority chain
	news      int   // own entries since the last own checkpoint that are worth one
	since     int64 // time of that checkpoint
	last      map[ledger.Feed]word
	conflicts map[ledger.Feed]error
	dropped   uint64
}

// place is a checkpoint that a feed may be trimmed to.
type place struct {
	feed ledger.Feed
	size uint64
}

// word is the latest this peer cosigned of a feed.
type word struct {
	size uint64
	root tlog.Hash
	here bool // compared with the feed as this process holds it
}

// New makes a witness. Every stored entry is to be given to Observe before Run, in the order of its feed.
func New(opt Options) (*Witness, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	key, err := keyOf(opt.Self)
	if err != nil {
		return nil, err
	}
	return &Witness{
		Registry: NewRegistry(opt.Swarm, opt.State), opt: opt, key: key, queue: make(chan *ledger.Entry, waiting),
		last: make(map[ledger.Feed]word), conflicts: make(map[ledger.Feed]error), pending: make(map[place]map[string]tlog.Cosignature),
		read: make(map[identity.DID]uint64),
	}, nil
}

func keyOf(self *identity.Identity) (*tlog.Key, error) {
	seed, err := self.Derive(keyLabel)
	if err != nil {
		return nil, fmt.Errorf("witness: key: %w", err)
	}
	defer clear(seed[:])
	return tlog.NewKey(seed), nil
}

// Rekey goes on with the key of the identity's current one, and certifies it: after a rotation, since whoever stole the old
// key can cosign with what follows from it. What feeds begin at, or can be trimmed to, on this peer's old word it cosigns
// again, since the old key counts no more.
func (w *Witness) Rekey(ctx context.Context) error {
	key, err := keyOf(w.opt.Self)
	if err != nil {
		return err
	}
	w.mu.Lock()
	used := w.certified
	if !bytes.Equal(w.key.Public(), key.Public()) {
		w.key, w.certified = key, false
	}
	w.mu.Unlock()
	if !used {
		return nil
	}
	if key, err = w.certify(ctx); err != nil {
		return err
	}
	again := make(map[place]tlog.Checkpoint) // gathered first: what is said grows the feed that is read
	_, err = w.standing(w.opt.Self.DID(), 0, func(b *ledger.Base, _ *Cosigned) error {
		again[place{b.Feed, b.First}] = b.Signed()
		return nil
	})
	if err != nil {
		return err
	}
	for p, c := range again {
		if err := w.say(ctx, key, p.feed, c); err != nil {
			return err
		}
	}
	return nil
}

// standing gives what a witness's feed says, from an entry on, that it cosigned of the bases that stand here, until fn
// fails. It returns the entry after the last it read.
func (w *Witness) standing(by identity.DID, from uint64, fn func(*ledger.Base, *Cosigned) error) (uint64, error) {
	feed := ledger.Feed{Author: by, Chain: ledger.Activity}
	if b := w.opt.Ledger.Base(feed); b != nil {
		from = max(from, b.First)
	}
	for {
		raws, err := w.opt.Ledger.Range(feed.Author, feed.Chain, from, 4096, 1<<20)
		if err != nil || len(raws) == 0 {
			return from, err
		}
		from += uint64(len(raws))
		for _, raw := range raws {
			e, err := ledger.Decode(raw)
			if err != nil {
				return from, err
			}
			if e.Kind != ledger.KindCosign {
				continue
			}
			c, err := DecodeCosigned(e)
			if err != nil {
				return from, err
			}
			b, err := w.opt.Ledger.Standing(c.Feed, c.Size)
			if err != nil {
				return from, err
			}
			if b == nil || b.Signed() != c.Checkpoint(w.opt.Swarm) {
				continue
			}
			if err := fn(b, c); err != nil {
				return from, err
			}
		}
	}
}

// Observe takes an entry that the ledger stored. live is false for what is read again at a start. It never blocks.
func (w *Witness) Observe(e *ledger.Entry, live bool) {
	own := e.Author == w.opt.Self.DID()
	switch e.Kind {
	case ledger.KindWitness:
		if err := w.Learn(e); err != nil {
			w.opt.Log.Warn("a witness's key does not read", "entry", e.ID(), "err", err)
		} else if k, err := DecodeKey(e); own && err == nil {
			w.mu.Lock()
			w.certified = w.certified || k.Is(w.key)
			w.mu.Unlock()
		}
		if live && w.rotated(e.Author) {
			w.enqueue(e)
		}
	case ledger.KindCosign:
		c, err := DecodeCosigned(e)
		if err != nil {
			return
		}
		if own {
			w.recall(c)
		}
		if w.opt.Ledger.Markable(c.Feed, c.Size) || live && w.rotated(e.Author) {
			w.enqueue(e)
		}
	case ledger.KindCheckpoint:
		switch {
		case own:
			w.mu.Lock()
			w.news, w.since = 0, e.Time
			w.mu.Unlock()
		case live:
			w.enqueue(e)
		}
	case ledger.KindEpoch, ledger.KindSeal:
	default:
		if own {
			w.mu.Lock()
			w.news++
			w.mu.Unlock()
		}
	}
}

func (w *Witness) enqueue(e *ledger.Entry) {
	select {
	case w.queue <- e:
	default:
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dropped++
	}
}

// recall notes what this peer cosigned, by its own feed: so it holds across restarts and restored snapshots.
func (w *Witness) recall(c *Cosigned) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.last[c.Feed]; c.Size > old.size {
		w.last[c.Feed] = word{size: c.Size, root: c.Root}
	}
}

// Dropped counts the checkpoints of others that found no room.
func (w *Witness) Dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// Problems are the feeds that contradict what this peer cosigned.
func (w *Witness) Problems() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, err := range w.conflicts {
		out = append(out, err.Error())
	}
	slices.Sort(out)
	return out
}

// Run checkpoints this peer's chains when that is due and cosigns others' as they come, until ctx ends.
func (w *Witness) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var operators time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-w.queue:
			w.try(e.Kind.String(), w.take(ctx, e))
		case <-tick.C:
			if w.Due() {
				_, err := w.opt.Ledger.Checkpoint(ctx)
				w.try("checkpoint", err)
			}
			if now := w.opt.Now(); now.Sub(operators) >= w.interval() {
				operators = now
				w.try("cosign", w.cosignOperators(ctx))
			}
		}
	}
}

func (w *Witness) take(ctx context.Context, e *ledger.Entry) error {
	switch e.Kind {
	case ledger.KindCosign:
		return w.collect(e)
	case ledger.KindWitness: // what it cosigned with this key may have come first
		from := w.read[e.Author]
		next, err := w.standing(e.Author, from-min(from, readAgain), w.renewed)
		w.read[e.Author] = next
		return err
	}
	return errors.Join(w.Cosign(ctx, e), w.mark(place{e.Feed(), e.Seq}))
}

// readAgain is how many entries of a witness's feed are read once more with each further key of its: else a member that
// writes nothing but keys would have everybody read its whole feed for each.
const readAgain = 1024

// maxPlaces bounds the checkpoints for which cosignatures are gathered.
const maxPlaces = 1024

// collect gathers cosignatures of a checkpoint that a feed may be trimmed to.
func (w *Witness) collect(e *ledger.Entry) error {
	c, err := DecodeCosigned(e)
	if err != nil {
		return err
	}
	if _, err := w.Key(c.Checkpoint(w.opt.Swarm), c.By); err != nil {
		return err
	}
	if b, err := w.opt.Ledger.Standing(c.Feed, c.Size); b != nil || err != nil {
		return errors.Join(err, w.renewed(b, c))
	}
	p := place{c.Feed, c.Size}
	if w.pending[p] == nil {
		for old := range w.pending {
			if len(w.pending) < maxPlaces {
				break
			}
			delete(w.pending, old) // its feed is kept longer
		}
		w.pending[p] = make(map[string]tlog.Cosignature)
	}
	if len(w.pending[p]) < trust.MaxCosigners {
		w.pending[p][c.By.Witness] = c.By
	}
	return w.mark(p)
}

// rotated says whether a witness has certified another key before: what it cosigns may be what it cosigned before.
func (w *Witness) rotated(did identity.DID) bool {
	return len(w.keysOf(did)) > 1
}

// renewed takes a rotated witness's word again for a base that stands. What is there by its newest key stays as it is.
func (w *Witness) renewed(b *ledger.Base, c *Cosigned) error {
	if b == nil || w.Newest(b.Signed(), c.By) != nil {
		return nil // not what stands here, or not yet by a key that counts
	}
	for _, old := range b.Cosigned {
		if old.Witness == c.By.Witness && w.Newest(b.Signed(), old) != nil {
			return w.opt.Ledger.Renew(b.Feed, b.First, c.By)
		}
	}
	return nil
}

// mark tells the ledger once enough have cosigned.
func (w *Witness) mark(p place) error {
	have := w.pending[p]
	if have == nil || !w.opt.Ledger.Markable(p.feed, p.size) {
		delete(w.pending, p)
		return nil
	}
	cosigned := slices.SortedFunc(maps.Values(have), func(a, b tlog.Cosignature) int { return strings.Compare(a.Witness, b.Witness) })
	if err := w.opt.Ledger.Mark(p.feed, p.size, cosigned); err != nil && !errors.Is(err, ErrFewer) {
		return err
	}
	if !w.opt.Ledger.Markable(p.feed, p.size) {
		delete(w.pending, p)
	}
	return nil
}

func (w *Witness) try(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		w.opt.Log.Warn("witness", "what", what, "err", err)
	}
}

// interval grows with the swarm, so that what checkpoints cost a host does not.
func (w *Witness) interval() time.Duration {
	return trust.CheckpointEvery * time.Duration(max(1, len(w.opt.State().Members())/trust.CheckpointPeers))
}

// Due says whether this peer's chains are to be checkpointed now: something is new, and it is time or much.
func (w *Witness) Due() bool {
	if _, ok := w.opt.State().Member(w.opt.Self.DID()); !ok {
		return false
	}
	interval := w.interval()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.news >= trust.CheckpointEntries || w.news > 0 && w.opt.Now().UnixNano()-w.since >= int64(interval)
}

// chosen says whether this peer is a witness of the feed.
func (w *Witness) chosen(f ledger.Feed) bool {
	return slices.Contains(Chosen(w.opt.State().Members(), f), w.opt.Self.DID())
}

// Cosign cosigns both chains that a checkpoint entry of another peer names, if this peer is their witness.
func (w *Witness) Cosign(ctx context.Context, e *ledger.Entry) error {
	own, other, err := ledger.Checkpoints(e)
	if err != nil {
		return err
	}
	if !w.chosen(e.Feed()) {
		return nil
	}
	return errors.Join(w.cosign(ctx, e.Feed(), own), w.cosign(ctx, ledger.Feed{Author: e.Author, Chain: ledger.Authority}, other))
}

// cosignOperators does the same for operators' chains: operators run no node, and so post no checkpoints.
func (w *Witness) cosignOperators(ctx context.Context) error {
	s := w.opt.State()
	var errs []error
	for _, h := range w.opt.Ledger.Heads() {
		f := ledger.Feed{Author: h.Author, Chain: h.Chain}
		if h.Chain != ledger.Authority || !s.IsOperator(h.Author) || !w.chosen(f) {
			continue
		}
		t := w.opt.Ledger.Tree(f)
		errs = append(errs, w.cosign(ctx, f, tlog.Checkpoint{Origin: f.Origin(w.opt.Swarm), Size: t.Size(), Root: t.Root()}))
	}
	return errors.Join(errs...)
}

// cosign holds the rule: what is cosigned is a part of the feed as this peer holds it, and so is all it cosigned before.
func (w *Witness) cosign(ctx context.Context, f ledger.Feed, c tlog.Checkpoint) error {
	w.mu.Lock()
	before := w.last[f]
	w.mu.Unlock()
	if c.Size == 0 || c.Size < before.size || c.Size == before.size && c.Root == before.root {
		return nil // nothing, or nothing new
	}
	root, err := w.opt.Ledger.RootAt(f, c.Size)
	if errors.Is(err, ledger.ErrNotStored) {
		return nil // the author is ahead of this peer: the next checkpoint will do
	}
	if err != nil {
		return err
	}
	if root != c.Root || c.Size == before.size {
		return w.conflict(f, fmt.Errorf("%s at %d: %w", c.Origin, c.Size, ErrInconsistent))
	}
	if before.size > 0 && !before.here {
		switch root, err := w.opt.Ledger.RootAt(f, before.size); {
		case errors.Is(err, ledger.ErrNotStored): // trimmed, on the word of others
		case err != nil:
			return err
		case root != before.root:
			return w.conflict(f, fmt.Errorf("%s at %d: %w", c.Origin, before.size, ErrInconsistent))
		}
	}
	key, err := w.certify(ctx)
	if err != nil {
		return err
	}
	if err := w.say(ctx, key, f, c); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last[f] = word{size: c.Size, root: c.Root, here: true}
	return nil
}

// say cosigns, and writes it into this peer's own feed.
func (w *Witness) say(ctx context.Context, key *tlog.Key, f ledger.Feed, c tlog.Checkpoint) error {
	sig, err := key.Cosign(c, string(w.opt.Self.DID()), uint64(w.opt.Now().Unix()))
	if err != nil {
		return err
	}
	body, err := (&Cosigned{Feed: f, Size: c.Size, Root: c.Root, By: sig}).encode()
	if err != nil {
		return err
	}
	if _, err := w.opt.Ledger.Append(ctx, ledger.Activity, ledger.KindCosign, body, false); err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	return nil
}

func (w *Witness) conflict(f ledger.Feed, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conflicts[f] = err
	return err
}

// certify has the composite key vouch for the cosigning key, once, and gives that key.
func (w *Witness) certify(ctx context.Context) (*tlog.Key, error) {
	w.mu.Lock()
	key, done := w.key, w.certified
	w.mu.Unlock()
	if done {
		return key, nil
	}
	body, err := encodeKey(key.Public())
	if err != nil {
		return nil, err
	}
	if _, err := w.opt.Ledger.Append(ctx, ledger.Authority, ledger.KindWitness, body, true); err != nil {
		return nil, fmt.Errorf("witness: certify: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.certified = w.certified || w.key == key
	return key, nil
}
