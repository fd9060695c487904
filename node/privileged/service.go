package privileged

import (
	"context"
	"net/netip"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/bpf/executable"
	"github.com/omega-mesh/omega/bpf/selftest"
	"github.com/omega-mesh/omega/bpf/workload"
	"github.com/omega-mesh/omega/node/privileged/scanner"
	"github.com/omega-mesh/omega/swarm/event"
)

// Service is what the privileged side does for the other.
type Service interface {
	// Apply enforces r in this host's kernel. A guard rail's refusal is a receipt with OutcomeRefused, not an error;
	// observe mode gives OutcomeObserved. ErrUnavailable where this host cannot act.
	// heard is CLOCK_BOOTTIME, nanoseconds, when this host heard of what r answers; 0 is now.
	Apply(ctx context.Context, r event.Response, heard uint64) (event.Receipt, error)
	// Release ends one response; an unknown id is OutcomeFailed.
	Release(ctx context.Context, id string) (event.Receipt, error)
	// Active lists what the kernel enforces now.
	Active(ctx context.Context) ([]Enforced, error)
	// Panic releases everything and stops enforcing until a start that says otherwise; it returns how many it released.
	Panic(ctx context.Context) (int, error)
	// Mode is observe, enforce or panic, as it stands now.
	Mode(ctx context.Context) (string, error)
	// Coverage says what this host can see and stop.
	Coverage(ctx context.Context) ([]Check, error)
	// Counters are what the kernel half counted: drops by class, refusals by hook.
	Counters(ctx context.Context) (map[string]uint64, error)
	// SelfTest has a process of the unprivileged user do once what the sensors watch for, with secret, of 16 to 64 hex
	// digits, as its first argument. It is that of the privileged side's process, and takes some tenths of a second.
	SelfTest(ctx context.Context, secret string) ([]selftest.Attempt, error)
	// Protect says where the swarm listens on this host, and replaces the addresses of members proved by live
	// connections; at most four a member count. Both pass while the host is contained.
	Protect(ctx context.Context, listeners []bpf.Listener, proved []Proved) error
	// Process looks a process up in /proc, which the unprivileged side may not read for others' processes.
	Process(ctx context.Context, pid uint32) (event.Process, error)
	// Container asks the container runtimes of this host for image and pod of a container, by its id.
	Container(ctx context.Context, id string) (workload.Description, error)
	// Digest hashes the file that a process was started from, also by the weak digests if they are asked for. It takes milliseconds
	// for each megabyte that was not hashed before; a file past executable.MaxSize is an error.
	Digest(ctx context.Context, image executable.Image, weak bool) (executable.Sums, error)
	// Allow adds to what must never be blocked on this host, Disallow takes it away; Allowed lists it. An address, a
	// prefix or an absolute path.
	Allow(ctx context.Context, what string) error
	Disallow(ctx context.Context, what string) error
	Allowed(ctx context.Context) ([]string, error)
	// Scan matches what a process executes, or a file that was quarantined, with this host's YARA rules; scanner.ErrNone where
	// there are none. It may take as long as a file is large, and one is done at a time.
	Scan(ctx context.Context, r ScanRequest) (ScanReport, error)
	// ScanStatus says what scans, and what it did.
	ScanStatus(ctx context.Context) (scanner.Status, error)
	// Baseline is who keeps the watched files' baseline.
	Baseline
	// Operators replaces what the swarm's operators said must never be blocked, at most MaxOperators lines. It is not
	// kept: the feeds say it again after a restart.
	Operators(ctx context.Context, lines []string) error
}

// Check is one thing this host can or cannot do.
type Check struct {
	Name   string `cbor:"1,keyasint"`
	OK     bool   `cbor:"2,keyasint"`
	Detail string `cbor:"3,keyasint,omitempty"`
	Lost   string `cbor:"4,keyasint,omitempty"`
}

// Enforced is one response the kernel holds now.
type Enforced struct {
	ID      string       `cbor:"1,keyasint"`
	Action  event.Action `cbor:"2,keyasint"`
	Target  event.Target `cbor:"3,keyasint"`
	Expires uint64       `cbor:"4,keyasint"`           // CLOCK_BOOTTIME, nanoseconds
	Hits    uint64       `cbor:"5,keyasint,omitempty"` // packets and calls refused so far
	Adopted bool         `cbor:"6,keyasint,omitempty"` // found in the kernel after a restart
}

// Proved is an address that a member's live, authenticated connection came from or was made to.
type Proved struct {
	DID   string     `cbor:"1,keyasint"`
	Addr  netip.Addr `cbor:"2,keyasint"`
	Port  uint16     `cbor:"3,keyasint,omitempty"`
	Since uint64     `cbor:"4,keyasint"` // CLOCK_BOOTTIME, nanoseconds
}
