// Package policy says which findings may trigger which responses without asking a person.
package policy

import (
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Verdict is how far a finding may reach by itself.
type Verdict uint8

const (
	None       Verdict = iota // nothing happens
	Ask                       // a person decides
	Local                     // this host alone
	Everywhere                // every host
)

// Case is a finding with what the swarm knows about it.
type Case struct {
	Finding *event.Finding
	// DecoyRole says that the finding's author holds the role decoy.
	DecoyRole bool
	// Witnesses are the different peers that independently found the same address within Window, the author included.
	Witnesses int
	// Own says that the finding's author is this host.
	Own bool
}

// Decision is what the policy says of a case.
type Decision struct {
	Verdict Verdict
	TTL     time.Duration
	Reasons []string // ids of the policies that decided
}

// Engine is a compiled policy. It is immutable.
type Engine struct{}

// Default is the policy of a swarm that set none.
func Default() *Engine { return &Engine{} }

// Parse compiles Cedar text. The error says the line and what is wrong.
func Parse(text string) (*Engine, error) { return &Engine{}, nil }

// Decide is pure: the same case gives the same decision on every peer.
func (e *Engine) Decide(c Case) Decision { return Decision{} }
