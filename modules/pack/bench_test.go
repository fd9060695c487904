package pack

import (
	"context"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := New(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEvents(b *testing.B) {
	d, err := New(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	events, batch := mixed(), make([]*event.Event, 1)
	emit := func(event.Finding) { b.Error("found something") }
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		batch[0] = events[i%len(events)]
		if err := d.Detect(context.Background(), batch, emit); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// An event that nothing is found in costs no allocation.
func TestNoAllocations(t *testing.T) {
	d, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events := mixed()
	emit := func(f event.Finding) { t.Errorf("%s in ordinary life", f.RuleID) }
	look := func() {
		if err := d.Detect(context.Background(), events, emit); err != nil {
			t.Error(err)
		}
	}
	look()
	if n := testing.AllocsPerRun(20, look); n != 0 {
		t.Errorf("%v allocations in %d events", n, len(events))
	}
}
