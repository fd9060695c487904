package bpf

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// Sensor is what the sentinel sees through: the kernel's ring, /proc where eBPF is refused, or a recording. Run blocks
// until ctx ends. The event, and every string in it, is valid only during the call to out.
type Sensor interface {
	Name() string
	Run(ctx context.Context, out func(*event.Event)) error
	// Drops counts what was lost, by cause: records that found the ring full, lines too long, and the like.
	Drops() map[string]uint64
}

// Actuator is what the sentinel acts through. Apply returns a receipt also when it fails: with OutcomeFailed and the reason.
type Actuator interface {
	Apply(ctx context.Context, r event.Response) (event.Receipt, error)
	Release(ctx context.Context, id string) (event.Receipt, error)
}

// Check is one line of what this host can see and stop.
type Check struct {
	Name   string // "sensor/process", "actuator/deny-address", "lsm", …
	OK     bool
	Detail string // which way it took, or why not
	Lost   string // what the host cannot see or stop without it; empty when OK
}

// BootTime is CLOCK_BOOTTIME in nanoseconds: the clock of every expiry and of all timings, which a change of the wall
// clock does not move.
func BootTime() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return uint64(t.Nano())
}
