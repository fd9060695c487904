package sigma

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Other engines are no part of this binary: a program beside it holds them, and this one, against the same rules and events.
const (
	peersProgram = "omega-sigma-peers"
	peersTime    = 2 * time.Minute
)

// peerBenchmarks are how many times the time of this engine the others take.
func peerBenchmarks() []event.Benchmark {
	run := sync.OnceValues(runPeers)
	var all []event.Benchmark
	for _, name := range []string{"sigma-go v0.6.6", "go-sigma-rule-engine v0.3.0"} {
		all = append(all, event.Benchmark{Name: "modules/sigma/" + strings.ReplaceAll(name, " ", "-"), Unit: "times ours", Limit: 30, HigherIsBetter: true, Measure: func() (float64, error) {
			took, err := run()
			if err != nil {
				return 0, err
			}
			if took["omega"] <= 0 || took[name] <= 0 {
				return 0, fmt.Errorf("%s did not measure %s", peersProgram, name)
			}
			return took[name] / took["omega"], nil
		}})
	}
	return all
}

// runPeers gives the nanoseconds an event cost each engine.
func runPeers() (map[string]float64, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(filepath.Dir(self), peersProgram)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("other engines are no part of this binary: \"make bench\" builds %s beside it", peersProgram)
	}
	ctx, cancel := context.WithTimeout(context.Background(), peersTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, path).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("%s: %w: %s", path, err, bytes.TrimSpace(exit.Stderr))
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	took := map[string]float64{}
	for line := range bytes.Lines(out) {
		var r struct {
			Engine string  `json:"engine"`
			Nanos  float64 `json:"ns"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		took[r.Engine] = r.Nanos
	}
	return took, nil
}
