// Package decoy serves what nobody has a reason to touch, so that any touch of it is a finding.
package decoy

import (
	"context"
	"log/slog"

	"github.com/omega-mesh/omega/roles"
)

// Options of a decoy.
type Options struct {
	// Services are what is served: "tcp/2323" or "telnet@2323".
	Services []string
	// Bind is the address listened on; empty is every one.
	Bind string
	Log  *slog.Logger
}

// Service is one decoy service as it stands.
type Service struct {
	Name    string // "tcp/2323", as findings name it
	Port    uint16
	State   string // "stopped", "listening", or why it does not listen
	Touches uint64
	Dropped uint64 // connections closed unread because a bound was reached
}

// Decoy is the role.
type Decoy struct{}

// New checks the services and makes the role.
func New(opt Options) (*Decoy, error) { return &Decoy{}, nil }

// Name implements roles.Role.
func (d *Decoy) Name() string { return roles.NameDecoy }

// Run implements roles.Role.
func (d *Decoy) Run(ctx context.Context, p roles.Peer) error { <-ctx.Done(); return ctx.Err() }

// Services lists the services in the order they were named.
func (d *Decoy) Services() []Service { return nil }
