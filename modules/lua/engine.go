package lua

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
)

// What a script did wrong.
var (
	// ErrFuel: it used up its fuel on one event. It goes on with the next.
	ErrFuel = errors.New("the script ran out of fuel")
	// ErrScript: it failed: called what there is not, gave back what is no finding.
	ErrScript = errors.New("the script failed")
)

const (
	// unit is what one instruction of a script takes of a module's fuel, which counts a machine's instructions.
	unit = 128
	// maxText is the longest text a script can make.
	maxText = 64 << 10
	// lives is how many calls' worth of fuel a script may use until it is begun anew: what it holds in memory cannot be
	// more than it could make of that. What must outlive it is kept by omega.put.
	lives = 8
)

// Engine runs Lua modules. It holds nothing.
type Engine struct{}

// Kind implements modules.Engine.
func (Engine) Kind() modules.Kind { return modules.KindLua }

// Close implements modules.Engine.
func (Engine) Close(context.Context) error { return nil }

// Compile implements modules.Engine.
func (Engine) Compile(ctx context.Context, m *modules.Manifest, payload []byte) (modules.Program, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	proto, err := compile(m.Name, payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", modules.ErrRefused, m.Name, err)
	}
	return &program{proto: proto, manifest: m, limits: m.Limits.Effective(), filter: m.Filter()}, nil
}

func compile(name string, source []byte) (proto *lua.FunctionProto, err error) {
	if len(source) > maxSource {
		return nil, fmt.Errorf("a script of %d bytes, more than %d", len(source), maxSource)
	}
	defer func() { // the compiler panics where it meets what it does not know
		if r := recover(); r != nil {
			err = fmt.Errorf("not Lua: %.120v", r)
		}
	}()
	chunk, err := parse.Parse(bytes.NewReader(source), name)
	if err != nil {
		return nil, fmt.Errorf("not Lua: %s", modules.Printable(strings.Join(strings.Fields(err.Error()), " ")))
	}
	w := &rewriter{}
	if w.block(chunk, 0); w.err != nil {
		return nil, w.err
	}
	if proto, err = lua.Compile(chunk, name); err != nil {
		return nil, fmt.Errorf("not Lua: %.120w", err)
	}
	return proto, nil
}

type program struct {
	proto    *lua.FunctionProto
	manifest *modules.Manifest
	limits   modules.Limits
	filter   modules.Filter
}

// Close implements modules.Program.
func (*program) Close(context.Context) error { return nil }

// Detector implements modules.Program.
func (p *program) Detector(_ context.Context, host modules.Host) (modules.Detector, error) {
	s := &script{program: p, host: host}
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", modules.ErrRefused, p.manifest.Name, err)
	}
	return s, nil
}

// script is one instance. It serves one goroutine.
type script struct {
	program *program
	host    modules.Host
	state   *lua.LState
	detect  *lua.LFunction
	fuel    *fuel
	view    *lua.LUserData // the event at hand, as the script sees it
	event   *event.Event
	used    int64 // since it was begun
	lines   int
}

// start runs the script's own top level, with a call's fuel.
func (s *script) start() error {
	if s.state != nil {
		s.state.Close()
	}
	s.state = lua.NewState(lua.Options{SkipOpenLibs: true, CallStackSize: 128, RegistrySize: 1024, RegistryMaxSize: 16 << 10, MinimizeStackMemory: true})
	s.fuel = newFuel(int64(s.program.limits.Fuel) / unit)
	s.used, s.detect = 0, nil
	s.state.SetContext(s.fuel)
	s.open()
	if err := s.protected(func() error {
		s.state.Push(s.state.NewFunctionFromProto(s.program.proto))
		return s.state.PCall(0, 0, nil)
	}); err != nil {
		return err
	}
	f, ok := s.state.GetGlobal("detect").(*lua.LFunction)
	if !ok {
		return errors.New("it has no function detect(e)")
	}
	s.detect = f
	return nil
}

// protected runs part of a script, and says how it ended.
func (s *script) protected(f func() error) (err error) {
	before := s.fuel.left
	defer func() {
		if r := recover(); r != nil { // out of its stack, mostly
			err = fmt.Errorf("%w: %.120v", ErrScript, r)
		}
		s.used += before - s.fuel.left
	}()
	if err = f(); err == nil {
		return nil
	}
	if s.fuel.left < 0 {
		return fmt.Errorf("%w: it may use %d instructions an event", ErrFuel, s.program.limits.Fuel/unit)
	}
	if errors.Is(err, ErrScript) {
		return err
	}
	var e *lua.ApiError
	if errors.As(err, &e) {
		return fmt.Errorf("%w: %s", ErrScript, modules.Printable(e.Object.String()))
	}
	return fmt.Errorf("%w: %s", ErrScript, modules.Printable(err.Error()))
}

// Detect implements modules.Detector.
func (s *script) Detect(ctx context.Context, batch []*event.Event, emit func(event.Finding)) error {
	var first error
	for _, e := range batch {
		if !s.program.filter.Pass(e) {
			continue
		}
		if err := s.one(e, emit); err != nil && first == nil {
			first = err
		}
		if ctx.Err() != nil {
			return errors.Join(first, ctx.Err())
		}
	}
	return first
}

func (s *script) one(e *event.Event, emit func(event.Finding)) error {
	limit := int64(s.program.limits.Fuel) / unit
	if s.used > lives*limit {
		if err := s.start(); err != nil {
			return err
		}
	}
	s.fuel.refill(limit)
	s.event, s.lines = e, 0
	err := s.protected(func() error {
		s.state.Push(s.detect)
		s.state.Push(s.view)
		if err := s.state.PCall(1, 1, nil); err != nil {
			return err
		}
		v := s.state.Get(-1)
		s.state.Pop(1)
		return s.findings(v, emit)
	})
	s.event = nil
	if err != nil {
		s.state.SetTop(0)
		s.used = (lives + 1) * limit // begun anew before the next: it stopped in its midst
	}
	return err
}

// Close ends the instance.
func (s *script) Close() { s.state.Close() }

// fuel is a context that ends after so many instructions: the interpreter asks it before each.
type fuel struct {
	context.Context
	left  int64
	ended chan struct{}
}

func newFuel(n int64) *fuel {
	f := &fuel{Context: context.Background(), left: n, ended: make(chan struct{})}
	close(f.ended)
	return f
}

func (f *fuel) refill(n int64) { f.left = n }

// Done is asked before each instruction.
func (f *fuel) Done() <-chan struct{} {
	if f.left--; f.left < 0 {
		return f.ended
	}
	return nil
}

func (f *fuel) Err() error {
	if f.left < 0 {
		return ErrFuel
	}
	return nil
}

// spend takes what one call does beside its instructions.
func (f *fuel) spend(l *lua.LState, n int) {
	if f.left -= int64(n); f.left < 0 {
		l.RaiseError("%s", ErrFuel.Error())
	}
}
