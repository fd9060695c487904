package swarm

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// world is one swarm's founding: an operator and what it signed.
type world struct {
	t       testing.TB
	suite   trust.Suite
	op      *identity.Identity
	genesis *authority.Genesis
	entries [][]byte
	last    *ledger.Entry
	start   time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOf(t, trust.SuiteDefault)
}

func newWorldOf(t testing.TB, suite trust.Suite) *world {
	t.Helper()
	op, err := identity.Create(filepath.Join(t.TempDir(), "operator"), identity.Options{Name: "operator", Suite: suite})
	check(t, err)
	t.Cleanup(func() { _ = op.Close() })
	g, err := authority.NewGenesis("world", []*identity.Inception{op.Inception()}, 1, authority.GenesisOptions{})
	check(t, err)
	return &world{t: t, suite: suite, op: op, genesis: g, start: time.Now()}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sign adds an entry to the operator's authority chain.
func (w *world) sign(kind ledger.Kind, body []byte) []byte {
	w.t.Helper()
	seq, prev := uint64(0), ledger.Hash{}
	if w.last != nil {
		seq, prev = w.last.Seq+1, w.last.Hash()
	}
	raw, err := ledger.SignEntry(w.op, w.genesis.SwarmID(), seq, prev, kind, body, time.Now())
	check(w.t, err)
	if w.last, err = ledger.Decode(raw); err != nil {
		w.t.Fatal(err)
	}
	w.entries = append(w.entries, raw)
	return raw
}

// person is an identity with a folder, which the operator may have made a member.
type person struct {
	w    *world
	name string
	dir  string
	id   *identity.Identity
}

func (w *world) person(name string) *person {
	w.t.Helper()
	p := &person{w: w, name: name, dir: w.t.TempDir()}
	var err error
	p.id, err = identity.Create(filepath.Join(p.dir, "identity"), identity.Options{Name: name, Suite: w.suite})
	check(w.t, err)
	w.t.Cleanup(func() { _ = p.id.Close() })
	return p
}

func (w *world) member(name string) *person {
	w.t.Helper()
	p := w.person(name)
	b := authority.MemberBody{Inception: p.id.Inception().Encode()}
	body, err := b.Encode()
	check(w.t, err)
	w.sign(ledger.KindMember, body)
	return p
}

// revoke signs the removal of p.
func (w *world) revoke(p *person) []byte {
	w.t.Helper()
	b := revokeBody(w.t, p.id.DID())
	return w.sign(ledger.KindRevoke, b)
}

// node is a running peer.
type node struct {
	*person
	ledger *ledger.Ledger
	fold   *authority.Fold
	swarm  *Swarm
	stop   func()

	mu   sync.Mutex
	got  map[string]time.Time // entry id to when it was stored
	news chan struct{}        // closed and replaced with each
}

type foldMembers struct{ fold *authority.Fold }

func (m foldMembers) Member(d identity.DID) (*authority.Member, bool) {
	return m.fold.State().Member(d)
}
func (m foldMembers) ByTransport(k ed25519.PublicKey) (*authority.Member, bool) {
	return m.fold.State().ByTransport(k)
}
func (m foldMembers) Members() []*authority.Member { return m.fold.State().Members() }
func (m foldMembers) Revoked(d identity.DID) bool  { return m.fold.State().Revoked(d) }

type option func(*Config)

func listenOn(addrs ...string) option { return func(c *Config) { c.Listen = addrs } }
func bootstrap(nodes ...*node) option {
	return func(c *Config) {
		for _, n := range nodes {
			c.Bootstrap = append(c.Bootstrap, n.swarm.Addrs()...)
		}
	}
}

// up starts p with what the operator has signed by now.
func (p *person) up(options ...option) *node {
	t := p.w.t
	t.Helper()
	n := p.prepare()
	for _, raw := range p.w.entries {
		if _, err := n.ledger.Ingest(context.Background(), raw); err != nil && !errors.Is(err, ledger.ErrDuplicate) {
			t.Fatal(err)
		}
	}
	n.run(options...)
	return n
}

func (p *person) prepare() *node {
	t := p.w.t
	t.Helper()
	n := &node{person: p, fold: authority.NewFold(p.w.genesis), got: make(map[string]time.Time), news: make(chan struct{})}
	var err error
	n.ledger, err = ledger.Open(filepath.Join(p.dir, "ledger"), p.w.genesis.SwarmID(), p.id, n.fold, ledger.Options{OnEntry: n.onEntry, Log: slog.New(slog.DiscardHandler)})
	check(t, err)
	check(t, n.ledger.Replay(func(e *ledger.Entry) error { n.onEntry(e); return nil }))
	return n
}

func (n *node) run(options ...option) {
	t := n.w.t
	t.Helper()
	cfg := Config{
		Transport: n.id.Transport(), Swarm: n.w.genesis.SwarmID(), Self: n.id, Ledger: n.ledger, Members: foldMembers{n.fold},
		Listen: []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}, AddressBook: filepath.Join(n.dir, "peers.txt"),
	}
	if os.Getenv("SWARM_TEST_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("me", n.name)
	}
	for _, o := range options {
		o(&cfg)
	}
	var err error
	n.swarm, err = New(cfg)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.swarm.Run(ctx) }()
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", n.name, err)
			}
			if err := n.ledger.Close(); err != nil {
				t.Errorf("%s: %v", n.name, err)
			}
		})
	}
	t.Cleanup(n.stop)
}

func (n *node) onEntry(e *ledger.Entry) {
	if e.Chain == ledger.Authority {
		_ = n.fold.Apply(e)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got[e.ID()] = time.Now()
	close(n.news)
	n.news = make(chan struct{})
}

// say appends a summary to n's feed and publishes it.
func (n *node) say(text string) *ledger.Entry {
	n.w.t.Helper()
	e, err := n.ledger.Append(context.Background(), ledger.Activity, ledger.KindSummary, []byte(text), true)
	check(n.w.t, err)
	check(n.w.t, n.swarm.Publish(context.Background(), e))
	return e
}

func (n *node) has(e *ledger.Entry) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.got[e.ID()]
	return ok
}

// hears waits until n has an entry.
func (n *node) hears(e *ledger.Entry, within time.Duration) {
	n.w.t.Helper()
	n.until(fmt.Sprintf("has entry %s of %s", e.ID(), e.Author.Short()), within, func() bool { _, ok := n.got[e.ID()]; return ok })
}

func (n *node) until(what string, within time.Duration, ok func() bool) {
	n.w.t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		n.mu.Lock()
		done, news := ok(), n.news
		n.mu.Unlock()
		if done {
			return
		}
		select {
		case <-news:
		case <-tick.C:
		case <-deadline:
			n.w.t.Fatalf("%s: not within %s: %s; peers %d, rejected %v, ledger rejected %v", n.name, within, what, len(n.swarm.Peers()), n.swarm.Rejected(), n.ledger.Rejected())
		}
	}
}

// meets waits until n has that many peers.
func (n *node) meets(k int, within time.Duration) {
	n.w.t.Helper()
	n.until(fmt.Sprintf("has %d peers", k), within, func() bool { return len(n.swarm.Peers()) == k })
}

func revokeBody(t testing.TB, did identity.DID) []byte {
	t.Helper()
	id, err := did.Bytes()
	check(t, err)
	body, err := (&authority.RevokeBody{Subject: id[:], Why: "test"}).Encode()
	check(t, err)
	return body
}
