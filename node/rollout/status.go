package rollout

import (
	"slices"
	"strings"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/runner"
	"github.com/omega-mesh/omega/trust/authority"
)

// State is what becomes of a module on this host.
type State string

// States.
const (
	StateKept     State = "kept"     // here whole; it does not run here
	StateFetching State = "fetching" // not here whole
	StateRunning  State = "running"
	StateShadow   State = "shadow"
	StateStopped  State = "stopped" // it failed here, or was refused
)

// Module is what this host knows of one released module.
type Module struct {
	ID          modules.ID
	Manifest    *modules.Manifest // nil while its root is not here
	Bytes       int64
	Release     authority.ModuleRelease
	Deployments []authority.Deployment // everywhere
	State       State
	Why         string // of StateStopped and StateFetching
	Counts      runner.Counts
	Difference  *Difference // of a shadow
}

// Modules are all that are released, by name, version and id.
func (r *Rollout) Modules() []Module {
	s := r.opt.State()
	kept := map[modules.ID]Module{}
	for _, e := range r.opt.Store.List() {
		m := Module{ID: e.ID, Manifest: e.Manifest, Bytes: e.Bytes, State: StateFetching}
		if e.Complete {
			m.State = StateKept
		}
		kept[e.ID] = m
	}
	var out []Module
	for _, rel := range s.ModuleReleases() {
		m := kept[rel.Module]
		if m.ID, m.Release = rel.Module, rel; m.State == "" {
			m.State = StateFetching
		}
		for _, d := range s.Deployments() {
			if d.Module == rel.Module {
				m.Deployments = append(m.Deployments, d)
			}
		}
		r.fill(&m)
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Module) int { return strings.Compare(a.key(), b.key()) })
	return out
}

func (m *Module) key() string {
	name, version := m.Name()
	return name + "\x00" + version + "\x00" + m.ID.String()
}

// Name is what the manifest says, or while that is not here whoever released it.
func (m *Module) Name() (name, version string) {
	if m.Manifest != nil {
		return m.Manifest.Name, m.Manifest.Version
	}
	for _, by := range m.Release.By {
		return by.Name, by.Version
	}
	return m.Release.RootName, ""
}

// fill says how the module does here.
func (r *Rollout) fill(m *Module) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err, ok := r.fetching[m.ID]; ok && err != nil && m.State == StateFetching {
		m.Why = err.Error()
	}
	for _, d := range m.Deployments {
		if f, ok := r.failures[d.Entry]; ok {
			m.State, m.Why = StateStopped, f.Why
		}
	}
	for _, x := range r.running {
		if x.module.ID != m.ID || x.off.Load() {
			continue
		}
		m.Counts = x.module.Counts()
		if m.State, m.Why = StateRunning, ""; x.shadow {
			d := x.difference()
			m.State, m.Difference = StateShadow, &d
		}
	}
}
