package bpf

import (
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// An inbound connection is established before anybody accepts it. It is told when accept() has given it to a process; one
// that nobody takes within acceptWait, or that is closed before, or that is taken by io_uring, is told as the listener's, and its close as theirs who took it.
const (
	acceptWait = 200 * time.Millisecond
	maxAccepts = 512 // connections that wait for it: with more, the oldest is told at once
)

// waiting is an established connection that nobody has accepted yet.
type waiting struct {
	cookie  uint64
	boot    uint64
	time    int64
	network event.Network
}

// accepts are those that wait, oldest first.
type accepts struct {
	queue []waiting
	one   event.Event // room for one, so that none is made for each
}

func (a *accepts) take(cookie uint64) (w waiting, ok bool) {
	for i := range a.queue {
		if a.queue[i].cookie == cookie {
			w = a.queue[i]
			a.queue = append(a.queue[:i], a.queue[i+1:]...)
			return w, true
		}
	}
	return waiting{}, false
}

// accepted says whether e, read from an accept's record, is to be told now.
func (s *RingSensor) accepted(b []byte, e *event.Event, out func(*event.Event)) bool {
	cookie := networkOf(b).Cookie
	if e.Process.Key.PID != 0 {
		w, ok := s.accepts.take(cookie)
		e.Network = w.network
		return ok // else it was told already
	}
	if cookie == 0 {
		return true
	}
	if len(s.accepts.queue) >= maxAccepts {
		s.unaccepted(s.accepts.queue[0], out)
		s.accepts.take(s.accepts.queue[0].cookie)
	}
	s.accepts.queue = append(s.accepts.queue, waiting{cookie, e.Boot, e.Time, e.Network})
	return false
}

// closing tells of the connection that ends before anybody accepted it.
func (s *RingSensor) closing(b []byte, e *event.Event, out func(*event.Event)) {
	if !e.Network.Inbound || len(s.accepts.queue) == 0 {
		return
	}
	if w, ok := s.accepts.take(networkOf(b).Cookie); ok {
		s.unaccepted(w, out)
	}
}

// overdue tells of those that waited long enough.
func (s *RingSensor) overdue(out func(*event.Event)) {
	if len(s.accepts.queue) == 0 {
		return
	}
	before := BootTime() - uint64(acceptWait)
	n := 0
	for n < len(s.accepts.queue) && s.accepts.queue[n].boot < before {
		s.unaccepted(s.accepts.queue[n], out)
		n++
	}
	s.accepts.queue = append(s.accepts.queue[:0], s.accepts.queue[n:]...)
}

// unaccepted tells of w as the listener's.
func (s *RingSensor) unaccepted(w waiting, out func(*event.Event)) {
	e := &s.accepts.one
	*e = event.Event{Sensor: "kernel", Boot: w.boot, Time: w.time, Class: event.ClassNetwork, Activity: event.ActivityAccept, Network: w.network}
	s.names.nameOf(e)
	s.enrich(e)
	out(e)
}
