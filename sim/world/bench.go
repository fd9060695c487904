package world

import (
	"fmt"
	"runtime"
	"time"

	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are this package's performance figures for `omega bench`.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{{
		Name: "sim/world/day-10000-hosts", Unit: "s", Limit: 2,
		Measure: func() (float64, error) { seconds, _, err := largeDay(); return seconds, err },
	}, {
		Name: "sim/world/day-10000-hosts-memory", Unit: "MiB", Limit: 1024,
		Measure: func() (float64, error) { _, mebibytes, err := largeDay(); return mebibytes, err },
	}}
}

// largeDay plays a day of 10,000 hosts and gives the seconds it took, and all that was allocated for the world and its
// day: at no time did it hold more.
func largeDay() (seconds, mebibytes float64, err error) {
	s := large(10_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w, err := New(s, rng.New(1))
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	w.Run(24 * time.Hour)
	seconds = time.Since(begin).Seconds()
	runtime.ReadMemStats(&after)
	return seconds, float64(after.TotalAlloc-before.TotalAlloc) / (1 << 20), nil
}

// large is a network of n hosts in forty zones under one attacker, with users everywhere.
func large(n int) *Scenario {
	s := &Scenario{Name: "large", Duration: Duration(24 * time.Hour), Response: Response{Immunity: Duration(50 * time.Millisecond)}}
	const zones = 40
	for i := range n {
		h := Host{Name: fmt.Sprintf("h%d", i), Zone: fmt.Sprintf("z%d", i%zones), Value: 1, Escalate: 0.3, Detect: 0.02, FalseRate: 1e-5,
			Services: []Service{{Name: "ssh", Port: 22}, {Name: "http", Port: 80, Exploit: 0.2}}}
		if i%100 == 0 {
			h.Decoys = []uint16{2323}
		}
		s.Hosts = append(s.Hosts, h)
		s.Users = append(s.Users, User{Host: h.Name, To: []string{fmt.Sprintf("h%d", (i*7+1)%n)}, Each: Duration(time.Hour)})
	}
	for z := range zones {
		s.Links = append(s.Links, Link{From: fmt.Sprintf("z%d", z), To: fmt.Sprintf("z%d", (z+1)%zones)})
	}
	s.Links = append(s.Links, Link{From: "internet", To: "z1"})
	s.Attackers = []Attacker{{Name: "one", Zone: "internet", Pace: Duration(time.Minute)}}
	return s
}
