package swarm

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/transport"
	"github.com/omega-mesh/omega/trust/identity"
)

// maxProved is the most addresses of one member that guard rails protect: nobody shields an attacker by proving many.
const maxProved = 4

// peers is the table of members with a proved live connection.
type peers struct {
	mu     sync.RWMutex
	byID   map[peer.ID]*live
	faults map[peer.ID]*fault
	lives  map[peer.ID]*lives
}

// lives are the processes in which a member was met, for as long as this one runs. A process that ended never comes back:
// one that proves itself again after another of the same identity did is a second copy of it.
type lives struct {
	past []past    // the latest last, at most maxPast
	told time.Time // of twins
}

type past struct {
	start uint64
	addr  netip.Addr
}

const (
	maxPast = 8
	// tellTwins is how often a duplicate is told of, and how long after that neither's connections are taken for dead.
	tellTwins = time.Minute
)

// meet notes a process, and finds its twin: the one that proved itself since this one last did.
func (v *lives) meet(start uint64, addr netip.Addr) (twin *past) {
	for i, p := range v.past {
		if p.start != start {
			continue
		}
		if i < len(v.past)-1 {
			last := v.past[len(v.past)-1]
			twin = &last
		}
		v.past = slices.Delete(v.past, i, i+1)
		break
	}
	v.past = append(v.past, past{start, addr})
	v.past = v.past[max(0, len(v.past)-maxPast):]
	return twin
}

// live is one such member.
type live struct {
	did     identity.DID
	id      peer.ID
	start   uint64 // of its process
	conns   []liveConn
	entries uint64
	behind  uint64
}

type liveConn struct {
	network.Conn
	addr     netip.Addr
	since    int64
	rotation uint32 // number of the key that was proved
}

func newPeers() *peers {
	return &peers{byID: make(map[peer.ID]*live), faults: make(map[peer.ID]*fault), lives: make(map[peer.ID]*lives)}
}

// bootTime is CLOCK_BOOTTIME in nanoseconds: what response lifetimes and guard rails run on.
func bootTime() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// add notes a proved connection, and returns those of an earlier life of the same peer, which are dead. twins is set where
// that life turns out to go on elsewhere.
func (t *peers) add(did identity.DID, start uint64, rotation uint32, c network.Conn) (dead []network.Conn, twins *Twins) {
	addr, _ := remoteIP(c)
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.byID[c.RemotePeer()]
	if l == nil {
		l = &live{did: did, id: c.RemotePeer()}
		t.byID[l.id] = l
	}
	v := t.lives[l.id]
	if v == nil {
		v = &lives{}
		t.lives[l.id] = v // one a member, as only those are proved
	}
	now := time.Now()
	if twin := v.meet(start, addr); twin != nil && now.Sub(v.told) > tellTwins {
		v.told, twins = now, &Twins{Last: addr, Before: twin.addr}
	}
	if l.start != start && now.Sub(v.told) > tellTwins {
		for _, old := range l.conns {
			dead = append(dead, old.Conn)
		}
	}
	l.start = start
	l.conns = append(l.conns, liveConn{Conn: c, addr: addr, since: bootTime(), rotation: rotation})
	return dead, twins
}

// outdated are the connections of did that were proved with an older key than number.
func (t *peers) outdated(did identity.DID, number uint32) []network.Conn {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []network.Conn
	for _, l := range t.byID {
		for _, c := range l.conns {
			if l.did == did && c.rotation < number {
				out = append(out, c.Conn)
			}
		}
	}
	return out
}

// remove forgets a connection; last says that it was the peer's only one.
func (t *peers) remove(c network.Conn) (last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.byID[c.RemotePeer()]
	if l == nil {
		return false
	}
	l.conns = slices.DeleteFunc(l.conns, func(x liveConn) bool { return x.Conn == c })
	if len(l.conns) > 0 {
		return false
	}
	delete(t.byID, l.id)
	return true
}

func (t *peers) connected(p peer.ID) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[p] != nil
}

func (t *peers) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byID)
}

func (t *peers) ids() []peer.ID {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]peer.ID, 0, len(t.byID))
	for p := range t.byID {
		out = append(out, p)
	}
	return out
}

// told notes what a peer said of itself in a sync.
func (t *peers) told(p peer.ID, entries, behind uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.byID[p]; l != nil {
		l.entries, l.behind = entries, behind
	}
}

func remoteIP(c network.Conn) (netip.Addr, bool) {
	ip, err := manet.ToIP(c.RemoteMultiaddr())
	if err != nil {
		return netip.Addr{}, false
	}
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}

// Peers are the members with a proved live connection, sorted by DID.
func (s *Swarm) Peers() []PeerStatus {
	s.peers.mu.RLock()
	defer s.peers.mu.RUnlock()
	out := make([]PeerStatus, 0, len(s.peers.byID))
	for _, l := range s.peers.byID {
		p := PeerStatus{DID: l.did, ID: l.id.String(), Entries: l.entries, Behind: l.behind, Score: s.gossip.PeerScore(l.id)}
		for i, c := range l.conns {
			if i == 0 {
				p.Since, p.RTT, p.Outbound = c.since, transport.RTT(c.Conn), c.Stat().Direction == network.DirOutbound
			}
			p.Addrs = append(p.Addrs, c.RemoteMultiaddr().String())
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return strings.Compare(string(a.DID), string(b.DID)) })
	return out
}

// Proved are the addresses that members have proved, at most four a member, the oldest first.
func (s *Swarm) Proved() []ProvedAddress {
	s.peers.mu.RLock()
	defer s.peers.mu.RUnlock()
	var out []ProvedAddress
	for _, l := range s.peers.byID {
		since := make(map[netip.Addr]int64, len(l.conns))
		for _, c := range l.conns { // in the order of proof
			if _, ok := since[c.addr]; !ok && c.addr.IsValid() && len(since) < maxProved {
				since[c.addr] = c.since
				out = append(out, ProvedAddress{DID: l.did, Addr: c.addr, Since: c.since})
			}
		}
	}
	slices.SortFunc(out, func(a, b ProvedAddress) int {
		return cmp.Or(cmp.Compare(a.Since, b.Since), strings.Compare(string(a.DID), string(b.DID)), a.Addr.Compare(b.Addr))
	})
	return out
}

// fault is what is held against a peer, halved each hour.
type fault struct {
	count float64
	at    time.Time
}

const (
	// faultCost is what one proved fault outside GossipSub takes from a peer's score there.
	faultCost = 50
	// maxFaults is how many faults close a peer's push stream for good: until they decay.
	maxFaults = 50
)

func (f *fault) now(t time.Time) float64 {
	for ; f.count > 0.01 && t.Sub(f.at) > time.Hour; f.at = f.at.Add(time.Hour) {
		f.count /= 2
	}
	return f.count
}

func (t *peers) blame(p peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.faults[p]
	if f == nil {
		if len(t.faults) >= 4096 { // far above the members that can be connected
			return
		}
		f = &fault{at: time.Now()}
		t.faults[p] = f
	}
	f.now(time.Now())
	f.count++
}

func (t *peers) blamed(p peer.ID) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.faults[p]; f != nil {
		return f.now(time.Now())
	}
	return 0
}

// wait blocks for d or until ctx ends, and reports whether ctx goes on.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
