package wasm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/wasm/meter"
	"github.com/omega-mesh/omega/swarm/event"
)

// bufferSize is what a guest is asked to set aside for a batch: the largest record, its offset, and room for more.
const bufferSize = 64 << 10

// maxBatch is the most events in one call.
const maxBatch = 256

// instance is one guest with memory of its own. It serves one goroutine.
type instance struct {
	program *program
	host    modules.Host

	module  api.Module
	memory  api.Memory
	linear  experimental.LinearMemory // of memory: held here, so that its addresses outlive whoever may still read there
	detect  api.Function
	fuel    api.MutableGlobal
	depth   api.MutableGlobal
	globals []api.MutableGlobal // the guest's own
	before  []uint64            // their values before the call
	buffer  uint32              // where in the guest's memory a batch goes
	ctx     context.Context     // names this instance to its host functions; made once, so that a call allocates nothing
	stack   [2]uint64
	batch   [maxBatch]*event.Event
	random  *rand.ChaCha8
	clock   int64 // of the newest event, and never back
	lines   int   // logged in this call
	broken  bool  // its runtime stopped in its midst: a new instance is made before the next call
}

type instanceKey struct{}

// of is the instance a host function was called from.
func of(ctx context.Context) *instance {
	i, _ := ctx.Value(instanceKey{}).(*instance)
	return i
}

// start makes the guest anew, and has it set up.
func (i *instance) start(ctx context.Context) error {
	if i.module != nil {
		if err := i.module.Close(ctx); err != nil {
			return fmt.Errorf("end the instance before: %w", err)
		}
	}
	i.ctx = context.WithValue(context.WithoutCancel(ctx), instanceKey{}, i)
	i.random = rand.NewChaCha8(i.program.seed)
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	mod, err := i.instantiate(config)
	if err != nil {
		return fmt.Errorf("%w: %s: it does not start: %s", modules.ErrRefused, i.program.manifest.Name, firstLine(err))
	}
	i.module, i.broken = mod, false
	i.clock = max(i.clock, 1_000_000) // languages' runtimes take a clock at zero for one that is broken
	var ok bool
	i.fuel, ok = mod.ExportedGlobal(meter.Fuel).(api.MutableGlobal)
	i.depth, _ = mod.ExportedGlobal(meter.Depth).(api.MutableGlobal)
	if !ok || i.depth == nil {
		return fmt.Errorf("%w: the counters are not there", modules.ErrRefused)
	}
	i.globals, i.before = i.globals[:0], i.before[:0]
	for n := range i.program.meter.Globals {
		g, ok := mod.ExportedGlobal(meter.Global(n)).(api.MutableGlobal)
		if !ok {
			return fmt.Errorf("%w: a global of the guest's is not there", modules.ErrRefused)
		}
		i.globals, i.before = append(i.globals, g), append(i.before, 0)
	}
	i.memory, i.detect = mod.ExportedMemory(exportMemory), mod.ExportedFunction(exportDetect)
	// Starting a language's runtime takes more than a batch of events does, and happens once.
	i.fuel.Set(modules.MaxFuel)
	if f := mod.ExportedFunction(exportInit); f != nil {
		if _, err := f.Call(i.ctx); err != nil {
			return fmt.Errorf("%w: %s: %s: %s", modules.ErrRefused, i.program.manifest.Name, exportInit, firstLine(err))
		}
	}
	out, err := mod.ExportedFunction(exportAlloc).Call(i.ctx, bufferSize)
	if err != nil {
		return fmt.Errorf("%w: %s: %s: %s", modules.ErrRefused, i.program.manifest.Name, exportAlloc, firstLine(err))
	}
	i.buffer = uint32(out[0])
	if i.buffer == 0 || i.buffer%8 != 0 || uint64(i.buffer)+bufferSize > uint64(i.memory.Size()) {
		return fmt.Errorf("%w: %s: %s gave %#x: want %d bytes of its memory, on 8 bytes", modules.ErrRefused, i.program.manifest.Name, exportAlloc, i.buffer, bufferSize)
	}
	return nil
}

func (i *instance) instantiate(config wazero.ModuleConfig) (_ api.Module, err error) {
	defer func() {
		if p := recover(); p != nil {
			none, ok := p.(noMemory)
			if !ok {
				panic(p)
			}
			err = none
		}
	}()
	ctx := experimental.WithMemoryAllocator(i.ctx, experimental.MemoryAllocatorFunc(func(_, most uint64) experimental.LinearMemory {
		i.linear = allocate(most)
		return i.linear
	}))
	return i.program.engine.runtime.InstantiateModule(ctx, i.program.code, config)
}

// Detect implements modules.Detector.
func (i *instance) Detect(ctx context.Context, batch []*event.Event, emit func(event.Finding)) error {
	var first error
	for len(batch) > 0 {
		n, took, err := i.some(ctx, batch, emit)
		batch = batch[took:]
		if err != nil && first == nil {
			first = err
		}
		if n == 0 && err != nil && i.broken && ctx.Err() != nil {
			break
		}
	}
	return first
}

// some gives the guest as many of the events as fit in its buffer, and says how many it was given and how many are done with.
func (i *instance) some(ctx context.Context, batch []*event.Event, emit func(event.Finding)) (given, took int, err error) {
	if i.broken {
		if err := i.start(ctx); err != nil {
			return 0, len(batch), err
		}
	}
	window, ok := i.memory.Read(i.buffer, bufferSize)
	if !ok {
		return 0, len(batch), fmt.Errorf("%w: its memory is smaller than it was", ErrTrap)
	}
	most := min(len(batch), maxBatch)
	at := align8(batchHeader + 4*most)
	for _, e := range batch[:most] {
		if i.program.filter.Pass(e) {
			size := putRecord(window[at:], e)
			if size == 0 { // full: the rest goes with the next call
				break
			}
			binary.LittleEndian.PutUint32(window[batchHeader+4*given:], uint32(at))
			i.batch[given] = e
			given++
			at += size
			i.clock = max(i.clock, e.Time)
		}
		took++
	}
	if given == 0 {
		return 0, took, nil
	}
	binary.LittleEndian.PutUint32(window, batchVersion)
	binary.LittleEndian.PutUint32(window[4:], uint32(given))
	err = i.call(uint32(at), given, emit)
	clear(i.batch[:given])
	return given, took, err
}

// call runs the guest on the batch that lies in its buffer.
func (i *instance) call(size uint32, given int, emit func(event.Finding)) error {
	i.fuel.Set(i.program.limits.Fuel)
	i.depth.Set(0)
	i.lines = 0
	for n, g := range i.globals {
		i.before[n] = g.Get()
	}
	i.stack[0], i.stack[1] = uint64(i.buffer), uint64(size)
	if err := i.detect.CallWithStack(i.ctx, i.stack[:]); err != nil {
		return i.trapped(err)
	}
	if i.stack[0] == 0 {
		return nil
	}
	at, n := uint32(i.stack[0]>>32), uint32(i.stack[0])
	if n > i.program.limits.Output {
		return fmt.Errorf("%w: %d bytes, and it may give %d", ErrOutput, n, i.program.limits.Output)
	}
	out, ok := i.memory.Read(at, n)
	if !ok {
		return fmt.Errorf("%w: %d bytes at %#x, outside of its memory", ErrOutput, n, at)
	}
	return decodeFindings(out, i.program.manifest.Name, i.batch[:given], emit)
}

// trapped puts the guest back to where it can go on, and says what it did.
func (i *instance) trapped(err error) error {
	empty, deep := int64(i.fuel.Get()) < 0, i.depth.Get() > meter.MaxDepth
	for n, g := range i.globals {
		g.Set(i.before[n])
	}
	i.detect = i.module.ExportedFunction(exportDetect) // with a stack of its own: the one before may have grown to megabytes
	i.broken = i.program.meter.Initialize || strings.Contains(err.Error(), "stack overflow") || i.module.IsClosed()
	if empty {
		return fmt.Errorf("%w: it may use %d a call", ErrFuel, i.program.limits.Fuel)
	}
	if deep {
		return fmt.Errorf("%w: more than %d calls open at once", ErrTrap, meter.MaxDepth)
	}
	return fmt.Errorf("%w: %s", ErrTrap, firstLine(err))
}

// Close ends the instance.
func (i *instance) Close(ctx context.Context) error {
	if i.module == nil {
		return nil
	}
	return i.module.Close(ctx)
}

// firstLine is the reason of a trap without its trace, at most 200 bytes.
func firstLine(err error) string {
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.Error()
	}
	s, _, _ := strings.Cut(err.Error(), "\n")
	return modules.Printable(s)
}
