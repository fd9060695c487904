package selftest

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Name is argv[0] of the process that performs: nothing a user types, and what ps shows. Its first argument is the secret.
const Name = "omega: self-test"

// Attempt is one thing that was tried.
type Attempt struct {
	Activity event.Activity `cbor:"1,keyasint"`
	// Refused is why the kernel did not let it happen; empty where it was done. A sensor may tell of what succeeds alone:
	// nothing follows from an event that did not come for a refused attempt.
	Refused string `cbor:"2,keyasint,omitempty"`
}

// maxAttempts bounds what a report may hold.
const maxAttempts = 64

// settle is how long after the last event the records of a process that ended may still be on their way.
const settle = 500 * time.Millisecond

// Watch finds the events of one run. It is safe for concurrent use.
type Watch struct {
	secret string
	parent uint32 // of the process: who else calls itself so is somebody else

	mu    sync.Mutex
	own   []event.ProcessKey // the process and its children, at most maxOwn
	seen  [event.Activities]bool
	count uint64
	more  chan struct{}
}

// maxOwn bounds the processes of one run.
const maxOwn = 16

// NewWatch watches for the process that parent starts with secret as its first argument.
func NewWatch(secret string, parent uint32) *Watch {
	return &Watch{secret: secret, parent: parent, more: make(chan struct{}, 1)}
}

// Take says whether e is of this run, and notes it. Nobody but the run's own processes is taken for it: it takes the
// secret, and to be a child of the very process that made it.
func (w *Watch) Take(e *event.Event) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &e.Process
	switch {
	case slices.Contains(w.own, p.Key):
	case len(w.own) > 0 && slices.Contains(w.own, p.Parent):
		if len(w.own) < maxOwn {
			w.own = append(w.own, p.Key)
		}
	case e.Class == event.ClassProcess && e.Activity == event.ActivityExec && p.Parent.PID == w.parent && len(w.own) == 0 && w.named(p.Args):
		w.own = append(w.own, p.Key)
	default:
		return false
	}
	if int(e.Activity) < len(w.seen) {
		w.seen[e.Activity] = true
	}
	w.count++
	select {
	case w.more <- struct{}{}:
	default:
	}
	return true
}

func (w *Watch) named(args string) bool {
	rest, ok := strings.CutPrefix(args, Name+"\x00")
	first, _, _ := strings.Cut(rest, "\x00")
	return ok && first == w.secret
}

// Proof says of each activity how the run went.
type Proof [event.Activities]State

// State is what a run says of one activity.
type State uint8

const (
	Untested State = iota // not tried, or the kernel refused it
	Seen                  // done, and its event came
	Missed                // done, and no event came
)

// String is the state in a word.
func (s State) String() string {
	return [...]string{Untested: "untested", Seen: "seen", Missed: "missed"}[min(s, Missed)]
}

// Judge waits until every attempt's event has come, or none has for a while, and says of each how it went.
func (w *Watch) Judge(attempts []Attempt, done <-chan struct{}) Proof {
	timer := time.NewTimer(settle)
	defer timer.Stop()
	for !w.all(attempts) {
		select {
		case <-w.more:
			timer.Reset(settle)
			continue
		case <-timer.C:
		case <-done:
		}
		break
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var p Proof
	for _, a := range attempts[:min(len(attempts), maxAttempts)] {
		if int(a.Activity) >= len(p) {
			continue
		}
		switch {
		case w.seen[a.Activity]:
			p[a.Activity] = Seen
		case a.Refused == "" && p[a.Activity] != Seen:
			p[a.Activity] = Missed
		}
	}
	return p
}

func (w *Watch) all(attempts []Attempt) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range attempts {
		if int(a.Activity) < len(w.seen) && !w.seen[a.Activity] && a.Refused == "" {
			return false
		}
	}
	return true
}
