package node

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/sigma"
	"github.com/omega-mesh/omega/roles/sentinel"
)

// rules are the Sigma rules of this host's own files, read once at start.
type rules struct{ set *sigma.Set }

// loadRules reads the folders and files of paths; nil if there are none. A rule that cannot be used is said and left out:
// a host whose detections are one short still watches with the rest.
func loadRules(paths []string, log *slog.Logger) (*rules, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	set, err := sigma.Load(context.Background(), sigma.Options{}, paths...)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	for _, f := range set.Rejected {
		log.Warn("rule not used", "file", f.File, "why", f.Why)
	}
	log.Info("rules", "loaded", set.Loaded(), "not_applicable", len(set.NotApplicable), "rejected", len(set.Rejected))
	return &rules{set: set}, nil
}

// detectors are those of this build, and the rules after them.
func (r *rules) detectors() []modules.Detector {
	all := sentinel.Builtin()
	if r != nil {
		all = append(all, sigma.NewDetector(r.set))
	}
	return all
}

// check is the doctor's line.
func (r *rules) check() (ok bool, detail, lost string) {
	if r == nil {
		return true, "none of this host's own: set rules", ""
	}
	detail = fmt.Sprintf("%d of %d loaded, %d not applicable here", r.set.Loaded(), r.set.Total(), len(r.set.NotApplicable))
	if n := len(r.set.Rejected); n > 0 {
		return false, detail, fmt.Sprintf("what %d rejected rules would find, such as %s: %s", n, r.set.Rejected[0].File, r.set.Rejected[0].Why)
	}
	return true, detail, ""
}
