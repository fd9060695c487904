package swarm

import "testing"

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
		d, err := measureHandshake(5, 40)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(d.Microseconds()), "us-cpu/conn")
	}
}
