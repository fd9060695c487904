package sdk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	"github.com/omega-mesh/omega/modules/runner"
	"github.com/omega-mesh/omega/modules/sigma"
	"github.com/omega-mesh/omega/swarm/event"
)

// Result is how one test of a module went.
type Result struct {
	Test  string
	Want  []string
	Found []string // ids without the module's name before them
	Err   error    // what the module did wrong
}

// Passed says whether it found what it should, and nothing else.
func (r *Result) Passed() bool { return r.Err == nil && slices.Equal(r.Want, r.Found) }

// Check runs a module's own tests, each from a fresh start.
func Check(ctx context.Context, r *runner.Runner, b *bundle.Bundle) ([]Result, error) {
	var out []Result
	for i, t := range b.Manifest.Tests {
		one := Result{Test: t.Name, Want: t.Rules}
		m, err := r.Load(ctx, b)
		if err != nil {
			return nil, err
		}
		prefix := modules.RuleID(b.Manifest.Name, "")
		_, err = Run(ctx, m, bytes.NewReader(b.Recordings[i]), func(_ int, f event.Finding) error {
			one.Found = append(one.Found, strings.TrimPrefix(f.RuleID, prefix))
			return nil
		})
		if err != nil {
			one.Err = err
		} else {
			one.Err = m.Counts().Last
		}
		if err := m.Close(ctx); err != nil {
			return nil, fmt.Errorf("end the module: %w", err)
		}
		out = append(out, one)
	}
	return out, nil
}

// Run gives a module the events of a recording, as `omega detect` reads them, and emit what it finds, each with its line.
func Run(ctx context.Context, m *runner.Module, in io.Reader, emit func(line int, f event.Finding) error) (sigma.Summary, error) {
	return sigma.DetectLines(ctx, sigma.NewDetector(&sigma.Set{}), []modules.Detector{m}, in, emit)
}
