package swarm

import (
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/discovery"

	"github.com/libp2p/go-libp2p/core/peer"
)

// On a network that carries multicast, two members find each other without being told an address; a host without one
// goes on without.
func TestLocalDiscovery(t *testing.T) {
	w := newWorld(t)
	pa, pb := w.member("a"), w.member("b")
	listen := listenOn("/ip4/0.0.0.0/tcp/0")
	stop, err := discovery.Announce(pa.up(listen).swarm.host.Members(), w.genesis.SwarmID(), func(peer.AddrInfo) {})
	if err != nil {
		t.Skipf("this host has no multicast: %v", err)
	}
	defer func() { _ = stop() }()
	local := func(c *Config) { c.MDNS = true }
	b := pb.up(listen, local)
	deadline := time.After(5 * time.Second)
	for len(b.swarm.Peers()) == 0 {
		select {
		case <-deadline:
			t.Skip("multicast goes out and nothing comes back here")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
