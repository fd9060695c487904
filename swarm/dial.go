package swarm

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"github.com/omega-mesh/omega/swarm/gossip"
	"github.com/omega-mesh/omega/trust/identity"
)

const (
	// retryFirst to retryLast: a peer that restarts is found again by the first few tries; one that is gone costs a
	// handful of packets each half minute.
	retryFirst = 100 * time.Millisecond
	retryLast  = 30 * time.Second
	// yield is how long the peer with the higher id waits after a connection broke, so that not both dial.
	yield = 300 * time.Millisecond
	// enough is how many connections a peer of a large swarm seeks; more come from others.
	enough = 12
	// maxDials is how many dials run at once.
	maxDials = 16
	dialTime = 5 * time.Second
	// lookEvery is how often members without a known address are looked for in the DHT, lookAtOnce how many of them.
	lookEvery  = 30 * time.Second
	lookAtOnce = 4
)

// dialer keeps this peer connected: to every member in a small swarm, to enough of them in a large one.
type dialer struct {
	mu    sync.Mutex
	peers map[peer.ID]*target
	wake  chan struct{}
}

type target struct {
	next    time.Time
	delay   time.Duration
	dialing bool
}

func newDialer() *dialer {
	return &dialer{peers: make(map[peer.ID]*target), wake: make(chan struct{}, 1)}
}

func (d *dialer) ring() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// met resets a peer's delay.
func (d *dialer) met(p peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.peers[p]; t != nil {
		t.delay = 0
	}
}

// left makes a peer due at once.
func (d *dialer) left(p peer.ID) {
	d.mu.Lock()
	if t := d.peers[p]; t != nil {
		t.next, t.delay = time.Time{}, 0
	}
	d.mu.Unlock()
	d.ring()
}

// targets are the members to be connected to, with what is known of where they are, and whether all of them are wanted.
func (s *Swarm) targets() (ids []peer.ID, all bool) {
	now := time.Now()
	self := s.cfg.Self.DID()
	for _, m := range s.cfg.Members.Members() {
		if m.DID == self || !m.Active(now) {
			continue
		}
		if id, err := peerID(m); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, len(ids) < gossip.SmallSwarm
}

// runDialer dials until ctx ends.
func (s *Swarm) runDialer(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	d := s.dialer
	slots := make(chan struct{}, maxDials)
	for ctx.Err() == nil {
		next := time.Second // membership may have changed
		for _, id := range s.due(time.Now(), &next) {
			select {
			case slots <- struct{}{}:
			default:
				d.failed(id, 0)
				continue
			}
			wg.Go(func() {
				defer func() { <-slots }()
				s.dial(ctx, id)
			})
		}
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-d.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// due are the peers to dial now, marked as being dialled; next is shortened to when another is.
func (s *Swarm) due(now time.Time, next *time.Duration) []peer.ID {
	ids, all := s.targets()
	seeds := s.seeds()
	d := s.dialer
	d.mu.Lock()
	defer d.mu.Unlock()
	budget := len(ids) + len(seeds)
	if !all {
		budget = enough - s.peers.count()
		rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	}
	if s.peers.count() == 0 {
		ids = append(ids, seeds...) // perhaps somebody who knows more than this peer does
	}
	keep := make(map[peer.ID]bool, len(ids))
	var out []peer.ID
	for _, id := range ids {
		keep[id] = true
		t := d.peers[id]
		if t == nil {
			t = &target{}
			d.peers[id] = t
		}
		if t.dialing || budget <= 0 || s.peers.connected(id) || len(s.host.Peerstore().Addrs(id)) == 0 {
			continue
		}
		if t.next.IsZero() && s.everMet(id) && s.host.ID() > id {
			t.next = now.Add(yield + rand.N(yield))
		}
		if w := t.next.Sub(now); w > 0 {
			*next = min(*next, w)
			continue
		}
		t.dialing = true
		budget--
		out = append(out, id)
	}
	for id, t := range d.peers {
		if !keep[id] && !t.dialing {
			delete(d.peers, id)
		}
	}
	return out
}

// failed sets when to try again.
func (d *dialer) failed(p peer.ID, grow int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.peers[p]
	if t == nil {
		return
	}
	t.dialing = false
	t.delay = min(max(t.delay<<grow, retryFirst), retryLast)
	t.next = time.Now().Add(t.delay/2 + rand.N(t.delay))
}

func (s *Swarm) dial(ctx context.Context, id peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	s.host.ForgetBackoff(id)
	err := s.host.Members().Connect(ctx, peer.AddrInfo{ID: id})
	if err != nil {
		s.dialer.failed(id, 1)
		return
	}
	s.dialer.mu.Lock()
	defer s.dialer.mu.Unlock()
	if t := s.dialer.peers[id]; t != nil {
		t.dialing, t.next = false, time.Time{}
	}
}

// everMet is whether a connection with p was proved since start: then both sides know that it broke, and one should wait.
func (s *Swarm) everMet(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.met[p]
}

// seeds are the peers of the bootstrap list.
func (s *Swarm) seeds() []peer.ID {
	out := make([]peer.ID, 0, len(s.bootstrap))
	for _, p := range s.bootstrap {
		if p.ID != s.host.ID() {
			s.host.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.PermanentAddrTTL)
			out = append(out, p.ID)
		}
	}
	return out
}

// runLooker looks in the DHT for members of whom no address is known.
func (s *Swarm) runLooker(ctx context.Context) {
	for wait(ctx, lookEvery/2+rand.N(lookEvery)) {
		if s.peers.count() == 0 || s.dht == nil {
			continue
		}
		ids, all := s.targets()
		if !all && s.peers.count() >= enough {
			continue
		}
		rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		asked := 0
		for _, id := range ids {
			if asked == lookAtOnce || ctx.Err() != nil {
				break
			}
			if s.peers.connected(id) || len(s.host.Peerstore().Addrs(id)) > 0 {
				continue
			}
			asked++
			short, cancel := context.WithTimeout(ctx, dialTime)
			info, err := s.dht.FindPeer(short, id)
			cancel()
			if err == nil {
				s.host.Peerstore().AddAddrs(id, info.Addrs, peerstore.AddressTTL)
				s.dialer.ring()
			}
		}
	}
}

// Reach connects to a member, unless it is connected already, and says whether it could. That the connection is proved is
// for later: who answers with the member's transport key is alive.
func (s *Swarm) Reach(ctx context.Context, did identity.DID) bool {
	m, ok := s.cfg.Members.Member(did)
	if !ok {
		return false
	}
	id, err := peerID(m)
	if err != nil {
		return false
	}
	if s.peers.connected(id) {
		return true
	}
	s.host.ForgetBackoff(id)
	return s.host.Members().Connect(ctx, peer.AddrInfo{ID: id}) == nil
}
