package gossip

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/omega-mesh/omega/swarm/wire"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/ledger"
)

// pushQueue is how many entries may wait for one peer; more are dropped, and the peer pulls them.
const pushQueue = 256

// pushTimeout is how long one write may take before the stream is given up.
const pushTimeout = 5 * time.Second

// Push is the direct lane: one outbound stream to each proved peer, one entry a frame.
type Push struct {
	cfg     Config
	open    func(context.Context, network.Conn) (network.Stream, error)
	dropped atomic.Uint64

	mu    sync.Mutex
	lanes map[peer.ID]*lane
}

type lane struct {
	out  chan []byte
	conn network.Conn
}

// NewPush makes the lane; open opens a push stream over a connection.
func NewPush(cfg Config, open func(context.Context, network.Conn) (network.Stream, error)) *Push {
	return &Push{cfg: cfg, open: open, lanes: make(map[peer.ID]*lane)}
}

// Attach makes a queue for the peer of a proved connection; entries published from now on are in it. It reports false
// where the peer has one. The caller then calls Drain.
func (p *Push) Attach(c network.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.lanes[c.RemotePeer()]; ok {
		return false
	}
	p.lanes[c.RemotePeer()] = &lane{out: make(chan []byte, pushQueue), conn: c}
	return true
}

// Drain writes the queue of c's peer to c until ctx ends or the stream fails, and removes it.
func (p *Push) Drain(ctx context.Context, c network.Conn) {
	p.mu.Lock()
	l := p.lanes[c.RemotePeer()]
	p.mu.Unlock()
	if l == nil || l.conn != c {
		return
	}
	defer func() {
		p.mu.Lock()
		delete(p.lanes, c.RemotePeer())
		p.mu.Unlock()
		p.dropped.Add(uint64(len(l.out)))
	}()
	s, err := p.open(ctx, c)
	if err != nil {
		p.cfg.Log.Debug("push stream", "peer", c.RemotePeer(), "err", err)
		return
	}
	defer func() { _ = s.Reset() }()
	for {
		select {
		case <-ctx.Done():
			return
		case raw := <-l.out:
			if s.SetWriteDeadline(time.Now().Add(pushTimeout)) != nil {
				return
			}
			if err := wire.Write(s, raw); err != nil {
				p.cfg.Log.Debug("push stream", "peer", c.RemotePeer(), "err", err)
				p.dropped.Add(1)
				return
			}
		}
	}
}

// Publish queues an entry for every attached peer, and says for how many.
func (p *Push) Publish(e *ledger.Entry) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, l := range p.lanes {
		select {
		case l.out <- e.Raw():
			n++
		default:
			p.dropped.Add(1)
		}
	}
	return n
}

// Serve takes entries from a peer's push stream until it ends.
func (p *Push) Serve(ctx context.Context, s network.Stream) {
	defer func() { _ = s.Reset() }()
	from := s.Conn().RemotePeer()
	for ctx.Err() == nil {
		raw, err := wire.Read(s, trust.MaxEntry)
		if err != nil {
			return
		}
		if !deliver(ctx, &p.cfg, from, raw) {
			return
		}
	}
}

// Stat is the state of the fullest queue.
func (p *Push) Stat() Stat {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := Stat{Cap: pushQueue, Dropped: p.dropped.Load()}
	for _, l := range p.lanes {
		st.Len = max(st.Len, len(l.out))
	}
	return st
}
