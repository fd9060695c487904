package rollout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/runner"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
)

// Set is the modules that run here, as one detector whose parts are exchanged while it works. Who gives it events never
// waits for an exchange: that is one pointer, read once a batch.
type Set struct {
	live atomic.Pointer[[]*running]
	// calls counts beginnings and ends of Detect: it is odd while one is under way.
	calls  atomic.Uint64
	failed chan struct{}
}

var _ modules.Detector = (*Set)(nil)

// NewSet is empty.
func NewSet() *Set {
	s := &Set{failed: make(chan struct{}, 1)}
	s.live.Store(&[]*running{})
	return s
}

// Detect implements modules.Detector: every module of one moment sees the batch, and a batch is seen by those of one
// moment alone. What a module does wrong ends here.
func (s *Set) Detect(ctx context.Context, batch []*event.Event, emit func(event.Finding)) error {
	list := *s.live.Load()
	if len(list) == 0 {
		return nil
	}
	s.calls.Add(1)
	list = *s.live.Load() // an exchange that saw no call under way has ended those before
	for _, r := range list {
		if r.detect(ctx, batch, emit) {
			select {
			case s.failed <- struct{}{}:
			default:
			}
		}
	}
	s.calls.Add(1)
	return nil
}

// exchange makes next what runs, and returns when what ran before sees no events any more.
func (s *Set) exchange(ctx context.Context, next []*running) error {
	s.live.Store(&next)
	at := s.calls.Load()
	if at%2 == 0 {
		return nil
	}
	// A call is under way. It is short, and its caller must not be made to tell of its end.
	for tick := time.NewTicker(time.Millisecond); s.calls.Load() == at; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return ctx.Err()
		}
	}
	return nil
}

// running is a module that sees events.
type running struct {
	module     *runner.Module
	deployment authority.Deployment
	shadow     bool
	off        atomic.Bool
	judged     runner.Counts // when it had last taken slowTime more; of the goroutine that follows the authority

	// What follows belongs to the goroutine that detects.
	rival *running // of a shadow: what runs under its name
	out   func(event.Finding)
	sink  func(event.Finding)
	told  []string // rules of the batch in hand

	mu   sync.Mutex
	diff Difference
	err  error // why it is off
}

// Difference is how the findings of a shadow differ from those of what runs under its name.
type Difference struct {
	Both, Shadow, Live uint64 // found by both, by the shadow alone, by what runs alone
	Examples           []string
}

// maxExamples is how many of the last differences are kept.
const maxExamples = 8

func newRunning(m *runner.Module, d authority.Deployment) *running {
	r := &running{module: m, deployment: d, shadow: d.Shadow}
	r.sink = func(f event.Finding) {
		r.told = append(r.told, f.RuleID)
		if !r.shadow {
			r.out(f)
		}
	}
	return r
}

// detect gives the module a batch, and says whether it has just ended for good.
func (r *running) detect(ctx context.Context, batch []*event.Event, emit func(event.Finding)) (failed bool) {
	if r.off.Load() {
		return false
	}
	defer func() {
		if p := recover(); p != nil { // an engine's own fault must not cost the host more than the module
			failed = r.end(fmt.Errorf("its engine failed: %v", p))
		}
	}()
	r.told, r.out = r.told[:0], emit
	err := r.module.Detect(ctx, batch, r.sink)
	r.out = nil
	if r.shadow && r.rival != nil && !r.rival.off.Load() {
		r.compare(batch)
	}
	if errors.Is(err, runner.ErrDisabled) {
		return r.end(err)
	}
	return false
}

// end takes the module out; it is false where it was out.
func (r *running) end(why error) bool {
	if r.off.Swap(true) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = why
	return true
}

func (r *running) why() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// compare holds what the shadow found in this batch against what its rival did.
func (r *running) compare(batch []*event.Event) {
	if len(r.told)+len(r.rival.told) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rest := append([]string(nil), r.rival.told...)
	for _, rule := range r.told {
		if i := index(rest, rule); i >= 0 {
			rest = append(rest[:i], rest[i+1:]...)
			r.diff.Both++
			continue
		}
		r.diff.Shadow++
		r.example("only the shadow found", rule, batch)
	}
	for _, rule := range rest {
		r.diff.Live++
		r.example("only what runs found", rule, batch)
	}
}

func index(list []string, s string) int {
	for i := range list {
		if list[i] == s {
			return i
		}
	}
	return -1
}

func (r *running) example(who, rule string, batch []*event.Event) {
	text := who + " " + rule
	if len(batch) == 1 && batch[0].Process.Exe != "" {
		text += " on " + modules.Printable(batch[0].Process.Exe)
	}
	if len(r.diff.Examples) >= maxExamples {
		r.diff.Examples = append(r.diff.Examples[:0], r.diff.Examples[1:]...)
	}
	r.diff.Examples = append(r.diff.Examples, text)
}

func (r *running) difference() Difference {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.diff
	d.Examples = append([]string(nil), d.Examples...)
	return d
}
