package swarm

import "github.com/omega-mesh/omega/swarm/event"

// Benchmarks are the figures of the swarm that `omega bench` shows.
func Benchmarks() []event.Benchmark { return nil }
