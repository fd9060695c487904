package node

import (
	"strings"
	"testing"
)

// TestBenchmarksMeasure runs each figure once: one that cannot be measured is no figure.
func TestBenchmarksMeasure(t *testing.T) {
	for _, b := range Benchmarks() {
		if strings.HasPrefix(b.Name, "sensor/") {
			continue // a load that a machine which runs other tests need not bear
		}
		v, err := b.Measure()
		if err != nil || v <= 0 {
			t.Errorf("%s: %v %s, %v", b.Name, v, b.Unit, err)
			continue
		}
		t.Logf("%s: %.3f %s, limit %g", b.Name, v, b.Unit, b.Limit)
	}
}
