package sentinel

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of a sentinel.
const (
	// publishQueue is the most findings, and reportQueue the most receipts, that wait to be signed.
	publishQueue = 1024
	reportQueue  = 1024
	// findingsBuffer is how far the responder may fall behind the feeds before it starts again from the replay.
	findingsBuffer = 4096
)

// Options of a sentinel; the zero value of each but Board is a sound default.
type Options struct {
	// Board is where responses are shown; required.
	Board *roles.Board
	// Detectors in place of Builtin; each is used by one goroutine at a time.
	Detectors []modules.Detector
	// Denied is one detector more, which is told where writing is denied; nil where nothing looks for who tries.
	Denied *DeniedWrites
	// SilentAfter in place of the constant.
	SilentAfter time.Duration
	Log         *slog.Logger
}

// Sentinel is the role.
type Sentinel struct {
	opt    Options
	log    *slog.Logger
	counts counts
}

// counts are what Counts shows.
type counts struct {
	events, findings, aggregated, dropped    atomic.Uint64
	done, observed, refused, pending, failed atomic.Uint64
	surplus, expired, receiptsDropped        atomic.Uint64
}

// New makes the role.
func New(opt Options) *Sentinel {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Board == nil {
		opt.Board = roles.NewBoard()
	}
	if opt.Denied != nil {
		opt.Detectors = append(slices.Clone(opt.Detectors), opt.Denied)
	}
	return &Sentinel{opt: opt, log: opt.Log}
}

// Name implements roles.Role.
func (s *Sentinel) Name() string { return roles.NameSentinel }

// Counts are counters by name: events seen; findings made, aggregated into others, and dropped for a bound; responses
// done, observed, refused, pending, failed, expired, and surplus to what stood already; receipts dropped.
func (s *Sentinel) Counts() map[string]uint64 {
	c := &s.counts
	return map[string]uint64{
		"events": c.events.Load(), "findings": c.findings.Load(), "findings_aggregated": c.aggregated.Load(), "findings_dropped": c.dropped.Load(),
		"responses_done": c.done.Load(), "responses_observed": c.observed.Load(), "responses_refused": c.refused.Load(),
		"responses_pending": c.pending.Load(), "responses_failed": c.failed.Load(), "responses_surplus": c.surplus.Load(),
		"responses_expired": c.expired.Load(), "receipts_dropped": c.receiptsDropped.Load(),
	}
}

// Run implements roles.Role: it watches, publishes and responds until ctx ends.
func (s *Sentinel) Run(ctx context.Context, p roles.Peer) error {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()

	outgoing := make(chan event.Finding, publishQueue)
	receipts := make(chan event.Receipt, reportQueue)
	wg.Go(func() { s.publish(ctx, p, outgoing) })
	wg.Go(func() { s.report(ctx, p, receipts) })
	wg.Go(func() { s.watchSilence(ctx, p, outgoing) })

	w := s.watch(p, outgoing)
	cancel := p.Subscribe(func(e *event.Event) { w.observe(ctx, e) })
	defer cancel()
	return newResponder(s, p, receipts).run(ctx)
}

// watcher feeds events to the detectors and what they find to the aggregator. The sensors' goroutines call it.
type watcher struct {
	sentinel  *Sentinel
	peer      roles.Peer
	mu        sync.Mutex
	detectors []modules.Detector
	batch     [1]*event.Event
	emit      func(event.Finding)
	gather    *gatherer
	out       chan<- event.Finding
}

func (s *Sentinel) watch(p roles.Peer, out chan<- event.Finding) *watcher {
	w := &watcher{sentinel: s, peer: p, detectors: s.opt.Detectors, gather: newGatherer(), out: out}
	if w.detectors == nil {
		w.detectors = Builtin(Own{})
	}
	w.emit = w.found
	return w
}

// observe is called with every event of this host.
func (w *watcher) observe(ctx context.Context, e *event.Event) {
	w.sentinel.counts.events.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batch[0] = e
	for _, d := range w.detectors {
		if err := d.Detect(ctx, w.batch[:], w.emit); err != nil {
			w.sentinel.log.Warn("detector failed", "err", err)
		}
	}
	w.batch[0] = nil
}

// found is what the detectors emit into; observe holds the lock.
func (w *watcher) found(f event.Finding) {
	c := &w.sentinel.counts
	switch w.gather.take(&f, w.peer.Boot()) {
	case repeated:
		c.aggregated.Add(1)
		return
	case overRate:
		c.dropped.Add(1)
		return
	}
	select {
	case w.out <- f:
		c.findings.Add(1)
	default:
		c.dropped.Add(1)
	}
}

// publish signs findings in their order. One that cannot be signed is lost, and said so.
func (s *Sentinel) publish(ctx context.Context, p roles.Peer, in <-chan event.Finding) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-in:
			if _, err := p.Publish(ctx, f); err != nil && ctx.Err() == nil {
				s.counts.dropped.Add(1)
				s.log.Error("finding not published", "rule", f.RuleID, "err", err)
			}
		}
	}
}

// report signs receipts in their order, apart from the responder, so that the next response waits for no signature.
func (s *Sentinel) report(ctx context.Context, p roles.Peer, in <-chan event.Receipt) {
	for {
		select {
		case <-ctx.Done():
			return
		case rc := <-in:
			if _, err := p.Report(ctx, rc); err != nil && ctx.Err() == nil {
				s.counts.receiptsDropped.Add(1)
				s.log.Error("receipt not signed", "response", rc.Response, "err", err)
			}
		}
	}
}
