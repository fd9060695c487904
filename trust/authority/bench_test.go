package authority

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkFold100k opens and folds 100,000 authority entries from disk, and adds to them. Signing and storing them takes
// half a minute, so it runs only when it is asked for.
func BenchmarkFold100k(b *testing.B) {
	if os.Getenv("LONG_BENCH") == "" {
		b.Skip("set LONG_BENCH=1: 100,000 entries take half a minute to sign")
	}
	dir := b.TempDir()
	h, err := newBenchHistory(dir, 100_000)
	if err != nil {
		b.Fatal(err)
	}
	defer h.op.Close()
	store := filepath.Join(dir, "ledger")
	if err := h.store(store); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var before, after unix.Rusage
		began := time.Now()
		if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
			b.Fatal(err)
		}
		if err := foldStored(store, h.genesis); err != nil {
			b.Fatal(err)
		}
		if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s")
		b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/1e9, "cpu-s")
	}
	us, err := h.update()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(us, "us-update")
}
