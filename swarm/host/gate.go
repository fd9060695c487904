package host

import (
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/omega-mesh/omega/swarm/transport"
)

// gate is the libp2p connection gater: it refuses peers that are known to be out, and classical connections.
type gate struct{ cfg *Config }

func (g gate) refused(p peer.ID) bool { return g.cfg.Refuse != nil && g.cfg.Refuse(p) }

// InterceptPeerDial refuses to dial who is out.
func (g gate) InterceptPeerDial(p peer.ID) bool { return !g.refused(p) }

// InterceptAddrDial has no opinion.
func (g gate) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }

// InterceptAccept has no opinion: limits are the resource manager's.
func (g gate) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured refuses who is out as soon as its transport key is proved.
func (g gate) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	if g.refused(p) {
		g.cfg.count("revoked")
		return false
	}
	return true
}

// InterceptUpgraded closes what did not agree on keys as the suite says: libp2p calls it before it accepts a stream.
func (g gate) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	if err := transport.Check(c, g.cfg.Suite); err != nil {
		g.cfg.Log.Debug("connection refused", "peer", c.RemotePeer(), "addr", c.RemoteMultiaddr(), "err", err)
		g.cfg.count("classical")
		return false, 0
	}
	return true, 0
}
