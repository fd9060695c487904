package integrity

import (
	"bytes"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"
)

// BenchmarkHundredThousand is the largest state: what it takes to hold, store, read and sign, and to look at one file.
func BenchmarkHundredThousand(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := random(rand.New(rand.NewPCG(1, 2)), MaxEntries)
	clear(s.Standing)
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := float64(after.HeapAlloc-before.HeapAlloc) / (1 << 20)
	var stored bytes.Buffer
	if _, err := s.Write(&stored); err != nil {
		b.Fatal(err)
	}
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Write(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(held, "MiB")
		b.ReportMetric(float64(stored.Len())/float64(len(s.Accepted.Entries)), "B/entry")
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := Read(bytes.NewReader(stored.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("root", func(b *testing.B) {
		for b.Loop() {
			s.Accepted.Root()
		}
	})
	b.Run("look", func(b *testing.B) {
		dir := b.TempDir()
		path := filepath.Join(dir, "file")
		k, err := OpenKeeper(KeeperOptions{File: filepath.Join(b.TempDir(), "baseline"), Paths: []string{"/w", dir}})
		if err != nil {
			b.Fatal(err)
		}
		k.state = s
		for b.Loop() {
			if _, err := k.Look(b.Context(), []string{path}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
