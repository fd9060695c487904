package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	mstream "github.com/multiformats/go-multistream"
)

// members is the face for proved members: a libp2p host and its network in one, in which nobody else exists.
type members struct{ *Host }

var _ corehost.Host = (*members)(nil)

// Addrs are the listen addresses with the interfaces' own in place of wildcards.
func (m *members) Addrs() []ma.Multiaddr {
	addrs, err := m.net.InterfaceListenAddresses()
	if err != nil {
		m.cfg.Log.Debug("own addresses", "err", err)
		return nil
	}
	return addrs
}

// Network shows proved connections only.
func (m *members) Network() network.Network { return memberNet{m} }

// Mux is the members' protocol table.
func (m *members) Mux() protocol.Switch { return m.inner }

// EventBus tells of proved connections only.
func (m *members) EventBus() event.Bus { return m.conns.bus }

// ConnManager is the host's.
func (m *members) ConnManager() connmgr.ConnManager { return m.cm }

// Close leaves the host to its owner.
func (m *members) Close() error { return nil }

// SetStreamHandler answers a protocol for proved members.
func (m *members) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	m.inner.AddHandler(id, streamHandler(handle))
}

// SetStreamHandlerMatch answers a family of protocols for proved members.
func (m *members) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, handle network.StreamHandler) {
	m.inner.AddHandlerWithFunc(id, match, streamHandler(handle))
}

// RemoveStreamHandler ends it.
func (m *members) RemoveStreamHandler(id protocol.ID) { m.inner.RemoveHandler(id) }

// Connect dials a peer unless connected, and returns once it has proved itself.
func (m *members) Connect(ctx context.Context, p peer.AddrInfo) error {
	if p.ID == m.ID() {
		return errors.New("host: that is this peer")
	}
	m.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.TempAddrTTL)
	_, err := memberNet{m}.DialPeer(ctx, p.ID)
	return err
}

// NewStream opens a stream of the first of ids that the peer speaks, over a proved connection; it connects if need be.
func (m *members) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := memberNet{m}.NewStream(ctx, p)
	if err != nil {
		return nil, err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(negotiateTimeout)
	}
	var id protocol.ID
	if err = s.SetDeadline(deadline); err == nil {
		if id, err = mstream.SelectOneOf(ids, s); err == nil {
			err = errors.Join(s.SetProtocol(id), s.SetDeadline(time.Time{}))
		}
	}
	if err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("host: stream to %s: %w", p, err)
	}
	return s, nil
}

// memberNet is the network of proved connections.
type memberNet struct{ m *members }

var _ network.Network = memberNet{}

func (n memberNet) Peerstore() peerstore.Peerstore  { return n.m.Peerstore() }
func (n memberNet) LocalPeer() peer.ID              { return n.m.ID() }
func (n memberNet) ListenAddresses() []ma.Multiaddr { return n.m.net.ListenAddresses() }
func (n memberNet) InterfaceListenAddresses() ([]ma.Multiaddr, error) {
	return n.m.net.InterfaceListenAddresses()
}
func (n memberNet) ResourceManager() network.ResourceManager { return n.m.net.ResourceManager() }
func (n memberNet) CanDial(p peer.ID, a ma.Multiaddr) bool   { return n.m.net.CanDial(p, a) }
func (n memberNet) Close() error                             { return nil }

// SetStreamHandler does nothing: inbound streams are the host's.
func (n memberNet) SetStreamHandler(network.StreamHandler) {}

// Listen is the host's own affair.
func (n memberNet) Listen(...ma.Multiaddr) error {
	return errors.New("host: listen addresses are fixed")
}

// DialPeer gives a proved connection, which it makes if there is none.
func (n memberNet) DialPeer(ctx context.Context, p peer.ID) (network.Conn, error) {
	if cs := n.m.Proved(p); len(cs) > 0 {
		return cs[0], nil
	}
	c, err := n.m.net.DialPeer(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("host: dial: %w", err)
	}
	if err := n.m.conns.await(ctx, c); err != nil {
		return nil, err
	}
	return c, nil
}

// ClosePeer closes all connections of a peer.
func (n memberNet) ClosePeer(p peer.ID) error { return n.m.net.ClosePeer(p) }

// Connectedness knows two states: proved, or nothing.
func (n memberNet) Connectedness(p peer.ID) network.Connectedness {
	n.m.conns.mu.RLock()
	defer n.m.conns.mu.RUnlock()
	if len(n.m.conns.proved[p]) > 0 {
		return network.Connected
	}
	return network.NotConnected
}

// Peers are those with a proved connection.
func (n memberNet) Peers() []peer.ID {
	n.m.conns.mu.RLock()
	defer n.m.conns.mu.RUnlock()
	all := make([]peer.ID, 0, len(n.m.conns.proved))
	for p := range n.m.conns.proved {
		all = append(all, p)
	}
	return all
}

// Conns are all proved connections.
func (n memberNet) Conns() []network.Conn {
	n.m.conns.mu.RLock()
	defer n.m.conns.mu.RUnlock()
	var all []network.Conn
	for _, cs := range n.m.conns.proved {
		for _, x := range cs {
			all = append(all, x.Conn)
		}
	}
	return all
}

// ConnsToPeer are a peer's proved connections.
func (n memberNet) ConnsToPeer(p peer.ID) []network.Conn { return n.m.Proved(p) }

// NewStream opens a stream over a proved connection.
func (n memberNet) NewStream(ctx context.Context, p peer.ID) (network.Stream, error) {
	if no, _ := network.GetNoDial(ctx); no && len(n.m.Proved(p)) == 0 {
		return nil, network.ErrNoConn
	}
	c, err := n.DialPeer(ctx, p)
	if err != nil {
		return nil, err
	}
	s, err := c.NewStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("host: open stream: %w", err)
	}
	return s, nil
}

// Notify tells of proved connections.
func (n memberNet) Notify(f network.Notifiee) {
	n.m.conns.mu.Lock()
	defer n.m.conns.mu.Unlock()
	n.m.conns.notifiees[f] = struct{}{}
}

// StopNotify ends it.
func (n memberNet) StopNotify(f network.Notifiee) {
	n.m.conns.mu.Lock()
	defer n.m.conns.mu.Unlock()
	delete(n.m.conns.notifiees, f)
}
