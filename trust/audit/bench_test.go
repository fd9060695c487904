package audit

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// BenchmarkMillion verifies an export of 1,000,000 entries from a file. Making it takes a minute, so it runs only when
// it is asked for by name.
func BenchmarkMillion(b *testing.B) {
	if os.Getenv("LONG_BENCH") == "" {
		b.Skip("set LONG_BENCH=1: the export of a million entries takes a minute to make")
	}
	name := filepath.Join(b.TempDir(), "export")
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	g, err := generate(f, 1_000_000)
	if err != nil {
		b.Fatal(err)
	}
	id := g.SwarmID()
	debug.FreeOSMemory()
	before := resident(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		var most uint64
		cpu, err := processorTime()
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		r, err := Verify(context.Background(), f, Options{Swarm: &id, Progress: func(n uint64) { most = max(most, resident(b)) }})
		if err != nil || !r.OK {
			b.Fatalf("%+v, %v", r, err)
		}
		wall := time.Since(start)
		after, err := processorTime()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(wall.Seconds(), "s")
		b.ReportMetric((after - cpu).Seconds(), "cpu-s")
		b.ReportMetric(float64(r.Entries), "entries")
		b.ReportMetric(float64(most)/(1<<20), "MiB-resident")
		b.ReportMetric(float64(before)/(1<<20), "MiB-before")
	}
}

// resident is this process's memory in bytes.
func resident(b *testing.B) uint64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "VmRSS:"); ok {
			var kib uint64
			if _, err := fmt.Sscanf(strings.TrimSpace(rest), "%d kB", &kib); err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

func TestBenchmarksRun(t *testing.T) {
	if testing.Short() {
		t.Skip("figures are not taken under the race detector")
	}
	for _, m := range Benchmarks() {
		v, err := m.Measure()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.0f %s, limit %.0f", m.Name, v, m.Unit, m.Limit)
	}
}
