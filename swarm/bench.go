package swarm

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/auth"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/host"
	"github.com/omega-mesh/omega/swarm/transport"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Benchmarks are the figures of the swarm that `omega bench` shows.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{
		{Name: "swarm/gossip-overhead", Unit: "ratio", Limit: 1.5, Measure: func() (float64, error) {
			r, err := measureGossip(200)
			return float64(r.ours) / float64(max(r.bare, 1)), err
		}},
		{Name: "swarm/handshake-cpu", Unit: "us", Limit: 2200, Measure: func() (float64, error) {
			h, err := measureHandshake(5, 40)
			return float64(h.cpu.Microseconds()), err
		}},
		{Name: "swarm/handshake-bytes", Unit: "B", Limit: 11_000, Measure: func() (float64, error) {
			h, err := measureHandshake(1, 5)
			return float64(h.bytes), err
		}},
	}
}

// benchPeers is how many peers hear what one says.
const benchPeers = 3

// gossipFigures are medians of the time from the author's call to the last of the others.
type gossipFigures struct {
	ours time.Duration // Publish of a finding with a composite signature, to its being verified and stored
	said time.Duration // the same from before it was signed and synced to the author's disk
	bare time.Duration // Publish of a go-libp2p-pubsub message of the same size, to its being delivered
}

// measureGossip sends n findings and n bare messages by turns, over TCP on loopback.
func measureGossip(n int) (f gossipFigures, err error) {
	dir, err := os.MkdirTemp("", "omega-bench-")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b, err := newBenchSwarm(ctx, dir)
	if err != nil {
		return f, err
	}
	defer b.close()
	plain, err := newBareSwarm(ctx)
	if err != nil {
		return f, err
	}
	defer plain.close()
	var ours, said, bare []time.Duration
	for k := range n + 10 {
		body := fmt.Appendf(make([]byte, 0, 512), "finding %d %0480d", k, k)
		t0 := time.Now()
		e, err := b.ledgers[0].Append(ctx, ledger.Activity, ledger.KindSummary, body, true)
		if err != nil {
			return f, err
		}
		t1 := time.Now()
		if err := b.swarms[0].Publish(ctx, e); err != nil {
			return f, err
		}
		if err := b.heard(ctx, e.ID()); err != nil {
			return f, err
		}
		t2 := time.Now()
		alone, err := plain.say(ctx, e.Raw())
		if err != nil {
			return f, err
		}
		if k >= 10 { // the first warm up
			ours, said, bare = append(ours, t2.Sub(t1)), append(said, t2.Sub(t0)), append(bare, alone)
		}
	}
	f.ours, f.said, f.bare = median(ours), median(said), median(bare)
	return f, nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// benchSwarm is a few connected peers of one swarm.
type benchSwarm struct {
	swarms  []*Swarm
	ledgers []*ledger.Ledger
	stored  chan string
	closers []func()
}

func (b *benchSwarm) close() {
	for _, f := range slices.Backward(b.closers) {
		f()
	}
}

type benchMembers struct{ fold *authority.Fold }

func (m benchMembers) Member(d identity.DID) (*authority.Member, bool) {
	return m.fold.State().Member(d)
}
func (m benchMembers) ByTransport(k ed25519.PublicKey) (*authority.Member, bool) {
	return m.fold.State().ByTransport(k)
}
func (m benchMembers) Members() []*authority.Member { return m.fold.State().Members() }
func (m benchMembers) Revoked(d identity.DID) bool  { return m.fold.State().Revoked(d) }

func newBenchSwarm(ctx context.Context, dir string) (_ *benchSwarm, err error) {
	b := &benchSwarm{stored: make(chan string, 1024)}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	create := func(name string) (*identity.Identity, error) {
		id, err := identity.Create(filepath.Join(dir, name, "identity"), identity.Options{Name: name})
		if err == nil {
			b.closers = append(b.closers, func() { _ = id.Close() })
		}
		return id, err
	}
	op, err := create("operator")
	if err != nil {
		return nil, err
	}
	g, err := authority.NewGenesis("bench", []*identity.Inception{op.Inception()}, 1, authority.GenesisOptions{})
	if err != nil {
		return nil, err
	}
	var ids []*identity.Identity
	var admissions [][]byte
	var last ledger.Hash
	for k := range benchPeers {
		id, err := create(fmt.Sprintf("peer%d", k))
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
		body, err := (&authority.MemberBody{Inception: id.Inception().Encode()}).Encode()
		if err != nil {
			return nil, err
		}
		raw, err := ledger.SignEntry(op, g.SwarmID(), uint64(k), last, ledger.KindMember, body, time.Now())
		if err != nil {
			return nil, err
		}
		e, err := ledger.Decode(raw)
		if err != nil {
			return nil, err
		}
		last, admissions = e.Hash(), append(admissions, raw)
	}
	for k, id := range ids {
		fold := authority.NewFold(g)
		l, err := ledger.Open(filepath.Join(dir, fmt.Sprintf("peer%d", k), "ledger"), g.SwarmID(), id, fold, ledger.Options{
			Log: slog.New(slog.DiscardHandler),
			OnEntry: func(e *ledger.Entry) {
				if e.Chain == ledger.Authority {
					_ = fold.Apply(e)
				} else if e.Author != id.DID() {
					b.stored <- e.ID()
				}
			},
		})
		if err != nil {
			return nil, err
		}
		b.ledgers = append(b.ledgers, l)
		b.closers = append(b.closers, func() { _ = l.Close() })
		for _, raw := range admissions {
			if _, err := l.Ingest(ctx, raw); err != nil {
				return nil, err
			}
		}
		cfg := Config{
			Transport: id.Transport(), Swarm: g.SwarmID(), Self: id, Ledger: l, Members: benchMembers{fold}, Listen: []string{"/ip4/127.0.0.1/tcp/0"},
		}
		for _, s := range b.swarms {
			cfg.Bootstrap = append(cfg.Bootstrap, s.Addrs()...)
		}
		s, err := New(cfg)
		if err != nil {
			return nil, err
		}
		b.swarms = append(b.swarms, s)
		running, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(running) }()
		b.closers = append(b.closers, func() { cancel(); <-done })
	}
	for _, s := range b.swarms {
		for len(s.Peers()) < benchPeers-1 {
			if !wait(ctx, 10*time.Millisecond) {
				return nil, fmt.Errorf("swarm: bench: the peers did not meet: %w", ctx.Err())
			}
		}
	}
	return b, nil
}

// heard waits until every other peer has stored an entry.
func (b *benchSwarm) heard(ctx context.Context, id string) error {
	for missing := benchPeers - 1; missing > 0; {
		select {
		case got := <-b.stored:
			if got == id {
				missing--
			}
		case <-ctx.Done():
			return fmt.Errorf("swarm: bench: %w", ctx.Err())
		}
	}
	return nil
}

// bareSwarm is go-libp2p-pubsub with its defaults on the same transport, with no proof and no validation of ours.
type bareSwarm struct {
	hosts  []*host.Host
	topics []*pubsub.Topic
	subs   []*pubsub.Subscription
	cancel context.CancelFunc
}

func (b *bareSwarm) close() {
	b.cancel()
	for _, h := range b.hosts {
		_ = h.Close()
	}
}

func newBareSwarm(ctx context.Context) (_ *bareSwarm, err error) {
	ctx, cancel := context.WithCancel(ctx)
	b := &bareSwarm{cancel: cancel}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	for range benchPeers {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, err
		}
		listen, err := ma.NewMultiaddr("/ip4/127.0.0.1/tcp/0")
		if err != nil {
			return nil, err
		}
		var h *host.Host
		h, err = host.New(host.Config{
			Key: key, Listen: []ma.Multiaddr{listen}, Log: slog.New(slog.DiscardHandler),
			Connected: func(ctx context.Context, c network.Conn) {
				h.Serve(c)
				if wait(ctx, 100*time.Millisecond) { // until the other end serves, too: there is no handshake to tell
					h.Prove(c)
				}
				<-ctx.Done()
			},
		})
		if err != nil {
			return nil, err
		}
		b.hosts = append(b.hosts, h)
		ps, err := pubsub.NewGossipSub(ctx, h.Members(), pubsub.WithFloodPublish(true))
		if err != nil {
			return nil, err
		}
		t, err := ps.Join("bench")
		if err != nil {
			return nil, err
		}
		sub, err := t.Subscribe()
		if err != nil {
			return nil, err
		}
		b.topics, b.subs = append(b.topics, t), append(b.subs, sub)
		if err := h.Listen(); err != nil {
			return nil, err
		}
		for _, o := range b.hosts[:len(b.hosts)-1] {
			if err := h.Members().Connect(ctx, peer.AddrInfo{ID: o.ID(), Addrs: o.ListenAddrs()}); err != nil {
				return nil, err
			}
		}
	}
	for len(b.topics[0].ListPeers()) < benchPeers-1 {
		if !wait(ctx, 10*time.Millisecond) {
			return nil, fmt.Errorf("swarm: bench: the bare peers did not meet: %w", ctx.Err())
		}
	}
	return b, nil
}

func (b *bareSwarm) say(ctx context.Context, msg []byte) (time.Duration, error) {
	done := make(chan error, benchPeers-1)
	for _, sub := range b.subs[1:] {
		go func() {
			_, err := sub.Next(ctx)
			done <- err
		}()
	}
	began := time.Now()
	if err := b.topics[0].Publish(ctx, msg); err != nil {
		return 0, err
	}
	var err error
	for range benchPeers - 1 {
		err = errors.Join(err, <-done)
	}
	return time.Since(began), err
}

// handshakeFigures are of one TCP connection made and proved between members, who know each other's keys.
type handshakeFigures struct {
	cpu   time.Duration // of both ends together
	bytes int64         // on the socket, both ways: of TCP's payload
}

// measureHandshake takes the mean processor time of the cheapest of a few batches of n, because what else runs in the
// process is counted with it; and the mean of the bytes of all.
func measureHandshake(batches, n int) (f handshakeFigures, err error) {
	dir, err := os.MkdirTemp("", "omega-bench-")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var ends [2]handshakeEnd
	members := make(map[identity.DID]identity.Keys)
	for k := range ends {
		id, err := identity.Create(filepath.Join(dir, fmt.Sprint(k)), identity.Options{Name: fmt.Sprintf("peer%d", k)})
		if err != nil {
			return f, err
		}
		defer func() { _ = id.Close() }()
		members[id.DID()] = id.Keys()
		if err := ends[k].open(id, members); err != nil {
			return f, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return f, err
	}
	defer func() { _ = l.Close() }()
	cpu := func() time.Duration {
		var u unix.Rusage
		err = errors.Join(err, unix.Getrusage(unix.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var bytes atomic.Int64
	for range batches {
		began := cpu()
		for range n {
			if err := handshakeOnce(l, &ends[0], &ends[1], &bytes); err != nil {
				return f, err
			}
		}
		if mean := (cpu() - began) / time.Duration(n); f.cpu == 0 || mean < f.cpu {
			f.cpu = mean
		}
	}
	f.bytes = bytes.Load() / int64(batches*n)
	return f, err
}

// countedConn counts what passes a socket.
type countedConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.bytes.Add(int64(n))
	return n, err
}

func (c countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.bytes.Add(int64(n))
	return n, err
}

type handshakeEnd struct {
	id    *identity.Identity
	tls   *transport.TLS
	peer  peer.ID
	local auth.Local
}

func (e *handshakeEnd) open(id *identity.Identity, members map[identity.DID]identity.Keys) error {
	key, err := crypto.UnmarshalEd25519PrivateKey(id.Transport())
	if err != nil {
		return err
	}
	if e.peer, err = peerOf(id.Inception().TransportKey()); err != nil {
		return err
	}
	e.id = id
	e.local = auth.Local{
		Swarm: trust.SwarmID{1}, Self: id, Info: benchInfo,
		Member: func(d identity.DID) (identity.Keys, bool) { m, ok := members[d]; return m, ok },
	}
	e.tls, err = transport.NewTLS(key, trust.SuiteDefault)
	return err
}

func handshakeOnce(l net.Listener, client, server *handshakeEnd, bytes *atomic.Int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), authTimeout)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		served <- func() error {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			s, err := server.tls.SecureInbound(ctx, c, "")
			if err != nil {
				return err
			}
			defer func() { _ = s.Close() }()
			channel, err := channelOf(s, client.id)
			if err != nil {
				return err
			}
			_, err = auth.Respond(s, channel, &server.local, func() {})
			return err
		}()
	}()
	err := func() error {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		s, err := client.tls.SecureOutbound(ctx, countedConn{c, bytes}, server.peer)
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
		channel, err := channelOf(s, server.id)
		if err != nil {
			return err
		}
		_, err = auth.Initiate(s, channel, &client.local, func() {})
		return err
	}()
	return errors.Join(err, <-served)
}

// benchInfo is what a member of a swarm of one operator and one admitting member says of itself.
func benchInfo() auth.Info {
	return auth.Info{Addrs: []string{"/ip4/192.0.2.1/udp/7946/quic-v1", "/ip4/192.0.2.1/tcp/7946"}, Heads: benchHeads(), Time: time.Now().UnixNano()}
}

func channelOf(s sec.SecureConn, remote *identity.Identity) (auth.Channel, error) {
	exporter, err := transport.SecureExporter(s, auth.Label)
	return auth.Channel{Exporter: exporter, Remote: remote.Inception().TransportKey()}, err
}

// benchHeads are those of eight authors, which both know alike, as peers in sync do.
func benchHeads() []auth.Progress {
	heads := make([]auth.Progress, 8)
	for i := range heads {
		heads[i] = auth.Progress{Author: [32]byte{byte(i)}, Count: 1 << 16}
	}
	return heads
}
