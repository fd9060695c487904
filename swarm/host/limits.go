package host

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Bounds of a host, for a swarm of up to 300 peers that all may connect to one.
const (
	// maxConns is the most connections: 300 peers on two transports, and as many strangers knocking.
	maxConns = 1024
	// maxStrangers is the most connections that have not proved themselves; the next is closed. Each lives 5 s unless it
	// proves itself, so this is 50 handshakes a second, a tenth of a core.
	maxStrangers = 256
	// maxConnsPerPeer: two transports, two directions, and the same again while one of them dies.
	maxConnsPerPeer = 8
	// maxConnsPerIP is high because testnets and hosts behind one NAT share an address; strangers are bounded above.
	maxConnsPerIP = 128
	// connsPerIPRate and connsPerIPBurst bound new connections from one address. The burst is a whole testnet's start.
	connsPerIPRate  = 8
	connsPerIPBurst = 256
	// maxStreams is the most streams: 300 peers with gossip, push, sync and DHT both ways, and room.
	maxStreams        = 8192
	maxStreamsPerPeer = 128
	// maxMemory is the most memory that streams and connections reserve for their windows.
	maxMemory        = 512 << 20
	maxMemoryPerPeer = 64 << 20
	// connsLow and connsHigh: above connsHigh peers the least useful connections go until connsLow are left.
	connsLow  = 320
	connsHigh = 400
	connGrace = 30 * time.Second
)

func newResourceManager() (network.ResourceManager, error) {
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: maxConns, ConnsInbound: maxConns * 3 / 4, ConnsOutbound: maxConns * 3 / 4, FD: maxConns,
			Streams: maxStreams, StreamsInbound: maxStreams, StreamsOutbound: maxStreams, Memory: maxMemory,
		},
		Transient: rcmgr.ResourceLimits{
			Conns: maxStrangers, ConnsInbound: maxStrangers, ConnsOutbound: maxStrangers, FD: maxStrangers,
			Streams: 2 * maxStrangers, StreamsInbound: 2 * maxStrangers, StreamsOutbound: 2 * maxStrangers, Memory: maxMemory / 8,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: maxConnsPerPeer, ConnsInbound: maxConnsPerPeer, ConnsOutbound: maxConnsPerPeer, FD: maxConnsPerPeer,
			Streams: maxStreamsPerPeer, StreamsInbound: maxStreamsPerPeer, StreamsOutbound: maxStreamsPerPeer, Memory: maxMemoryPerPeer,
		},
	}
	limiter := rcmgr.NewFixedLimiter(limits.Build(rcmgr.InfiniteLimits))
	unlimited := func(p string) rate.PrefixLimit { return rate.PrefixLimit{Prefix: netip.MustParsePrefix(p)} }
	m, err := rcmgr.NewResourceManager(limiter,
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: maxConnsPerIP}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: maxConnsPerIP}, {PrefixLength: 48, ConnCount: 4 * maxConnsPerIP}}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{unlimited("127.0.0.0/8"), unlimited("::1/128")},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: rate.Limit{RPS: connsPerIPRate, Burst: connsPerIPBurst}}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 64, Limit: rate.Limit{RPS: connsPerIPRate, Burst: connsPerIPBurst}}},
				GracePeriod:      time.Minute,
			},
		}))
	if err != nil {
		return nil, fmt.Errorf("host: resource manager: %w", err)
	}
	return m, nil
}

func newConnManager() (*connmgr.BasicConnMgr, error) {
	m, err := connmgr.NewConnManager(connsLow, connsHigh, connmgr.WithGracePeriod(connGrace))
	if err != nil {
		return nil, fmt.Errorf("host: connection manager: %w", err)
	}
	return m, nil
}
