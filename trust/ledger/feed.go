package ledger

import (
	"fmt"
	"slices"
	"sync"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/tlog"
)

// feed is one author's chain as this host holds it: where its entries lie, and what the next one must link to. Bodies
// stay on disk.
type feed struct {
	id  Feed
	own bool

	// order is held while an entry is linked, stored and handed to OnEntry, so that those happen in feed order.
	order sync.Mutex

	// mu guards what follows, for as long as it takes to read or write the fields.
	mu       sync.Mutex
	state              // of the stored entries
	segments []segment // files of the stored entries, at least one; the last is written to
	forked   bool
	base     *Base    // nil: from the first entry on
	marks    []uint64 // segments that it may be trimmed to, rising
	ahead    int      // entries past the next one that Check let pass since the feed last moved
	lost     uint64   // entries known to have been acknowledged before damage cut them: own feeds may not sign until count reaches it
}

// state is what linking the next entry needs.
type state struct {
	count  uint64
	head   Hash
	time   int64
	boot   uint64
	epoch  *epochKey // nil until the chain has certified one
	sealed uint64    // all entries below are sealed
	tree   tlog.Tree // over their hashes
	quota  quota
}

// next is s after e; epoch is the key that e certifies, if any.
func (s state) next(e *Entry, epoch *epochKey) state {
	s.count, s.head, s.time, s.boot = e.Seq+1, e.hash, e.Time, e.BootEpoch
	s.tree = s.tree.Append(tlog.Hash(e.hash))
	switch {
	case epoch != nil:
		s.epoch = epoch
	case e.Kind == KindCheckpoint:
		s.epoch = nil // what follows needs nothing from before it, so that a reader may begin there
	}
	if e.Full != nil {
		s.sealed = e.Seq + 1
	}
	s.quota, _ = s.quota.after(e.Chain, e.Time, e.Time, len(e.raw))
	return s
}

// link reports why e cannot follow s. It returns the key that e certifies, if any.
func (s *state) link(e *Entry) (*epochKey, error) {
	switch {
	case e.Seq != s.count:
		return nil, &GapError{Feed: e.Feed(), Have: s.count, Got: e.Seq}
	case e.Prev != s.head:
		return nil, reject(CauseChain, e.Author, "entry %d does not link to the one stored before it", e.Seq)
	case e.Time < s.time:
		return nil, reject(CauseChain, e.Author, "entry %d is dated before the one before it", e.Seq)
	case e.BootEpoch < s.boot:
		return nil, reject(CauseChain, e.Author, "entry %d is of boot epoch %d after %d", e.Seq, e.BootEpoch, s.boot)
	case e.Epoch != 0 && (s.epoch == nil || s.epoch.number != e.Epoch):
		return nil, reject(CauseChain, e.Author, "entry %d is not signed by the latest epoch key", e.Seq)
	case e.Kind == KindCheckpoint:
		return nil, s.linkCheckpoint(e)
	case e.Kind != KindEpoch:
		return nil, nil
	}
	b, err := decodeEpoch(e.Body)
	if err != nil {
		return nil, reject(CauseMalformed, e.Author, "%v", err)
	}
	if e.Time < b.NotBefore || e.Time > b.NotAfter {
		return nil, reject(CauseMalformed, e.Author, "epoch key of another hour")
	}
	return &epochKey{number: e.Seq + 1, body: *b}, nil
}

// linkCheckpoint refuses a checkpoint that is not of this feed: every reader does, so the feed ends there.
func (s *state) linkCheckpoint(e *Entry) error {
	b, err := decodeCheckpoint(e.Body)
	if err != nil {
		return reject(CauseMalformed, e.Author, "%v", err)
	}
	if s.tree.Root() != tlog.Hash(b.Root) {
		return reject(CauseChain, e.Author, "checkpoint %d is not of the entries before it", e.Seq)
	}
	return nil
}

// linkStored is link for an entry read back from this host's disk.
func (f *feed) linkStored(e *Entry, swarm trust.SwarmID) (*epochKey, error) {
	if e.Swarm != swarm || e.Feed() != f.id {
		return nil, fmt.Errorf("%w: of another feed", errRecord)
	}
	return f.state.link(e)
}

// advance takes e, stored in size bytes at the end of the file, into f. The caller holds mu, or f alone.
func (f *feed) advance(e *Entry, epoch *epochKey, size int64) {
	seg := f.last()
	if seg.ends(e) {
		f.segments = append(f.segments, segment{name: segmentFile(f.id, e.Seq), first: e.Seq, tree: f.tree, size: headerSize})
		seg = f.last()
	}
	seg.take(e, size)
	f.state = f.state.next(e, epoch)
	f.ahead = 0
}

// snapshot copies the fields that readers need.
func (f *feed) snapshot() (s state, tail segment, forked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, *f.last(), f.forked
}

// last is the segment that is written to. The caller holds mu, or f alone.
func (f *feed) last() *segment { return &f.segments[len(f.segments)-1] }

// first is the number of the first entry that is held. The caller holds mu, or f alone.
func (f *feed) first() uint64 {
	if f.base == nil {
		return 0
	}
	return f.base.First
}

// from gives the segments that hold entry seq and those after it, where in the first of them to begin reading, and the
// number of the entry there; none where seq is not held any more.
func (f *feed) from(seq uint64) (segments []segment, at int64, first uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.segments) - 1; i >= 0; i-- {
		if s := &f.segments[i]; s.first <= seq {
			if len(s.index) == 0 {
				return slices.Clone(f.segments[i:]), s.size, s.first
			}
			n := min((seq-s.first)/trust.IndexEvery, uint64(len(s.index)-1))
			return slices.Clone(f.segments[i:]), s.index[n], s.first + n*trust.IndexEvery
		}
	}
	return nil, 0, 0
}

// passAhead reports whether Check may let another entry through that is not the next one, and counts it: gossip reorders,
// but what cannot be linked yet cannot be held to the author's quota either.
func (f *feed) passAhead(seq uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if seq-f.count > trust.MaxAhead || f.ahead >= trust.MaxAheadPasses {
		return false
	}
	f.ahead++
	return true
}
