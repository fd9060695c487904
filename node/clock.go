package node

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/trust/identity"
)

// How far the clocks of peers are believed.
const (
	clockTolerance = time.Minute      // offsets below it are transit time and ordinary drift
	clockFresh     = 30 * time.Minute // an author not heard for longer has no say
	clockWitnesses = 2                // how many other authors must be heard before this host doubts itself
	clockAuthors   = 1024             // the most that are remembered; more would not change the median
)

// clock compares this host's wall clock with the times in its peers' entries. It never sets the host's clock: it gives
// the ledger a time the others will take, and status a problem to show. A block's life runs on CLOCK_BOOTTIME and
// does not ask it.
type clock struct {
	mu     sync.Mutex
	heard  map[identity.DID]heardClock
	offset atomic.Int64 // nanoseconds to add to the wall clock; 0 within tolerance
	median atomic.Int64 // what was measured
}

type heardClock struct {
	offset int64     // theirs minus ours, when the entry came
	at     time.Time // monotonic
}

func newClock() *clock { return &clock{heard: map[identity.DID]heardClock{}} }

// now is the wall clock, put right by the median of the peers' where this one is plainly wrong.
func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

// observe takes the time of an entry that has just been written and come by gossip.
func (c *clock) observe(author identity.DID, written int64) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.heard[author]; known || len(c.heard) < clockAuthors {
		c.heard[author] = heardClock{written - now.UnixNano(), now}
	}
}

// met takes the time that a peer told when it proved itself, and settles at once: a host whose clock is plainly wrong
// should know before it signs its first entry.
func (c *clock) met(peer identity.DID, told int64) {
	c.observe(peer, told)
	c.settle()
}

// doubtful reports whether somebody's clock is plainly wrong and too few were heard to say whose.
func (c *clock) doubtful() bool { return c.skew() != 0 && c.offset.Load() == 0 }

// settle works out the median anew; it is called now and then, not for each entry. With an even number of witnesses the
// one nearer to this host's clock counts.
func (c *clock) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var offsets []int64
	for did, h := range c.heard {
		if time.Since(h.at) > clockFresh {
			delete(c.heard, did)
			continue
		}
		offsets = append(offsets, h.offset)
	}
	if len(offsets) == 0 {
		c.median.Store(0)
		c.offset.Store(0)
		return
	}
	slices.Sort(offsets)
	m := offsets[len(offsets)/2]
	if o := offsets[(len(offsets)-1)/2]; abs(o) < abs(m) {
		m = o
	}
	c.median.Store(m)
	if len(offsets) < clockWitnesses || abs(m) < int64(clockTolerance) {
		m = 0
	}
	c.offset.Store(m)
}

// skew is how far the peers' median is ahead of this host's clock; 0 within tolerance.
func (c *clock) skew() time.Duration {
	m := c.median.Load()
	if abs(m) < int64(clockTolerance) {
		return 0
	}
	return time.Duration(m)
}

func abs(n int64) int64 { return max(n, -n) }
