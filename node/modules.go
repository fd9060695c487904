package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	"github.com/omega-mesh/omega/modules/runner"
	modulestore "github.com/omega-mesh/omega/modules/store"
	"github.com/omega-mesh/omega/node/api"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/rollout"
	"github.com/omega-mesh/omega/swarm/block"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/policy"
)

const (
	// moduleCountsEvery is how often the counts of what runs here are told while they change.
	moduleCountsEvery = 5 * time.Minute
	// maxModuleHosts bounds the members whose reports are remembered.
	maxModuleHosts = 8192
)

// A block of a module must fit into the protocol that brings it, and into nothing more.
var _ [block.MaxBlock]byte = [modules.MaxBlock]byte{}

// blocks is the store of modules as the swarm gives it out.
type blocks struct{ *modulestore.Store }

// Block implements block.Source.
func (b blocks) Block(sum [32]byte) ([]byte, bool) {
	data, err := b.Get(sum)
	return data, err == nil
}

func (n *Node) openModules() error {
	var err error
	if n.modules, err = modulestore.Open(n.layout.Modules(), int64(n.cfg.ModulesMiB)<<20, n.log); err != nil {
		return err
	}
	cache := n.layout.Compiled()
	if !filepath.IsAbs(cache) {
		cache = filepath.Join("/proc/self/cwd", cache) // wazero makes paths absolute, and what leads to the folder may be closed to this user
	}
	n.rollout, err = rollout.New(rollout.Options{
		Self: n.self.DID(), Labels: n.cfg.Labels, Releasers: n.cfg.ModuleReleasers,
		State: n.fold.State, Roles: func() []string { return n.fold.State().Roles(n.self.DID(), n.clock.now()) },
		Store: n.modules, Cache: cache, Failures: n.layout.ModuleFailures(),
		Services: runner.Services{Log: n.moduleLog, Indicator: n.lookFor},
		Fetch: func(ctx context.Context, names []block.Name, take func(block.Name, []byte) error) error {
			return n.swarm.Fetch(ctx, names, take)
		},
		Permit: n.permitModule, Now: n.clock.now, Log: n.log,
		Publish: func(ctx context.Context, f event.Finding) error { _, err := n.Publish(ctx, f); return err },
	})
	return err
}

// moduleLog is a line of a module's, which is another's text.
func (n *Node) moduleLog(module string, level modules.LogLevel, text string) {
	f := n.log.Debug
	switch level {
	case modules.LogInfo:
		f = n.log.Info
	case modules.LogWarn:
		f = n.log.Warn
	}
	f("module says", "module", module, "text", text)
}

// permitModule asks the policy whether a module may have what it asks for.
func (n *Node) permitModule(m *modules.Manifest, c modules.Capability) error {
	d := n.accessNow().Decide(policy.Call{Caller: policy.Module, ID: m.Name, Action: "module-" + string(c), Host: n.DID(), Active: true, Roles: n.fold.State().Roles(n.self.DID(), n.clock.now())})
	if !d.Allowed {
		return errors.New(d.String())
	}
	return nil
}

// checkDeployment refuses at once what the fold would leave without effect: the deployment of what is not released.
func (n *Node) checkDeployment(e *ledger.Entry) error {
	if e.Kind != ledger.KindModuleDeploy {
		return nil
	}
	body, err := authority.DecodeBody(e.Kind, e.Body)
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	if d, ok := body.(*authority.DeployBody); ok {
		return n.checkReleased(d)
	}
	return nil
}

func (n *Node) checkReleased(d *authority.DeployBody) error {
	if _, ok := n.fold.State().Released([32]byte(d.Module)); !ok {
		return fmt.Errorf("%w: %w: `omega module publish` releases it", api.ErrState, authority.ErrUnreleased)
	}
	return nil
}

// moduleHosts are the latest report of each member.
type moduleHosts struct {
	mu   sync.Mutex
	last map[string]*event.ModuleReport // by DID; values are never changed
}

func newModuleHosts() *moduleHosts { return &moduleHosts{last: map[string]*event.ModuleReport{}} }

func (h *moduleHosts) take(e *ledger.Entry) error {
	r, err := ledger.DecodeModules(e)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.last[r.Peer]; old == nil && len(h.last) < maxModuleHosts || old != nil && old.Time <= r.Time {
		h.last[r.Peer] = &r
	}
	return nil
}

// of are the states of one module, by host.
func (h *moduleHosts) of(id modules.ID) (out []*apiv1.ModuleHost) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for did, r := range h.last {
		for _, m := range r.Modules {
			if [32]byte(m.Module) == id {
				out = append(out, &apiv1.ModuleHost{Peer: did, State: m.State, Why: m.Why, Time: timestamppb.New(time.Unix(0, r.Time)),
					Events: m.Events, Findings: m.Findings, Traps: m.Traps, P99Ms: float64(m.P99) / 1e6})
			}
		}
	}
	slices.SortFunc(out, func(a, b *apiv1.ModuleHost) int { return strings.Compare(a.Peer, b.Peer) })
	return out
}

// reportModules tells the swarm what became of its modules here: at each change, and now and then the counts.
func (n *Node) reportModules(ctx context.Context) error {
	var said, counts string
	moved := n.rollout.Moved(ctx)
	tick := time.NewTicker(moduleCountsEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		r := event.ModuleReport{Time: n.clock.now().UnixNano()}
		outline := ""
		for _, m := range n.rollout.Modules() {
			if m.State == rollout.StateKept || m.State == rollout.StateFetching || len(r.Modules) >= event.MaxModuleStates {
				continue
			}
			r.Modules = append(r.Modules, event.ModuleState{Module: m.ID[:], State: string(m.State), Why: redact.Printable(m.Why, 100),
				Events: m.Counts.Events, Findings: m.Counts.Findings, Traps: m.Counts.Traps, P99: uint64(m.Counts.P99)})
			outline += fmt.Sprint(m.ID, m.State, m.Why)
		}
		now := fmt.Sprint(r.Modules)
		if outline != said || counts != now && !first {
			body, err := ledger.EncodeModules(&r)
			if err == nil {
				_, err = n.append(ctx, ledger.KindModules, body, false)
			}
			if err != nil && ctx.Err() == nil {
				n.log.Warn("what became of the modules here was not told", "err", err)
			}
			said, counts = outline, now
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		case <-tick.C:
		}
	}
}

// AddModule implements api.Backend.
func (b backend) AddModule(ctx context.Context, in io.Reader) (*apiv1.AddModuleResponse, error) {
	m, err := bundle.Read(in)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	id, err := b.modules.Add(m)
	if errors.Is(err, modulestore.ErrFull) {
		return nil, fmt.Errorf("%w: %w: raise modules_mib", api.ErrState, err)
	}
	if err != nil {
		return nil, err
	}
	return &apiv1.AddModuleResponse{Cid: id.String(), Digest: id[:], Name: m.Manifest.Name, Version: m.Manifest.Version}, nil
}

// Modules implements api.Backend.
func (b backend) Modules(_ context.Context, want string) ([]*apiv1.Module, error) {
	var out []*apiv1.Module
	s, now := b.fold.State(), b.clock.now()
	roles := s.Roles(b.self.DID(), now)
	for _, m := range b.rollout.Modules() {
		name, version := m.Name()
		if want != "" && want != name && want != m.ID.String() {
			continue
		}
		row := &apiv1.Module{
			Cid: m.ID.String(), Digest: m.ID[:], Name: name, Version: version, Bytes: uint64(m.Bytes), Root: m.Release.Root, State: string(m.State), Why: m.Why,
			Events: m.Counts.Events, Findings: m.Counts.Findings, Dropped: m.Counts.Dropped, Traps: m.Counts.Traps,
			MeanMs: float64(m.Counts.Mean()) / 1e6, P99Ms: float64(m.Counts.P99) / 1e6, Hosts: b.moduleHosts.of(m.ID),
		}
		for _, h := range row.Hosts {
			h.Host = b.MemberName(h.Peer)
		}
		for _, by := range m.Release.By {
			row.ReleasedBy = append(row.ReleasedBy, string(by.DID))
			if t := timestamppb.New(by.ReleasedAt); row.Released == nil || t.AsTime().Before(row.Released.AsTime()) {
				row.Released = t
			}
		}
		if f := m.Manifest; f != nil {
			row.Kind, row.Title, row.Attack, row.Author, row.Size = string(f.Kind), f.Title, f.Attack, f.Author, uint64(f.Size)
			row.Builder, row.SourceSha256, row.Reproducible = f.Provenance.Builder, fmt.Sprintf("%x", f.Provenance.Source), f.Provenance.Reproducible
			for _, c := range f.Capabilities {
				row.Capabilities = append(row.Capabilities, string(c))
			}
		}
		for _, d := range m.Deployments {
			one := &apiv1.Deployment{Entry: d.Entry, Roles: d.Roles, Labels: d.Labels, Share: uint32(d.Share), Shadow: d.Shadow, Why: d.Why, By: string(d.By),
				Time: timestamppb.New(d.At), Here: d.Matches(b.self.DID(), roles, b.cfg.Labels)}
			for _, p := range d.Peers {
				one.Peers = append(one.Peers, b.nameOf(p))
			}
			row.Deployments = append(row.Deployments, one)
		}
		if d := m.Difference; d != nil {
			row.Shadow = &apiv1.ShadowDifference{Both: d.Both, Shadow: d.Shadow, Live: d.Live, Examples: d.Examples}
		}
		out = append(out, row)
	}
	if want != "" && len(out) == 0 {
		return nil, fmt.Errorf("%w: no released module %.80q", api.ErrNotFound, want)
	}
	return out, nil
}
