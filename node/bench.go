package node

import "github.com/omega-mesh/omega/swarm/event"

// Benchmarks are the figures of an assembled node that `omega bench` shows.
func Benchmarks() []event.Benchmark { return nil }
