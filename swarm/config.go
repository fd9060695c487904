package swarm

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/omega-mesh/omega/swarm/block"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// ErrConfig is wrapped by New where a setting cannot work.
var ErrConfig = errors.New("swarm: configuration")

// Membership is what the swarm asks of the fold. It must answer from memory: handshakes wait for it.
type Membership interface {
	// Member finds a member by DID, suspended and revoked ones included.
	Member(identity.DID) (*authority.Member, bool)
	// ByTransport finds a member by its transport key.
	ByTransport(ed25519.PublicKey) (*authority.Member, bool)
	// Members are all members, revoked ones included.
	Members() []*authority.Member
	// Revoked reports whether a DID is out of the swarm for good.
	Revoked(identity.DID) bool
}

// Ledger is what the swarm asks of the store of feeds; *ledger.Ledger is one.
type Ledger interface {
	Check(raw []byte) (*ledger.Entry, error)
	Ingest(ctx context.Context, raw []byte) (*ledger.Entry, error)
	IngestBatch(ctx context.Context, raws [][]byte) (int, error)
	IngestBase(ctx context.Context, raw []byte) (ledger.Feed, error)
	Base(ledger.Feed) *ledger.Base
	Heads() []ledger.Head
	Head(author identity.DID, chain ledger.Chain) (ledger.Head, bool)
	Range(author identity.DID, chain ledger.Chain, from uint64, maxEntries, maxBytes int) ([][]byte, error)
}

// JoinRequest is what a joiner sent, as it came: nothing in it is believed yet.
type JoinRequest struct {
	Proof    []byte     // for authority.VerifyJoin, at most trust.MaxJoinProof bytes
	Exporter []byte     // 32 bytes of this connection's keying material, which the proof must be bound to
	Remote   netip.Addr // where it came from
}

// JoinReply is what a joiner needs to become a member.
type JoinReply struct {
	Genesis []byte       // record, for authority.DecodeGenesis; its SwarmID must be the token's
	By      identity.DID // the member that admitted
	Entries [][]byte     // raw authority entries, parents before children; the joiner's admission is among them
	Addrs   []string     // multiaddrs with /p2p of peers to begin with
}

// Config is what New needs.
type Config struct {
	Transport ed25519.PrivateKey // key of the libp2p host; must be the one Self's inception certifies
	Swarm     trust.SwarmID
	Self      *identity.Identity

	Listen      []string // multiaddrs: /ip4/../udp/../quic-v1 and /ip4/../tcp/..; none: dial only
	Bootstrap   []string // multiaddrs with /p2p, tried at start and whenever alone
	AddressBook string   // file of addresses that worked; empty: none is kept
	MDNS        bool     // look for members on the local network, under a name that says nothing to others

	Ledger  Ledger
	Members Membership
	// Admit checks a join request (authority.VerifyJoin), appends the admission and answers with the genesis and the
	// entries that lead to it; the swarm fills in Addrs. A refusal's text is for this peer's log, never for the stranger.
	// Nil: this peer admits nobody.
	Admit func(context.Context, JoinRequest) (JoinReply, error)

	// Now is the time by which memberships are judged and which peers are told; default time.Now.
	Now func() time.Time
	// Heard, if set, is told each proved peer's own time (Unix nanoseconds) as its handshake said it. It must be quick.
	Heard func(identity.DID, int64)

	// Carry takes a letter that another member asks this one to carry (Swarm.Hand), or says that it does not; it is called
	// one at a time and may take tens of milliseconds. May be nil: this peer carries none.
	Carry func(ctx context.Context, from identity.DID, letter []byte) bool

	// Blocks is what other members may be given by content (Fetch). May be nil: this peer gives none.
	Blocks block.Source

	// Duplicate is told that one identity runs in two processes at once: the key was copied. At most once a minute a
	// member; it must be quick. May be nil.
	Duplicate func(identity.DID, Twins)

	Log *slog.Logger // default: discard

	network simulated // tests only
}

// Twins are the addresses of two live processes with one identity: the one that proved itself last, and the one before.
// They are equal where both are behind one address.
type Twins struct{ Last, Before netip.Addr }

func (c *Config) validate() error {
	switch {
	case len(c.Transport) != ed25519.PrivateKeySize:
		return fmt.Errorf("%w: transport key of %d bytes", ErrConfig, len(c.Transport))
	case c.Swarm.IsZero():
		return fmt.Errorf("%w: no swarm id", ErrConfig)
	case c.Self == nil:
		return fmt.Errorf("%w: no identity", ErrConfig)
	case c.Ledger == nil || c.Members == nil:
		return fmt.Errorf("%w: no ledger or no membership", ErrConfig)
	case !c.Self.Inception().TransportKey().Equal(c.Transport.Public()):
		return fmt.Errorf("%w: the transport key is not the one the identity certifies", ErrConfig)
	}
	for _, list := range [][]string{c.Listen, c.Bootstrap} {
		for _, s := range list {
			if _, err := ma.NewMultiaddr(s); err != nil {
				return fmt.Errorf("%w: address %q: %w", ErrConfig, s, err)
			}
		}
	}
	return nil
}
