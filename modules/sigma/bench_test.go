package sigma

import "testing"

func BenchmarkEvents(b *testing.B) {
	for _, n := range []int{300, 3000} {
		b.Run(map[int]string{300: "300 rules", 3000: "3000 rules"}[n], func(b *testing.B) {
			set := Parse("bench", []byte(syntheticRules(n)), Options{})
			if len(set.Rules) != n {
				b.Fatalf("%d rules, %v %v", len(set.Rules), set.NotApplicable, set.Rejected)
			}
			d := NewDetector(set)
			batch := syntheticEvents(1024)
			hits := 0
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				d.Event(batch[i%len(batch)], func(*Rule) { hits++ })
				i++
			}
			b.ReportMetric(float64(hits)/float64(i), "hits/event")
		})
	}
}

// An event that no rule matches costs no allocation.
func TestNoAllocations(t *testing.T) {
	d := NewDetector(Parse("bench", []byte(syntheticRules(300)), Options{}))
	batch := syntheticEvents(256)
	look := func() {
		for _, e := range batch {
			d.Event(e, func(*Rule) {})
		}
	}
	look()
	if n := testing.AllocsPerRun(20, look); n != 0 {
		t.Errorf("%v allocations in %d events", n, len(batch))
	}
}
