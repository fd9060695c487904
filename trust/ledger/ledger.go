package ledger

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// Rotator may be implemented by a KeyResolver whose authors change their keys. authority.Fold is one.
type Rotator interface {
	// KeyAt is the key that signs entry seq of a feed, and its number: 0 for the inception's.
	KeyAt(feed Feed, seq uint64) (key *composite.PublicKey, number uint32, ok bool)
	// Rotates reports whether r is the next rotation of its author, or one it has made: nil, identity.ErrContested where
	// another of that number stands, identity.ErrRotation otherwise.
	Rotates(r *identity.Rotation) error
	// Stands is how much of a feed its author's last rotation lets stand, and the hash of the last entry of that; ok is
	// false where it never rotated.
	Stands(feed Feed) (entries uint64, head Hash, ok bool)
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
	// OnContest is called with a rotation that is as valid as the one that stands.
	OnContest func(*identity.Rotation)
	// Backed says whether enough witnesses cosigned a base: witness.Registry does. Nil trims nothing and takes no base.
	Backed func(*Base) error
	// Hold makes Append wait for Ready: a peer learns its own head from its peers before it signs.
	Hold bool
	// Now is the clock for new entries and for what counts as the future; default time.Now. A node that knows the median
	// of its peers' clocks gives it here.
	Now func() time.Time
	// Random makes the epoch keys; default crypto/rand.
	Random io.Reader
	Log    *slog.Logger
}

// Fault is something wrong with the store, found at Open or later.
type Fault struct {
	Feed   Feed
	File   string
	Detail string
	Own    bool // this peer's own feed: Append may be refused until it is healed
}

// Ledger holds all feeds of a swarm on this host. It is safe for concurrent use.
type Ledger struct {
	swarm trust.SwarmID
	self  *identity.Identity
	keys  KeyResolver
	opt   Options
	log   *slog.Logger

	disk  disk
	files *handles
	lock  io.Closer

	mu       sync.RWMutex // feeds, faults, evidence
	feeds    map[Feed]*feed
	faults   []Fault
	evidence []*Proof

	writers map[Chain]*writer // this peer's own feeds; nil where self is
	queue   queue
	boot    atomic.Uint64 // boot epoch of this peer's new entries
	ready   chan struct{}
	once    sync.Once // closes ready
	seen    seenSet

	rejected counters
	verified verifiedSet
}

// Open opens the ledger in dir, mode 0700, creating it where there is none. self may be nil: then nothing can be
// appended. What a crash tore is cut; what is damaged is set aside and told by Faults. Only one process may have it open.
func Open(dir string, swarm trust.SwarmID, self *identity.Identity, keys KeyResolver, opt Options) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return open(folder(dir), swarm, self, keys, opt)
}

func open(d disk, swarm trust.SwarmID, self *identity.Identity, keys KeyResolver, opt Options) (*Ledger, error) {
	if opt.Random == nil {
		opt.Random = rand.Reader
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	lock, err := d.Lock()
	if err != nil {
		return nil, fmt.Errorf("ledger: lock: %w", err)
	}
	l := &Ledger{
		swarm: swarm, self: self, keys: keys, opt: opt, log: opt.Log, disk: d, lock: lock,
		files: &handles{disk: d, open: make(map[string]*handle)},
		feeds: make(map[Feed]*feed), ready: make(chan struct{}),
	}
	if !opt.Hold {
		l.Ready()
	}
	if err := l.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger: open: %w", err), l.files.close(), lock.Close())
	}
	l.queue.start(l.commit)
	return l, nil
}

// load scans every feed and proof in the folder, and makes the writers of this peer's own.
func (l *Ledger) load() error {
	names, err := l.disk.List()
	if err != nil {
		return err
	}
	found := make(map[Feed]*files)
	of := func(id Feed) *files {
		if found[id] == nil {
			found[id] = new(files)
		}
		return found[id]
	}
	slices.Sort(names)
	for _, name := range names {
		if id, first, ok := parseFeedFile(name, suffixFeed); ok {
			of(id).segments = append(of(id).segments, first)
		} else if id, first, ok := parseFeedFile(name, suffixMark); ok && first > 0 {
			of(id).marks = append(of(id).marks, first)
		} else if id, first, ok := parseFeedFile(name, suffixBase); ok && first == 0 {
			of(id).base = true
		}
	}
	for id, have := range found {
		f, err := l.loadFeed(id, have)
		if err != nil {
			return fmt.Errorf("%s: %w", feedFile(id), err)
		}
		l.feeds[id] = f
	}
	for _, name := range names {
		if id, first, ok := parseFeedFile(name, suffixProof); ok && first == 0 {
			l.loadProof(name, id)
		}
	}
	if l.self == nil {
		return nil
	}
	l.writers = make(map[Chain]*writer)
	for _, c := range []Chain{Authority, Activity} {
		id := Feed{l.self.DID(), c}
		f := l.feeds[id]
		if f == nil {
			if f, err = l.loadFeed(id, new(files)); err != nil {
				return err
			}
			l.feeds[id] = f
		}
		l.writers[c] = &writer{feed: f, tip: f.state}
		if f.count > 0 {
			l.boot.Store(max(l.boot.Load(), f.boot))
		}
	}
	l.boot.Add(1)
	return nil
}

func (l *Ledger) loadProof(name string, id Feed) {
	raw, err := l.disk.Read(name, trust.MaxEvidenceBody)
	var p *Proof
	if err == nil {
		p, err = DecodeProof(raw)
	}
	if err != nil {
		l.faults = append(l.faults, Fault{Feed: id, File: name, Detail: "a stored proof of equivocation does not read: " + err.Error()})
		return
	}
	l.evidence = append(l.evidence, p)
	if f := l.feeds[id]; f != nil {
		f.forked = true
	}
}

// Ready ends Hold. It may be called more than once.
func (l *Ledger) Ready() { l.once.Do(func() { close(l.ready) }) }

// lookup finds a feed that has been opened.
func (l *Ledger) lookup(id Feed) *feed {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.feeds[id]
}

// feedOf finds or opens the feed of an author who is known to belong to the swarm.
func (l *Ledger) feedOf(id Feed) (*feed, error) {
	if f := l.lookup(id); f != nil {
		return f, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.feeds[id]; f != nil {
		return f, nil
	}
	f, err := l.loadFeed(id, new(files))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	l.feeds[id] = f
	return f, nil
}

// Faults are what is wrong with the store: what Open found, less what peers have given back, and a disk that refuses
// writes now.
func (l *Ledger) Faults() []Fault {
	l.mu.RLock()
	faults := slices.Clone(l.faults)
	l.mu.RUnlock()
	faults = slices.DeleteFunc(faults, func(x Fault) bool {
		f := l.lookup(x.Feed)
		if f == nil {
			return false
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.lost > 0 && f.count >= f.lost
	})
	for _, w := range l.writers {
		s, _, _ := w.feed.snapshot()
		if ahead := s.time - l.opt.Now().UnixNano(); ahead > int64(trust.MaxClockSkew) {
			faults = append(faults, Fault{Feed: w.feed.id, Detail: fmt.Sprintf("this host's clock is %s behind its own last entry: it was wrong then or is now, and peers refuse its entries until it agrees", time.Duration(ahead).Round(time.Second)), Own: true})
		}
	}
	if err := l.queue.trouble(); err != nil {
		faults = append(faults, Fault{Detail: err.Error(), Own: true})
	}
	return faults
}

// Evidence is every stored proof of equivocation.
func (l *Ledger) Evidence() []*Proof {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Clone(l.evidence)
}

// Rejected counts refused entries by cause.
func (l *Ledger) Rejected() map[string]uint64 { return l.rejected.snapshot() }

// Close waits for what is being appended, makes everything durable and closes the files.
func (l *Ledger) Close() error {
	if !l.queue.stop() {
		return nil
	}
	return errors.Join(l.files.close(), l.lock.Close())
}

// counters counts by cause. The causes are a fixed set, so it does not grow.
type counters struct {
	mu sync.Mutex
	n  map[string]uint64
}

func (c *counters) add(cause string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]uint64)
	}
	c.n[cause]++
}

func (c *counters) snapshot() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]uint64, len(c.n))
	for k, v := range c.n {
		out[k] = v
	}
	return out
}

// verifiedSet remembers the last messages whose signature Check found good, so that Ingest need not check it again.
type verifiedSet struct {
	mu   sync.Mutex
	set  map[[32]byte]struct{}
	ring [1024][32]byte
	at   int
}

func (v *verifiedSet) add(id [32]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.set == nil {
		v.set = make(map[[32]byte]struct{}, len(v.ring))
	}
	if _, ok := v.set[id]; ok {
		return
	}
	delete(v.set, v.ring[v.at])
	v.ring[v.at] = id
	v.set[id] = struct{}{}
	v.at = (v.at + 1) % len(v.ring)
}

func (v *verifiedSet) has(id [32]byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.set[id]
	return ok
}

// seenSet holds the feeds that moved since this peer's entries last named them.
type seenSet struct {
	mu    sync.Mutex
	queue []Feed
	in    map[Feed]struct{}
}

func (s *seenSet) add(f Feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.in[f]; ok {
		return
	}
	if s.in == nil {
		s.in = make(map[Feed]struct{})
	}
	s.in[f] = struct{}{}
	s.queue = append(s.queue, f)
}

// take removes up to trust.MaxSeen feeds, oldest first.
func (s *seenSet) take() []Feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.queue), trust.MaxSeen)
	out := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	for _, f := range out {
		delete(s.in, f)
	}
	return out
}

func compareFeeds(a, b Feed) int {
	if c := strings.Compare(string(a.Author), string(b.Author)); c != 0 {
		return c
	}
	return int(a.Chain) - int(b.Chain)
}
