package host

import (
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// reachable is whether another host can use a: neither loopback nor link-local.
func reachable(a ma.Multiaddr) bool {
	ip, err := manet.ToIP(a)
	return err == nil && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !ip.IsUnspecified()
}
