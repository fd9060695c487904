package sentinel

import (
	"time"

	"github.com/omega-mesh/omega/roles"
)

// clockTrust is how much a finding may lag behind this peer's clock before its author's clock is doubted: what gossip,
// a seal and NTP leave between two honest hosts.
const clockTrust = 5 * time.Minute

// clocks tells how old a finding is although its author's clock may be wrong: a wrong clock must neither disarm a block
// nor lengthen one. An author whose live findings have come within clockTrust has a clock to be believed. One whose
// findings all seem to come from long ago has a slow clock: its smallest lag is taken off.
type clocks struct{ authors *slab[string, lag] }

type lag struct {
	known bool
	least time.Duration
}

func newClocks() *clocks { return &clocks{newSlab[string, lag](4096)} }

// age is how long ago h was found, at least 0.
func (c *clocks) age(h *roles.Heard, now time.Time) time.Duration {
	seems := max(0, now.Sub(h.When()))
	if h.Live && h.Anonymous == nil {
		l := c.authors.touch(h.Peer)
		if !l.known || seems < l.least {
			l.known, l.least = true, seems
		}
	}
	l := c.authors.get(h.Peer)
	if l == nil || !l.known || l.least <= clockTrust {
		return seems
	}
	return max(0, seems-l.least)
}
