package swarm

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxSources is how many source addresses a limiter remembers; past it the oldest knowledge goes, all at once.
const maxSources = 4096

// sourceLimit bounds how often one address may have something done, and all together.
type sourceLimit struct {
	each  rate.Limit
	burst int

	mu      sync.Mutex
	sources map[netip.Addr]*rate.Limiter
	all     *rate.Limiter
}

func newSourceLimit(each rate.Limit, burst int, all rate.Limit, allBurst int) *sourceLimit {
	return &sourceLimit{each: each, burst: burst, sources: make(map[netip.Addr]*rate.Limiter), all: rate.NewLimiter(all, allBurst)}
}

// allow takes one turn of an address; of IPv6 the /64 counts, which one host can have whole.
func (l *sourceLimit) allow(a netip.Addr) bool {
	if a = a.Unmap(); a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sources[a]
	if s == nil {
		if len(l.sources) >= maxSources {
			clear(l.sources)
		}
		s = rate.NewLimiter(l.each, l.burst)
		l.sources[a] = s
	}
	return s.AllowN(now, 1) && l.all.AllowN(now, 1)
}
