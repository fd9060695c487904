package swarm

import (
	"net/netip"
	"time"

	"github.com/omega-mesh/omega/trust/identity"
)

// PeerStatus is one member with a proved live connection.
type PeerStatus struct {
	DID   identity.DID
	ID    string        // libp2p peer id
	Addrs []string      // remote multiaddrs of the live connections, the oldest, which is in use, first
	RTT   time.Duration // smoothed, as the kernel or QUIC measures it; 0 where not known
	Since int64         // CLOCK_BOOTTIME, ns: when the oldest live connection was proved
	// Entries is the number of entries, over all feeds, that it said it had at the last sync; Behind how many more than
	// this peer's that was.
	Entries, Behind uint64
	Score           float64 // GossipSub's; far below 0 where it sent what cannot stand
	Outbound        bool    // this peer dialled it
}

// ProvedAddress is an address that a member proved by a live authenticated connection: what guard rails protect.
type ProvedAddress struct {
	DID   identity.DID
	Addr  netip.Addr
	Since int64 // CLOCK_BOOTTIME, ns: of the oldest live connection from there
}

// QueueStat is the state of one bounded queue.
type QueueStat struct {
	Len, Cap int
	Dropped  uint64
}

// Queues are the bounded queues between network and ledger, by name. Of gossip's own (gossip.out, gossip.validate,
// gossip.deliver) only size and drops are known; push is the fullest peer's; gaps are feeds waiting to be pulled.
func (s *Swarm) Queues() map[string]QueueStat {
	out := map[string]QueueStat{"gaps": s.pulls.stat()}
	for name, q := range s.gossip.Queues() {
		out[name] = QueueStat(q)
	}
	out["push"] = QueueStat(s.push.Stat())
	return out
}

// Rejected counts what was refused from the network, by cause, before it was an entry: handshakes, streams, join
// requests. Entries that the ledger refused are in its own count.
func (s *Swarm) Rejected() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]uint64, len(s.rejected))
	for c, n := range s.rejected {
		out[c] = n
	}
	return out
}

// count counts a refusal; causes are constants of this tree.
func (s *Swarm) count(cause string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejected[cause]++
}
