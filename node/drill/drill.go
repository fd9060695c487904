package drill

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"

	"github.com/omega-mesh/omega/node/testnet"
)

// Options say which drill, where, and how it is shown.
type Options struct {
	Scenario string       // empty is "default"
	Nodes    int          // members, 2 or more; 0 is testnet.DefaultNodes
	Mode     testnet.Mode // auto unless set
	Dir      string       // as testnet.Options.Dir
	Binary   string       // as testnet.Options.Binary; it must know the hidden command `drill helper`
	Out      io.Writer    // the story and the table; nil shows nothing
	Progress func(string) // what is being done, in a few words; nil shows nothing
	Color    bool         // ANSI colours and live lines on Out
	// Stay, if set, is called once the drill is over and the swarm still up; it returns when the swarm may go.
	Stay func(ctx context.Context, net *testnet.Net, r *Result)
}

// Step is one thing the attacker did and what the swarm made of it.
type Step struct {
	Technique string  `json:"technique"` // ATT&CK id
	Host      string  `json:"host"`
	Detected  bool    `json:"detected"`
	Rule      string  `json:"rule"`
	DetectMS  float64 `json:"detect_ms"` // from the attacker's first packet or system call until a member shows the finding
	Name      string  `json:"name"`      // what was done, in words
	Refused   bool    `json:"refused"`   // the kernel kept it from succeeding
}

// Spread is a distribution over hosts, in milliseconds. Percentiles are nearest-rank: with few hosts p99 is the slowest.
type Spread struct {
	Min float64 `json:"min"`
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// HostResult is what became of the attacker on one host.
type HostResult struct {
	Host       string   `json:"host"`
	Blocked    bool     `json:"blocked"`     // its kernel says so and real packets agree, both ways
	HeardMS    float64  `json:"heard_ms"`    // until the finding reached this host
	ImmunityMS float64  `json:"immunity_ms"` // until its kernel refused; 0 where it never acted
	Means      []string `json:"means"`
	Inbound    string   `json:"inbound"`  // what became of a connect from the attacker
	Outbound   string   `json:"outbound"` // what became of a connect to the attacker
}

// Result is what `omega drill --json` prints.
type Result struct {
	Scenario    string       `json:"scenario"`
	Nodes       int          `json:"nodes"`
	Steps       []Step       `json:"steps"`
	BlockedOn   int          `json:"blocked_on"`
	ImmunityMS  Spread       `json:"immunity_ms"`
	FalseBlocks int          `json:"false_blocks"`
	Mode        testnet.Mode `json:"mode"`
	Hosts       []HostResult `json:"hosts"`
	ReadyMS     float64      `json:"ready_ms"`           // from nothing to a synced swarm
	Unforced    []string     `json:"unforced,omitempty"` // what this mode could not enforce
	Notes       []string     `json:"notes,omitempty"`    // what went against expectation
}

// Errors a caller may decide on.
var (
	// ErrFailed says that the drill ran, and that the swarm did not do what it is for.
	ErrFailed = errors.New("the drill failed")
	// ErrScenario says that there is no such scenario.
	ErrScenario = errors.New("no such scenario; there is: default")
)

// Run builds a testnet, runs the scenario, and removes the testnet again. The Result is valid also with ErrFailed.
// In process mode, where nothing can be refused and loopback addresses are no strangers, all that is asked for is that
// the decoy is heard.
func Run(ctx context.Context, opt Options) (_ *Result, err error) {
	if opt.Scenario == "" {
		opt.Scenario = "default"
	}
	if opt.Scenario != "default" {
		return nil, ErrScenario
	}
	if opt.Nodes == 0 {
		opt.Nodes = testnet.DefaultNodes
	}
	if opt.Nodes < 2 {
		return nil, errors.New("a drill needs at least 2 nodes: the decoy is on n2")
	}
	if opt.Progress == nil {
		opt.Progress = func(string) {}
	}
	began := bootTime()
	net, err := testnet.Up(ctx, testnet.Options{Nodes: opt.Nodes, Mode: opt.Mode, Dir: opt.Dir, Binary: opt.Binary, Progress: opt.Progress})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, net.Close()) }()

	d := &drill{net: net, state: net.State(), progress: opt.Progress, screen: screen{out: opt.Out, ansi: opt.Color}}
	if opt.Out != nil {
		d.progress = func(string) {} // the story tells it
	}
	d.result = Result{Scenario: opt.Scenario, Nodes: opt.Nodes, Mode: net.Mode(), ReadyMS: sinceMS(began), Unforced: d.state.Unforced}
	if err := d.run(ctx); err != nil {
		return &d.result, err
	}
	d.table()
	if opt.Stay != nil {
		opt.Stay(ctx, net, &d.result)
	}
	if !d.passed() {
		return &d.result, ErrFailed
	}
	return &d.result, nil
}

// spread sums up; it is zero for nothing.
func spread(ms []float64) Spread {
	if len(ms) == 0 {
		return Spread{}
	}
	s := slices.Sorted(slices.Values(ms))
	rank := func(p float64) float64 { return s[max(0, int(math.Ceil(p*float64(len(s))))-1)] }
	return Spread{Min: s[0], P50: rank(0.50), P99: rank(0.99), Max: s[len(s)-1]}
}

func (d *drill) passed() bool {
	for _, s := range d.result.Steps {
		if !s.Detected && (d.net.Mode() == testnet.ModeNetns || s.Technique == techniqueTouch) {
			return false
		}
		if s.Technique == techniqueShell && !s.Refused && d.net.Mode() == testnet.ModeNetns {
			return false
		}
	}
	if d.result.FalseBlocks > 0 {
		return false
	}
	return d.net.Mode() == testnet.ModeProcess || d.result.BlockedOn == d.result.Nodes
}
