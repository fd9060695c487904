package node

import (
	"fmt"
	"sync"
	"time"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// freshness says how long nobody has proved to this peer that it knows the authority chains. A peer that is cut off may
// miss its own revocation, or that of whom it believes: past trust.MaxSilence it is read-only. It holds what it blocks and
// goes on watching, but takes up no duty that it did not hold before, and no other's finding moves it to act. Time is
// CLOCK_BOOTTIME, which no one sets and which goes on while the host sleeps.
type freshness struct {
	boot func() uint64 // nanoseconds

	mu    sync.Mutex
	heard int64            // CLOCK_BOOTTIME of the last word; negative where that was before this boot
	known *authority.State // as of then
}

func newFreshness() *freshness { return &freshness{boot: bpf.BootTime} }

// word notes that somebody's word came: a proved peer, or an operator at this host's socket.
func (f *freshness) word(s *authority.State) { f.wordAt(s, 0) }

func (f *freshness) wordAt(s *authority.State, ago time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard, f.known = int64(f.boot())-int64(ago), s
}

// silence is how long nobody's word came.
func (f *freshness) silence() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Duration(int64(f.boot()) - f.heard)
}

// stale gives the state that was known when the last word came, where that is too long ago.
func (f *freshness) stale() (known *authority.State, stale bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known, int64(f.boot())-f.heard > int64(trust.MaxSilence)
}

// begin takes the newest entry of others on disk as the last word of an earlier life.
func (n *Node) beginFresh() {
	newest := int64(0)
	for _, h := range n.ledger.Heads() {
		if h.Author == n.self.DID() {
			continue
		}
		raws, err := n.ledger.Range(h.Author, h.Chain, h.Seq, 1, trust.MaxRangeBytes)
		if err != nil || len(raws) == 0 {
			continue
		}
		if e, err := ledger.Decode(raws[0]); err == nil {
			newest = max(newest, e.Time)
		}
	}
	ago := time.Duration(0)
	if newest > 0 {
		ago = max(0, time.Duration(n.clock.now().UnixNano()-newest))
	}
	n.fresh.wordAt(n.fold.State(), ago)
}

// refreshWord notes the word of who is connected; one that is alone in its swarm needs nobody's.
func (n *Node) refreshWord() {
	if len(n.swarm.Peers()) > 0 || n.othersActive() == 0 {
		n.fresh.word(n.fold.State())
	}
}

// readOnly says in words that this peer is read-only; empty where it is not.
func (n *Node) readOnly() string {
	if _, stale := n.fresh.stale(); !stale {
		return ""
	}
	return fmt.Sprintf("read-only: for %s no member has proved that it knows the authority chains, so this host takes up no new duty and acts on no other's findings", n.fresh.silence().Round(time.Minute))
}

// honours reports whether a role that did holds by the fold may be acted on: on a peer that is read-only, only its own,
// and only if it held it before.
func (n *Node) honours(did identity.DID, role string) bool {
	known, stale := n.fresh.stale()
	if !stale {
		return true
	}
	return did == n.self.DID() && known != nil && known.HasRole(did, role, n.clock.now())
}
