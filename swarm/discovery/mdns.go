package discovery

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"

	"github.com/omega-mesh/omega/trust"
)

// ServiceName is what members of a swarm call themselves on the local network: "_" and 16 hex digits of
// SHA-256("omega/mdns/1" || 0x00 || swarm id) and "._udp". Who does not know the swarm's id learns that some service
// listens here, and neither which nor whose.
func ServiceName(id trust.SwarmID) string {
	h := sha256.New()
	h.Write([]byte("omega/mdns/1\x00"))
	h.Write(id[:])
	return "_" + hex.EncodeToString(h.Sum(nil)[:8]) + "._udp"
}

type found func(peer.AddrInfo)

// HandlePeerFound passes a peer on.
func (f found) HandlePeerFound(p peer.AddrInfo) { f(p) }

// Announce says on the local network that h is here, and calls on for every other it hears. It returns what ends it.
func Announce(h corehost.Host, id trust.SwarmID, on func(peer.AddrInfo)) (stop func() error, err error) {
	s := mdns.NewMdnsService(h, ServiceName(id), found(on))
	if err := s.Start(); err != nil {
		return nil, fmt.Errorf("discovery: mdns: %w", err)
	}
	return s.Close, nil
}
