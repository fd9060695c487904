package wasm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/wasm/meter"
)

// What a guest did wrong. Each is wrapped by what Detect returns.
var (
	// ErrFuel: it used up its fuel. The instance goes on with the next batch.
	ErrFuel = errors.New("the guest ran out of fuel")
	// ErrTrap: it did what no program may: it read past its memory, divided by zero, called itself without end.
	ErrTrap = errors.New("the guest trapped")
	// ErrOutput: what it gave back is not what the contract says.
	ErrOutput = errors.New("the guest gave back what is no list of findings")
)

// Names of the contract, version 1.
const (
	exportABI    = "omega_abi_v1"
	exportAlloc  = "omega_alloc"
	exportDetect = "omega_detect"
	exportInit   = "_initialize"
	exportMemory = "memory"
)

const page = 64 << 10

// Engine runs WASM modules. One engine holds one wazero runtime; it is safe for concurrent use.
type Engine struct {
	runtime wazero.Runtime
	cache   wazero.CompilationCache
}

// New starts an engine. Compiled code is kept in the folder cache, named by what was compiled and by wazero's own
// version, so that a module is compiled once a host; whoever can write there can run code in this process. Empty keeps
// it in memory.
func New(ctx context.Context, cache string) (*Engine, error) {
	e := &Engine{}
	var err error
	if cache != "" {
		if e.cache, err = wazero.NewCompilationCacheWithDir(cache); err != nil {
			return nil, fmt.Errorf("cache of compiled modules: %w", err)
		}
	}
	config := wazero.NewRuntimeConfigCompiler().
		WithCoreFeatures(api.CoreFeaturesV2.SetEnabled(api.CoreFeatureSIMD, false)).
		WithMemoryLimitPages(modules.MaxMemory / page).
		WithDebugInfoEnabled(false)
	if e.cache != nil {
		config = config.WithCompilationCache(e.cache)
	}
	e.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	if err := errors.Join(instantiateHost(ctx, e.runtime), instantiateWASI(ctx, e.runtime)); err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	return e, nil
}

// Kind implements modules.Engine.
func (*Engine) Kind() modules.Kind { return modules.KindWASM }

// Close ends every program and instance of this engine.
func (e *Engine) Close(ctx context.Context) error {
	err := e.runtime.Close(ctx)
	if e.cache != nil {
		err = errors.Join(err, e.cache.Close(ctx))
	}
	return err
}

// needs says which capability an import of module "omega" takes.
var needs = map[string]modules.Capability{
	"log": modules.CapabilityLog, "now": modules.CapabilityClock, "state_get": modules.CapabilityState, "state_put": modules.CapabilityState,
	"indicator": modules.CapabilityIndicators, "reputation": modules.CapabilityReputation,
}

// Compile implements modules.Engine.
func (e *Engine) Compile(ctx context.Context, m *modules.Manifest, payload []byte) (modules.Program, error) {
	refuse := func(err error) error { return fmt.Errorf("%w: %s: %w", modules.ErrRefused, m.Name, err) }
	limits := m.Limits.Effective()
	metered, err := meter.Rewrite(payload, meter.Options{Start: int64(limits.Fuel), Memory: limits.Memory / page})
	if err != nil {
		return nil, refuse(err)
	}
	for _, name := range metered.Imports {
		from, function, _ := strings.Cut(name, ".")
		switch {
		case from == wasiModule:
		case from == hostModule && needs[function] == "":
			return nil, refuse(fmt.Errorf("it imports %q, which there is not", name))
		case from == hostModule && !m.Grants(needs[function]):
			return nil, refuse(fmt.Errorf("it imports %q, and its manifest does not ask for %q", name, needs[function]))
		case from != hostModule:
			return nil, refuse(fmt.Errorf("it imports %.80q, which there is not", name))
		}
	}
	code, err := e.runtime.CompileModule(ctx, metered.Code)
	if err != nil {
		return nil, refuse(fmt.Errorf("%.200s", err))
	}
	p := &program{engine: e, code: code, meter: metered, manifest: m, limits: limits, filter: m.Filter(), seed: sha256.Sum256(payload)}
	if err := p.check(); err != nil {
		return nil, errors.Join(refuse(err), code.Close(ctx))
	}
	return p, nil
}

// program is a compiled module.
type program struct {
	engine   *Engine
	code     wazero.CompiledModule
	meter    *meter.Module
	manifest *modules.Manifest
	limits   modules.Limits
	filter   modules.Filter
	seed     [32]byte
}

// check holds the exports against the contract.
func (p *program) check() error {
	if _, ok := p.code.ExportedMemories()[exportMemory]; !ok {
		return fmt.Errorf("it exports no %q", exportMemory)
	}
	functions := p.code.ExportedFunctions()
	for _, want := range []struct {
		name            string
		params, results []api.ValueType
	}{
		{exportABI, nil, nil},
		{exportAlloc, []api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}},
		{exportDetect, []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}, []api.ValueType{api.ValueTypeI64}},
	} {
		f, ok := functions[want.name]
		if !ok {
			return fmt.Errorf("it exports no function %q", want.name)
		}
		if !slices.Equal(f.ParamTypes(), want.params) || !slices.Equal(f.ResultTypes(), want.results) {
			return fmt.Errorf("its function %q has other parameters or results than the contract says", want.name)
		}
	}
	return nil
}

// Detector implements modules.Program: one more instance, with memory of its own.
func (p *program) Detector(ctx context.Context, host modules.Host) (modules.Detector, error) {
	i := &instance{program: p, host: host}
	if err := i.start(ctx); err != nil {
		return nil, err
	}
	return i, nil
}

// Close implements modules.Program.
func (p *program) Close(ctx context.Context) error { return p.code.Close(ctx) }
