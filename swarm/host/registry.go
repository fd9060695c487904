package host

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
)

// connection is what the host knows of one connection.
type connection struct {
	network.Conn
	serve, proved bool
	settled       chan struct{} // closed when proved, or gone
	cancel        context.CancelFunc
}

// registry knows which connections are proved, and tells the members' face of them alone. It is a network.Notifiee of
// the network beneath.
type registry struct {
	h    *Host
	bus  event.Bus
	emit emitters

	order sync.Mutex // held while events are told, so that they come in the order in which things happened

	mu        sync.RWMutex
	conns     map[string]*connection // by Conn.ID
	proved    map[peer.ID][]*connection
	strangers int
	notifiees map[network.Notifiee]struct{}
}

func newRegistry(h *Host) (*registry, error) {
	r := &registry{
		h: h, bus: eventbus.NewBus(),
		conns: make(map[string]*connection), proved: make(map[peer.ID][]*connection), notifiees: make(map[network.Notifiee]struct{}),
	}
	var err error
	if r.emit.connected, err = r.bus.Emitter(new(event.EvtPeerConnectednessChanged)); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	if r.emit.identified, err = r.bus.Emitter(new(event.EvtPeerIdentificationCompleted)); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	return r, nil
}

func (r *registry) close() error {
	return errors.Join(r.emit.connected.Close(), r.emit.identified.Close())
}

// Connected begins a connection's life as a stranger's.
func (r *registry) Connected(_ network.Network, c network.Conn) {
	ctx, cancel := context.WithCancel(r.h.ctx)
	x := &connection{Conn: c, settled: make(chan struct{}), cancel: cancel}
	r.mu.Lock()
	full := r.strangers >= maxStrangers
	r.strangers++
	r.conns[c.ID()] = x
	r.mu.Unlock()
	if full || !r.h.begin() {
		if full {
			r.h.cfg.count("strangers")
		}
		go func() { _ = c.Close() }() // not from within the notification, which closing waits for
		return
	}
	go func() {
		defer r.h.wg.Done()
		r.h.cfg.Connected(ctx, c)
	}()
}

// Disconnected ends it.
func (r *registry) Disconnected(_ network.Network, c network.Conn) {
	r.order.Lock()
	defer r.order.Unlock()
	r.mu.Lock()
	x, ok := r.conns[c.ID()]
	if !ok {
		r.mu.Unlock()
		return
	}
	delete(r.conns, c.ID())
	x.cancel()
	if !x.proved {
		r.strangers--
		close(x.settled)
		r.mu.Unlock()
		return
	}
	p := c.RemotePeer()
	left := r.proved[p][:0:0]
	for _, o := range r.proved[p] {
		if o != x {
			left = append(left, o)
		}
	}
	if len(left) > 0 {
		r.proved[p] = left
	} else {
		delete(r.proved, p)
	}
	told := r.listeners()
	r.mu.Unlock()
	for _, n := range told {
		n.Disconnected(r.h.members.Network(), c)
	}
	if len(left) == 0 {
		r.h.Peerstore().UpdateAddrs(p, peerstore.ConnectedAddrTTL, peerstore.RecentlyConnectedAddrTTL)
		r.tell(r.emit.connected.Emit(event.EvtPeerConnectednessChanged{Peer: p, Connectedness: network.NotConnected}))
	}
}

// Listen and ListenClose are of no interest.
func (r *registry) Listen(network.Network, ma.Multiaddr)      {}
func (r *registry) ListenClose(network.Network, ma.Multiaddr) {}

func (r *registry) tell(err error) {
	if err != nil {
		r.h.cfg.Log.Debug("event not told", "err", err)
	}
}

func (r *registry) listeners() []network.Notifiee {
	all := make([]network.Notifiee, 0, len(r.notifiees))
	for n := range r.notifiees {
		all = append(all, n)
	}
	return all
}

func (r *registry) served(c network.Conn) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	x, ok := r.conns[c.ID()]
	return ok && x.serve
}

// Serve lets the peer at the other end of c use the members' protocols. A side that has verified the other's proof calls
// it before it gives its own, because the other may open streams as soon as it has that.
func (h *Host) Serve(c network.Conn) {
	h.conns.mu.Lock()
	defer h.conns.mu.Unlock()
	if x, ok := h.conns.conns[c.ID()]; ok {
		x.serve = true
	}
}

// Prove makes c part of the members' face. It is false where c has closed meanwhile.
func (h *Host) Prove(c network.Conn) bool {
	r, p := h.conns, c.RemotePeer()
	r.order.Lock()
	defer r.order.Unlock()
	r.mu.Lock()
	x, ok := r.conns[c.ID()]
	if !ok || x.proved {
		r.mu.Unlock()
		return ok
	}
	x.serve, x.proved = true, true
	r.strangers--
	first := len(r.proved[p]) == 0
	r.proved[p] = append(r.proved[p], x)
	told := r.listeners()
	r.mu.Unlock()

	protocols := h.inner.Protocols()
	h.cm.Protect(p, "member")
	h.Peerstore().AddAddrs(p, []ma.Multiaddr{}, peerstore.ConnectedAddrTTL)
	r.tell(h.Peerstore().AddProtocols(p, protocols...))
	if first {
		r.tell(r.emit.connected.Emit(event.EvtPeerConnectednessChanged{Peer: p, Connectedness: network.Connected}))
	}
	for _, n := range told {
		n.Connected(h.members.Network(), c)
	}
	r.tell(r.emit.identified.Emit(event.EvtPeerIdentificationCompleted{Peer: p, Conn: c, Protocols: protocols}))
	close(x.settled)
	return true
}

// Proved are the proved connections of a peer, the oldest first.
func (h *Host) Proved(p peer.ID) []network.Conn {
	h.conns.mu.RLock()
	defer h.conns.mu.RUnlock()
	all := make([]network.Conn, 0, len(h.conns.proved[p]))
	for _, x := range h.conns.proved[p] {
		all = append(all, x.Conn)
	}
	return all
}

// await waits until c is proved.
func (r *registry) await(ctx context.Context, c network.Conn) error {
	r.mu.RLock()
	x, ok := r.conns[c.ID()]
	r.mu.RUnlock()
	if !ok {
		return ErrNotProved
	}
	select {
	case <-x.settled:
	case <-ctx.Done():
		return fmt.Errorf("host: %w", ctx.Err())
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !x.proved {
		return ErrNotProved
	}
	return nil
}
