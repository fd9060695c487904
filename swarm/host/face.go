package host

import (
	"errors"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// ForgetBackoff lets the next dial of a peer begin at once: the caller has its own, which knows more.
func (h *Host) ForgetBackoff(p peer.ID) { h.net.Backoff().Clear(p) }

// ClosePeer closes all connections of a peer, proved or not.
func (h *Host) ClosePeer(p peer.ID) error { return h.net.ClosePeer(p) }

// ListenAddrs are the addresses the host listens on, wildcards replaced by the interfaces' own; loopback and link-local
// ones only where there is no other.
func (h *Host) ListenAddrs() []ma.Multiaddr {
	all := h.members.Addrs()
	var out []ma.Multiaddr
	for _, a := range all {
		if reachable(a) {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return all
	}
	return out
}

// Proven reports whether c is proved.
func (h *Host) Proven(c network.Conn) bool {
	h.conns.mu.RLock()
	defer h.conns.mu.RUnlock()
	x, ok := h.conns.conns[c.ID()]
	return ok && x.proved
}

// Gone is whether err says that a stream or connection ended, which is not worth a line in the log.
func Gone(err error) bool {
	return errors.Is(err, network.ErrReset) || errors.Is(err, network.ErrNoConn) || errors.Is(err, ErrNotProved)
}

// CanDial is whether this host has a transport for an address, and the address is one.
func (h *Host) CanDial(a ma.Multiaddr) bool { return h.net.TransportForDialing(a) != nil }
