package host

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// end is a host whose connections wait to be proved by the test.
type end struct {
	*Host
	conns   chan network.Conn
	mu      sync.Mutex
	refused map[peer.ID]bool
}

func newEnd(t *testing.T, listen string) *end {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	e := &end{conns: make(chan network.Conn, 8), refused: make(map[peer.ID]bool)}
	e.Host, err = New(Config{
		Key: key, Listen: []ma.Multiaddr{ma.StringCast(listen)}, Log: slog.New(slog.DiscardHandler),
		Refuse: func(p peer.ID) bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.refused[p]
		},
		Connected: func(ctx context.Context, c network.Conn) {
			e.conns <- c
			<-ctx.Done()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := e.Listen(); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *end) conn(t *testing.T) network.Conn {
	t.Helper()
	select {
	case c := <-e.conns:
		return c
	case <-time.After(10 * time.Second):
		t.Fatal("no connection")
		return nil
	}
}

// Until a connection is proved at an end, that end's members' face has nobody; then it has, and says so; and when the
// connection ends, it has nobody again.
func TestTwoFaces(t *testing.T) {
	for _, listen := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"} {
		t.Run(listen, func(t *testing.T) {
			a, b := newEnd(t, listen), newEnd(t, listen)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			echo := func(s network.Stream) {
				_, _ = io.Copy(s, s)
				_ = s.Close()
			}
			b.HandleOpen("/open/1", echo)
			b.Members().SetStreamHandler("/inner/1", echo)
			sub, err := b.Members().EventBus().Subscribe([]any{new(event.EvtPeerConnectednessChanged), new(event.EvtPeerIdentificationCompleted)})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = sub.Close() }()
			c, err := a.Dial(ctx, peer.AddrInfo{ID: b.ID(), Addrs: b.ListenAddrs()})
			if err != nil {
				t.Fatal(err)
			}
			atA, atB := a.conn(t), b.conn(t)
			if c.ID() != atA.ID() || len(b.Members().Network().Peers()) != 0 || len(b.Members().Network().Conns()) != 0 ||
				b.Members().Network().Connectedness(a.ID()) == network.Connected || b.Proven(atB) {
				t.Error("the members' face shows a stranger")
			}
			if got := ask(ctx, c, "/open/1"); got != nil {
				t.Errorf("the open face: %v", got)
			}
			if ask(ctx, c, "/inner/1") == nil {
				t.Error("a stranger was served")
			}
			noDial := network.WithNoDial(ctx, "test")
			if _, err := b.Members().NewStream(noDial, a.ID(), "/inner/1"); !errors.Is(err, network.ErrNoConn) {
				t.Errorf("a stream to a stranger: %v", err)
			}

			b.Serve(atB)
			if err := ask(ctx, c, "/inner/1"); err != nil {
				t.Errorf("served: %v", err)
			}
			if len(sub.Out()) != 0 || len(b.Members().Network().Peers()) != 0 {
				t.Error("who is only served is shown already")
			}
			for range 2 { // the second changes nothing
				if !b.Prove(atB) {
					t.Error("not proved")
				}
			}
			if got := b.Members().Network().Peers(); len(got) != 1 || got[0] != a.ID() || len(b.Proved(a.ID())) != 1 {
				t.Errorf("peers %v", got)
			}
			if e, ok := (<-sub.Out()).(event.EvtPeerConnectednessChanged); !ok || e.Connectedness != network.Connected {
				t.Errorf("first event %+v", e)
			}
			if e, ok := (<-sub.Out()).(event.EvtPeerIdentificationCompleted); !ok || e.Peer != a.ID() {
				t.Errorf("second event %+v", e)
			}
			a.Prove(atA)
			s, err := a.Members().NewStream(ctx, b.ID(), "/none/1", "/inner/1")
			if err != nil || s.Protocol() != "/inner/1" {
				t.Fatalf("member's stream: %v", err)
			}
			_ = s.Reset()

			_ = c.Close()
			if e, ok := (<-sub.Out()).(event.EvtPeerConnectednessChanged); !ok || e.Connectedness != network.NotConnected {
				t.Errorf("last event %+v", e)
			}
			if len(b.Members().Network().Peers()) != 0 || b.Prove(atB) {
				t.Error("a closed connection is still there")
			}
		})
	}
}

func ask(ctx context.Context, c network.Conn, id string) error {
	s, err := OpenStream(ctx, c, protocol.ID(id))
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }()
	if _, err := s.Write([]byte{42}); err != nil {
		return err
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(s, b); err != nil {
		return err
	}
	if b[0] != 42 {
		return errors.New("another echo")
	}
	return nil
}

// Who is out is neither dialled nor let in.
func TestRefused(t *testing.T) {
	a, b := newEnd(t, "/ip4/127.0.0.1/tcp/0"), newEnd(t, "/ip4/127.0.0.1/tcp/0")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b.mu.Lock()
	b.refused[a.ID()] = true
	b.mu.Unlock()
	if _, err := b.Dial(ctx, peer.AddrInfo{ID: a.ID(), Addrs: a.ListenAddrs()}); err == nil {
		t.Error("dialled who is out")
	}
	if c, err := a.Dial(ctx, peer.AddrInfo{ID: b.ID(), Addrs: b.ListenAddrs()}); err == nil {
		// TLS 1.3: the client is through before the server has seen who it is.
		if err := ask(ctx, c, "/open/1"); err == nil {
			t.Error("let in who is out")
		}
	}
	select {
	case <-b.conns:
		t.Error("a connection of who is out came up")
	default:
	}
}
