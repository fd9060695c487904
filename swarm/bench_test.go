package swarm

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkGossip is one finding from its author to the last of two others, and a bare pubsub message of its size.
func BenchmarkGossip(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		f, err := measureGossip(200)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(f.ours.Microseconds()), "us/finding")
		b.ReportMetric(float64(f.said.Microseconds()), "us/finding-with-sign-and-fsync")
		b.ReportMetric(float64(f.bare.Microseconds()), "us/bare")
		b.ReportMetric(float64(f.ours)/float64(f.bare), "ratio")
	}
}

// BenchmarkHandshake is the processor time of a proved TCP connection, both ends together.
func BenchmarkHandshake(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		f, err := measureHandshake(5, 40)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(f.cpu.Microseconds()), "us-cpu/conn")
		b.ReportMetric(float64(f.bytes), "B/conn")
	}
}

// BenchmarkRest is how long five peers take to meet, and what one of them costs while nothing happens.
func BenchmarkRest(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		w := newWorld(b)
		var people []*person
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			people = append(people, w.member(name))
		}
		began := time.Now()
		var nodes []*node
		for _, p := range people {
			nodes = append(nodes, p.up(bootstrap(nodes...)))
		}
		for _, n := range nodes {
			n.meets(len(nodes)-1, soon)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/meet")
		const rest = 5 * time.Second
		time.Sleep(time.Second) // what follows the handshakes
		before := processorTime(b)
		time.Sleep(rest)
		b.ReportMetric(100*float64(processorTime(b)-before)/float64(rest)/float64(len(nodes)), "%core/peer")
		b.ReportMetric(float64(runtime.NumGoroutine())/float64(len(nodes)), "goroutines/peer")
		for _, n := range nodes {
			n.stop()
		}
	}
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	check(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
