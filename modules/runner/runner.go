// Package runner runs modules: it has an engine of each kind, makes a bundle a running detector, and stands between that
// and everything else. What a module does wrong ends there: a trap costs one event, three cost the module; findings past
// its rate are counted and dropped; how long it takes is known.
package runner

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	"github.com/omega-mesh/omega/modules/indicator/feed"
	"github.com/omega-mesh/omega/modules/lua"
	"github.com/omega-mesh/omega/modules/sigma"
	"github.com/omega-mesh/omega/modules/wasm"
	"github.com/omega-mesh/omega/swarm/event"
)

// MaxTraps is how many traps a module may cost before it is disabled.
const MaxTraps = 3

// ErrDisabled is returned by Detect of a module that trapped too often.
var ErrDisabled = errors.New("the module is disabled: it failed too often")

// Services are what modules may be given of their host. A nil one gives nothing.
type Services struct {
	Log        func(module string, level modules.LogLevel, text string)
	Indicator  func(kind, value string) (source string, found bool)
	Reputation func(netip.Addr) uint32
}

// Runner has the engines. It is safe for concurrent use.
type Runner struct {
	engines  map[modules.Kind]modules.Engine
	services Services
}

// New starts the engines; cache is a folder for compiled code, as wasm.New has it.
func New(ctx context.Context, cache string, services Services) (*Runner, error) {
	w, err := wasm.New(ctx, cache)
	if err != nil {
		return nil, err
	}
	r := &Runner{engines: map[modules.Kind]modules.Engine{}, services: services}
	for _, e := range []modules.Engine{w, sigma.Engine{}, lua.Engine{}, feed.Engine{}} {
		r.engines[e.Kind()] = e
	}
	return r, nil
}

// Close ends every module.
func (r *Runner) Close(ctx context.Context) error {
	var errs []error
	for _, e := range r.engines {
		errs = append(errs, e.Close(ctx))
	}
	return errors.Join(errs...)
}

// Load makes a bundle ready to run. It refuses what its engine refuses.
func (r *Runner) Load(ctx context.Context, b *bundle.Bundle) (*Module, error) {
	e, ok := r.engines[b.Manifest.Kind]
	if !ok {
		return nil, fmt.Errorf("%w: %s: this build has no engine for %q", modules.ErrRefused, b.Manifest.Name, b.Manifest.Kind)
	}
	id, err := b.Manifest.ID()
	if err != nil {
		return nil, err
	}
	p, err := e.Compile(ctx, b.Manifest, b.Payload)
	if err != nil {
		return nil, err
	}
	limits := b.Manifest.Limits.Effective()
	m := &Module{ID: id, Manifest: b.Manifest, program: p, filter: b.Manifest.Filter(), rate: limits.FindingRate}
	host := &host{module: m, services: r.services, state: modules.NewState(limits.StateBytes)}
	if m.detector, err = p.Detector(ctx, host); err != nil {
		return nil, errors.Join(err, p.Close(ctx))
	}
	m.host = host
	return m, nil
}

// Module is a module that runs. Detect serves one goroutine at a time; the counts may be read by any.
type Module struct {
	ID       modules.ID
	Manifest *modules.Manifest

	program  modules.Program
	detector modules.Detector
	host     *host
	filter   modules.Filter
	rate     uint32
	one      [1]*event.Event

	minute   int64 // of the events' clock
	told     uint32
	disabled atomic.Bool
	counts   struct{ calls, events, findings, dropped, traps, nanos, slowest atomic.Uint64 }
	times    [64]atomic.Uint64 // events by the bits of their nanoseconds
	mu       sync.Mutex
	last     error
}

// Counts are what became of a module so far.
type Counts struct {
	Events   uint64 // that it wanted
	Findings uint64
	Dropped  uint64 // findings past its rate
	Traps    uint64
	Time     time.Duration // in all calls together
	Slowest  time.Duration
	P99      time.Duration // of one event, as the upper end of its power of two
	Disabled bool
	Last     error // what it did wrong last
}

// Mean is the time of one event.
func (c *Counts) Mean() time.Duration {
	if c.Events == 0 {
		return 0
	}
	return c.Time / time.Duration(c.Events)
}

// quantile is the upper end of the power of two that the p-th part of what was counted lies under.
func quantile(buckets *[64]atomic.Uint64, p float64) time.Duration {
	var all, upTo uint64
	for i := range buckets {
		all += buckets[i].Load()
	}
	for i := range buckets {
		if upTo += buckets[i].Load(); all > 0 && float64(upTo) >= p*float64(all) {
			return time.Duration(1)<<i - 1
		}
	}
	return 0
}

// Counts reads them.
func (m *Module) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &m.counts
	return Counts{Events: c.events.Load(), Findings: c.findings.Load(), Dropped: c.dropped.Load(), Traps: c.traps.Load(),
		Time: time.Duration(c.nanos.Load()), Slowest: time.Duration(c.slowest.Load()), P99: quantile(&m.times, 0.99), Disabled: m.disabled.Load(), Last: m.last}
}

// Detect implements modules.Detector. It takes events one by one, so that a trap costs one.
func (m *Module) Detect(ctx context.Context, batch []*event.Event, emit func(event.Finding)) error {
	if m.disabled.Load() {
		return ErrDisabled
	}
	var first error
	for _, e := range batch {
		if !m.filter.Pass(e) {
			continue
		}
		if err := m.event(ctx, e, emit); err != nil && first == nil {
			first = err
		}
		if m.disabled.Load() {
			return errors.Join(first, ErrDisabled)
		}
	}
	return first
}

func (m *Module) event(ctx context.Context, e *event.Event, emit func(event.Finding)) error {
	m.host.now.Store(e.Time / int64(time.Millisecond) * int64(time.Millisecond))
	if minute := e.Time / int64(time.Minute); minute != m.minute {
		m.minute, m.told = minute, 0
	}
	m.one[0] = e
	start := time.Now()
	err := m.detector.Detect(ctx, m.one[:], func(f event.Finding) {
		if m.told++; m.told > m.rate {
			m.counts.dropped.Add(1)
			return
		}
		m.counts.findings.Add(1)
		emit(f)
	})
	took := uint64(time.Since(start))
	m.one[0] = nil
	m.counts.events.Add(1)
	m.counts.nanos.Add(took)
	m.times[bits.Len64(took)&63].Add(1)
	if took > m.counts.slowest.Load() {
		m.counts.slowest.Store(took)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	m.mu.Lock()
	m.last = err
	m.mu.Unlock()
	if m.counts.traps.Add(1) >= MaxTraps {
		m.disabled.Store(true)
	}
	return fmt.Errorf("module %s %s: %w", m.Manifest.Name, m.Manifest.Version, err)
}

// Close ends the module.
func (m *Module) Close(ctx context.Context) error {
	m.disabled.Store(true)
	return m.program.Close(ctx)
}

// host is what one module is given.
type host struct {
	module   *Module
	services Services
	state    *modules.State
	now      atomic.Int64
}

func (h *host) Log(level modules.LogLevel, text string) {
	if h.services.Log != nil {
		h.services.Log(h.module.Manifest.Name, level, text)
	}
}

func (h *host) Now() int64 { return h.now.Load() }

func (h *host) Get(key string) ([]byte, bool) { return h.state.Get(key, h.now.Load()) }

func (h *host) Put(key string, value []byte, ttl time.Duration) error {
	return h.state.Put(key, value, h.now.Load(), ttl)
}

func (h *host) Indicator(kind, value string) (string, bool) {
	if h.services.Indicator == nil {
		return "", false
	}
	return h.services.Indicator(kind, value)
}

func (h *host) Reputation(a netip.Addr) uint32 {
	if h.services.Reputation == nil {
		return 0
	}
	return h.services.Reputation(a)
}
