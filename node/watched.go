package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/node/privileged"
	"github.com/omega-mesh/omega/roles/sentinel"
	"github.com/omega-mesh/omega/roles/sentinel/integrity"
	"github.com/omega-mesh/omega/swarm/event"
)

// How changes of watched files are looked at.
const (
	// settleTime is how long a file is left alone after a change was told: who renames and chmods it is not done with the
	// first call, and a file is told to be written when it is opened.
	settleTime = 100 * time.Millisecond
	// A file that somebody still holds open to write is looked at again after busyFirst, twice as long each time up to busyMost.
	busyFirst = time.Second
	busyMost  = time.Minute
	// lookShare bounds how much of the time is spent looking, so that who writes a watched file without end costs little.
	lookShare = 20 // one part in
	lookRest  = 5 * time.Second
	// maxPending bounds the paths that wait to be looked at; what is over is left to a scan, and counted.
	maxPending = 1024
	// gapLeast is the least time between two scans for events that were lost.
	gapLeast = time.Minute
)

// watched are the changes that the sensor told of and that were not compared with the baseline yet. take runs on the
// sensors' goroutines.
type watched struct {
	paths, exclude []string // nil: nothing is watched

	mu      sync.Mutex
	pending map[string]*touch
	wake    chan struct{}
	lost    atomic.Uint64 // paths there was no room for
	gaps    uint64        // losses up to the last scan for them
	scanned time.Time     // when that was
}

// touch is the last that was done to one path.
type touch struct {
	by   *event.Event
	due  time.Time
	wait time.Duration // how long it was waited for who holds it open
}

func newWatched(cfg *config.Config, root bool) *watched {
	w := &watched{pending: map[string]*touch{}, wake: make(chan struct{}, 1)}
	w.paths, w.exclude, _ = watchedPaths(cfg, root)
	return w
}

func (w *watched) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.pending)
}

// covers says whether a path is one to look at.
func (w *watched) covers(path string) bool {
	return path != "" && integrity.Covers(w.paths, path) && !integrity.Covers(w.exclude, path)
}

// take notes what was done to a watched file.
func (w *watched) take(e *event.Event) {
	if e.Class != event.ClassFile && e.Activity != event.ActivityIOUring || e.Result != 0 {
		return
	}
	flagged := e.Process.Flags&event.FlagWatchedPath != 0
	path, other := flagged || w.covers(e.File.Path), e.Activity == event.ActivityFileRename && w.covers(e.File.Other)
	if !path && !other || len(e.File.Path) > integrity.MaxPath {
		return
	}
	by := e.Clone()
	if path && e.File.Path != "" {
		w.put(by.File.Path, by, 0)
	}
	if other {
		w.put(by.File.Other, by, 0)
	}
}

// put has a path looked at, after wait.
func (w *watched) put(path string, by *event.Event, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.pending[path]
	switch {
	case t != nil && wait > 0:
		return // something was done to it since
	case t == nil && len(w.pending) >= maxPending:
		w.lost.Add(1)
		return
	}
	w.pending[path] = &touch{by: by, due: time.Now().Add(max(wait, settleTime)), wait: wait}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// next takes out a path that is due; until is when there will be one, zero if nothing waits.
func (w *watched) next(now time.Time) (path string, t *touch, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, x := range w.pending {
		if t == nil || x.due.Before(t.due) {
			path, t = p, x
		}
	}
	if t == nil {
		return "", nil, until
	}
	if t.due.After(now) {
		return "", nil, t.due
	}
	delete(w.pending, path)
	return path, t, until
}

// lookAtChanges compares what the sensor told of with the baseline, until ctx ends.
func (n *Node) lookAtChanges(ctx context.Context) error {
	w := n.watched
	cancel := n.telemetry.subscribe(w.take)
	defer cancel()
	if n.parts.Restarted > 0 { // what the half before this one had still to look at is gone
		if err := n.service.BaselineRescan(ctx, false); err != nil && !errors.Is(err, privileged.ErrNoBaseline) {
			return err
		}
	}
	for {
		path, t, until := w.next(time.Now())
		if t == nil {
			var timer <-chan time.Time
			if !until.IsZero() {
				timer = time.After(time.Until(until))
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-w.wake:
			case <-timer:
			}
			continue
		}
		began := time.Now()
		r, err := n.service.BaselineLook(ctx, []string{path})
		switch {
		case errors.Is(err, privileged.ErrNoBaseline):
			return nil
		case err != nil:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			n.log.Warn("a watched file could not be looked at", "path", path, "err", err)
			w.put(path, t.by, busyMost)
		}
		for i := range r.Changes {
			n.telemetry.take(changeEvent(&r.Changes[i], t.by))
		}
		if len(r.Again) > 0 {
			w.put(path, t.by, settleTime)
		} else if len(r.Busy) > 0 {
			w.put(path, t.by, min(max(2*t.wait, busyFirst), busyMost))
		}
		rest := min((lookShare-1)*time.Since(began), lookRest)
		if rest < settleTime/10 {
			continue // it is cheaper than to wait for
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
		}
	}
}

// changeEvent is what is told of a change, and of who made it; by is nil where nobody saw it.
func changeEvent(c *integrity.Change, by *event.Event) *event.Event {
	e := &event.Event{Sensor: "integrity"}
	if by != nil {
		e = by.Clone()
		e.Sensor, e.Network, e.Count = by.Sensor, event.Network{}, 0
		if operation := by.Access.Operation; operation != "" {
			e.Access = event.Access{Operation: operation}
		} else {
			e.Access = event.Access{Operation: by.Activity.String()}
		}
	}
	e.Class, e.Activity = event.ClassFileIntegrity, event.ActivityIntegrity
	e.File = event.File{Path: c.Path, Other: c.What, Was: words(c.Was)}
	if c.Is != nil {
		e.File.Mode, e.File.UID, e.File.GID, e.File.Inode, e.File.Device = c.Is.Mode, c.Is.UID, c.Is.GID, c.Is.Inode, c.Is.Device
		e.File.Hash = digest(c.Is)
	}
	return e
}

// words says what of an entry is compared.
func words(e *integrity.Entry) string {
	if e == nil {
		return ""
	}
	s := sentinel.Fingerprint(e.Mode, e.UID, e.GID, digest(e))
	if e.Target != "" {
		s += " to " + e.Target
	}
	return s
}

func digest(e *integrity.Entry) string {
	if e.Digest == [32]byte{} {
		return ""
	}
	return hex.EncodeToString(e.Digest[:])
}

// noteGaps has everything looked at where events of files were lost.
func (n *Node) noteGaps(ctx context.Context) {
	w := n.watched
	if w.paths == nil || n.parts.Sensor == nil {
		return
	}
	lost := w.lost.Load()
	for name, k := range n.health.kernelDrops() {
		if strings.Contains(name, "file_") || strings.Contains(name, "mount") {
			lost += k
		}
	}
	for name, k := range n.parts.Sensor.Drops() {
		if !strings.HasPrefix(name, bpf.LineageDrops) {
			lost += k
		}
	}
	if lost == w.gaps || time.Since(w.scanned) < gapLeast {
		return
	}
	if err := n.service.BaselineRescan(ctx, false); err != nil {
		return
	}
	n.log.Warn("events of files were lost: all watched files are looked at", "lost", lost-min(lost, w.gaps))
	w.gaps, w.scanned = lost, time.Now()
}

// toldLate is the event of a change that a scan found.
func (n *Node) toldLate(t *integrity.Told) *event.Event {
	e := changeEvent(&t.Change, nil)
	e.Time, e.Boot = t.To, bpf.BootTime()
	e.Access.Operation = fmt.Sprintf("before %s", stampOf(t.To))
	if t.From != 0 {
		e.Access.Operation = fmt.Sprintf("between %s and %s", stampOf(t.From), stampOf(t.To))
	}
	return e
}

func stampOf(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000Z") }
