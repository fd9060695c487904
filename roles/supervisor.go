package roles

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/thejerf/suture/v4"
)

// Times of a supervisor.
const (
	// grantPoll is how often grants that end by time are looked at; changes by the authority are seen at once.
	grantPoll = time.Second
	// stopTimeout is how long a role may take to stop before the supervisor goes on without it.
	stopTimeout = 5 * time.Second
	// A role that fails more than failThreshold times (each failure forgotten over failDecay) is started again only after
	// failBackoff: a role that cannot work must not eat the host.
	failThreshold = 5
	failDecay     = 30 // seconds
	failBackoff   = 5 * time.Second
)

// SupervisorOptions say which duties this build can do.
type SupervisorOptions struct {
	Roles []Role
	Log   *slog.Logger // nil discards
}

// Supervisor runs those roles that this peer holds, and stops each when its grant is gone. A role that fails is
// started again, with backoff; one that panics takes nothing else down.
type Supervisor struct {
	peer   Peer
	duties []*duty
	log    *slog.Logger

	mu      sync.Mutex
	running map[string]suture.ServiceToken
}

// NewSupervisor makes a supervisor; nothing runs until Serve.
func NewSupervisor(p Peer, opt SupervisorOptions) *Supervisor {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Supervisor{peer: p, log: opt.Log, running: map[string]suture.ServiceToken{}}
	for _, r := range opt.Roles {
		s.duties = append(s.duties, &duty{role: r, peer: p})
	}
	return s
}

// Serve runs until ctx ends; it is a suture service. When it returns, every role has ended.
func (s *Supervisor) Serve(ctx context.Context) error {
	tree := suture.New("roles", suture.Spec{
		EventHook:        s.event,
		FailureThreshold: failThreshold,
		FailureDecay:     failDecay,
		FailureBackoff:   failBackoff,
		Timeout:          stopTimeout,
	})
	inner, stop := context.WithCancel(ctx)
	done := tree.ServeBackground(inner)
	ended := false
	defer func() {
		stop()
		if !ended {
			<-done
		}
		s.mu.Lock()
		clear(s.running)
		s.mu.Unlock()
	}()
	changes := s.peer.Changes(inner)
	tick := time.NewTicker(grantPoll)
	defer tick.Stop()
	for {
		if err := s.reconcile(tree); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-done:
			ended = true
			return fmt.Errorf("roles: the supervisor ended: %w", err)
		case _, ok := <-changes:
			if !ok {
				changes = nil // the tick goes on
			}
		case <-tick.C:
		}
	}
}

func (s *Supervisor) reconcile(tree *suture.Supervisor) error {
	for _, d := range s.duties {
		r := d.role
		s.mu.Lock()
		token, running := s.running[r.Name()]
		s.mu.Unlock()
		switch granted := s.peer.HasRole(s.peer.DID(), r.Name()); {
		case granted && !running:
			s.log.Info("role starts", "role", r.Name())
			token = tree.Add(d)
			s.mu.Lock()
			s.running[r.Name()] = token
			s.mu.Unlock()
		case !granted && running:
			s.log.Info("role stops", "role", r.Name())
			// Waiting keeps the promise that a role never runs twice at once when it is granted again.
			if err := tree.RemoveAndWait(token, stopTimeout); err != nil && !errors.Is(err, suture.ErrTimeout) {
				return fmt.Errorf("roles: stop %s: %w", r.Name(), err)
			} else if err != nil {
				s.log.Error("role does not stop", "role", r.Name(), "after", stopTimeout)
			}
			s.mu.Lock()
			delete(s.running, r.Name())
			s.mu.Unlock()
		}
	}
	return nil
}

// Running are the names of the roles that run now, sorted.
func (s *Supervisor) Running() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, 0, len(s.running))
	for name := range s.running {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (s *Supervisor) event(e suture.Event) {
	switch e := e.(type) {
	case suture.EventServicePanic:
		s.log.Error("role panicked", "role", e.ServiceName, "panic", e.PanicMsg, "stack", e.Stacktrace)
	case suture.EventServiceTerminate:
		if err, ok := e.Err.(error); !ok || !errors.Is(err, context.Canceled) {
			s.log.Warn("role failed and is started again", "role", e.ServiceName, "err", e.Err)
		}
	case suture.EventBackoff:
		s.log.Error("a role keeps failing", "wait", failBackoff)
	case suture.EventStopTimeout:
		s.log.Error("role does not stop", "role", e.ServiceName)
	}
}

// duty is a role as a suture service.
type duty struct {
	role Role
	peer Peer
	mu   sync.Mutex // a role that did not stop in time must end before it starts again
}

// Serve implements suture.Service.
func (d *duty) Serve(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.role.Run(ctx, d.peer)
	if err == nil && ctx.Err() == nil {
		return fmt.Errorf("role %s ended by itself", d.role.Name())
	}
	return err
}

// String names the role in the supervisor's events.
func (d *duty) String() string { return d.role.Name() }
