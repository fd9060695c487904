package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thejerf/suture/v4"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/api"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Parts are what a Node is given by the process it runs in.
type Parts struct {
	Config     *config.Config
	Version    string
	Passphrase []byte
	// Service is the privileged side: a Host of this process, or a Client of the other half.
	Service privileged.Service
	// Sensor is what the node sees through; nil sees nothing.
	Sensor   bpf.Sensor
	Listener net.Listener
	Log      *slog.Logger
	// Ready, if set, is called once, when the API answers and the first sync is over.
	Ready func()
	// Restarted counts how often this half died before.
	Restarted int
}

// Node is one peer.
type Node struct {
	parts   Parts
	cfg     *config.Config
	log     *slog.Logger
	layout  Layout
	self    *identity.Identity
	genesis *authority.Genesis
	fold    *authority.Fold
	ledger  *ledger.Ledger
	swarm   *swarm.Swarm
	roles   *roles.Supervisor
	service privileged.Service

	feed      *feed      // what the ledger brought, for those who follow it
	telemetry *telemetry // this host's own events
	responses *responses // what is to be done, and what became of it
	clock     *clock     // how far off this host's clock is
	health    *health    // what a person should know

	out     chan *ledger.Entry // own entries on their way to the swarm
	outLost atomic.Uint64
	started uint64 // CLOCK_BOOTTIME, nanoseconds
	synced  atomic.Bool
	mode    atomic.Value  // string, as the privileged side last said
	changed chan struct{} // the fold moved
	leave   chan struct{} // closed by Leave
	leaving sync.Once
}

// Bounds of a node's own queues.
const (
	outQueue     = 4096 // own entries not yet given to gossip; what is over goes by sync
	eventsKept   = 4096
	entriesKept  = 1024
	readyWithin  = 10 * time.Second // how long a node that has peers waits to learn its own head
	refreshEvery = time.Second
)

// New assembles a peer from its state folder. Nothing runs before Run; what New opened, Run closes.
func New(p Parts) (*Node, error) {
	n := &Node{
		parts: p, cfg: p.Config, log: p.Log, layout: Layout{p.Config.Dir}, service: p.Service,
		started: bpf.BootTime(), out: make(chan *ledger.Entry, outQueue), changed: make(chan struct{}, 1), leave: make(chan struct{}),
	}
	n.mode.Store(p.Config.Mode)

	// Who this is, and which swarm it belongs to.
	var err error
	if n.genesis, err = loadGenesis(n.layout); err != nil {
		return nil, err
	}
	if n.self, err = identity.Open(n.layout.Identity(), identity.Options{Passphrase: p.Passphrase, NextDir: n.layout.Next()}); err != nil {
		return nil, err
	}
	closing := []func() error{n.self.Close}
	fail := func(err error) (*Node, error) {
		for _, f := range slices.Backward(closing) {
			_ = f()
		}
		return nil, err
	}

	// What is remembered: the feeds, their fold, and what follows from them.
	n.fold = authority.NewFold(n.genesis)
	n.clock = newClock()
	n.feed = newFeed(n.cfg.Window, n.nameOf)
	n.telemetry = newTelemetry(eventsKept)
	n.responses = newResponses(n.genesis.LongestLife)
	n.ledger, err = ledger.Open(n.layout.Ledger(), n.genesis.SwarmID(), n.self, n.fold, ledger.Options{
		OnEntry: n.onEntry, OnSealed: n.onSealed, OnEquivocation: n.onEquivocation, Hold: true, Now: n.clock.now, Log: n.log,
	})
	if err != nil {
		return fail(fmt.Errorf("ledger: %w", err))
	}
	closing = append(closing, n.ledger.Close)
	if err := n.ledger.Replay(n.replay); err != nil {
		return fail(fmt.Errorf("ledger: %w", err))
	}

	// What joins it to the others.
	n.swarm, err = swarm.New(swarm.Config{
		Transport: n.self.Transport(), Swarm: n.genesis.SwarmID(), Self: n.self, Listen: n.cfg.Listen, Bootstrap: n.cfg.Bootstrap,
		AddressBook: n.layout.Peers(), MDNS: n.cfg.MDNS, Ledger: n.ledger, Members: members{n.fold}, Admit: n.admit, Log: n.log,
	})
	if err != nil {
		return fail(fmt.Errorf("swarm: %w", err))
	}

	// What it does for them.
	n.roles = roles.NewSupervisor(n, n.duties()...)
	n.health = newHealth(n)
	return n, nil
}

// Run is the node's life. It returns when ctx ends or the node was told to leave, after its feed is sealed and its store
// is closed.
func (n *Node) Run(ctx context.Context) error {
	defer n.self.Close()
	defer func() {
		if err := n.ledger.Close(); err != nil {
			n.log.Error("the ledger did not close cleanly", "err", err)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	left := false

	// The tree: a service that fails is started again with backoff, and takes nobody with it.
	root := suture.New("node", suture.Spec{
		EventHook: n.supervised, FailureThreshold: 5, FailureBackoff: 2 * time.Second, Timeout: drainTime / 2, PassThroughPanics: false,
	})
	root.Add(service{"ledger", n.ledger.Run})
	root.Add(service{"swarm", n.swarm.Run})
	root.Add(service{"gossip", n.gossip})
	root.Add(service{"roles", n.roles.Run})
	root.Add(service{"authority", n.followAuthority})
	root.Add(service{"refresh", n.refresh})
	if n.parts.Sensor != nil {
		root.Add(service{"sensor", n.sense})
	}
	root.Add(service{"api", func(ctx context.Context) error {
		return api.New(backend{n}, ocsf.MarshalEvent).Serve(ctx, n.parts.Listener)
	}})
	root.Add(service{"ready", n.becomeReady})
	tree := root.ServeBackground(ctx)
	n.log.Info("up", "peer", n.self.DID(), "name", n.Name(), "swarm", n.genesis.Name, "mode", n.mode.Load())

	var err error
	select {
	case err = <-tree:
	case <-n.leave:
		left = true
		cancel()
		err = <-tree
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	n.log.Info("down", "uptime", time.Duration(bpf.BootTime()-n.started).Round(time.Millisecond))
	if left {
		return errors.Join(err, ErrLeft)
	}
	return err
}

// ErrLeft is returned by Up when the node left the swarm on request: its folder may be wiped.
var ErrLeft = errors.New("this host left the swarm")

// service names a part for the supervisor's log. A part that ends without an error has nothing more to do.
type service struct {
	name string
	run  func(context.Context) error
}

func (s service) String() string { return s.name }

// Serve implements suture.Service.
func (s service) Serve(ctx context.Context) error {
	err := s.run(ctx)
	if err == nil && ctx.Err() == nil {
		return suture.ErrDoNotRestart
	}
	return err
}

func (n *Node) supervised(e suture.Event) {
	if e.Type() == suture.EventTypeServicePanic || e.Type() == suture.EventTypeServiceTerminate {
		n.health.failed(e.String())
	}
	n.log.Warn("supervisor", "event", e.String())
}

// becomeReady lets the node sign once it knows its own head: from its peers, or because it is alone, or because nobody
// answered in time.
func (n *Node) becomeReady(ctx context.Context) error {
	deadline := time.NewTimer(readyWithin)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for alone := len(n.fold.State().Members()) <= 1; !alone && !n.swarm.Synced(); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			n.log.Warn("no peer told this node where its own feed stands; it goes on with what it has")
			alone = true
		case <-tick.C:
		}
	}
	n.synced.Store(true)
	n.ledger.Ready()
	if n.parts.Ready != nil {
		n.parts.Ready()
	}
	n.log.Info("ready", "after", time.Duration(bpf.BootTime()-n.started).Round(time.Millisecond), "peers", len(n.swarm.Peers()))
	return nil
}

// sense runs the sensor; every event goes to the roles and to the recent telemetry.
func (n *Node) sense(ctx context.Context) error {
	err := n.parts.Sensor.Run(ctx, n.telemetry.take)
	if err != nil && ctx.Err() == nil {
		n.health.sensorLost(err)
	}
	return err
}

// followAuthority acts on each change of the fold: roles start and stop, the revoked are cut off.
func (n *Node) followAuthority(ctx context.Context) error {
	expiry := time.NewTimer(time.Hour)
	defer expiry.Stop()
	for {
		s, now := n.fold.State(), n.clock.now()
		n.roles.Set(s.Roles(n.self.DID(), now))
		for _, p := range n.swarm.Peers() {
			if m, ok := s.Member(p.DID); !ok || !m.Active(now) {
				n.swarm.Disconnect(p.DID)
			}
		}
		n.responses.follow(s)
		expiry.Reset(n.nextExpiry(s, now))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.changed:
		case <-expiry.C:
		}
	}
}

// nextExpiry is when the fold means something else without a new entry: a grant or a suspension ends. At most an hour,
// because a clock may be set meanwhile.
func (n *Node) nextExpiry(s *authority.State, now time.Time) time.Duration {
	next := now.Add(time.Hour)
	for _, m := range s.Members() {
		if m.SuspendedUntil.After(now) && m.SuspendedUntil.Before(next) {
			next = m.SuspendedUntil
		}
		for _, g := range m.Roles {
			if m.DID == n.self.DID() && g.NotAfter.After(now) && g.NotAfter.Before(next) {
				next = g.NotAfter
			}
		}
	}
	return max(next.Sub(now), 10*time.Millisecond)
}

// gossip gives own entries to the swarm, in the order of the feed. What it cannot take goes by sync.
func (n *Node) gossip(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-n.out:
			if err := n.swarm.Publish(ctx, e); err != nil && ctx.Err() == nil {
				n.log.Debug("entry left to sync", "entry", e.ID(), "err", err)
			}
		}
	}
}

// refresh keeps the other half's view of the swarm, and this half's of the host, up to date.
func (n *Node) refresh(ctx context.Context) error {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	var last []privileged.Proved
	for {
		proved := n.proved()
		if !slices.Equal(proved, last) {
			if err := n.service.Protect(ctx, n.ports(), proved); err != nil {
				n.log.Warn("guard rails not brought up to date", "err", err)
			} else {
				last = proved
			}
		}
		if m, err := n.service.Mode(ctx); err == nil && m != n.mode.Swap(m) {
			n.log.Warn("mode changed", "mode", m)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// event is what the node itself has to report; it is signed like any other finding.
func (n *Node) report(ctx context.Context, f event.Finding) {
	if _, err := n.Publish(ctx, f); err != nil && ctx.Err() == nil {
		n.log.Error("finding not published", "rule", f.RuleID, "err", err)
	}
}
