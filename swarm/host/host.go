package host

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	lswarm "github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	mstream "github.com/multiformats/go-multistream"
	"github.com/quic-go/quic-go"

	"github.com/omega-mesh/omega/swarm/transport"
	"github.com/omega-mesh/omega/trust"
)

// Errors of a host.
var (
	// ErrNotProved: there is no connection to that peer on which it proved to be a member.
	ErrNotProved = errors.New("host: no proved connection to that peer")
	// ErrClosed: the host was closed.
	ErrClosed = errors.New("host: closed")
)

const (
	dialTimeout = 5 * time.Second
	// negotiateTimeout bounds how long an inbound stream may take to name its protocol.
	negotiateTimeout = 5 * time.Second
)

// Config is what New needs.
type Config struct {
	Key    ed25519.PrivateKey
	Suite  trust.Suite // of the swarm; zero is trust.SuiteDefault
	Listen []ma.Multiaddr
	// Refuse says which peers are out of the swarm: they are neither dialled nor let past the TLS handshake. May be nil.
	Refuse func(peer.ID) bool
	// Connected is called for each new connection in a goroutine of the host, with a context that ends with the
	// connection. It must Prove or close the connection, or give it up to a protocol of the open face.
	Connected func(context.Context, network.Conn)
	// Count is told the cause of each refusal. May be nil.
	Count func(cause string)
	Log   *slog.Logger

	// QUIC and NoTCP let tests run over a simulated network.
	QUIC  []quicreuse.Option
	NoTCP bool
}

func (c *Config) count(cause string) {
	if c.Count != nil {
		c.Count(cause)
	}
}

// Host is the network half of a peer.
type Host struct {
	cfg     Config
	net     *lswarm.Swarm
	open    *mstream.MultistreamMuxer[protocol.ID] // for anybody
	inner   *mstream.MultistreamMuxer[protocol.ID] // for proved members; has what open has, too
	conns   *registry
	members *members
	cm      *connmgr.BasicConnMgr
	closers []func() error

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex // guards closed against wg.Add
	closed bool
}

// New makes a host. It does not listen before Listen is called, so that handlers can be set first.
func New(cfg Config) (_ *Host, err error) {
	if cfg.Suite == 0 {
		cfg.Suite = trust.SuiteDefault
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("host: key: %w", err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("host: peer id: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &Host{
		cfg: cfg, ctx: ctx, cancel: cancel,
		open: mstream.NewMultistreamMuxer[protocol.ID](), inner: mstream.NewMultistreamMuxer[protocol.ID](),
	}
	defer func() {
		if err != nil {
			_ = h.Close()
		}
	}()

	resources, err := newResourceManager()
	if err != nil {
		return nil, err
	}
	h.closers = append(h.closers, resources.Close)
	store, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, fmt.Errorf("host: peerstore: %w", err)
	}
	h.closers = append(h.closers, store.Close)
	if err := errors.Join(store.AddPrivKey(id, key), store.AddPubKey(id, key.GetPublic())); err != nil {
		return nil, fmt.Errorf("host: own key: %w", err)
	}
	if h.cm, err = newConnManager(); err != nil {
		return nil, err
	}
	h.closers = append(h.closers, h.cm.Close)

	// The bus of the network beneath tells of every connection; nobody but libp2p's own swarm uses it.
	beneath := eventbus.NewBus()
	h.net, err = lswarm.NewSwarm(id, store, beneath, lswarm.WithResourceManager(resources), lswarm.WithConnectionGater(gate{&h.cfg}),
		lswarm.WithDialTimeout(dialTimeout), lswarm.WithDialTimeoutLocal(dialTimeout),
		lswarm.WithUDPBlackHoleSuccessCounter(nil), lswarm.WithIPv6BlackHoleSuccessCounter(nil))
	if err != nil {
		return nil, fmt.Errorf("host: network: %w", err)
	}
	err = h.addTransports(key, resources)
	h.closers = append(h.closers, h.net.Close) // first of all to be closed, before the sockets that it uses
	if err != nil {
		return nil, err
	}
	if h.conns, err = newRegistry(h); err != nil {
		return nil, err
	}
	h.members = &members{Host: h}
	h.net.Notify(h.cm.Notifee())
	h.net.Notify(h.conns)
	h.net.SetStreamHandler(h.serve)
	return h, nil
}

func (h *Host) addTransports(key crypto.PrivKey, resources network.ResourceManager) error {
	// libp2p's QUIC agrees on X25519MLKEM768 wherever both ends have it, and cannot be told to prefer another: a swarm of
	// another suite speaks TCP alone.
	if h.cfg.Suite == trust.SuiteDefault {
		if err := h.addQUIC(key, resources); err != nil {
			return err
		}
	}
	if h.cfg.NoTCP {
		return nil
	}
	return h.addTCP(key, resources)
}

func (h *Host) addQUIC(key crypto.PrivKey, resources network.ResourceManager) error {
	seed := h.cfg.Key.Seed()
	derive := func(label string) (k [32]byte, err error) {
		b, err := hkdf.Key(sha256.New, seed, nil, label, len(k))
		copy(k[:], b)
		return k, err
	}
	reset, err := derive("omega/quic-stateless-reset/1")
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	token, err := derive("omega/quic-token/1")
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	options := append([]quicreuse.Option{
		quicreuse.ConnContext(func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			addr, err := quicreuse.ToQuicMultiaddr(info.RemoteAddr, quic.Version1)
			if err != nil {
				addr = nil // the resource manager decides
			}
			scope, err := resources.OpenConnection(network.DirInbound, false, addr)
			if err != nil {
				return ctx, err
			}
			ctx = network.WithConnManagementScope(ctx, scope)
			context.AfterFunc(ctx, scope.Done)
			return ctx, nil
		}),
		quicreuse.VerifySourceAddress(func(addr net.Addr) bool { return resources.VerifySourceAddress(addr) }),
	}, h.cfg.QUIC...)
	manager, err := quicreuse.NewConnManager(quic.StatelessResetKey(reset), quic.TokenGeneratorKey(token), options...)
	if err != nil {
		return fmt.Errorf("host: quic: %w", err)
	}
	h.closers = append(h.closers, manager.Close)
	q, err := libp2pquic.NewTransport(key, manager, nil, gate{&h.cfg}, resources)
	if err != nil {
		return fmt.Errorf("host: quic: %w", err)
	}
	if err := h.net.AddTransport(q); err != nil {
		return fmt.Errorf("host: quic: %w", err)
	}
	return nil
}

func (h *Host) addTCP(key crypto.PrivKey, resources network.ResourceManager) error {
	tls, err := transport.NewTLS(key, h.cfg.Suite)
	if err != nil {
		return err
	}
	up, err := upgrader.New([]sec.SecureTransport{tls}, []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: transport.Muxer{}}}, nil, resources, gate{&h.cfg},
		upgrader.WithAcceptTimeout(negotiateTimeout))
	if err != nil {
		return fmt.Errorf("host: tcp: %w", err)
	}
	t, err := tcp.NewTCPTransport(up, resources, nil, tcp.WithConnectionTimeout(dialTimeout))
	if err != nil {
		return fmt.Errorf("host: tcp: %w", err)
	}
	if err := h.net.AddTransport(t); err != nil {
		return fmt.Errorf("host: tcp: %w", err)
	}
	return nil
}

// Listen begins to accept connections on the configured addresses. It fails where none of them can be had.
func (h *Host) Listen() error {
	if len(h.cfg.Listen) == 0 {
		return nil
	}
	if err := h.net.Listen(h.cfg.Listen...); err != nil {
		return fmt.Errorf("host: listen: %w", err)
	}
	return nil
}

// ID is the peer id.
func (h *Host) ID() peer.ID { return h.net.LocalPeer() }

// Peerstore holds addresses and keys.
func (h *Host) Peerstore() peerstore.Peerstore { return h.net.Peerstore() }

// Members is the face for proved members, as a libp2p host.
func (h *Host) Members() *members { return h.members }

// Dial connects to a peer, proved or not: for the join protocol.
func (h *Host) Dial(ctx context.Context, p peer.AddrInfo) (network.Conn, error) {
	h.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.TempAddrTTL)
	c, err := h.net.DialPeer(network.WithForceDirectDial(ctx, "omega"), p.ID)
	if err != nil {
		return nil, fmt.Errorf("host: dial %s: %w", p.ID, err)
	}
	return c, nil
}

// HandleOpen answers a protocol for anybody.
func (h *Host) HandleOpen(id protocol.ID, handle func(network.Stream)) {
	f := streamHandler(handle)
	h.open.AddHandler(id, f)
	h.inner.AddHandler(id, f)
}

func streamHandler(handle func(network.Stream)) func(protocol.ID, io.ReadWriteCloser) error {
	return func(id protocol.ID, rwc io.ReadWriteCloser) error {
		s, ok := rwc.(network.Stream)
		if !ok {
			return fmt.Errorf("host: %s: not a stream", id)
		}
		handle(s)
		return nil
	}
}

// serve is called in a new goroutine for each inbound stream.
func (h *Host) serve(s network.Stream) {
	if !h.begin() {
		_ = s.Reset()
		return
	}
	defer h.wg.Done()
	mux := h.open
	if h.conns.served(s.Conn()) {
		mux = h.inner
	}
	err := s.SetDeadline(serveDeadline())
	if err == nil {
		var id protocol.ID
		var handle mstream.HandlerFunc[protocol.ID]
		if id, handle, err = mux.Negotiate(s); err == nil {
			if err = errors.Join(s.SetProtocol(id), s.SetDeadline(time.Time{})); err == nil {
				err = handle(id, s)
			}
		}
	}
	if err != nil {
		_ = s.Reset()
	}
}

// begin counts a goroutine of the host; it is false once the host closes.
func (h *Host) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.wg.Add(1)
	return true
}

// Close closes all connections and waits for every handler.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i]())
	}
	h.wg.Wait()
	if h.conns != nil {
		errs = append(errs, h.conns.close())
	}
	return errors.Join(errs...)
}

// emitters are the events that the members' face tells.
type emitters struct {
	connected  event.Emitter
	identified event.Emitter
}
