// Package meter rewrites a WebAssembly module so that it counts what it does and stops at zero. wazero can interrupt a
// guest by itself, at 20 to 50 times the cost of a small guest's work, and closes the module when it does; a counter in
// the guest's own code costs little, stops at the same instruction on every host whatever its load, and leaves the
// instance usable.
//
// Each function entry and each turn of a loop takes as much fuel as the straight code that follows has instructions; bulk
// memory operations take fuel by their size. The counter is a global the guest's code cannot name: it stands after all of
// the guest's own, and a guest that names it anyway is refused. Binary format: WebAssembly Core Specification 2.0,
// section 5, without vector instructions, tail calls, threads and exceptions.
package meter
