package node

import (
	"sync"
	"sync/atomic"

	"github.com/omega-mesh/omega/bpf/selftest"
	"github.com/omega-mesh/omega/bpf/workload"
	"github.com/omega-mesh/omega/node/journal"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

// telemetry hands this host's events to the roles and to the journal. take runs on the sensors' goroutines.
type telemetry struct {
	subscribers atomic.Pointer[[]*subscriber]
	mu          sync.Mutex // of changes to subscribers
	journal     *journal.Journal
	workloads   *workload.Table
	test        atomic.Pointer[selftest.Watch] // while one runs
	followed    chan struct{}                  // closed when somebody first subscribes
	following   sync.Once
}

type subscriber struct{ f func(*event.Event) }

func newTelemetry(j *journal.Journal, w *workload.Table) *telemetry {
	t := &telemetry{journal: j, workloads: w, followed: make(chan struct{})}
	t.subscribers.Store(&[]*subscriber{})
	return t
}

// take is called with every event; e is valid during the call alone.
func (t *telemetry) take(e *event.Event) {
	if w := t.test.Load(); w != nil && w.Take(e) {
		return // what the node does to itself is nobody's attack
	}
	if e.Sensor != "recording" { // its cgroups are of another time, or another host
		t.workloads.Fill(e)
	}
	for _, s := range *t.subscribers.Load() {
		s.f(e)
	}
	redact.Event(e) // the detectors saw it whole; what is kept has no secrets
	t.journal.Append(e)
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
	t.following.Do(func() { close(t.followed) })
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
