package node

import (
	"sync"
	"sync/atomic"

	"github.com/omega-mesh/omega/bpf/selftest"
	"github.com/omega-mesh/omega/swarm/event"
)

// keepRate bounds how many events a second are copied for `omega events`: detectors see all, people need not.
const keepRate = 2000

// telemetry hands this host's events to the roles, and keeps copies of the latest. take runs on the sensor's goroutine.
type telemetry struct {
	subscribers atomic.Pointer[[]*subscriber]
	mu          sync.Mutex // of changes to subscribers
	recent      *window[*event.Event]
	keeping     sync.Mutex // second and kept: sensors have a goroutine each
	second      int64
	kept        int
	test        atomic.Pointer[selftest.Watch] // while one runs
	seen        atomic.Uint64
	skipped     atomic.Uint64
}

type subscriber struct{ f func(*event.Event) }

func newTelemetry(keep int) *telemetry {
	t := &telemetry{recent: newWindow[*event.Event](keep)}
	t.subscribers.Store(&[]*subscriber{})
	return t
}

// take is called with every event; e is valid during the call alone.
func (t *telemetry) take(e *event.Event) {
	t.seen.Add(1)
	if w := t.test.Load(); w != nil && w.Take(e) {
		return // what the node does to itself is nobody's attack
	}
	for _, s := range *t.subscribers.Load() {
		s.f(e)
	}
	if !t.mayKeep(e.Time / 1e9) {
		t.skipped.Add(1)
		return
	}
	t.recent.add(e.Clone())
}

func (t *telemetry) mayKeep(second int64) bool {
	t.keeping.Lock()
	defer t.keeping.Unlock()
	if second != t.second {
		t.second, t.kept = second, 0
	}
	t.kept++
	return t.kept <= keepRate
}

// subscribe calls f with every event until cancel is called.
func (t *telemetry) subscribe(f func(*event.Event)) (cancel func()) {
	s := &subscriber{f}
	change := func(edit func([]*subscriber) []*subscriber) {
		t.mu.Lock()
		defer t.mu.Unlock()
		next := edit(append([]*subscriber(nil), *t.subscribers.Load()...))
		t.subscribers.Store(&next)
	}
	change(func(l []*subscriber) []*subscriber { return append(l, s) })
	return func() {
		change(func(l []*subscriber) []*subscriber {
			for i := range l {
				if l[i] == s {
					return append(l[:i], l[i+1:]...)
				}
			}
			return l
		})
	}
}

// watch keeps a self-test's own events from everyone else; nil ends that.
func (t *telemetry) watch(w *selftest.Watch) { t.test.Store(w) }

// held is how many copies are kept.
func (t *telemetry) held() uint64 {
	n, _, _ := t.recent.stat()
	return uint64(n)
}
