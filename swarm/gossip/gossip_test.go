package gossip

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/omega-mesh/omega/swarm/host"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers is a ledger that says what it is told to.
type answers struct {
	entry *ledger.Entry
	err   error
}

func (a *answers) Check([]byte) (*ledger.Entry, error)                   { return a.entry, a.err }
func (a *answers) Ingest(context.Context, []byte) (*ledger.Entry, error) { return a.entry, a.err }

// entry is a signed authority entry of the age given.
func entry(t testing.TB, age time.Duration) *ledger.Entry {
	t.Helper()
	id, err := identity.Create(filepath.Join(t.TempDir(), "id"), identity.Options{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Close() })
	raw, err := ledger.SignEntry(id, trust.SwarmID{1}, 0, ledger.Hash{}, ledger.KindPolicy, []byte{0xa0}, time.Now().Add(-age))
	if err != nil {
		t.Fatal(err)
	}
	e, err := ledger.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newGossip(t testing.TB, l Ledger) (*Gossip, *[]string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	h, err := host.New(host.Config{Key: key, Log: log, Connected: func(context.Context, network.Conn) {}})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	ctx, cancel := context.WithCancel(context.Background())
	g, err := New(ctx, Config{
		Host: h.Members(), Prefix: "/omega/test", Members: 3, Ledger: l, Log: log, Score: func(peer.ID) float64 { return 0 },
		Gap: func(peer.ID, *ledger.GapError) { told = append(told, "gap") },
		Refused: func(_ peer.ID, _ error, fault bool) {
			if fault {
				told = append(told, "fault")
			} else {
				told = append(told, "refused")
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = h.Close() })
	return g, &told
}

// What the ledger says of an entry decides whether it goes on, whether its sender pays, and whether the rest is pulled.
func TestValidate(t *testing.T) {
	fresh, old := entry(t, 0), entry(t, time.Hour)
	a := &answers{}
	g, told := newGossip(t, a)
	reject := func(cause string) error { return &ledger.RejectError{Cause: cause} }
	for name, c := range map[string]struct {
		chain ledger.Chain
		entry *ledger.Entry
		err   error
		want  pubsub.ValidationResult
		told  string
	}{
		"good":                {ledger.Authority, fresh, nil, pubsub.ValidationAccept, ""},
		"on the other topic":  {ledger.Activity, fresh, nil, pubsub.ValidationReject, "fault"},
		"known and fresh":     {ledger.Authority, fresh, ledger.ErrDuplicate, pubsub.ValidationAccept, ""},
		"replayed":            {ledger.Authority, old, ledger.ErrDuplicate, pubsub.ValidationIgnore, ""},
		"after a gap":         {ledger.Authority, fresh, &ledger.GapError{}, pubsub.ValidationIgnore, "gap"},
		"malformed":           {ledger.Authority, fresh, reject(ledger.CauseMalformed), pubsub.ValidationReject, "fault"},
		"badly signed":        {ledger.Authority, fresh, reject(ledger.CauseSignature), pubsub.ValidationReject, "fault"},
		"oversize":            {ledger.Authority, fresh, reject(ledger.CauseOversize), pubsub.ValidationReject, "fault"},
		"another swarm's":     {ledger.Authority, fresh, reject(ledger.CauseSwarm), pubsub.ValidationReject, "fault"},
		"of nobody known":     {ledger.Authority, fresh, reject(ledger.CauseUnknownAuthor), pubsub.ValidationIgnore, "refused"},
		"from the future":     {ledger.Authority, fresh, reject(ledger.CauseFuture), pubsub.ValidationIgnore, "refused"},
		"over the rate":       {ledger.Authority, fresh, reject(ledger.CauseRate), pubsub.ValidationIgnore, "refused"},
		"of a revoked":        {ledger.Authority, fresh, reject(ledger.CauseRevoked), pubsub.ValidationIgnore, "refused"},
		"the disk has failed": {ledger.Authority, fresh, errors.Join(ledger.ErrStorage), pubsub.ValidationIgnore, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			*told = nil
			a.entry, a.err = c.entry, c.err
			got := g.validate(context.Background(), c.chain, "sender", &pubsub.Message{Message: &pb.Message{Data: c.entry.Raw()}})
			if got != c.want {
				t.Errorf("validation says %v, want %v", got, c.want)
			}
			if c.told == "" && len(*told) != 0 || c.told != "" && (len(*told) != 1 || (*told)[0] != c.told) {
				t.Errorf("told %v, want %q", *told, c.told)
			}
		})
	}
	a.err = reject(ledger.CauseSignature)
	if g.validate(context.Background(), ledger.Authority, g.cfg.Host.ID(), &pubsub.Message{Message: &pb.Message{}}) != pubsub.ValidationAccept {
		t.Error("this peer's own entry was not accepted")
	}
}

// A full push queue drops and counts; it never waits.
func TestPushOverflow(t *testing.T) {
	p := NewPush(Config{Log: slog.New(slog.DiscardHandler)}, nil)
	c := fakeConn{id: "peer"}
	if ok, _ := p.Attach(c); !ok {
		t.Fatal("not attached")
	}
	if ok, freed := p.Attach(fakeConn{id: "peer", n: 1}); ok || freed == nil {
		t.Error("two queues for one peer")
	}
	e := entry(t, 0)
	for range pushQueue + 7 {
		p.Publish(e)
	}
	if s := p.Stat(); s.Len != pushQueue || s.Dropped != 7 {
		t.Errorf("queue is %+v", s)
	}
	_, freed := p.Attach(c)
	p.Detach(c)
	<-freed
	if s := p.Stat(); s.Len != 0 || s.Dropped != pushQueue+7 {
		t.Errorf("after the end: %+v", s)
	}
	if n := p.Publish(e); n != 0 {
		t.Errorf("published to %d", n)
	}
}

type fakeConn struct {
	network.Conn
	id peer.ID
	n  int
}

func (c fakeConn) RemotePeer() peer.ID { return c.id }

func TestParams(t *testing.T) {
	for _, n := range []int{1, 3, SmallSwarm, SmallSwarm + 1, 300} {
		p := params(n)
		if p.Dlo > p.D || p.D > p.Dhi || p.Dout >= p.Dlo || p.Dout > p.D/2 || p.HistoryGossip > p.HistoryLength {
			t.Errorf("%d members: parameters that GossipSub refuses: %+v", n, p)
		}
	}
}

// A revocation does not wait behind findings.
func TestAuthorityGoesFirst(t *testing.T) {
	p := NewPush(Config{Log: slog.New(slog.DiscardHandler)}, nil)
	c := fakeConn{id: "peer"}
	p.Attach(c)
	l := p.lanes[c.RemotePeer()]
	for range pushQueue {
		l.out <- []byte("finding")
	}
	e := entry(t, 0)
	if p.Publish(e) != 1 {
		t.Fatal("a full queue of findings kept a revocation out")
	}
	if raw, ok := l.next(t.Context()); !ok || string(raw) != string(e.Raw()) {
		t.Errorf("first is %.20q", raw)
	}
}
