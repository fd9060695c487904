package ledger

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

// KeyResolver gives the composite key of an author: of every operator of the genesis and every member, revoked ones
// included (their entries up to the revocation stand). authority.Fold is one.
type KeyResolver interface {
	Key(identity.DID) (*composite.PublicKey, bool)
}

// Cutter may be implemented by a KeyResolver: it says how many entries of a revoked author's chain stand.
type Cutter interface {
	Cut(author identity.DID, chain Chain) (entries uint64, revoked bool)
}

// Options of Open.
type Options struct {
	// OnEntry is called once for each newly stored entry, own and others', in feed order, after it is stored. It must be
	// quick and must not call Append, Submit or Ingest.
	OnEntry func(*Entry)
	// OnSealed is called when entries of a feed up to number through became sealed, after their OnEntry.
	OnSealed func(feed Feed, through uint64)
	// OnEquivocation is called once for each feed found to be forked.
	OnEquivocation func(*Proof)
	// Hold makes Append wait for Ready: a peer learns its own head from its peers before it signs.
	Hold bool
	// Now is the clock for new entries and for what counts as the future; default time.Now. A node that knows the median
	// of its peers' clocks gives it here.
	Now func() time.Time
	Log *slog.Logger
}

// Fault is something wrong with the store, found at Open or later.
type Fault struct {
	Feed   Feed
	File   string
	Detail string
	Own    bool // this peer's own feed: Append may be refused until it is healed
}

// Ledger holds all feeds of a swarm on this host. It is safe for concurrent use.
type Ledger struct{}

var errSkeleton = errors.New("ledger: being built")

// Open opens the ledger in dir, mode 0700, creating it where there is none. self may be nil: then nothing can be appended.
func Open(dir string, swarm trust.SwarmID, self *identity.Identity, keys KeyResolver, opt Options) (*Ledger, error) {
	return nil, errSkeleton
}

// Append signs and stores an entry of this peer, and returns when it is on the disk. full asks for a composite signature;
// authority entries always carry one. It waits for Ready where Options.Hold is set.
func (l *Ledger) Append(ctx context.Context, chain Chain, kind Kind, body []byte, full bool) (*Entry, error) {
	return nil, errSkeleton
}

// Check verifies bounds and signature of an entry and changes nothing: for gossip validators. It returns ErrDuplicate
// for an entry that is stored, *GapError where the epoch key that signed it is not known yet, or *RejectError.
func (l *Ledger) Check(raw []byte) (*Entry, error) { return nil, errSkeleton }

// Ingest checks, links and stores an entry of any author.
func (l *Ledger) Ingest(ctx context.Context, raw []byte) (*Entry, error) { return nil, errSkeleton }

// IngestBatch ingests consecutive entries of one feed, as Range gives them, and verifies a sealed run by its seal alone.
// It returns how many are stored now, and the first error.
func (l *Ledger) IngestBatch(ctx context.Context, raws [][]byte) (int, error) { return 0, errSkeleton }

// Submit is Ingest for an entry signed on this host (an operator's): it is on the disk on return, and ErrStale is
// returned, with no evidence kept, where its number is taken.
func (l *Ledger) Submit(ctx context.Context, raw []byte) (*Entry, error) { return nil, errSkeleton }

// Heads are the last entries of all feeds, sorted by author and chain.
func (l *Ledger) Heads() []Head { return nil }

// Head is the last entry of a feed.
func (l *Ledger) Head(author identity.DID, chain Chain) (Head, bool) { return Head{}, false }

// Range reads raw entries of a feed from number from: at most maxEntries and maxBytes (and the bounds of limits.go), at
// least one if there is one, ending at a sealed entry where it can.
func (l *Ledger) Range(author identity.DID, chain Chain, from uint64, maxEntries, maxBytes int) ([][]byte, error) {
	return nil, errSkeleton
}

// SealedThrough is the number of sealed entries of a feed: all below it are sealed.
func (l *Ledger) SealedThrough(author identity.DID, chain Chain) uint64 { return 0 }

// Rejected counts refused entries by cause.
func (l *Ledger) Rejected() map[string]uint64 { return nil }

// Replay calls fn with every stored entry, authority chains first, each feed in order.
func (l *Ledger) Replay(fn func(*Entry) error) error { return errSkeleton }

// Ready ends Hold.
func (l *Ledger) Ready() {}

// Faults are what is wrong with the store.
func (l *Ledger) Faults() []Fault { return nil }

// Evidence is every stored proof of equivocation.
func (l *Ledger) Evidence() []*Proof { return nil }

// Run seals what stands unsealed for trust.SealAfter, until ctx ends.
func (l *Ledger) Run(ctx context.Context) error { return errSkeleton }

// Close waits for pending appends and closes the files.
func (l *Ledger) Close() error { return nil }
