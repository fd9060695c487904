package swarm

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/omega-mesh/omega/swarm/host"
	feedsync "github.com/omega-mesh/omega/swarm/sync"
	"github.com/omega-mesh/omega/trust/ledger"
)

const (
	// syncEvery is how often one peer, chosen at random, is asked for what this one lacks; half of it is jitter.
	syncEvery = 30 * time.Second
	// syncIdle is how long a sync stream may stand still.
	syncIdle = 5 * time.Second
	// pullWorkers is how many peers are asked for everything at once: more would send the same.
	pullWorkers = 2
	// pullTries is how often a peer is asked at once where the connection fails, pullAgain the first wait between.
	pullTries = 3
	pullAgain = 200 * time.Millisecond
	// gapWorkers is how many single feeds are pulled at once; gapQueue how many wait.
	gapWorkers = 4
	gapQueue   = 256
	// maxServing is how many requests are answered at once.
	maxServing = 16
	// againAfter is the least time between two pulls from one peer because it said that it has more.
	againAfter = 5 * time.Second
)

// gapJob is a feed that has entries missing, and who has them.
type gapJob struct {
	from peer.ID
	feed ledger.Feed
	back uint64 // pull from this entry, or from where the own copy ends if that is earlier
}

// pulls is what is to be asked, of whom. Each peer and each feed is in it once.
type pulls struct {
	mu     sync.Mutex
	wanted map[peer.ID]bool
	last   map[peer.ID]time.Time // of pulls because of "behind"
	wake   chan struct{}

	gaps    chan gapJob
	open    map[ledger.Feed]bool
	dropped uint64

	serving chan struct{}
}

func newPulls() *pulls {
	return &pulls{
		wanted: make(map[peer.ID]bool), last: make(map[peer.ID]time.Time), wake: make(chan struct{}, 1),
		gaps: make(chan gapJob, gapQueue), open: make(map[ledger.Feed]bool), serving: make(chan struct{}, maxServing),
	}
}

// want asks for a full pull from p, soon.
func (q *pulls) want(p peer.ID) {
	q.mu.Lock()
	q.wanted[p] = true // bounded by the connected peers: others are dropped when taken
	q.mu.Unlock()
	q.ring()
}

func (q *pulls) ring() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// behind is want, at most once in againAfter: two peers of which each holds what the other refuses must not spin.
func (q *pulls) behind(p peer.ID, now time.Time) {
	q.mu.Lock()
	old := now.Sub(q.last[p]) >= againAfter
	if old {
		q.last[p] = now
		q.wanted[p] = true
	}
	if len(q.last) > 4096 {
		clear(q.last)
	}
	q.mu.Unlock()
	if old {
		q.ring()
	}
}

func (q *pulls) take() (peer.ID, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.wanted {
		delete(q.wanted, p)
		if len(q.wanted) > 0 {
			q.ring() // for another worker
		}
		return p, true
	}
	return "", false
}

func (q *pulls) stat() QueueStat {
	q.mu.Lock()
	defer q.mu.Unlock()
	return QueueStat{Len: len(q.gaps), Cap: gapQueue, Dropped: q.dropped}
}

// gap is told by gossip that entries of a feed are missing which from has.
func (s *Swarm) gap(from peer.ID, gap *ledger.GapError) {
	q := s.pulls
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open[gap.Feed] {
		return
	}
	select {
	case q.gaps <- gapJob{from, gap.Feed, gap.Have}:
		q.open[gap.Feed] = true
	default:
		q.dropped++
	}
}

// runPulls asks peers until ctx ends.
func (s *Swarm) runPulls(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range pullWorkers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-s.pulls.wake:
				}
				for p, ok := s.pulls.take(); ok && ctx.Err() == nil; p, ok = s.pulls.take() {
					for try := range pullTries {
						cs := s.host.Proved(p)
						if len(cs) == 0 || s.pullFrom(ctx, cs[0]) || !wait(ctx, pullAgain<<try) {
							break
						}
					}
				}
			}
		})
	}
	for range gapWorkers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case j := <-s.pulls.gaps:
					s.fill(ctx, j)
				}
			}
		})
	}
	for wait(ctx, syncEvery/2+rand.N(syncEvery)) {
		if ids := s.peers.ids(); len(ids) > 0 {
			s.pulls.want(ids[rand.N(len(ids))])
		}
	}
}

// fill pulls one feed from a peer that has more of it.
func (s *Swarm) fill(ctx context.Context, j gapJob) {
	defer func() {
		s.pulls.mu.Lock()
		delete(s.pulls.open, j.feed)
		s.pulls.mu.Unlock()
	}()
	cs := s.host.Proved(j.from)
	if len(cs) == 0 {
		return
	}
	s.ask(ctx, cs[0], func(ctx context.Context, stream network.Stream, extend func()) (feedsync.Pulled, error) {
		return feedsync.PullFeed(ctx, stream, s.cfg.Ledger, j.feed, j.back, extend)
	})
}

// pullFrom takes everything that the peer of c has and this one lacks. It is false where the connection failed it.
func (s *Swarm) pullFrom(ctx context.Context, c network.Conn) bool {
	for ctx.Err() == nil {
		p, ok := s.ask(ctx, c, func(ctx context.Context, stream network.Stream, extend func()) (feedsync.Pulled, error) {
			return feedsync.Pull(ctx, stream, s.cfg.Ledger, extend)
		})
		if !ok {
			return false
		}
		var mine uint64
		for _, h := range s.cfg.Ledger.Heads() {
			mine += h.Seq + 1
		}
		lacking := uint64(0)
		if p.Entries > mine {
			lacking = p.Entries - mine
		}
		s.peers.told(c.RemotePeer(), p.Entries, lacking)
		if !p.More {
			s.synced.Store(true)
			return true
		}
		if p.Stored == 0 {
			return true // it has more, and nothing of it stands
		}
	}
	return false
}

func (s *Swarm) ask(ctx context.Context, c network.Conn, pull func(context.Context, network.Stream, func()) (feedsync.Pulled, error)) (feedsync.Pulled, bool) {
	open, cancel := context.WithTimeout(ctx, syncIdle)
	stream, err := host.OpenStream(open, c, s.protocol("sync/1"))
	cancel()
	if err != nil {
		return feedsync.Pulled{}, false
	}
	defer func() { _ = stream.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() })
	defer stop()
	p, err := pull(ctx, stream, extender(stream))
	if p.Refused != nil {
		s.refused(c.RemotePeer(), p.Refused, p.Fault)
		s.branch(c.RemotePeer(), p.Refused)
	}
	if err != nil {
		s.cfg.Log.Debug("sync", "peer", c.RemotePeer(), "stored", p.Stored, "err", err)
		return p, false
	}
	if p.Stored > 0 {
		s.cfg.Log.Debug("sync", "peer", c.RemotePeer(), "stored", p.Stored)
	}
	return p, true
}

// branch asks a peer, whose entries of a feed did not link to this peer's and could not be proved to contradict them, for
// where its branch of the feed begins: that convicts the author. What is not further back than the own copy's end was
// asked for already.
func (s *Swarm) branch(from peer.ID, refused error) {
	var gap *ledger.GapError
	if !errors.As(refused, &gap) {
		return
	}
	if h, ok := s.cfg.Ledger.Head(gap.Feed.Author, gap.Feed.Chain); ok && gap.Have <= h.Seq {
		s.gap(from, gap)
	}
}

func extender(stream network.Stream) func() {
	return func() { _ = stream.SetDeadline(time.Now().Add(syncIdle)) }
}

// serveSync answers the sync protocol.
func (s *Swarm) serveSync(stream network.Stream) {
	defer func() { _ = stream.Close() }()
	select {
	case s.pulls.serving <- struct{}{}:
		defer func() { <-s.pulls.serving }()
	default:
		s.count("sync_busy")
		_ = stream.Reset()
		return
	}
	id := stream.Conn().RemotePeer()
	key, err := transportKey(id)
	if err != nil {
		_ = stream.Reset()
		return
	}
	m, ok := s.cfg.Members.ByTransport(key)
	if !ok {
		_ = stream.Reset()
		return
	}
	served, err := feedsync.Serve(s.ctx, stream, s.cfg.Ledger, m.DID, extender(stream))
	if err != nil {
		_ = stream.Reset()
		s.cfg.Log.Debug("sync served", "peer", id, "sent", served.Sent, "err", err)
		return
	}
	if served.Behind {
		s.pulls.behind(id, time.Now())
	}
}
