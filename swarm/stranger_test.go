package swarm

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/omega-mesh/omega/swarm/auth"
	"github.com/omega-mesh/omega/swarm/host"
	"github.com/omega-mesh/omega/swarm/transport"
	"github.com/omega-mesh/omega/swarm/wire"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

// secretProtocols are what a member answers a member and nobody else.
func secretProtocols(s *Swarm) []protocol.ID {
	var out []protocol.ID
	for _, id := range s.host.Members().Mux().Protocols() {
		if id != joinProtocol && id != s.protocol("auth/1") {
			out = append(out, id)
		}
	}
	return out
}

func only(t *testing.T, addrs []string, part string) peer.AddrInfo {
	t.Helper()
	for _, a := range addrs {
		if strings.Contains(a, part) {
			p, err := peer.AddrInfoFromString(a)
			check(t, err)
			return *p
		}
	}
	t.Fatalf("no %s address in %v", part, addrs)
	return peer.AddrInfo{}
}

// A plain go-libp2p program that knows every address is refused over TCP, and over QUIC finds nobody to talk to.
func TestPlainLibp2pStranger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pa, pb := w.member("a"), w.member("b")
	a := pa.up()
	b := pb.up(bootstrap(a))
	a.meets(1, soon)
	secret := secretProtocols(a.swarm)
	for _, want := range []string{"/sync/1", "/push/1", "/meshsub/1", "/kad/1.0.0"} {
		if !slices.ContainsFunc(secret, func(id protocol.ID) bool { return strings.HasSuffix(string(id), want) }) {
			t.Errorf("members do not answer %s; the test would show nothing", want)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics())
	check(t, err)
	defer func() { _ = h.Close() }()
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithGossipSubProtocols([]protocol.ID{a.swarm.protocol("meshsub/1"), pubsub.GossipSubID_v11},
		func(f pubsub.GossipSubFeature, _ protocol.ID) bool { return f == pubsub.GossipSubFeatureMesh }))
	check(t, err)

	if err := h.Connect(ctx, only(t, a.swarm.Addrs(), "/tcp/")); err == nil {
		t.Error("TCP: a program without this project's TLS connected")
	}
	h.Peerstore().ClearAddrs(a.swarm.host.ID())
	quic := only(t, a.swarm.Addrs(), "/quic-v1")
	check(t, h.Connect(ctx, quic)) // QUIC's handshake is libp2p's own
	answered := append(secret, "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/ipfs/kad/1.0.0", "/libp2p/autonat/1.0.0",
		"/libp2p/circuit/relay/0.2.0/hop", "/meshsub/1.1.0", "/floodsub/1.0.0")
	for _, id := range answered {
		s, err := h.NewStream(ctx, quic.ID, id)
		if err == nil {
			_, err = s.Read(make([]byte, 1))
			_ = s.Reset()
		}
		if err == nil {
			t.Errorf("%s answered a stranger", id)
		}
	}
	protocols, err := h.Peerstore().GetProtocols(quic.ID)
	check(t, err)
	if len(protocols) != 0 {
		t.Errorf("the stranger learnt protocols: %v", protocols)
	}
	for _, p := range h.Peerstore().PeersWithAddrs() {
		if p != h.ID() && p != quic.ID {
			t.Errorf("the stranger learnt of peer %s", p)
		}
	}
	if got := ps.ListPeers(""); len(got) != 0 {
		t.Errorf("the stranger gossips with %v", got)
	}
	for _, topic := range []string{"authority/1", "activity/1"} {
		if got := ps.ListPeers(string(a.swarm.protocol(topic))); len(got) != 0 {
			t.Errorf("the stranger learnt who is on topic %s", topic)
		}
	}
	// Members do not see it either, and it is sent away.
	for _, p := range a.swarm.host.Members().Network().Peers() {
		if p == h.ID() {
			t.Error("the members' face shows a stranger")
		}
	}
	a.until("closed the silent connection", 2*authTimeout, func() bool { return h.Network().Connectedness(quic.ID) != network.Connected })
	_ = b
}

// One that speaks this project's TLS but is no member gets no further.
func TestStrangerWithOurTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pa, pb := w.member("a"), w.member("b")
	a, _ := pa.up(), pb
	stranger := w.person("stranger")
	h, err := host.New(host.Config{Key: stranger.id.Transport(), Log: slog.New(slog.DiscardHandler), Connected: func(context.Context, network.Conn) {}})
	check(t, err)
	defer func() { _ = h.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	for _, part := range []string{"/tcp/", "/quic-v1"} {
		c, err := h.Dial(ctx, only(t, a.swarm.Addrs(), part))
		check(t, err)
		check(t, transport.Check(c, trust.SuiteDefault))
		for _, id := range append(secretProtocols(a.swarm), "/ipfs/id/1.0.0") {
			s, err := host.OpenStream(ctx, c, id)
			check(t, err)
			if _, err = s.Write([]byte{0, 0, 0, 1, 1}); err == nil {
				_, err = s.Read(make([]byte, 1))
			}
			if err == nil {
				t.Errorf("%s answered a stranger", id)
			}
			_ = s.Reset()
		}
		// It claims to be a member: it holds neither that member's transport key nor its identity.
		s, err := host.OpenStream(ctx, c, a.swarm.protocol("auth/1"))
		check(t, err)
		exporter, err := transport.Exporter(c, auth.Label)
		check(t, err)
		_, err = auth.Initiate(s, auth.Channel{Exporter: exporter, Remote: a.id.Inception().TransportKey()}, &auth.Local{
			Swarm: w.genesis.SwarmID(), Self: impostor{pb.id.DID(), stranger.id},
			Member: func(d identity.DID) (identity.Keys, bool) { return a.id.Keys(), d == a.id.DID() },
			Info:   func() auth.Info { return auth.Info{} },
		}, func() { t.Error("the member proved itself to a stranger") })
		if err == nil {
			t.Error("a stranger was taken for a member")
		}
		_ = s.Reset()
		_ = c.Close()
	}
	if n := len(a.swarm.Peers()); n != 0 {
		t.Errorf("%d peers, want none", n)
	}
}

type impostor struct {
	did identity.DID
	id  *identity.Identity
}

func (i impostor) DID() identity.DID { return i.did }
func (i impostor) Sign(context string, msg []byte) ([]byte, error) {
	return i.id.Sign(context, msg)
}

// Who asks for a list of protocols, or says nothing sensible, gets nothing that names the swarm.
func TestOpenFaceNamesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.member("a").up()
	stranger := w.person("stranger")
	h, err := host.New(host.Config{Key: stranger.id.Transport(), Log: slog.New(slog.DiscardHandler), Connected: func(context.Context, network.Conn) {}})
	check(t, err)
	defer func() { _ = h.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	c, err := h.Dial(ctx, only(t, a.swarm.Addrs(), "/tcp/"))
	check(t, err)
	s, err := c.NewStream(ctx)
	check(t, err)
	defer func() { _ = s.Reset() }()
	check(t, s.SetDeadline(time.Now().Add(soon)))
	_, err = s.Write([]byte("\x13/multistream/1.0.0\n\x03ls\n"))
	check(t, err)
	check(t, s.CloseWrite())
	var all bytes.Buffer
	_, _ = all.ReadFrom(s)
	if strings.Contains(all.String(), "omega") {
		t.Errorf("a stranger was told %q", all.String())
	}
	// Garbage on the two protocols that answer ends them.
	for _, id := range []protocol.ID{joinProtocol, a.swarm.protocol("auth/1")} {
		s, err := host.OpenStream(ctx, c, id)
		check(t, err)
		check(t, wire.Write(s, bytes.Repeat([]byte{0xff}, 40)))
		if b, err := wire.Read(s, 1<<20); err == nil {
			t.Errorf("%s answered garbage with %d bytes", id, len(b))
		}
		_ = s.Reset()
	}
}
