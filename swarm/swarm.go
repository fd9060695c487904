package swarm

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/omega-mesh/omega/swarm/auth"
	"github.com/omega-mesh/omega/swarm/block"
	"github.com/omega-mesh/omega/swarm/discovery"
	"github.com/omega-mesh/omega/swarm/gossip"
	"github.com/omega-mesh/omega/swarm/host"
	"github.com/omega-mesh/omega/trust/ledger"
)

// simulated lets tests run over a simulated network: no TCP, no DHT, QUIC over what the options say.
type simulated struct {
	on   bool
	quic []quicreuse.Option
}

const (
	// saveEvery is how soon a changed address book is written.
	saveEvery = 2 * time.Second
	// joinRate and joinBurst bound join requests of one address, allJoins those of all: each costs three composite
	// verifications (0.3 ms) if its invite exists.
	joinRate, joinBurst, allJoins = 1, 10, 50
	// maxJoining is how many are admitted at once.
	maxJoining = 16
	// introRate, introBurst and allIntros bound introductions in the same way: each up to 64 verifications.
	introRate, introBurst, allIntros = 0.5, 8, 8
)

// Swarm is this peer's part of the mesh. It is safe for concurrent use.
type Swarm struct {
	cfg       Config
	prefix    string // "/omega/<net>"
	start     uint64
	host      *host.Host
	local     *auth.Local
	gossip    *gossip.Gossip
	push      *gossip.Push
	dht       *dht.IpfsDHT
	book      *discovery.Book
	bootstrap []peer.AddrInfo

	peers  *peers
	pulls  *pulls
	dialer *dialer
	synced atomic.Bool
	save   chan struct{}

	introductions, joins *sourceLimit
	joining              chan struct{}
	carrying             sync.Mutex // one letter at a time
	blocks               *block.Server

	mu       sync.Mutex
	sessions map[string]*session
	met      map[peer.ID]bool
	rejected map[string]uint64

	ctx    context.Context // of everything but Run's own loops
	cancel context.CancelFunc
	once   sync.Once
}

// New makes a swarm and begins to listen; it dials nobody before Run.
func New(cfg Config) (_ *Swarm, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Swarm{
		cfg: cfg, prefix: "/omega/" + cfg.Swarm.Short(), start: rand.Uint64(),
		peers: newPeers(), pulls: newPulls(), dialer: newDialer(), save: make(chan struct{}, 1),
		introductions: newSourceLimit(introRate, introBurst, allIntros, 4*allIntros),
		joins:         newSourceLimit(joinRate, joinBurst, allJoins, 2*allJoins),
		joining:       make(chan struct{}, maxJoining),
		sessions:      make(map[string]*session), met: make(map[peer.ID]bool), rejected: make(map[string]uint64),
	}
	if cfg.Blocks != nil {
		s.blocks = block.NewServer(cfg.Blocks)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.book, err = discovery.OpenBook(cfg.AddressBook, time.Now()); err != nil {
		cfg.Log.Warn("address book", "err", err) // the other ways of discovery remain
		if s.book, err = discovery.OpenBook("", time.Now()); err != nil {
			return nil, err
		}
	}
	for _, text := range cfg.Bootstrap {
		if p, err := peer.AddrInfoFromString(text); err == nil {
			s.bootstrap = append(s.bootstrap, *p)
		} else {
			cfg.Log.Warn("bootstrap address without a peer", "addr", text)
		}
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

// open makes the parts, from the wire upwards; listening comes last.
func (s *Swarm) open() error {
	var listen []ma.Multiaddr
	for _, text := range s.cfg.Listen {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrConfig, err)
		}
		listen = append(listen, a)
	}
	var err error
	s.host, err = host.New(host.Config{
		Key: s.cfg.Transport, Suite: s.cfg.Self.Suite(), Listen: listen, Refuse: s.refuse, Connected: s.connected, Count: s.count, Log: s.cfg.Log,
		QUIC: s.cfg.network.quic, NoTCP: s.cfg.network.on,
	})
	if err != nil {
		return err
	}
	s.local = &auth.Local{Swarm: s.cfg.Swarm, Self: s.cfg.Self, Member: s.member, Info: s.info, Introduce: s.introduce, Rotation: func() uint32 { return s.cfg.Self.Keys().Number() }}
	members := s.host.Members()
	lanes := gossip.Config{
		Host: members, Prefix: s.prefix, Members: len(s.cfg.Members.Members()), Ledger: s.cfg.Ledger,
		Gap: s.gap, Refused: s.refused, Score: func(p peer.ID) float64 { return -faultCost * s.peers.blamed(p) }, Log: s.cfg.Log,
	}
	if s.gossip, err = gossip.New(s.ctx, lanes); err != nil {
		return err
	}
	s.push = gossip.NewPush(lanes, func(ctx context.Context, c network.Conn) (network.Stream, error) {
		return host.OpenStream(ctx, c, s.protocol("push/1"))
	})
	if !s.cfg.network.on {
		s.dht, err = dht.New(members, dht.Mode(dht.ModeServer), dht.ProtocolPrefix(protocol.ID(s.prefix)),
			dht.DisableProviders(), dht.DisableValues(), dht.RoutingTablePeerDiversityFilter(nil))
		if err != nil {
			return fmt.Errorf("swarm: dht: %w", err)
		}
	}
	s.host.HandleOpen(s.protocol("auth/1"), s.respond)
	s.host.HandleOpen(joinProtocol, s.serveJoin)
	members.SetStreamHandler(s.protocol("sync/1"), s.serveSync)
	members.SetStreamHandler(s.protocol("push/1"), s.servePush)
	members.SetStreamHandler(s.protocol("carry/1"), s.serveCarry)
	members.SetStreamHandler(s.protocol("block/1"), s.serveBlock)
	for _, p := range s.book.All() {
		s.host.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.PermanentAddrTTL)
	}
	return s.host.Listen()
}

func (s *Swarm) protocol(name string) protocol.ID { return protocol.ID(s.prefix + "/" + name) }

// servePush takes entries from a peer. A stream that breaks while the connection lives may have lost some: it is asked.
func (s *Swarm) servePush(stream network.Stream) {
	from := stream.Conn().RemotePeer()
	if s.peers.blamed(from) >= maxFaults {
		s.count("faulty")
		_ = stream.Reset()
		return
	}
	s.push.Serve(s.ctx, stream)
	if s.ctx.Err() == nil {
		s.pulls.behind(from, time.Now())
	}
}

// refused is told of what the ledger, which counts it, refused from a peer.
func (s *Swarm) refused(from peer.ID, err error, fault bool) {
	if fault {
		s.peers.blame(from)
	}
	s.cfg.Log.Debug("entry refused", "from", from, "fault", fault, "err", err)
}

// Run dials, syncs and delivers until ctx ends, then closes every connection.
func (s *Swarm) Run(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return fmt.Errorf("swarm: %w", host.ErrClosed)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stopMDNS func() error
	if s.cfg.MDNS {
		var err error
		stopMDNS, err = discovery.Announce(s.host.Members(), s.cfg.Swarm, s.foundLocally)
		if err != nil {
			s.cfg.Log.Warn("nobody is looked for on the local network", "err", err)
		}
	}
	var wg sync.WaitGroup
	for _, part := range []func(context.Context){s.runDialer, s.runLooker, s.runPulls, s.runBook, func(ctx context.Context) { _ = s.gossip.Run(ctx) }} {
		wg.Go(func() { part(ctx) })
	}
	<-ctx.Done()
	wg.Wait()
	var err error
	if stopMDNS != nil {
		err = stopMDNS()
	}
	return errors.Join(err, s.Close(), context.Cause(ctx))
}

// Close ends a swarm that never ran; Run closes by itself.
func (s *Swarm) Close() error {
	var errs []error
	s.once.Do(func() {
		s.cancel()
		if s.dht != nil {
			errs = append(errs, s.dht.Close())
		}
		if s.host != nil {
			errs = append(errs, s.host.Close())
		}
		if s.book != nil {
			errs = append(errs, s.book.Save())
		}
	})
	return errors.Join(errs...)
}

// foundLocally is told of a peer on the local network that knows the swarm's name there.
func (s *Swarm) foundLocally(p peer.AddrInfo) {
	if key, err := transportKey(p.ID); err != nil || p.ID == s.host.ID() {
		return
	} else if _, ok := s.cfg.Members.ByTransport(key); !ok {
		return
	}
	s.host.Peerstore().AddAddrs(p.ID, p.Addrs[:min(len(p.Addrs), auth.MaxAddrs)], peerstore.AddressTTL)
	s.dialer.ring()
}

func (s *Swarm) saveSoon() {
	select {
	case s.save <- struct{}{}:
	default:
	}
}

// runBook writes the address book a little after it changed.
func (s *Swarm) runBook(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.save:
		}
		if !wait(ctx, saveEvery) {
			return
		}
		if err := s.book.Save(); err != nil {
			s.cfg.Log.Warn("address book", "err", err)
		}
	}
}

// Publish sends an entry of this peer's ledger to the others at once. The ledger has it already, so an error, or nobody
// connected, only means that sync will bring it.
func (s *Swarm) Publish(ctx context.Context, e *ledger.Entry) error {
	if ids, all := s.targets(); all {
		// Everybody is, or should be, connected: write to each. Whoever is not may hear it through the mesh.
		if s.push.Publish(e) >= len(ids) {
			return nil
		}
	}
	return s.gossip.Publish(ctx, e)
}

// Synced reports whether this peer has, since it started, taken everything that one other member had to give.
func (s *Swarm) Synced() bool { return s.synced.Load() }

// Addrs are the addresses to reach this peer by, with /p2p.
func (s *Swarm) Addrs() []string {
	var out []string
	for _, a := range s.host.ListenAddrs() {
		out = append(out, a.String()+"/p2p/"+s.host.ID().String())
	}
	slices.Sort(out)
	return out
}

func peerOf(key ed25519.PublicKey) (peer.ID, error) {
	k, err := crypto.UnmarshalEd25519PublicKey(key)
	if err != nil {
		return "", fmt.Errorf("swarm: transport key: %w", err)
	}
	id, err := peer.IDFromPublicKey(k)
	if err != nil {
		return "", fmt.Errorf("swarm: transport key: %w", err)
	}
	return id, nil
}
