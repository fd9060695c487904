package rollout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/omega-mesh/omega/swarm/event/redact"
	"github.com/omega-mesh/omega/trust/authority"
)

// What failed is remembered over a restart: a module that traps must not cost three events after each.

// maxFailureFile bounds the file before it is parsed, maxFailures the lines in it.
const (
	maxFailureFile = 1 << 20
	maxFailures    = 1024
	maxWhy         = 256
)

func readFailures(path string) (map[string]Failure, error) {
	out := map[string]Failure{}
	if path == "" {
		return out, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFailureFile))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

func (r *Rollout) failure(entry string) (Failure, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.failures[entry]
	return f, ok
}

// fail notes why a deployment does not run here any more; it is false where that is known.
func (r *Rollout) fail(entry, why string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.failures[entry]; known || len(r.failures) >= maxFailures {
		return false
	}
	r.failures[entry] = Failure{redact.Printable(why, maxWhy), r.opt.Now().UTC()}
	r.save()
	r.move()
	return true
}

// prune forgets what was deployed anew, or not at all any more.
func (r *Rollout) prune(deployments []authority.Deployment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.failures)
	for entry := range r.failures {
		if !slices.ContainsFunc(deployments, func(d authority.Deployment) bool { return d.Entry == entry }) {
			delete(r.failures, entry)
		}
	}
	if len(r.failures) != before {
		r.save()
	}
}

// save writes the file, whole or not at all. The caller holds mu.
func (r *Rollout) save() {
	if r.opt.Failures == "" {
		return
	}
	raw, err := json.Marshal(r.failures)
	if err == nil {
		err = os.WriteFile(r.opt.Failures+".new", raw, 0o600)
	}
	if err == nil {
		err = os.Rename(r.opt.Failures+".new", r.opt.Failures)
	}
	if err != nil {
		r.opt.Log.Warn("that a module failed is not kept over a restart", "err", err)
	}
}
