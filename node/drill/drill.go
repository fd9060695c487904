package drill

import (
	"context"
	"errors"
	"io"

	"github.com/omega-mesh/omega/node/testnet"
)

// Options say which drill, where, and how it is shown.
type Options struct {
	Scenario string       // empty is "default"
	Nodes    int          // members; 0 is testnet.DefaultNodes
	Mode     testnet.Mode // auto unless set
	Dir      string       // as testnet.Options.Dir
	Binary   string       // as testnet.Options.Binary
	Out      io.Writer    // the story and the table; nil shows nothing
	Progress io.Writer    // what is being done; nil shows nothing
	Color    bool         // ANSI colours and live lines on Out
	// Stay is called once the drill is over and the swarm still up; it returns when it may go.
	Stay func(ctx context.Context, net *testnet.Net, r *Result)
}

// Step is one thing the attacker did and what the swarm made of it.
type Step struct {
	Technique string  `json:"technique"` // ATT&CK id
	Host      string  `json:"host"`
	Detected  bool    `json:"detected"`
	Rule      string  `json:"rule"`
	DetectMS  float64 `json:"detect_ms"`
	Name      string  `json:"name"`
}

// Spread is a distribution over hosts, in milliseconds.
type Spread struct {
	Min float64 `json:"min"`
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Result is what `omega drill --json` prints.
type Result struct {
	Scenario    string `json:"scenario"`
	Nodes       int    `json:"nodes"`
	Steps       []Step `json:"steps"`
	BlockedOn   int    `json:"blocked_on"`
	ImmunityMS  Spread `json:"immunity_ms"`
	FalseBlocks int    `json:"false_blocks"`
}

// ErrFailed says that the drill ran, and that not every host refused the attacker.
var ErrFailed = errors.New("the drill failed")

// Run builds a testnet, runs the scenario, and removes the testnet again. The Result is valid also with ErrFailed.
func Run(ctx context.Context, opt Options) (*Result, error) { return nil, errors.ErrUnsupported }
