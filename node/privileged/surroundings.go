package privileged

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// How often the host's network configuration is read again, and how much of a file is read at most.
const (
	surroundingsEvery = 10 * time.Second
	maxConfigFile     = 4 << 20
)

// Watch keeps the rails in step with this host's own addresses, gateways and resolvers until ctx ends. The first reading
// is done by NewHost.
func (h *Host) Watch(ctx context.Context) {
	tick := time.NewTicker(surroundingsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.look()
		}
	}
}

// look reads the network configuration. What cannot be read keeps its last value: a rail is never lowered by a fault.
func (h *Host) look() {
	if own, err := ownAddresses(); err == nil {
		h.opt.Rails.SetOwn(own)
	}
	var gateways []netip.Addr
	whole := true
	for path, parse := range map[string]func(string) (netip.Addr, bool){"/proc/net/route": gateway4, "/proc/net/ipv6_route": gateway6} {
		found, err := eachLine(path, parse)
		if err != nil && !os.IsNotExist(err) {
			whole = false
		}
		gateways = append(gateways, found...)
	}
	if whole {
		h.opt.Rails.SetGateways(gateways)
	}
	if resolvers, err := eachLine("/etc/resolv.conf", resolver); err == nil {
		h.opt.Rails.SetResolvers(resolvers)
	}
}

func ownAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, ip.Unmap())
			}
		}
	}
	return out, nil
}

func eachLine(path string, parse func(string) (netip.Addr, bool)) ([]netip.Addr, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []netip.Addr
	lines := bufio.NewScanner(io.LimitReader(f, maxConfigFile))
	for lines.Scan() {
		if a, ok := parse(lines.Text()); ok && !a.IsUnspecified() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, lines.Err()
}

// gateway4 reads a line of /proc/net/route: interface, destination, gateway, … in hex of the host's byte order.
func gateway4(line string) (netip.Addr, bool) {
	f := strings.Fields(line)
	if len(f) < 3 {
		return netip.Addr{}, false
	}
	b, err := hex.DecodeString(f[2])
	if err != nil || len(b) != 4 {
		return netip.Addr{}, false
	}
	var a [4]byte
	binary.NativeEndian.PutUint32(a[:], binary.BigEndian.Uint32(b))
	return netip.AddrFrom4(a), true
}

// gateway6 reads a line of /proc/net/ipv6_route: destination, length, source, length, next hop, … in hex.
func gateway6(line string) (netip.Addr, bool) {
	f := strings.Fields(line)
	if len(f) < 5 {
		return netip.Addr{}, false
	}
	b, err := hex.DecodeString(f[4])
	if err != nil || len(b) != 16 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(b)), true
}

// resolver reads a line of resolv.conf(5).
func resolver(line string) (netip.Addr, bool) {
	f := strings.Fields(line)
	if len(f) < 2 || f[0] != "nameserver" {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(f[1])
	return a.WithZone("").Unmap(), err == nil
}
