package event

import "testing"

// Benchmark is one performance figure of a package with the limit it is held to; `omega bench` runs them.
type Benchmark struct {
	Name  string  // "ledger/append"
	Also  string  // a figure of two budgets is found by this name too: "sensor/journal/append"
	Unit  string  // what Value and Limit are in: "us", "ns", "entries/s", "MiB", "%", "ratio"
	Limit float64 // the budget
	// HigherIsBetter turns the comparison round: a rate must reach Limit, a cost must stay under it.
	HigherIsBetter bool
	// Measure gives the figure in Unit. It may take some seconds; it returns an error where this host cannot run it.
	Measure func() (float64, error)
}

// PerOperation runs f as a Go benchmark and returns nanoseconds of wall time per operation.
func PerOperation(f func(b *testing.B)) float64 {
	r := testing.Benchmark(f)
	if r.N == 0 {
		return 0
	}
	return float64(r.T.Nanoseconds()) / float64(r.N)
}
