package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thejerf/suture/v4"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/bpf/facts"
	"github.com/omega-mesh/omega/bpf/workload"
	"github.com/omega-mesh/omega/modules/indicator"
	indicators "github.com/omega-mesh/omega/modules/indicator/store"
	modulestore "github.com/omega-mesh/omega/modules/store"
	"github.com/omega-mesh/omega/node/api"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/node/journal"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/node/rollout"
	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/roles/analyst"
	"github.com/omega-mesh/omega/roles/decoy"
	"github.com/omega-mesh/omega/roles/sentinel"
	"github.com/omega-mesh/omega/swarm"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/entropy"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/witness"
)

// Parts are what a Node is given by the process it runs in.
type Parts struct {
	Config *config.Config
	// Base is the state folder as this process reaches it; empty is Config.Dir.
	Base       string
	Version    string
	Passphrase []byte
	// Store keeps the identity's key, where neither a file nor a passphrase does.
	Store identity.Store
	// Seed is what a device gave to the random bytes of keys made here.
	Seed Seed
	// Service is the privileged side: a Host of this process, or a Client of the other half.
	Service privileged.Service
	// Sensor is what the node sees through; nil sees nothing.
	Sensor bpf.Sensor
	// Logs tells of log-ons and the like; nil where nothing does.
	Logs     bpf.Sensor
	Listener net.Listener
	Log      *slog.Logger
	// Ready, if set, is called once, when the API answers and the first sync is over.
	Ready func()
	// Split says that Service is another process, this one's parent.
	Split bool
	// Own are the files and folders of the node's own that nobody else is to change.
	Own []string
	// Confined says what this process gave up.
	Confined []privileged.Check
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
	entropy *entropy.Reader
	genesis *authority.Genesis
	fold    *authority.Fold
	ledger  *ledger.Ledger
	witness *witness.Witness
	swarm   *swarm.Swarm
	roles   *roles.Supervisor
	service privileged.Service

	feed        *feed                  // what the ledger brought, for those who follow it
	telemetry   *telemetry             // this host's own events
	local       *responses             // what this host's own socket asked for, and what an earlier life left in the kernel
	joining     *joining               // who waits for an operator's approval
	coverages   *coverages             // what each member can see
	moduleHosts *moduleHosts           // what each member says of the modules on its host
	modules     *modulestore.Store     // kept by content
	rollout     *rollout.Rollout       // those that run here
	baselines   *baselines             // each member's last word on its watched files
	watched     *watched               // changes of this host's watched files, on their way
	suspects    *suspects              // files to be matched with YARA rules
	credentials *credentials           // what issuers lent to whom
	nameless    *nameless              // reports whose authors nobody knows
	access      atomic.Pointer[access] // who may call what
	board       *roles.Board
	decoy       *decoy.Decoy
	rules       *rules
	indicators  *indicators.Store
	executed    *indicator.Executed
	sentinel    *sentinel.Sentinel
	clock       *clock  // how far off this host's clock is
	health      *health // what a person should know
	fresh       *freshness

	out      chan *ledger.Entry // own entries on their way to the swarm
	urgent   chan *ledger.Entry // those of the authority chain, which go first
	outLost  atomic.Uint64
	started  uint64 // CLOCK_BOOTTIME, nanoseconds
	synced   atomic.Bool
	mode     atomic.Value // string, as the privileged side last said
	changes  *bell        // the fold moved
	contests chan *authority.ContestBody
	proofs   chan *ledger.Proof
	alarms   chan event.Finding
	leave    chan struct{} // closed by Leave
	leaving  sync.Once

	operatorsSaid []string // allow list as last told; followAuthority's own
}

// Bounds of a node's own queues.
const (
	outQueue     = 4096 // own entries not yet given to gossip; what is over goes by sync
	entriesKept  = 1024
	readyWithin  = 10 * time.Second // how long a node that has peers waits to learn its own head
	refreshEvery = time.Second
	surveyEvery  = 10                    // refreshes between two looks at what changes slowly
	flushGrace   = 50 * time.Millisecond // for gossip to put the last entry on its connections
)

// New assembles a peer from its state folder. Nothing runs before Run; what New opened, Run closes.
func New(p Parts) (*Node, error) {
	if p.Base == "" {
		p.Base = p.Config.Dir
	}
	n := &Node{
		parts: p, cfg: p.Config, log: p.Log, layout: Layout{p.Base}, service: p.Service,
		started: bpf.BootTime(), out: make(chan *ledger.Entry, outQueue), urgent: make(chan *ledger.Entry, outQueue), changes: newBell(),
		proofs: make(chan *ledger.Proof, 16), contests: make(chan *authority.ContestBody, 4), alarms: make(chan event.Finding, 4), leave: make(chan struct{}),
	}
	n.mode.Store(p.Config.Mode)

	// Who this is, and which swarm it belongs to.
	var err error
	if n.genesis, err = loadGenesis(n.layout); err != nil {
		return nil, err
	}
	sources := []entropy.Source{entropy.Jitter()}
	if g, ok := p.Store.(generator); ok {
		sources = append(sources, entropy.Device("token", g.Random))
	}
	if n.entropy, err = entropy.Open(context.Background(), p.Seed.Bytes, sources...); err != nil { // until Run ends
		return nil, err
	}
	if n.self, err = identity.Open(n.layout.Identity(), identity.Options{Passphrase: p.Passphrase, Store: p.Store, Random: n.entropy}); err != nil {
		_ = n.entropy.Close()
		return nil, err
	}
	closing := []func() error{n.entropy.Close, n.self.Close}
	fail := func(err error) (*Node, error) {
		for _, f := range slices.Backward(closing) {
			_ = f()
		}
		return nil, err
	}

	// What is remembered: the feeds, their fold, and what follows from them.
	n.fold = authority.NewFold(n.genesis)
	n.clock = newClock()
	n.fresh = newFreshness()
	n.feed = newFeed(n.cfg.Window, n.nameOf)
	j, err := journal.Open(n.layout.Journal(), journal.Options{Budget: int64(n.cfg.JournalMiB) << 20, Reserve: int64(n.cfg.ReservedDisk) << 20, Log: n.log})
	if err != nil {
		return fail(err)
	}
	n.telemetry = newTelemetry(j, workload.NewTable(p.Service.Container))
	n.local = newResponses()
	n.joining = newJoining()
	n.credentials = newCredentials()
	n.coverages = newCoverages()
	n.moduleHosts = newModuleHosts()
	if err := n.openModules(); err != nil {
		return fail(err)
	}
	n.baselines = newBaselines()
	n.watched = newWatched(p.Config, os.Geteuid() == 0 || p.Split)
	n.suspects = newSuspects()
	n.access.Store(&access{})
	if n.nameless, err = newNameless(n.genesis.SwarmID(), n.self, n); err != nil {
		return fail(err)
	}
	n.ledger, err = ledger.Open(n.layout.Ledger(), n.genesis.SwarmID(), n.self, n.fold, ledger.Options{
		OnEntry: n.onEntry, OnSealed: n.onSealed, OnEquivocation: n.onEquivocation, OnContest: n.onContest, Hold: true, Now: n.clock.now, Random: n.entropy, Log: n.log,
		Backed: func(b *ledger.Base) error { return n.witness.Backed(b) },
	})
	if err != nil {
		return fail(fmt.Errorf("ledger: %w", err))
	}
	closing = append(closing, n.ledger.Close)
	n.witness, err = witness.New(witness.Options{
		Self: n.self, Ledger: n.ledger, Swarm: n.genesis.SwarmID(), State: n.fold.State, Now: n.clock.now, Log: n.log,
	})
	if err != nil {
		return fail(err)
	}
	if err := n.replay(); err != nil {
		return fail(fmt.Errorf("ledger: %w", err))
	}
	n.baselines.judge() // what was stored was judged when it came
	n.beginFresh()

	n.finishRotation()

	// What joins it to the others.
	n.swarm, err = swarm.New(swarm.Config{
		Transport: n.self.Transport(), Swarm: n.genesis.SwarmID(), Self: n.self, Listen: n.cfg.Listen, Bootstrap: n.cfg.Bootstrap,
		AddressBook: n.layout.Peers(), MDNS: n.cfg.MDNS, Ledger: n.ledger, Members: members{n.fold}, Admit: n.admit, Duplicate: n.onDuplicate, Carry: n.carryLetter, Blocks: blocks{n.modules}, Now: n.clock.now, Heard: n.meet, Log: n.log,
	})
	if err != nil {
		return fail(fmt.Errorf("swarm: %w", err))
	}

	closing = append(closing, n.swarm.Close)

	// What it does for them, as far as it is granted.
	n.board = roles.NewBoard()
	if n.decoy, err = decoy.New(decoy.Options{Services: n.cfg.Decoys, Log: n.log}); err != nil {
		return fail(fmt.Errorf("decoys: %w", err))
	}
	if n.rules, err = loadRules(n.cfg.Pack, n.cfg.Rules, n.log); err != nil {
		return fail(err)
	}
	if n.indicators, err = n.openIndicators(); err != nil {
		return fail(err)
	}
	detectors := append(n.rules.detectors(ownParts(p)), n.rollout.Detector(), indicator.NewDetector(&n.indicators.Current, &n.indicators.Sightings))
	if n.cfg.Replay() == "" { // the processes of a recording ran elsewhere
		n.executed = n.lookUpExecuted()
		detectors = append(detectors, n.executed)
	}
	n.sentinel = sentinel.New(sentinel.Options{Board: n.board, Detectors: detectors, Denied: &sentinel.DeniedWrites{Own: ownParts(p)}, SilentAfter: time.Duration(n.cfg.SilentAfter) * time.Second, Log: n.log})
	n.roles = roles.NewSupervisor(n, roles.SupervisorOptions{
		Roles: []roles.Role{n.sentinel, n.decoy, analyst.New(analyst.Options{Board: n.board, Log: n.log})}, Log: n.log,
	})
	n.health = newHealth(n)
	return n, nil
}

// meet takes note of a member that has just proved itself, and of the time it told.
func (n *Node) meet(did identity.DID, told int64) {
	n.coverages.meet(string(did))
	n.clock.met(did, told)
}

// ownParts are what of this host is the node: this process and, where the node is two, its other half; its files.
func ownParts(p Parts) sentinel.Own {
	own := sentinel.Own{PIDs: []int{os.Getpid()}, Paths: p.Own}
	if p.Split {
		own.PIDs = append(own.PIDs, os.Getppid())
	}
	if exe, err := os.Executable(); err == nil {
		own.Exe = exe
	}
	return own
}

// replay reads what is stored: the fold and the windows stand as they did before.
func (n *Node) replay() error {
	n.fold.Hold()
	defer n.fold.Release()
	err := n.ledger.Replay(func(e *ledger.Entry) error {
		n.witness.Observe(e, false)
		if e.Chain == ledger.Authority {
			if err := n.fold.Apply(e); err != nil {
				n.log.Debug("authority entry without effect", "entry", e.ID(), "err", err)
			}
			if e.Kind == ledger.KindAnonymousKey {
				n.learnKey(e)
			}
			return nil
		}
		n.fold.Release() // authority comes first: what follows is read under the names it gives
		if err := n.take(e, false); err != nil {
			n.log.Warn("activity entry does not read", "entry", e.ID(), "err", err)
		}
		return nil
	})
	for _, p := range n.ledger.Evidence() {
		if err := n.fold.ApplyProof(p); err != nil {
			n.log.Debug("proof of equivocation without effect", "err", err)
		}
	}
	n.feed.settle()
	return err
}

// Run is the node's life. It returns when ctx ends or the node was told to leave, after its feed is sealed and its store
// is closed.
func (n *Node) Run(ctx context.Context) error {
	defer n.entropy.Close()
	defer n.self.Close()
	defer n.rules.close()
	defer func() {
		if err := n.ledger.Close(); err != nil {
			n.log.Error("the ledger did not close cleanly", "err", err)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	left := false

	// Two trees: a service that fails is started again with backoff, and takes nobody with it. The network goes last, so
	// that what the others say on their way out still reaches the peers.
	spec := suture.Spec{EventHook: n.supervised, FailureThreshold: 5, FailureBackoff: 2 * time.Second, Timeout: drainTime / 2}
	network := suture.New("network", spec)
	network.Add(service{"swarm", n.swarm.Run})
	network.Add(service{"gossip", n.gossip})

	work := suture.New("work", spec)
	work.Add(service{"ledger", n.ledger.Run})
	work.Add(service{"journal", n.telemetry.journal.Run})
	work.Add(service{"indicators", n.indicators.Run})
	if n.executed != nil {
		work.Add(service{"executed files", n.executed.Run})
	}
	work.Add(service{"workloads", n.telemetry.workloads.Run})
	work.Add(service{"roles", n.roles.Serve})
	work.Add(service{"authority", n.followAuthority})
	work.Add(service{"evidence", n.postEvidence})
	work.Add(service{"witness", n.witness.Run})
	work.Add(service{"retention", n.retain})
	work.Add(service{"anonymous", n.judgeReports})
	work.Add(service{"letters", n.postLetters})
	work.Add(service{"alarms", n.raiseAlarms})
	work.Add(service{"issuer", n.issue})
	work.Add(service{"refresh", n.refresh})
	work.Add(service{"coverage", n.cover})
	work.Add(service{"modules", func(ctx context.Context) error { return n.rollout.Run(ctx, n.changes.listen(ctx)) }})
	work.Add(service{"module reports", n.reportModules})
	work.Add(service{"baseline", n.keepBaseline})
	work.Add(service{"baselines", n.judgeBaselines})
	if n.watched.paths != nil && n.parts.Sensor != nil {
		work.Add(service{"watched files", n.lookAtChanges})
	}
	if len(n.cfg.YaraRules) > 0 {
		work.Add(service{"yara", n.scanSuspects})
	}
	if n.parts.Sensor != nil {
		work.Add(service{"sensor", n.sense})
	}
	if n.cfg.Replay() == "" && n.cfg.Sensor != "off" {
		work.Add(service{"facts", func(ctx context.Context) error {
			return facts.New("/", facts.Every, bpf.BootTime).Run(ctx, n.telemetry.take)
		}})
	}
	if n.parts.Logs != nil {
		work.Add(service{"logs", func(ctx context.Context) error { return n.parts.Logs.Run(ctx, n.telemetry.take) }})
	}
	work.Add(service{"api", func(ctx context.Context) error {
		return api.New(backend{n}, n.encodeEvent).Serve(ctx, n.parts.Listener)
	}})
	work.Add(service{"ready", n.becomeReady})

	reach, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	online := network.ServeBackground(reach)
	busy := work.ServeBackground(ctx)
	n.log.Info("up", "peer", n.self.DID(), "name", n.Name(), "swarm", n.genesis.Name, "mode", n.mode.Load())

	var err error
	select {
	case err = <-busy:
	case <-n.leave:
		left = true
		cancel()
		err = <-busy
	}
	n.flush()
	cut()
	err = errors.Join(err, <-online)
	if ended := ctx.Err() != nil; ended {
		err = nil // what the parts said on their way out is in the log
	}
	n.log.Info("down", "uptime", time.Duration(bpf.BootTime()-n.started).Round(time.Millisecond))
	if left {
		return errors.Join(err, ErrLeft)
	}
	return err
}

// flush gives the last entries, the seal among them, a moment to reach who is connected. Whoever misses them gets them
// by sync.
func (n *Node) flush() {
	if len(n.swarm.Peers()) == 0 {
		return
	}
	for deadline := time.Now().Add(500 * time.Millisecond); len(n.out)+len(n.urgent) > 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(flushGrace)
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
	// With two or more others there may soon be enough witnesses to tell whose clock is wrong: what is signed by a wrong
	// one stays so.
	undecided := func() bool { return n.clock.doubtful() && n.othersActive() >= clockWitnesses }
	for alone := len(n.fold.State().Members()) <= 1; !alone && (!n.swarm.Synced() || undecided()); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			n.log.Warn("the peers that were reached could not tell this node where its own feed stands, or what time it is; it goes on with what it has")
			alone = true
		case <-tick.C:
		}
	}
	n.synced.Store(true)
	n.ledger.Ready()
	if err := n.giveKey(ctx); err != nil && ctx.Err() == nil {
		n.log.Warn("the key for anonymous reports was not given out", "err", err)
	}
	if n.parts.Ready != nil {
		n.parts.Ready()
	}
	debug.FreeOSMemory() // what only the start needed
	n.log.Info("ready", "after", time.Duration(bpf.BootTime()-n.started).Round(time.Millisecond), "peers", len(n.swarm.Peers()))
	return nil
}

// sense runs the sensor; every event goes to the roles and to the journal. What comes before a sentinel that this host is
// to be listens stays in the sensor: the first second of a host, and the whole of a short recording, is seen as well.
func (n *Node) sense(ctx context.Context) error {
	if n.HasRole(n.DID(), n.sentinel.Name()) {
		select {
		case <-n.telemetry.followed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n.awaitIndicators(ctx)
	err := n.parts.Sensor.Run(ctx, n.telemetry.take)
	if err != nil && ctx.Err() == nil {
		n.health.sensorLost(err)
	}
	return err
}

// followAuthority cuts off whoever the fold says is out, and takes over what else the operators said, at each change.
// That a suspension is over needs nobody to act: the swarm asks the fold before each connection.
func (n *Node) followAuthority(ctx context.Context) error {
	changes := n.changes.listen(ctx)
	for {
		s, now := n.fold.State(), n.clock.now()
		for _, p := range n.swarm.Peers() {
			if m, ok := s.Member(p.DID); !ok || !m.Active(now) {
				n.log.Info("disconnecting who is out of the swarm", "peer", n.nameOf(p.DID))
				n.swarm.Disconnect(p.DID)
			}
		}
		n.closeOutdated(s)
		n.local.follow(s, now)
		if err := n.allowOperators(ctx, s); err != nil && ctx.Err() == nil {
			n.log.Warn("the operators' allow list was not taken over whole", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changes:
		}
	}
}

// gossip gives own entries to the swarm, in the order of the feed. What it cannot take goes by sync.
func (n *Node) gossip(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-n.urgent:
			n.spread(ctx, e)
		case e := <-n.out:
			for len(n.urgent) > 0 { // this is their only reader
				n.spread(ctx, <-n.urgent)
			}
			n.spread(ctx, e)
		}
	}
}

func (n *Node) spread(ctx context.Context, e *ledger.Entry) {
	if err := n.swarm.Publish(ctx, e); err != nil && ctx.Err() == nil {
		n.log.Debug("entry left to sync", "entry", e.ID(), "err", err)
	}
}

// refresh keeps the other half's view of the swarm, and this half's of the host, up to date.
func (n *Node) refresh(ctx context.Context) error {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	var last []privileged.Proved
	if active, err := n.service.Active(ctx); err == nil {
		n.local.adopt(active)
	}
	for round := 0; ; round++ {
		n.refreshWord()
		if round%surveyEvery == 0 {
			n.clock.settle()
			n.health.refresh(ctx)
			n.noteGaps(ctx)
		}
		proved := n.proved()
		if !slices.Equal(proved, last) {
			if err := n.service.Protect(ctx, n.listeners(), proved); err != nil {
				n.log.Warn("guard rails not brought up to date", "err", err)
			} else {
				last = proved
			}
		}
		// Only a panic by the emergency socket changes the mode behind this half's back, and that has acted already.
		if m, err := n.service.Mode(ctx); err == nil && m != n.mode.Swap(m) {
			n.log.Warn("mode changed", "mode", m)
			if m == string(roles.ModePanic) {
				n.local.releaseAll()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
