// Package sentinel watches this host and acts for the swarm on it: detectors turn events into findings, and the
// responder folds the findings of all peers through the response policy and acts at once in this host's own kernel.
package sentinel

import (
	"context"
	"log/slog"

	"github.com/omega-mesh/omega/roles"
)

// Options of a sentinel; the zero value of each but Board is a sound default.
type Options struct {
	// Board is where responses are shown; required.
	Board *roles.Board
	Log   *slog.Logger
}

// Sentinel is the role.
type Sentinel struct{}

// New makes the role.
func New(opt Options) *Sentinel { return &Sentinel{} }

// Name implements roles.Role.
func (s *Sentinel) Name() string { return roles.NameSentinel }

// Run implements roles.Role.
func (s *Sentinel) Run(ctx context.Context, p roles.Peer) error { <-ctx.Done(); return ctx.Err() }

// Counts are counters by name: events seen, findings made, aggregated and dropped, responses done and held back.
func (s *Sentinel) Counts() map[string]uint64 { return nil }
