package swarm

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"

	"github.com/omega-mesh/omega/trust/ledger"
)

// wires is a simulated network that can be cut in two.
type wires struct {
	net *simnet.Simnet
	cut atomic.Int32 // addresses below it cannot reach those from it on; 0: whole
	n   int
}

// halfConn drops what crosses the cut.
type halfConn struct {
	net.PacketConn
	w    *wires
	self int
}

func hostNumber(a net.Addr) int {
	ip := a.(*net.UDPAddr).IP.To4()
	return int(ip[2])<<8 | int(ip[3])
}

func (c halfConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if cut := int(c.w.cut.Load()); cut > 0 && (c.self < cut) != (hostNumber(to) < cut) {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}

type source struct{ ip net.IP }

func (s source) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) { return s.ip, nil }

// attach gives a peer its place on the wires: host number n+1 of 1.1.0.0/16.
func (w *wires) attach() option {
	w.n++
	self := w.n
	ip := net.IPv4(1, 1, byte(self>>8), byte(self))
	link := simnet.LinkSettings{BitsPerSecond: 100_000_000}
	return func(c *Config) {
		c.Listen = []string{fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", ip)}
		c.network = simulated{on: true, quic: []quicreuse.Option{
			quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return source{ip}, nil }),
			quicreuse.OverrideListenUDP(func(_ string, a *net.UDPAddr) (net.PacketConn, error) {
				return halfConn{w.net.NewEndpoint(a, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}), w, self}, nil
			}),
		}}
	}
}

// Twenty peers, 25 ms apart, in virtual time: everything reaches everybody, at once where the wires are whole, and after
// they are mended where they were cut; who comes late gets it all.
func TestTwentyPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const peers = 20
		wires := &wires{net: &simnet.Simnet{LatencyFunc: simnet.StaticLatency(25 * time.Millisecond)}}
		wires.net.Start()
		defer wires.net.Close()
		w := newWorld(t)
		var people []*person
		for k := range peers {
			people = append(people, w.member(fmt.Sprintf("p%d", k)))
		}
		var nodes []*node
		defer func() {
			for _, n := range nodes {
				n.stop()
			}
		}()
		start := func(p *person) *node {
			o := []option{wires.attach()}
			if len(nodes) > 0 {
				o = append(o, bootstrap(nodes[0]))
				if len(nodes) > 1 {
					o = append(o, bootstrap(nodes[1:]...))
				}
			}
			n := p.up(o...)
			nodes = append(nodes, n)
			return n
		}
		for _, p := range people[:peers-1] {
			start(p)
		}
		for _, n := range nodes {
			n.meets(peers-2, time.Minute)
		}
		all := func(nodes []*node, entries []*ledger.Entry, within time.Duration) {
			t.Helper()
			for _, n := range nodes {
				for _, e := range entries {
					n.hears(e, within)
				}
			}
		}
		// Whole: one way of 25 ms, and nothing more than what two processes need.
		var said []*ledger.Entry
		for k, n := range nodes[:8] {
			began := time.Now()
			e := n.say(fmt.Sprint("whole ", k))
			all(nodes, []*ledger.Entry{e}, 200*time.Millisecond)
			if took := time.Since(began); took > 60*time.Millisecond {
				t.Errorf("an entry of %s took %s", n.name, took)
			}
			said = append(said, e)
		}
		// Cut: each half hears itself only.
		wires.cut.Store(peers / 2)
		var left, right []*ledger.Entry
		for k := range 5 {
			left = append(left, nodes[0].say(fmt.Sprint("left ", k)))
			right = append(right, nodes[peers-2].say(fmt.Sprint("right ", k)))
		}
		all(nodes[:peers/2-1], left, time.Minute)
		all(nodes[peers/2-1:], right, time.Minute)
		time.Sleep(time.Minute) // long enough that connections across the cut die
		if nodes[peers-2].has(left[0]) {
			t.Fatal("the cut does not cut")
		}
		// Mended.
		wires.cut.Store(0)
		mended := time.Now()
		all(nodes, append(left, right...), 2*time.Minute)
		t.Logf("healed in %s", time.Since(mended))
		said = append(append(said, left...), right...)
		// Late.
		late := start(people[peers-1])
		joined := time.Now()
		all([]*node{late}, said, time.Minute)
		t.Logf("the late one had all %d entries after %s", len(said), time.Since(joined))
		for _, n := range nodes {
			for name, q := range n.swarm.Queues() {
				if q.Dropped > 0 && name != "push" { // push drops what was in flight at the cut
					t.Errorf("%s: queue %s dropped %d", n.name, name, q.Dropped)
				}
			}
		}
	})
}
