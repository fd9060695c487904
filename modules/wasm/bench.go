package wasm

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/wasm/meter"
	"github.com/omega-mesh/omega/swarm/event"
)

// The guests that are measured: the least one there is, one that only hashes, one that never ends.
var (
	//go:embed testdata/guests/exec.wasm
	guestExec []byte
	//go:embed testdata/guests/hash.wasm
	guestHash []byte
	//go:embed testdata/guests/evil_tight.wasm
	guestTight []byte
)

// GuestOfSize is a small guest, made size bytes long by a custom section: what a module of that size costs on its way.
func GuestOfSize(size int) []byte {
	fill := max(size-len(guestExec)-8, 1)
	out := binary.AppendUvarint(append(bytes.Clone(guestExec), 0), uint64(fill+1))
	out = append(out, 0) // the section's name: none
	r := rand.New(rand.NewPCG(1, 2))
	for range fill {
		out = append(out, byte(r.Uint32()))
	}
	return out
}

// Benchmarks are this package's performance figures for `omega bench`.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{
		{Name: "modules/wasm-call", Unit: "ns/event", Limit: 400, Measure: func() (float64, error) { return measureDetect(1) }},
		{Name: "modules/wasm-batch", Unit: "ns/event", Limit: 60, Measure: func() (float64, error) { return measureDetect(64) }},
		{Name: "modules/wasm-fuel", Unit: "ratio", Limit: 1.3, Measure: measureFuel},
		{Name: "modules/wasm-stop", Unit: "ms-cpu", Limit: 10, Measure: measureStop},
		{Name: "modules/wasm-compile", Unit: "ms", Limit: 10, Measure: func() (float64, error) { return measureCompile(false) }},
		{Name: "modules/wasm-compile-cached", Unit: "ms", Limit: 2, Measure: func() (float64, error) { return measureCompile(true) }},
	}
}

// nothing is a host that gives nothing.
type nothing struct{ modules.Host }

func benchDetector(ctx context.Context, code []byte) (_ *Engine, d modules.Detector, err error) {
	e, err := New(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	p, err := e.Compile(ctx, &modules.Manifest{Name: "bench", Version: "1.0.0", Kind: modules.KindWASM, ABI: 1}, code)
	if err == nil {
		d, err = p.Detector(ctx, nothing{})
	}
	if err != nil {
		return nil, nil, errors.Join(err, e.Close(ctx))
	}
	return e, d, nil
}

// benchBatch is n events of about 300 bytes in their JSON form, none of which a guest finds anything in.
func benchBatch(n int) []*event.Event {
	batch := make([]*event.Event, n)
	for i := range batch {
		batch[i] = &event.Event{Class: event.ClassProcess, Activity: event.ActivityExit, Time: 5e9, Boot: 7, Sensor: "kernel",
			Process: event.Process{Key: event.ProcessKey{PID: uint32(i + 1), Start: 3}, UID: 1000, Exe: "/usr/bin/curl", Comm: "curl",
				Args: "curl\x00-s\x00--max-time\x0030\x00https://example.org/a/path/of/some/length", CWD: "/home/user/work", ParentExe: "/usr/bin/bash"}}
	}
	return batch
}

func measureDetect(n int) (float64, error) {
	ctx := context.Background()
	e, d, err := benchDetector(ctx, guestExec)
	if err != nil {
		return 0, err
	}
	defer e.Close(ctx)
	batch := benchBatch(n)
	return event.PerOperation(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := d.Detect(ctx, batch, func(event.Finding) {}); err != nil {
				b.Fatal(err)
			}
		}
	}) / float64(n), nil
}

// measureFuel is the time of a guest's tight loop with the counter over that without, the least of five runs of each.
func measureFuel() (float64, error) {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	metered, err := meter.Rewrite(guestHash, meter.Options{Memory: 64})
	if err != nil {
		return 0, err
	}
	run := func(code []byte) (func() (time.Duration, error), error) {
		mod, err := r.InstantiateWithConfig(ctx, code, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			return nil, err
		}
		f, fuel := mod.ExportedFunction(exportDetect), mod.ExportedGlobal(meter.Fuel)
		return func() (time.Duration, error) {
			start := time.Now()
			for range 200 {
				if g, ok := fuel.(interface{ Set(uint64) }); ok {
					g.Set(modules.MaxFuel)
				}
				if _, err := f.Call(ctx, 65536, 60000); err != nil {
					return 0, err
				}
			}
			return time.Since(start), nil
		}, nil
	}
	plain, err := run(guestHash)
	if err != nil {
		return 0, err
	}
	counted, err := run(metered.Code)
	if err != nil {
		return 0, err
	}
	best := [2]time.Duration{time.Hour, time.Hour}
	for range 5 {
		for i, f := range []func() (time.Duration, error){plain, counted} {
			d, err := f()
			if err != nil {
				return 0, err
			}
			best[i] = min(best[i], d)
		}
	}
	return float64(best[1]) / float64(best[0]), nil
}

// measureStop is the CPU time this process spends on a guest that never ends.
func measureStop() (float64, error) {
	ctx := context.Background()
	e, d, err := benchDetector(ctx, guestTight)
	if err != nil {
		return 0, err
	}
	defer e.Close(ctx)
	batch := benchBatch(1)
	const turns = 20
	before := cpuTime()
	for range turns {
		if err := d.Detect(ctx, batch, func(event.Finding) {}); !errors.Is(err, ErrFuel) {
			return 0, fmt.Errorf("it was not stopped: %w", err)
		}
	}
	return float64(cpuTime()-before) / turns / 1e6, nil
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measureCompile is the time to rewrite, compile and check a small guest, in a folder of its own.
func measureCompile(cached bool) (float64, error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "omega-bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	m := &modules.Manifest{Name: "bench", Version: "1.0.0", Kind: modules.KindWASM, ABI: 1}
	best := time.Hour
	for turn := range 6 {
		folder := dir
		if !cached {
			folder = fmt.Sprintf("%s/%d", dir, turn)
		}
		e, err := New(ctx, folder)
		if err != nil {
			return 0, err
		}
		start := time.Now()
		_, err = e.Compile(ctx, m, guestExec)
		if took := time.Since(start); turn > 0 {
			best = min(best, took)
		}
		if err = errors.Join(err, e.Close(ctx)); err != nil {
			return 0, err
		}
	}
	return float64(best) / 1e6, nil
}
