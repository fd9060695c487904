package swarm

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

type network struct{}

var errSkeleton = errors.New("swarm: being built")

// Swarm is this peer's part of the mesh. It is safe for concurrent use.
type Swarm struct{ cfg Config }

// PeerStatus is one member with a proved live connection.
type PeerStatus struct {
	DID   identity.DID
	ID    string        // libp2p peer id
	Addrs []string      // remote multiaddrs of the live connections, the one in use first
	RTT   time.Duration // smoothed; 0 where not yet measured
	Since int64         // CLOCK_BOOTTIME, ns: when the oldest live connection was proved
	// Entries is the number of entries, over all feeds, that it said it had at the last sync; Behind how many of those
	// it had and this peer lacked when it said so.
	Entries, Behind uint64
	Score           float64 // GossipSub's; below 0 it was caught sending what does not stand
	Outbound        bool
}

// ProvedAddress is an address that a member proved by a live authenticated connection: what guard rails protect.
type ProvedAddress struct {
	DID   identity.DID
	Addr  netip.Addr
	Since int64 // CLOCK_BOOTTIME, ns: when it was first proved, without a gap since
}

// QueueStat is the state of one bounded queue.
type QueueStat struct {
	Len, Cap int
	Dropped  uint64
}

// New makes a swarm and begins to listen; nobody is answered before Run.
func New(cfg Config) (*Swarm, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return nil, errSkeleton
}

// Run serves and dials until ctx ends, then closes every connection.
func (s *Swarm) Run(ctx context.Context) error { return errSkeleton }

// Close ends a swarm that never ran; Run closes by itself.
func (s *Swarm) Close() error { return nil }

// Publish sends an entry of this peer's ledger to the others at once. The ledger has it already, so an error, or nobody
// connected, only means that sync will bring it.
func (s *Swarm) Publish(ctx context.Context, e *ledger.Entry) error { return errSkeleton }

// Peers are the members with a proved live connection, sorted by DID.
func (s *Swarm) Peers() []PeerStatus { return nil }

// Proved are the addresses that members have proved, at most four a member, the oldest first.
func (s *Swarm) Proved() []ProvedAddress { return nil }

// Synced reports whether this peer has, since it started, taken everything that one other member had to give.
func (s *Swarm) Synced() bool { return false }

// Addrs are the addresses to reach this peer by, with /p2p.
func (s *Swarm) Addrs() []string { return nil }

// Queues are the bounded queues between network and ledger, by name.
func (s *Swarm) Queues() map[string]QueueStat { return nil }

// Rejected counts what was refused from the network, by cause: those of ledger.RejectError, and the handshake's.
func (s *Swarm) Rejected() map[string]uint64 { return nil }

// Disconnect closes all connections of a member; it is not dialled again while Membership says that it is out.
func (s *Swarm) Disconnect(did identity.DID) {}

// JoinConfig is what Join needs.
type JoinConfig struct {
	Token    *authority.Token
	Identity *identity.Identity // of the joiner
	Addrs    []string           // tried after the token's own; may be empty
}

// Errors of Join that a caller may decide on.
var (
	// ErrUnreachable: no address of the token answered.
	ErrUnreachable = errors.New("no peer of the swarm could be reached")
	// ErrRefused: every peer that answered refused: the token is unknown, spent, withdrawn or expired. They do not say
	// which to someone who is not a member.
	ErrRefused = errors.New("the swarm refused the token")
)

// Join presents a token to the peers it names, all at once, until one admits this identity. Doing it again with the same
// identity is harmless and gives the same answer.
func Join(ctx context.Context, cfg JoinConfig) (*JoinReply, error) { return nil, errSkeleton }
