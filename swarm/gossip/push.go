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

// pushQueue is how many entries may wait for one peer; more are dropped, and the peer pulls them. Authority entries, a
// revocation among them, have a queue of their own that goes first: a flood of findings must not hold one back.
const (
	pushQueue   = 256
	urgentQueue = 256
)

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
	out    chan []byte
	urgent chan []byte
	conn   network.Conn
	freed  chan struct{} // closed when the lane is removed
}

// NewPush makes the lane; open opens a push stream over a connection.
func NewPush(cfg Config, open func(context.Context, network.Conn) (network.Stream, error)) *Push {
	return &Push{cfg: cfg, open: open, lanes: make(map[peer.ID]*lane)}
}

// Attach makes a queue for the peer of a proved connection; entries published from now on are in it, and the caller must
// Drain or Detach. Where the peer has one by another connection, ok is false, and freed tells when that one ends.
func (p *Push) Attach(c network.Conn) (ok bool, freed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, taken := p.lanes[c.RemotePeer()]; taken {
		return false, l.freed
	}
	p.lanes[c.RemotePeer()] = &lane{out: make(chan []byte, pushQueue), urgent: make(chan []byte, urgentQueue), conn: c, freed: make(chan struct{})}
	return true, nil
}

// Detach removes the queue that Attach made for c; what is in it is dropped, for sync to bring.
func (p *Push) Detach(c network.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lanes[c.RemotePeer()]
	if l == nil || l.conn != c {
		return
	}
	delete(p.lanes, c.RemotePeer())
	close(l.freed)
	p.dropped.Add(uint64(len(l.out) + len(l.urgent)))
}

// Drain writes the queue of c to its peer until ctx ends or the stream fails, and detaches it. The stream is opened with
// the first entry.
func (p *Push) Drain(ctx context.Context, c network.Conn) {
	defer p.Detach(c)
	p.mu.Lock()
	l := p.lanes[c.RemotePeer()]
	p.mu.Unlock()
	if l == nil || l.conn != c {
		return
	}
	var s network.Stream
	defer func() {
		if s != nil {
			_ = s.Reset()
		}
	}()
	for {
		raw, ok := l.next(ctx)
		if !ok {
			return
		}
		var err error
		if s == nil {
			s, err = p.open(ctx, c)
		}
		if err == nil {
			err = s.SetWriteDeadline(time.Now().Add(pushTimeout))
		}
		if err == nil {
			err = wire.Write(s, raw)
		}
		if err != nil {
			p.cfg.Log.Debug("push stream", "peer", c.RemotePeer(), "err", err)
			p.dropped.Add(1)
			return
		}
	}
}

// next is the entry to write: an urgent one wherever there is one.
func (l *lane) next(ctx context.Context) ([]byte, bool) {
	select {
	case raw := <-l.urgent:
		return raw, true
	default:
	}
	select {
	case <-ctx.Done():
		return nil, false
	case raw := <-l.urgent:
		return raw, true
	case raw := <-l.out:
		return raw, true
	}
}

// Publish queues an entry for every attached peer, and says for how many.
func (p *Push) Publish(e *ledger.Entry) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, l := range p.lanes {
		queue := l.out
		if e.Chain == ledger.Authority {
			queue = l.urgent
		}
		select {
		case queue <- e.Raw():
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
		st.Len = max(st.Len, len(l.out), len(l.urgent))
	}
	return st
}
