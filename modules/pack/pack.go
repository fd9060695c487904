package pack

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	"github.com/omega-mesh/omega/modules/runner"
	"github.com/omega-mesh/omega/modules/sigma"
	"github.com/omega-mesh/omega/swarm/event"
)

//go:embed rules/*/*.yml rules/*/*.lua rules/*/*.wasm
var files embed.FS

// maxConfidence of a finding that names an address: what the pack says never refuses an address by itself, here or with
// another witness.
const maxConfidence = 50

// fuel of a module of the pack, on one event.
const fuel = 8 << 20

// Detector is the whole pack. One value serves one goroutine.
type Detector struct {
	sigma   *sigma.Detector
	gates   map[string]*gate // by the id of the rule that is its gate
	runner  *runner.Runner
	context context.Context // of the call at hand
	event   *event.Event
	emit    func(event.Finding)
	batch   [1]*event.Event
	hit     func(*sigma.Rule)
	err     error
}

// gate is a module that is asked about what a rule lets through.
type gate struct {
	rule   string
	file   string // of its code, beside the rule's
	kind   modules.Kind
	module *runner.Module
	failed error
}

// New reads the pack. Engines are not started yet.
func New(ctx context.Context) (*Detector, error) {
	set, err := sigma.LoadFS(ctx, sigma.Options{}, files)
	if err != nil {
		return nil, fmt.Errorf("detections of this build: %w", err)
	}
	for _, bad := range append(set.Rejected, set.NotApplicable...) {
		return nil, fmt.Errorf("detections of this build: %s: %s", bad.File, bad.Why)
	}
	d := &Detector{sigma: sigma.NewDetector(set), gates: map[string]*gate{}}
	d.sigma.Release()
	d.hit = d.matched
	for _, r := range set.Rules {
		g, err := gateOf(r)
		if err != nil {
			return nil, fmt.Errorf("detections of this build: %s: %w", r.File, err)
		}
		if g != nil {
			d.gates[r.ID] = g
		}
	}
	return d, nil
}

// Pending is the pack while it is read beside whoever asked for it.
type Pending struct {
	done chan struct{}
	pack *Detector
	err  error
}

// Begin reads the pack in the background; that ends by itself within moments. The first call of Detect waits for it.
func Begin() *Pending {
	p := &Pending{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.pack, p.err = New(context.Background())
	}()
	return p
}

// Detect implements modules.Detector.
func (p *Pending) Detect(ctx context.Context, batch []*event.Event, emit func(event.Finding)) error {
	<-p.done
	if p.err != nil {
		return p.err
	}
	return p.pack.Detect(ctx, batch, emit)
}

// Close ends the engines.
func (p *Pending) Close(ctx context.Context) error {
	<-p.done
	if p.err != nil {
		return nil
	}
	return p.pack.Close(ctx)
}

// gateOf is the module behind a rule; nil where there is none. The ending of the code's name says which engine it is for.
func gateOf(r *sigma.Rule) (*gate, error) {
	text, err := files.ReadFile(r.File)
	if err != nil {
		return nil, err
	}
	at := strings.Index(string(text), "\nengine: ")
	if at < 0 {
		return nil, nil
	}
	var d struct{ Engine, Code string }
	if err := yaml.Unmarshal(text[at:], &d); err != nil {
		return nil, err
	}
	g := &gate{rule: r.ID, file: path.Join(path.Dir(r.File), d.Code), kind: modules.Kind(d.Engine)}
	if _, err := files.Open(g.file); err != nil {
		return nil, err
	}
	return g, nil
}

// Detect implements modules.Detector. Its error is that of a module that failed: the rules saw the event all the same.
func (d *Detector) Detect(ctx context.Context, batch []*event.Event, emit func(event.Finding)) error {
	d.context, d.emit, d.err = ctx, emit, nil
	for _, e := range batch {
		d.event = e
		d.sigma.Event(e, d.hit)
	}
	d.context, d.emit, d.event = nil, nil, nil
	return errors.Join(d.err, ctx.Err())
}

func (d *Detector) matched(r *sigma.Rule) {
	g := d.gates[r.ID]
	if g == nil {
		d.found(d.sigma.Finding(r, d.event))
		return
	}
	if g.module == nil && g.failed == nil {
		if g.failed = d.start(g); g.failed != nil {
			d.err = errors.Join(d.err, g.failed) // said once
		}
	}
	if g.module == nil {
		return
	}
	d.batch[0] = d.event
	err := g.module.Detect(d.context, d.batch[:], func(f event.Finding) {
		f.RuleID = g.rule // it is this build's own, and has no module's name
		d.found(f)
	})
	d.batch[0] = nil
	if err != nil && !errors.Is(err, runner.ErrDisabled) {
		d.err = errors.Join(d.err, err)
	}
}

func (d *Detector) found(f event.Finding) {
	if f.Subject.Address.IsValid() {
		f.Confidence = min(f.Confidence, maxConfidence)
	}
	d.emit(f)
}

// start makes a gate's module run, and its engine if it is the first.
func (d *Detector) start(g *gate) (err error) {
	code, err := files.ReadFile(g.file)
	if err != nil {
		return err
	}
	if d.runner == nil {
		if d.runner, err = runner.New(context.WithoutCancel(d.context), "", runner.Services{}); err != nil {
			return err
		}
	}
	m := modules.Manifest{Name: g.rule, Version: "1.0.0", Kind: g.kind, ABI: 1, Limits: modules.Limits{Fuel: fuel}}
	if g.kind == modules.KindLua {
		m.Capabilities = []modules.Capability{modules.CapabilityClock, modules.CapabilityState}
	}
	b, err := bundle.New(m, code, nil)
	if err != nil {
		return err
	}
	g.module, err = d.runner.Load(context.WithoutCancel(d.context), b)
	return err
}

// Close ends the engines.
func (d *Detector) Close(ctx context.Context) error {
	if d.runner == nil {
		return nil
	}
	return d.runner.Close(ctx)
}
