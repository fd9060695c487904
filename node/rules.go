package node

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/pack"
	"github.com/omega-mesh/omega/modules/sigma"
	"github.com/omega-mesh/omega/roles/sentinel"
)

// rules are what events are matched with beside the sentinel's own detectors: the pack that comes with the program, and the
// Sigma rules of this host's own files, read once at start.
type rules struct {
	pack *pack.Pending // nil where it is switched off
	set  *sigma.Set    // nil without any
}

// loadRules reads the folders and files of paths, if there are any. A rule that cannot be used is said and left out: a
// host whose detections are one short still watches with the rest.
func loadRules(own bool, paths []string, log *slog.Logger) (*rules, error) {
	r := &rules{}
	if own {
		r.pack = pack.Begin()
	}
	if len(paths) == 0 {
		return r, nil
	}
	set, err := sigma.Load(context.Background(), sigma.Options{}, paths...)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	for _, f := range set.Rejected {
		log.Warn("rule not used", "file", f.File, "why", f.Why)
	}
	log.Info("rules", "loaded", set.Loaded(), "not_applicable", len(set.NotApplicable), "rejected", len(set.Rejected))
	r.set = set
	return r, nil
}

// detectors are those of this build, for an agent that is own, and the rules after them.
func (r *rules) detectors(own sentinel.Own) []modules.Detector {
	all := sentinel.Builtin(own)
	if r.pack != nil {
		all = append(all, r.pack)
	}
	if r.set != nil {
		all = append(all, sigma.NewDetector(r.set))
	}
	return all
}

// close ends what the pack started.
func (r *rules) close() error {
	if r.pack == nil {
		return nil
	}
	return r.pack.Close(context.Background())
}

// check is the doctor's line.
func (r *rules) check() (ok bool, detail, lost string) {
	if r.set == nil {
		return true, "none of this host's own: set rules", ""
	}
	detail = fmt.Sprintf("%d of %d loaded, %d not applicable here", r.set.Loaded(), r.set.Total(), len(r.set.NotApplicable))
	if n := len(r.set.Rejected); n > 0 {
		return false, detail, fmt.Sprintf("what %d rejected rules would find, such as %s: %s", n, r.set.Rejected[0].File, r.set.Rejected[0].Why)
	}
	return true, detail, ""
}
