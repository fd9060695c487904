package indicator

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/bpf/executable"
	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of what is hashed for the indicators.
const (
	maxWaiting = 256  // executions whose files are to be hashed; more are counted and left
	maxImages  = 8192 // files whose digests are remembered; all are forgotten past it
	// changedWithin is how long after its last change a file's execution says so itself (event.FlagJustWritten): so long after a
	// digest was taken, an execution without that flag is of the same bytes.
	changedWithin = 10 * time.Second
	// maxPublished is how many findings a minute are told apart from their events: copies of a listed file, each run once, would
	// else be as many signatures. Sightings count them all.
	maxPublished = 60
)

// Executed looks up what is executed by its digest. The kernel's events have none: a file is hashed by who may read it, once,
// and again when it may have changed, beside the events' way. With no digest among the indicators nothing is hashed.
type Executed struct {
	current *Current
	sum     func(context.Context, executable.Image, bool) (executable.Sums, error)
	publish func(context.Context, event.Finding)
	waiting chan *event.Event
	// path and worker each have a detector of their own: one serves one goroutine.
	path, worker *Detector

	mu    sync.Mutex
	known map[image]*taken

	minute, told int64 // of the worker: findings published in a minute of the events' clock

	counts struct{ hashed, failed, dropped, untold atomic.Uint64 }
}

type image struct{ device, inode uint64 }

// taken is what is known of an image. It is not changed once it is in the map.
type taken struct {
	waits bool // somebody asks for it
	at    uint64
	sums  executable.Sums
}

// Executions counts what Executed did.
type Executions struct {
	Hashed  uint64
	Failed  uint64 // gone already, not readable, or too large
	Dropped uint64 // more at once than wait
	Untold  uint64 // findings past what is told a minute
}

// NewExecuted looks up in current what sum says of an image; a match that was not known when its event went by is published.
func NewExecuted(current *Current, sightings *Sightings, sum func(context.Context, executable.Image, bool) (executable.Sums, error), publish func(context.Context, event.Finding)) *Executed {
	return &Executed{current: current, sum: sum, publish: publish, waiting: make(chan *event.Event, maxWaiting),
		path: NewDetector(current, sightings), worker: NewDetector(current, sightings), known: map[image]*taken{}}
}

// Counts reads them.
func (x *Executed) Counts() Executions {
	return Executions{Hashed: x.counts.hashed.Load(), Failed: x.counts.failed.Load(), Dropped: x.counts.dropped.Load(), Untold: x.counts.untold.Load()}
}

// Detect implements modules.Detector. Of a file that is known it finds at once; another is left to Run.
func (x *Executed) Detect(ctx context.Context, batch []*event.Event, emit func(event.Finding)) error {
	set := x.current.Load()
	if set.Len(MD5, SHA1, SHA256) == 0 {
		return nil
	}
	weak := set.Len(MD5, SHA1) > 0
	for _, e := range batch {
		if e.Class != event.ClassProcess || e.Activity != event.ActivityExec || e.Process.Inode == 0 {
			continue
		}
		if t := x.ask(e, weak); t != nil {
			x.path.executed(set, e, &t.sums, emit)
		}
	}
	return ctx.Err()
}

// ask gives what is known of an event's image, or has it hashed.
func (x *Executed) ask(e *event.Event, weak bool) *taken {
	key := image{e.Process.Device, e.Process.Inode}
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.known[key]
	switch {
	case t == nil:
	case t.waits:
		return nil
	case e.Process.Flags&event.FlagJustWritten == 0 && e.Boot < t.at+uint64(changedWithin) && (t.sums.Weak || !weak):
		return t
	}
	select {
	case x.waiting <- e.Clone():
	default:
		x.counts.dropped.Add(1)
		return nil
	}
	if len(x.known) >= maxImages {
		clear(x.known)
	}
	x.known[key] = &taken{waits: true}
	return nil
}

// Run hashes what waits until ctx ends.
func (x *Executed) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-x.waiting:
			x.look(ctx, e)
		}
	}
}

// look hashes one image and looks it up.
func (x *Executed) look(ctx context.Context, e *event.Event) {
	set := x.current.Load()
	key := image{e.Process.Device, e.Process.Inode}
	sums, err := x.sum(ctx, executable.Image{PID: e.Process.Key.PID, Path: e.Process.Exe, Inode: e.Process.Inode, Device: e.Process.Device}, set.Len(MD5, SHA1) > 0)
	x.mu.Lock()
	if err != nil {
		delete(x.known, key)
	} else {
		x.known[key] = &taken{at: e.Boot, sums: sums}
	}
	x.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			x.counts.failed.Add(1)
		}
		return
	}
	x.counts.hashed.Add(1)
	x.worker.executed(set, e, &sums, func(f event.Finding) {
		if minute := e.Time / int64(time.Minute); minute != x.minute {
			x.minute, x.told = minute, 0
		}
		if x.told++; x.told > maxPublished {
			x.counts.untold.Add(1)
			return
		}
		x.publish(ctx, f)
	})
}

// executed looks an execution's digests up, the strongest first: a file is one sighting.
func (d *Detector) executed(set *Set, e *event.Event, sums *executable.Sums, emit func(event.Finding)) {
	d.set, d.event, d.emit = set, e, emit
	defer func() { d.event, d.emit = nil, nil }()
	now := uint32(uint64(e.Time) / uint64(time.Second))
	digests := [...][]byte{sums.SHA256[:], sums.SHA1[:], sums.MD5[:]}
	n := len(digests)
	if !sums.Weak {
		n = 1
	}
	for _, sum := range digests[:n] {
		if m, ok := set.Digest(sum, now); ok {
			d.found(&m, m.Value)
			return
		}
	}
}
