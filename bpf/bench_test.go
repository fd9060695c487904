package bpf

import (
	"os"
	"testing"
)

// The figures are read by people; here only that each can be had.
func TestBenchmarksMeasure(t *testing.T) {
	if testing.Short() {
		t.Skip("what is measured is the run without the race detector")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	for _, b := range Benchmarks() {
		if b.Name != "bpf/decode" && b.Name != "bpf/process-life" {
			continue // seconds long; `omega bench bpf` has them
		}
		v, err := b.Measure()
		if err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
		t.Logf("%-20s %10.3f %s (limit %g)", b.Name, v, b.Unit, b.Limit)
	}
}
