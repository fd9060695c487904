package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p-pubsub/timecache"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	feedsync "github.com/omega-mesh/omega/swarm/sync"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/ledger"
)

// seenTTL is how long a message id is remembered after it was last seen; older replays stop at the ledger.
const seenTTL = 10 * time.Minute

// fresh is how old an entry that came by another lane may be and still be forwarded: it is news to whoever has only the
// mesh. Beyond it a duplicate is a replay.
const fresh = time.Minute

// Ledger is what the lanes ask of the store of feeds.
type Ledger interface {
	Check(raw []byte) (*ledger.Entry, error)
	Ingest(ctx context.Context, raw []byte) (*ledger.Entry, error)
}

// Config is what both lanes need.
type Config struct {
	Host    corehost.Host // the members' face
	Prefix  string        // "/omega/<net>"
	Members int           // at start; chooses the mesh's parameters
	Ledger  Ledger
	// Gap is told that entries are missing which from has. It must not block.
	Gap func(from peer.ID, gap *ledger.GapError)
	// Refused is told of each refusal; fault says that it proves that from did wrong. It must not block.
	Refused func(from peer.ID, err error, fault bool)
	// Score is what else is held against a peer: 0, or less.
	Score func(peer.ID) float64
	Log   *slog.Logger
}

// Topics of a swarm, and the entries that belong in each.
func topics(prefix string) map[ledger.Chain]string {
	return map[ledger.Chain]string{
		ledger.Authority: prefix + "/authority/1",
		ledger.Activity:  prefix + "/activity/1",
	}
}

// Gossip is the mesh lane.
type Gossip struct {
	cfg    Config
	ps     *pubsub.PubSub
	topics map[ledger.Chain]*pubsub.Topic
	subs   []*pubsub.Subscription
	counts counts

	mu     sync.Mutex
	scores map[peer.ID]float64
}

// New subscribes to the swarm's topics. It works until ctx ends; Run delivers.
func New(ctx context.Context, cfg Config) (*Gossip, error) {
	g := &Gossip{cfg: cfg, topics: make(map[ledger.Chain]*pubsub.Topic)}
	var names []string
	byChain := topics(cfg.Prefix)
	for _, c := range []ledger.Chain{ledger.Authority, ledger.Activity} {
		names = append(names, byChain[c])
	}
	score, thresholds := scoring(names, cfg.Score)
	mesh := protocol.ID(cfg.Prefix + "/meshsub/1")
	ps, err := pubsub.NewGossipSub(ctx, cfg.Host,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(func(m *pb.Message) string { id := ledger.MessageID(m.GetData()); return string(id[:]) }),
		pubsub.WithGossipSubProtocols([]protocol.ID{mesh}, func(f pubsub.GossipSubFeature, p protocol.ID) bool {
			return p == mesh && (f == pubsub.GossipSubFeatureMesh || f == pubsub.GossipSubFeatureIdontwant)
		}),
		pubsub.WithGossipSubParams(params(cfg.Members)),
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerScore(score, thresholds),
		pubsub.WithPeerScoreInspect(g.inspect, time.Second),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(names...), 2*len(names))),
		pubsub.WithPeerOutboundQueueSize(outboundQueue),
		pubsub.WithValidateQueueSize(validateQueue),
		pubsub.WithMaxMessageSize(maxMessage),
		pubsub.WithSeenMessagesTTL(seenTTL), pubsub.WithSeenMessagesStrategy(timecache.Strategy_LastSeen),
		pubsub.WithRawTracer(&g.counts),
		pubsub.WithLogger(slog.New(slog.DiscardHandler)), pubsub.WithRPCLogger(slog.New(slog.DiscardHandler)),
	)
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	g.ps = ps
	for chain, name := range byChain {
		validate := func(ctx context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
			return g.validate(ctx, chain, from, m)
		}
		if err := ps.RegisterTopicValidator(name, validate, pubsub.WithValidatorConcurrency(validateQueue)); err != nil {
			return nil, fmt.Errorf("gossip: %w", err)
		}
		t, err := ps.Join(name)
		if err != nil {
			return nil, fmt.Errorf("gossip: join: %w", err)
		}
		sub, err := t.Subscribe(pubsub.WithBufferSize(deliverQueue))
		if err != nil {
			return nil, fmt.Errorf("gossip: subscribe: %w", err)
		}
		g.topics[chain], g.subs = t, append(g.subs, sub)
	}
	return g, nil
}

func (g *Gossip) inspect(scores map[peer.ID]float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.scores = scores
}

// PeerScore is a peer's score as of the last second.
func (g *Gossip) PeerScore(p peer.ID) float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.scores[p]
}

// validate decides whether a message goes on: to the ledger, and to the other peers.
func (g *Gossip) validate(_ context.Context, chain ledger.Chain, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	if from == g.cfg.Host.ID() {
		return pubsub.ValidationAccept // from this peer's ledger
	}
	raw := m.GetData()
	e, err := g.cfg.Ledger.Check(raw)
	var gap *ledger.GapError
	switch {
	case err == nil && e.Chain != chain:
		err = &ledger.RejectError{Cause: ledger.CauseKind, Author: e.Author, Detail: "on the other chain's topic"}
		g.cfg.Refused(from, err, true)
		return pubsub.ValidationReject
	case err == nil:
		return pubsub.ValidationAccept
	case errors.Is(err, ledger.ErrDuplicate):
		if old, err := ledger.Decode(raw); err == nil && old.Chain == chain && time.Since(time.Unix(0, old.Time)).Abs() < fresh {
			return pubsub.ValidationAccept
		}
		return pubsub.ValidationIgnore
	case errors.As(err, &gap):
		g.cfg.Gap(from, gap)
		return pubsub.ValidationIgnore
	}
	fault := feedsync.Fault(err)
	g.cfg.Refused(from, err, fault)
	if fault {
		return pubsub.ValidationReject
	}
	return pubsub.ValidationIgnore
}

// Run gives validated entries to the ledger until ctx ends.
func (g *Gossip) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, s := range g.subs {
		wg.Go(func() {
			defer s.Cancel()
			for {
				m, err := s.Next(ctx)
				if err != nil {
					return
				}
				if m.ReceivedFrom != g.cfg.Host.ID() {
					deliver(ctx, &g.cfg, m.ReceivedFrom, m.GetData())
				}
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// deliver gives an entry to the ledger and passes on what the ledger says. It reports whether the sender may go on.
func deliver(ctx context.Context, cfg *Config, from peer.ID, raw []byte) bool {
	_, err := cfg.Ledger.Ingest(ctx, raw)
	var gap *ledger.GapError
	switch {
	case err == nil, errors.Is(err, ledger.ErrDuplicate), errors.Is(err, ledger.ErrClosed):
	case errors.As(err, &gap):
		cfg.Gap(from, gap)
	default:
		fault := feedsync.Fault(err)
		cfg.Refused(from, err, fault)
		return !fault
	}
	return true
}

// Publish gives an entry of this peer's ledger to the mesh.
func (g *Gossip) Publish(ctx context.Context, e *ledger.Entry) error {
	t, ok := g.topics[e.Chain]
	if !ok || len(e.Raw()) > trust.MaxEntry {
		return fmt.Errorf("gossip: entry %s of the %s chain cannot be published", e.ID(), e.Chain)
	}
	if err := t.Publish(ctx, e.Raw()); err != nil {
		return fmt.Errorf("gossip: publish: %w", err)
	}
	return nil
}

// Stat is the state of one bounded queue.
type Stat struct {
	Len, Cap int
	Dropped  uint64
}

// Queues are pubsub's, by name. It does not tell how full they are.
func (g *Gossip) Queues() map[string]Stat {
	return map[string]Stat{
		"gossip.out":      {Cap: outboundQueue, Dropped: g.counts.outbound.Load()},
		"gossip.validate": {Cap: validateQueue, Dropped: g.counts.validate.Load()},
		"gossip.deliver":  {Cap: deliverQueue, Dropped: g.counts.deliver.Load()},
	}
}
