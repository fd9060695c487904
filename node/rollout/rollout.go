package rollout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	"github.com/omega-mesh/omega/modules/runner"
	"github.com/omega-mesh/omega/modules/store"
	"github.com/omega-mesh/omega/swarm/block"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
)

// Bounds of what runs on one host.
const (
	// MaxRunning is the most modules that see events, MaxShadows how many of them may be shadows.
	MaxRunning = 64
	MaxShadows = 8
	// maxFetches is how many modules are fetched at once.
	maxFetches = 2
	// retryMin and retryMax are between two tries to fetch what nobody connected had.
	retryMin = 200 * time.Millisecond
	retryMax = 30 * time.Second
	// againAfter is when what could not be built, by no fault of its own, is tried again.
	againAfter = 2 * time.Second
	// judgeEvery is how often modules are looked at while there are canaries among them, judgeRest while there are none.
	judgeEvery = time.Second
	judgeRest  = 5 * time.Second
	// A canary is slow whose mean time an event, over at least canaryEvents that it wanted, is above canaryMean: ten
	// times a large guest's. One that finds more than its rate floods.
	canaryEvents = 256
	canaryMean   = 250 * time.Microsecond
	// Any module is slow that of slowTime which it took on the events' way used over slowMean an event: all other detectors
	// wait for it, and a hundred Sigma rules that are regular expressions have no fuel to run out of.
	slowTime = time.Second
	slowMean = 2 * time.Millisecond
	// largeGuest is the size of a payload whose compilation takes memory worth giving back at once.
	largeGuest = 1 << 20
	// endWithin is how long the end of a rollout waits for the events' way to let its modules go.
	endWithin = 2 * time.Second
)

// Options are what a rollout is given of its host; all but Labels, Releasers, Cache, Failures and Log are required.
type Options struct {
	Self      identity.DID
	Labels    []string
	Releasers int // how many must have released a module before it runs here
	State     func() *authority.State
	Roles     func() []string
	Store     *store.Store
	Cache     string // folder of compiled code
	Failures  string // file that remembers what failed here
	Services  runner.Services
	Fetch     func(ctx context.Context, names []block.Name, take func(block.Name, []byte) error) error
	// Permit asks policy whether a module may have what its manifest asks for.
	Permit  func(m *modules.Manifest, c modules.Capability) error
	Publish func(ctx context.Context, f event.Finding) error
	Now     func() time.Time
	Log     *slog.Logger
}

// Rollout is the part of a node that keeps and runs modules.
type Rollout struct {
	opt Options
	set *Set

	// What follows is Run's own.
	runner   *runner.Runner        // made with the first module: a node without any does not pay for engines
	complete map[modules.ID]string // the manifest's own name of each module that is here whole
	pending  map[modules.ID]*pending
	fetched  chan fetched

	mu       sync.Mutex
	failures map[string]Failure // by a deployment's entry
	running  []*running
	movers   map[chan struct{}]struct{}
	fetching map[modules.ID]error // nil: now
}

// Failure is why a deployment does not run here any more, until somebody deploys anew.
type Failure struct {
	Why string    `json:"why"`
	At  time.Time `json:"at"`
}

// pending is a module that is not here whole.
type pending struct {
	busy bool
	next time.Time
	wait time.Duration
}

type fetched struct {
	id  modules.ID
	err error
}

// New makes a rollout; nothing runs before Run.
func New(opt Options) (*Rollout, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	r := &Rollout{opt: opt, set: NewSet(), complete: map[modules.ID]string{}, pending: map[modules.ID]*pending{}, fetched: make(chan fetched, maxFetches),
		fetching: map[modules.ID]error{}, movers: map[chan struct{}]struct{}{}}
	var err error
	if r.failures, err = readFailures(opt.Failures); err != nil {
		opt.Log.Warn("what failed here before is not known", "err", err)
		r.failures = map[string]Failure{}
	}
	return r, nil
}

// Detector is what the sentinel gives its events to.
func (r *Rollout) Detector() modules.Detector { return r.set }

// Moved gives a token after each change of what runs or failed, until ctx ends; tokens coalesce.
func (r *Rollout) Moved(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.movers[ch] = struct{}{}
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.movers, ch)
	})
	return ch
}

// move tells of a change. The caller holds mu.
func (r *Rollout) move() {
	for ch := range r.movers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// Run follows the authority until ctx ends. changes tells that it moved.
func (r *Rollout) Run(ctx context.Context, changes <-chan struct{}) error {
	var wg sync.WaitGroup
	work, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		wg.Wait()
		for len(r.fetched) > 0 {
			<-r.fetched
		}
		r.end()
	}()
	for {
		again := r.reconcile(work, &wg)
		again = soonest(again, r.judgeAgain())
		if err := r.wait(ctx, changes, again); err != nil {
			return err
		}
		r.judge()
	}
}

// wait returns when there is something to look at; again is when at the latest, 0 for never.
func (r *Rollout) wait(ctx context.Context, changes <-chan struct{}, again time.Duration) error {
	var due <-chan time.Time
	if again > 0 {
		t := time.NewTimer(again)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changes:
	case <-due:
	case <-r.set.failed:
	case f := <-r.fetched:
		r.arrived(f)
	}
	return nil
}

// end takes every module away from the events, and closes the engines.
func (r *Rollout) end() {
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	if err := r.set.exchange(ctx, nil); err != nil {
		r.opt.Log.Error("the modules were not let go in time: their memory stays", "err", err)
	} else if r.runner != nil {
		if err := r.runner.Close(ctx); err != nil {
			r.opt.Log.Warn("the modules' engines did not close cleanly", "err", err)
		}
	}
	r.runner = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = nil
}

// reconcile makes what is kept and what runs agree with the authority, and says when to look again; 0: when something
// changes.
func (r *Rollout) reconcile(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	s := r.opt.State()
	deployments := s.Deployments()
	r.settle(ctx, s, deployments)
	retry := r.keep(ctx, wg, s, deployments)
	if !r.arrange(ctx, s, deployments) {
		retry = soonest(retry, againAfter)
	}
	return retry
}

// wanted are the modules to be kept: those that run somewhere, and after them what is only released, in as much as half of
// the room.
func (r *Rollout) wanted(s *authority.State, deployments []authority.Deployment) (out []modules.ID) {
	seen := map[modules.ID]bool{}
	add := func(digest [32]byte) {
		id := modules.ID(digest)
		if rel, ok := s.Released(digest); ok && rel.Enough(r.opt.Releasers) && !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	for _, d := range slices.Backward(deployments) {
		add(d.Module)
	}
	used, room := map[modules.ID]int64{}, r.opt.Store.Stats().Budget/2
	for _, e := range r.opt.Store.List() {
		used[e.ID] = e.Bytes
	}
	for _, id := range out {
		room -= used[id]
	}
	for _, rel := range s.ModuleReleases() {
		if room -= used[modules.ID(rel.Module)]; room > 0 {
			add(rel.Module)
		}
	}
	return out
}

// keep pins what is released and fetches what is not here. What there is no room for is left out, the undeployed first.
func (r *Rollout) keep(ctx context.Context, wg *sync.WaitGroup, s *authority.State, deployments []authority.Deployment) (retry time.Duration) {
	want := r.wanted(s, deployments)
	for _, e := range r.opt.Store.List() {
		if slices.Contains(want, e.ID) {
			continue
		}
		if err := r.opt.Store.Unpin(e.ID); err != nil {
			r.opt.Log.Warn("a module that is not released any more was not let go", "module", e.ID, "err", err)
		}
		delete(r.complete, e.ID)
	}
	for id := range r.pending {
		if !slices.Contains(want, id) && !r.pending[id].busy {
			r.forget(id)
		}
	}
	busy := 0
	for _, p := range r.pending {
		if p.busy {
			busy++
		}
	}
	now := time.Now()
	for _, id := range want {
		if r.complete[id] != "" {
			continue
		}
		missing, err := r.opt.Store.Missing(id)
		if err == nil && len(missing) == 0 {
			err = r.opt.Store.Pin(id)
		}
		if err == nil && len(missing) == 0 {
			var m *modules.Manifest
			if m, err = r.opt.Store.Manifest(id); err == nil {
				r.complete[id] = m.Name
				r.forget(id)
				continue
			}
		}
		p := r.pending[id]
		if p == nil {
			p = &pending{wait: retryMin}
			r.pending[id] = p
		}
		switch {
		case p.busy:
		case err != nil:
			r.note(id, err)
			p.next = now.Add(retryMax)
			retry = soonest(retry, retryMax)
		case now.Before(p.next):
			retry = soonest(retry, p.next.Sub(now))
		case busy < maxFetches:
			busy++
			p.busy = true
			r.note(id, nil)
			wg.Go(func() {
				err := r.fetch(ctx, id)
				r.opt.Log.Debug("module fetched", "module", id, "after", time.Since(now), "err", err)
				r.fetched <- fetched{id, err}
			})
		}
	}
	return retry
}

func soonest(a, b time.Duration) time.Duration {
	if a == 0 {
		return b
	}
	return min(a, b)
}

func (r *Rollout) note(id modules.ID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetching[id] = err
}

func (r *Rollout) forget(id modules.ID) {
	delete(r.pending, id)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.fetching, id)
}

// fetch brings a module: its root first, which says what else belongs to it.
func (r *Rollout) fetch(ctx context.Context, id modules.ID) error {
	take := func(_ block.Name, data []byte) error {
		_, err := r.opt.Store.Put(data)
		return err
	}
	for range 2 {
		missing, err := r.opt.Store.Missing(id)
		if err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
		for len(missing) > 0 {
			n := min(len(missing), block.MaxWants)
			names := make([]block.Name, n)
			for i, sum := range missing[:n] {
				names[i] = block.Name{Sum: sum, Root: sum == id}
			}
			if err := r.opt.Fetch(ctx, names, take); err != nil {
				return err
			}
			missing = missing[n:]
		}
		if err := r.opt.Store.Pin(id); err != nil {
			return err
		}
	}
	return nil
}

// arrived notes how a fetch went.
func (r *Rollout) arrived(f fetched) {
	p := r.pending[f.id]
	if p == nil {
		return
	}
	p.busy = false
	if f.err == nil {
		return
	}
	p.next = time.Now().Add(p.wait)
	p.wait = min(2*p.wait, retryMax)
	r.note(f.id, f.err)
	if !errors.Is(f.err, block.ErrNowhere) && !errors.Is(f.err, context.Canceled) {
		r.opt.Log.Warn("module not fetched", "module", f.id, "err", f.err)
	}
}

// load builds a module, unless policy or its engine refuses it.
func (r *Rollout) load(ctx context.Context, d authority.Deployment) (*running, error) {
	b, err := r.opt.Store.Bundle(modules.ID(d.Module))
	if err != nil {
		delete(r.complete, modules.ID(d.Module)) // what was bad is fetched again
		return nil, fmt.Errorf("%w: %w", errAgain, err)
	}
	if err := r.permitted(b); err != nil {
		return nil, err
	}
	if r.runner == nil {
		if r.runner, err = runner.New(ctx, r.opt.Cache, r.opt.Services); err != nil {
			r.opt.Log.Warn("compiled modules are not kept on disk", "err", err)
			r.runner, err = runner.New(ctx, "", r.opt.Services)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: engines: %w", errAgain, err)
		}
	}
	m, err := r.runner.Load(ctx, b)
	if b.Manifest.Kind == modules.KindWASM && b.Manifest.Size > largeGuest {
		debug.FreeOSMemory() // the compiler's, mostly: ten times the guest
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", errAgain, err)
		}
		return nil, err
	}
	return newRunning(m, d), nil
}

// errAgain marks what is no fault of the module.
var errAgain = errors.New("not now")

func (r *Rollout) permitted(b *bundle.Bundle) error {
	for _, c := range b.Manifest.Capabilities {
		if err := r.opt.Permit(b.Manifest, c); err != nil {
			return fmt.Errorf("%w: it asks for %q: %w", modules.ErrRefused, c, err)
		}
	}
	return nil
}
