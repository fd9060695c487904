package testnet

import "github.com/omega-mesh/omega/swarm/event"

// Benchmarks are the figures of a testnet that `omega bench` shows; the drill has those of a running swarm.
func Benchmarks() []event.Benchmark { return nil }
