package modules

import (
	"context"
	"net/netip"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Detector turns events into findings. Events, and every string in them, are valid only during the call; emit takes a
// finding over, so what it holds must be copies. One value serves one goroutine at a time. Time within a detector is the
// events' own (Boot), so that a recording gives the findings the live host gave.
//
// An error says that the detector itself failed, not that events were bad: the caller counts it and, after a few, stops
// the module.
type Detector interface {
	Detect(ctx context.Context, batch []*event.Event, emit func(event.Finding)) error
}

// Engine turns modules of one kind into programs.
type Engine interface {
	Kind() Kind
	// Compile checks a payload and makes it ready. Its errors wrap ErrRefused and say what in the payload is wrong. It does
	// not run off: it is bounded in time and memory by the manifest's limits, and ends when ctx does.
	Compile(ctx context.Context, m *Manifest, payload []byte) (Program, error)
	Close(ctx context.Context) error
}

// Program is a compiled module.
type Program interface {
	// Detector makes one more instance with state of its own; host is what it may ask of its surroundings.
	Detector(ctx context.Context, host Host) (Detector, error)
	// Close ends every instance.
	Close(ctx context.Context) error
}

// Host is what a module may ask for; node fills it, by what the manifest asks and policy grants. A service that was not
// granted is refused at compile time, so it is never called.
type Host interface {
	// Log takes a line, at most MaxLog bytes, already printable.
	Log(level LogLevel, text string)
	// Now is the time of the event in hand, in Unix nanoseconds, rounded down to a millisecond: no module gets a clock
	// fine enough to measure others with.
	Now() int64
	// Get and Put are this module's own state on this host, within Limits.StateBytes. Put fails with ErrQuota.
	Get(key string) ([]byte, bool)
	Put(key string, value []byte, ttl time.Duration) error
	// Indicator says whether a value of a type ("ipv4-addr", "domain-name", "file:sha256", "url", "path") is one that is
	// looked for, and in which source.
	Indicator(kind, value string) (source string, found bool)
	// Reputation is what this swarm thinks of an address: findings against it in the last day.
	Reputation(address netip.Addr) uint32
}

// LogLevel is how loud a line is.
type LogLevel uint8

// Levels of Log.
const (
	LogDebug LogLevel = iota
	LogInfo
	LogWarn
)
