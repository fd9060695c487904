package wasm

import (
	"context"
	"testing"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
)

func BenchmarkCall(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(map[int]string{1: "one event", 64: "batch of 64"}[n], func(b *testing.B) {
			ctx := context.Background()
			code := guest(b, "exec")
			p, err := engine(b).Compile(ctx, manifest(code), code)
			if err != nil {
				b.Fatal(err)
			}
			d, err := p.Detector(ctx, newSurroundings())
			if err != nil {
				b.Fatal(err)
			}
			batch := started(n)
			for _, e := range batch {
				e.Activity = event.ActivityExit
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Detect(ctx, batch, func(event.Finding) {}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/event")
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	e := started(1)[0]
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		putRecord(buf, e)
	}
}

func BenchmarkStop(b *testing.B) {
	for _, name := range []string{"loop", "tight", "recurse", "tree", "memory", "fill", "host", "state"} {
		b.Run(name, func(b *testing.B) {
			ctx := context.Background()
			code := guest(b, "evil_"+name)
			p, err := engine(b).Compile(ctx, manifest(code, modules.CapabilityLog, modules.CapabilityState), code)
			if err != nil {
				b.Fatal(err)
			}
			d, err := p.Detector(ctx, newSurroundings())
			if err != nil {
				b.Fatal(err)
			}
			batch := started(1)
			for b.Loop() {
				_ = d.Detect(ctx, batch, func(event.Finding) {})
			}
		})
	}
}
