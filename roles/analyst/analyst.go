// Package analyst correlates the findings of all peers into incidents, and proposes what the policy wants asked.
package analyst

import (
	"context"
	"log/slog"

	"github.com/omega-mesh/omega/roles"
)

// Options of an analyst.
type Options struct {
	// Board is where proposals wait for a person; required.
	Board *roles.Board
	Log   *slog.Logger
}

// Analyst is the role.
type Analyst struct{}

// New makes the role.
func New(opt Options) *Analyst { return &Analyst{} }

// Name implements roles.Role.
func (a *Analyst) Name() string { return roles.NameAnalyst }

// Run implements roles.Role.
func (a *Analyst) Run(ctx context.Context, p roles.Peer) error { <-ctx.Done(); return ctx.Err() }
