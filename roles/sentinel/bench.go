package sentinel

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are the figures of the detectors that `omega bench` shows.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{{
		Name: "sentinel/detect", Unit: "ns", Limit: 1000, // an event that matches nothing, through every detector
		Measure: func() (float64, error) {
			e := &event.Event{Class: event.ClassNetwork, Activity: event.ActivityAccept, Boot: uint64(time.Hour), Network: event.Network{
				Protocol: 6, Inbound: true, Local: netip.MustParseAddrPort("10.0.0.1:443"), Remote: netip.MustParseAddrPort("10.0.9.9:5000")}}
			detectors, batch := Builtin(Own{}), []*event.Event{e}
			var err error
			emit := func(event.Finding) { err = errors.New("an event that matches nothing gave a finding") }
			return event.PerOperation(func(b *testing.B) {
				for b.Loop() {
					for _, d := range detectors {
						if e := d.Detect(context.Background(), batch, emit); e != nil {
							err = e
						}
					}
				}
			}), err
		},
	}}
}
