package anonymous

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
)

// Benchmarks are the processor time of a report for `omega bench`, over a small ring and the largest.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{
		{Name: "anonymous/sign_16", Unit: "ms", Limit: 10, Measure: func() (float64, error) { return measure(16, false) }},
		{Name: "anonymous/verify_16", Unit: "ms", Limit: 10, Measure: func() (float64, error) { return measure(16, true) }},
		{Name: "anonymous/sign_64", Unit: "ms", Limit: 40, Measure: func() (float64, error) { return measure(trust.MaxRing, false) }},
		{Name: "anonymous/verify_64", Unit: "ms", Limit: 40, Measure: func() (float64, error) { return measure(trust.MaxRing, true) }},
	}
}

// measure is the least processor time of several rounds: what else the host does is no cost of a report.
func measure(members int, verify bool) (float64, error) {
	const rounds = 9
	operate, err := operation(members, verify)
	if err != nil {
		return 0, err
	}
	least := time.Duration(0)
	for range rounds {
		before, err := processTime()
		if err != nil {
			return 0, err
		}
		if err := operate(); err != nil {
			return 0, err
		}
		after, err := processTime()
		if err != nil {
			return 0, err
		}
		if took := after - before; least == 0 || took < least {
			least = took
		}
	}
	return float64(least) / float64(time.Millisecond), nil
}

// operation is one signature, or one verification, over a ring of so many.
func operation(members int, verify bool) (func() error, error) {
	swarm, body := trust.SwarmID{1}, make([]byte, 512)
	var key *Key
	public := make([]PublicKey, 0, members)
	for i := range members {
		k, err := NewKey([32]byte{byte(i)})
		if err != nil {
			return nil, err
		}
		key, public = k, append(public, k.Public())
	}
	ring, err := PickRing(swarm, 0, public, key.Public())
	if err != nil {
		return nil, err
	}
	report, err := key.Sign(swarm, 0, 0, ring, body)
	if err != nil {
		return nil, err
	}
	if verify {
		return func() error { return report.Verify(swarm, func(PublicKey) bool { return true }) }, nil
	}
	return func() error { _, err := key.Sign(swarm, 0, 0, ring, body); return err }, nil
}

func processTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("anonymous: processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
