package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/ledger"
)

// warning is one thing a person should know: named, so that scripts may rely on it, and with what to do about it.
type warning struct {
	code     string
	severity string // "info", "warning" or "critical"
	fix      string
	// test says what is wrong now, in words; empty when nothing is.
	test func(*Node) string
}

// warnings is every problem status may show, most urgent first. It is a function so that nobody can change the table.
func warnings() []warning {
	return []warning{
		{"revoked", "critical", "an operator took this host out of the swarm; `omega leave`, and join again with a new invite if that was meant",
			func(n *Node) string {
				s := n.fold.State()
				if m, ok := s.Member(n.self.DID()); !ok {
					return "this host is not a member: its admission has not arrived"
				} else if m.Contest != nil {
					return "two rotations of this host's key are as valid: its next key was stolen as well; an operator must revoke it, and it joins anew"
				} else if m.Keys.Number() > n.self.Keys().Number() {
					return "whoever holds this identity's next key has rotated it: this folder is a copy, or was restored from before, and is cut off"
				} else if m.Forked && !m.Barred(n.clock.now()) {
					return "this identity signed two versions of its feed, so all peers refuse it: if its folder was copied, `omega key rotate` proves who holds the next key"
				} else if !m.Active(n.clock.now()) {
					return "this host is suspended or revoked"
				}
				return ""
			}},
		{"store_failed", "critical", "free the disk or repair it, then start the node again",
			func(n *Node) string { return n.health.storeText() }},
		{"disk_full", "critical", "free space on the file system of the state folder",
			func(n *Node) string {
				free, err := freeSpace(n.layout.Dir)
				if err != nil {
					return "the state folder's file system cannot be read: " + err.Error()
				}
				if free < uint64(n.cfg.ReservedDisk)<<20 {
					return fmt.Sprintf("%d MiB free for the state folder, fewer than %d", free>>20, n.cfg.ReservedDisk)
				}
				return ""
			}},
		{"store_damaged", "critical", "nothing, if peers are connected: the feeds are fetched again; else restore the ledger folder from a backup",
			func(n *Node) string {
				faults := n.ledger.Faults()
				if len(faults) == 0 {
					return ""
				}
				f := faults[0]
				return fmt.Sprintf("%d damaged feeds, such as %s: %s", len(faults), f.File, f.Detail)
			}},
		{"refused", "critical", "if the state folder was copied, `omega key rotate` here proves who holds the next key; else ask an operator",
			func(n *Node) string {
				if len(n.swarm.Peers()) == 0 && n.swarm.Rejected()["unknown_here"] > 0 {
					return "the peers that answer do not take this host for a member in good standing"
				}
				return ""
			}},
		{"duplicate_identity", "critical", "find out which of the two is the owner's; there, `omega key rotate` with the next key cuts the other off",
			func(n *Node) string { return n.health.duplicateText() }},
		{"fork", "critical", "see both entries with `omega ledger show --evidence`; an operator should revoke that peer",
			func(n *Node) string {
				if e := n.ledger.Evidence(); len(e) > 0 {
					return fmt.Sprintf("%d peers signed two different entries of one number, such as %s: keys were copied, or a host lies", len(e), n.nameOf(e[0].Author))
				}
				return ""
			}},
		{"history_rewritten", "critical", "compare that feed with other peers' by `omega ledger verify`; restore the ledger folder if this host's copy was replaced",
			func(n *Node) string {
				if p := n.witness.Problems(); len(p) > 0 {
					return p[0]
				}
				return ""
			}},
		{"authority_closed", "critical", "see `omega root show` where it names the root; else update omega on this host",
			func(n *Node) string {
				if p := n.fold.State().Problems(); len(p) > 0 {
					return p[0]
				}
				return ""
			}},
		{"read_only", "critical", "connect this host to any member (`omega peers`), or sign anything as an operator here",
			func(n *Node) string { return n.readOnly() }},
		{"panic", "critical", "start the node with `omega up --mode enforce` (or observe) when it may act again",
			func(n *Node) string {
				if n.mode.Load() == "panic" {
					return "panic: every block was released, and nothing is enforced"
				}
				return ""
			}},
		{"clock_skew", "warning", "set this host's clock (NTP); blocks keep their lifetimes meanwhile",
			func(n *Node) string {
				if d := n.clock.skew(); d != 0 {
					return fmt.Sprintf("the peers' clocks are %s off this host's", d.Round(time.Second))
				}
				if k := n.ledger.Rejected()[ledger.CauseFuture]; k > 0 {
					return fmt.Sprintf("%d entries came dated more than %s ahead: this host's clock is behind, or a peer's ahead", k, trust.MaxClockSkew)
				}
				return ""
			}},
		{"no_peers", "warning", "check that the swarm's port is reachable, and the addresses with `omega peers`",
			func(n *Node) string {
				if len(n.swarm.Peers()) == 0 && n.othersActive() > 0 && n.uptime() > 5*time.Second {
					return "no other member is connected: this host sees and acts by itself"
				}
				return ""
			}},
		{"no_sensor", "warning", "see `omega doctor`",
			func(n *Node) string { return n.health.sensorText() }},
		{"not_enforcing", "warning", "see `omega doctor`",
			func(n *Node) string {
				if n.mode.Load() == config.ModeEnforce && !n.health.acts() {
					return "this host cannot act: it has no actuator"
				}
				return ""
			}},
		{"restarted", "warning", "look at the log for why; blocks stood all the while",
			func(n *Node) string {
				if n.parts.Restarted > 0 {
					return fmt.Sprintf("the unprivileged half died and was started again (%d times)", n.parts.Restarted)
				}
				return n.health.failureText()
			}},
		{"queue_drops", "warning", "the host is overloaded: give it more CPU, or fewer decoys and rules",
			func(n *Node) string {
				for name, q := range n.queues() {
					if q.Dropped > 0 {
						return fmt.Sprintf("queue %s dropped %d", name, q.Dropped)
					}
				}
				return ""
			}},
		{"observe", "info", "start with `omega up --mode enforce` when what it would have done is right (`omega receipts`)",
			func(n *Node) string {
				if n.mode.Load() == config.ModeObserve {
					return "observe mode: responses are said, not done"
				}
				return ""
			}},
		{"watching", "info", "start without `--read-only` when this host may be changed",
			func(n *Node) string {
				if n.mode.Load() == config.ModeReadOnly {
					return "read-only mode: responses are said, not done, and nothing is written but below " + n.cfg.Dir
				}
				return ""
			}},
	}
}

// health keeps what tests cannot ask for.
type health struct {
	n        *Node
	table    []warning
	mu       sync.Mutex
	sensor   string    // why the sensor is lost
	failure  string    // the last part that failed
	logs     string    // how the logs are followed
	storage  string    // why nothing can be stored
	twins    string    // which identity runs twice
	seen     time.Time // when that was
	actuator bool
	drops    map[string]uint64 // of the kernel half
}

func newHealth(n *Node) *health { return &health{n: n, table: warnings()} }

func (h *health) set(field *string, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*field = text
}

func (h *health) get(field *string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *field
}

func (h *health) sensorLost(err error) { h.set(&h.sensor, "the sensor failed: "+err.Error()) }
func (h *health) logsText() string     { return h.get(&h.logs) }
func (h *health) failed(what string)   { h.set(&h.failure, "a part failed and was started again: "+what) }
func (h *health) failureText() string  { return h.get(&h.failure) }
func (h *health) storeText() string    { return h.get(&h.storage) }

// duplicateFor is how long a duplicate stays a problem after it was last seen.
const duplicateFor = 10 * time.Minute

func (h *health) duplicated(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.twins, h.seen = text, time.Now()
}

func (h *health) duplicateText() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.seen) > duplicateFor {
		return ""
	}
	return h.twins
}

func (h *health) sensorText() string {
	if h.n.parts.Sensor == nil {
		return "this host sees nothing of itself: sensor is off"
	}
	return h.get(&h.sensor)
}

func (h *health) acts() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.actuator
}

// stored notes how the last append went: a full or failing disk shows at the next status, and goes when it is well again.
func (h *health) stored(err error) {
	switch {
	case err == nil:
		h.set(&h.storage, "")
	case errors.Is(err, ledger.ErrStorage), errors.Is(err, ledger.ErrDamaged), errors.Is(err, unix.ENOSPC):
		h.set(&h.storage, err.Error())
	}
}

// refresh asks the privileged side what it can do.
func (h *health) refresh(ctx context.Context) {
	checks, err := h.n.service.Coverage(ctx)
	if err != nil {
		return
	}
	drops, err := h.n.service.Counters(ctx)
	if err != nil {
		drops = h.kernelDrops() // what is not known did not change
	}
	ok, logs := false, "off"
	for _, c := range checks {
		if c.Name == "sensor/logs" {
			if logs = "ok"; !c.OK {
				logs = c.Detail
			}
		}
		ok = ok || c.OK && c.Name == "actuator/deny-address"
	}
	h.mu.Lock()
	before := h.drops
	h.actuator, h.drops, h.logs = ok, drops, logs
	h.mu.Unlock()
	h.n.tellLost(before, drops)
}

// tellLost has the journal say what is missing in it: of each kind, how many records the kernel lost since it last said so.
func (n *Node) tellLost(before, now map[string]uint64) {
	for _, kind := range slices.Sorted(maps.Keys(now)) {
		if now[kind] <= before[kind] {
			continue
		}
		lost := now[kind] - before[kind]
		n.telemetry.take(&event.Event{Time: time.Now().UnixNano(), Boot: bpf.BootTime(), Sensor: "kernel", Class: event.ClassKernel, Activity: event.ActivityLost,
			Count: uint32(min(lost-1, math.MaxUint32)), Access: event.Access{Operation: kind, Number: lost}})
	}
}

// kernelDrops is what the kernel half lost, by kind, as of the last refresh.
func (h *health) kernelDrops() map[string]uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.drops // replaced whole, never changed
}

// problems is the table as it stands now.
func (h *health) problems() []*apiv1.Problem {
	var out []*apiv1.Problem
	for _, w := range h.table {
		if text := w.test(h.n); text != "" {
			out = append(out, &apiv1.Problem{Code: w.code, Severity: w.severity, Text: text, Fix: w.fix})
		}
	}
	return out
}

func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}
