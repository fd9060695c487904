package wasm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/omega-mesh/omega/modules"
)

// hostModule is what a guest imports its services from.
const hostModule = "omega"

// Costs and bounds of host functions. A guest pays for them from its fuel as for its own instructions, so that a flood of
// calls ends as a loop does.
const (
	hostCallCost  = 200
	maxHostText   = 4096
	maxStateValue = 64 << 10
	maxLines      = 16 // logged a call
)

// Results of host functions that are no length.
const (
	resultNone    = -1 // not there
	resultBad     = -2 // a pointer outside of memory, or a text past its bound
	resultFull    = -3 // no room
	resultTooMany = -4 // said too often in this call
)

const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
)

func instantiateHost(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder(hostModule)
	add := func(name string, f api.GoModuleFunc, params, results []api.ValueType) {
		b = b.NewFunctionBuilder().WithGoModuleFunction(f, params, results).Export(name)
	}
	add("log", hostLog, []api.ValueType{i32, i32, i32}, []api.ValueType{i32})
	add("now", hostNow, nil, []api.ValueType{i64})
	add("state_get", hostStateGet, []api.ValueType{i32, i32, i32, i32}, []api.ValueType{i32})
	add("state_put", hostStatePut, []api.ValueType{i32, i32, i32, i32, i64}, []api.ValueType{i32})
	add("indicator", hostIndicator, []api.ValueType{i32, i32, i32, i32}, []api.ValueType{i32})
	add("reputation", hostReputation, []api.ValueType{i32}, []api.ValueType{i32})
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("host functions: %w", err)
	}
	return nil
}

// begin charges for a call and says whose it is.
func begin(ctx context.Context, bytes uint32) *instance {
	i := of(ctx)
	i.fuel.Set(uint64(int64(i.fuel.Get()) - hostCallCost - int64(bytes)/8))
	return i
}

func result(stack []uint64, v int32) { stack[0] = api.EncodeI32(v) }

// text reads a string of the guest's.
func text(m api.Module, at, n uint64, most uint32) ([]byte, bool) {
	if uint32(n) > most {
		return nil, false
	}
	return m.Memory().Read(uint32(at), uint32(n))
}

// hostLog is log(level, at, length).
func hostLog(ctx context.Context, m api.Module, stack []uint64) {
	i := begin(ctx, uint32(stack[2]))
	b, ok := text(m, stack[1], stack[2], modules.MaxLog)
	level := modules.LogLevel(min(stack[0], uint64(modules.LogWarn)))
	switch {
	case !ok:
		result(stack, resultBad)
	case i.lines >= maxLines:
		result(stack, resultTooMany)
	default:
		i.lines++
		i.host.Log(level, modules.Printable(string(b)))
		result(stack, 0)
	}
}

// hostNow is now(): Unix milliseconds of the newest event given.
func hostNow(ctx context.Context, _ api.Module, stack []uint64) {
	i := begin(ctx, 0)
	stack[0] = uint64(i.clock / int64(time.Millisecond))
}

// hostStateGet is state_get(key, length, to, room): the value's length; it was copied if it fits in room.
func hostStateGet(ctx context.Context, m api.Module, stack []uint64) {
	i := begin(ctx, uint32(stack[1]))
	key, ok := text(m, stack[0], stack[1], maxHostText)
	if !ok {
		result(stack, resultBad)
		return
	}
	value, ok := i.host.Get(string(key))
	if !ok {
		result(stack, resultNone)
		return
	}
	if room := uint32(stack[3]); uint64(room) >= uint64(len(value)) && !m.Memory().Write(uint32(stack[2]), value) {
		result(stack, resultBad)
		return
	}
	result(stack, int32(len(value)))
}

// hostStatePut is state_put(key, length, value, length, ttl in ms): length 0 forgets.
func hostStatePut(ctx context.Context, m api.Module, stack []uint64) {
	i := begin(ctx, uint32(stack[1])+uint32(stack[3]))
	key, ok := text(m, stack[0], stack[1], maxHostText)
	value, ok2 := text(m, stack[2], stack[3], maxStateValue)
	if !ok || !ok2 {
		result(stack, resultBad)
		return
	}
	if len(value) == 0 {
		value = nil
	}
	ttl := time.Duration(min(stack[4], uint64(30*24*time.Hour/time.Millisecond))) * time.Millisecond
	switch err := i.host.Put(string(key), value, ttl); {
	case errors.Is(err, modules.ErrQuota):
		result(stack, resultFull)
	case err != nil:
		result(stack, resultBad)
	default:
		result(stack, 0)
	}
}

// hostIndicator is indicator(kind, length, value, length): 1 if it is looked for.
func hostIndicator(ctx context.Context, m api.Module, stack []uint64) {
	i := begin(ctx, uint32(stack[1])+uint32(stack[3]))
	kind, ok := text(m, stack[0], stack[1], maxHostText)
	value, ok2 := text(m, stack[2], stack[3], maxHostText)
	if !ok || !ok2 {
		result(stack, resultBad)
		return
	}
	if _, found := i.host.Indicator(string(kind), string(value)); found {
		result(stack, 1)
		return
	}
	result(stack, 0)
}

// hostReputation is reputation(address of 16 bytes): findings against it in the last day.
func hostReputation(ctx context.Context, m api.Module, stack []uint64) {
	i := begin(ctx, 0)
	b, ok := m.Memory().Read(uint32(stack[0]), 16)
	if !ok {
		result(stack, resultBad)
		return
	}
	a, _ := netip.AddrFromSlice(b)
	result(stack, int32(min(i.host.Reputation(a.Unmap()), 1<<30)))
}
