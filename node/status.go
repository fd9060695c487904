package node

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/bpf/facts"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
	"github.com/omega-mesh/omega/swarm/event/redact"
	"github.com/omega-mesh/omega/trust"
)

// Status implements api.Backend.
func (b backend) Status(context.Context) (*apiv1.StatusResponse, error) {
	s := b.fold.State()
	mode, _ := b.mode.Load().(string)
	out := &apiv1.StatusResponse{
		Did: b.DID(), Name: b.Name(), Swarm: b.genesis.SwarmID().String(), SwarmName: b.genesis.Name,
		Roles: s.Roles(b.self.DID(), b.clock.now()), Peers: uint32(len(b.swarm.Peers())), Members: uint32(b.othersActive() + 1),
		Synced: b.synced.Load() && (b.swarm.Synced() || b.othersActive() == 0), UptimeMs: float64(b.uptime()) / float64(time.Millisecond),
		Sensors: b.sensors(), Queues: b.queues(), Mode: mode, Problems: b.health.problems(),
		Addrs: b.swarm.Addrs(), Version: b.parts.Version, Rejected: b.ledger.Rejected(),
	}
	out.Peer = b.peerID()
	for cause, k := range b.swarm.Rejected() {
		out.Rejected["swarm/"+cause] = k
	}
	return out, nil
}

// peerID is the libp2p name of the transport key.
func (n *Node) peerID() string {
	key, err := crypto.UnmarshalEd25519PublicKey(n.self.Inception().TransportKey())
	if err != nil {
		return ""
	}
	id, err := peer.IDFromPublicKey(key)
	if err != nil {
		return ""
	}
	return id.String()
}

func (n *Node) uptime() time.Duration { return time.Duration(bpf.BootTime() - n.started) }

// sensors says of each way of seeing whether it works.
func (n *Node) sensors() map[string]string {
	if n.parts.Sensor == nil {
		return map[string]string{"none": "off"}
	}
	state := "ok"
	if text := n.health.sensorText(); text != "" {
		state = text
	}
	out := map[string]string{n.parts.Sensor.Name(): state}
	if n.parts.Logs != nil {
		out[n.parts.Logs.Name()] = n.health.logsText()
	}
	return out
}

// queues is every bounded queue of the node, with what it dropped.
func (n *Node) queues() map[string]*apiv1.Queue {
	out := map[string]*apiv1.Queue{
		"gossip-out":  {Len: uint64(len(n.out)), Cap: outQueue, Dropped: n.outLost.Load()},
		"unsealed":    {Len: uint64(n.feed.waiting()), Cap: maxUnsealed, Dropped: n.feed.lost.Load()},
		"role-follow": {Dropped: n.feed.behind.Load()},
	}
	j := n.telemetry.journal.Stats()
	out["journal"] = &apiv1.Queue{Len: uint64(j.Bytes), Cap: uint64(j.Budget)} // bytes
	out["workloads"] = &apiv1.Queue{Dropped: n.telemetry.workloads.Skipped()}
	for class, lost := range j.Dropped {
		out["journal/"+class] = &apiv1.Queue{Dropped: lost}
	}
	for name, q := range n.swarm.Queues() {
		out["swarm/"+name] = &apiv1.Queue{Len: uint64(q.Len), Cap: uint64(q.Cap), Dropped: q.Dropped}
	}
	out["watched-files"] = &apiv1.Queue{Len: uint64(n.watched.waiting()), Cap: maxPending, Dropped: n.watched.lost.Load()}
	out["yara"] = &apiv1.Queue{Len: uint64(len(n.suspects.queue)), Cap: maxSuspects, Dropped: n.suspects.lost.Load()}
	if n.parts.Sensor != nil {
		for name, lost := range n.parts.Sensor.Drops() {
			out["sensor/"+name] = &apiv1.Queue{Dropped: lost}
		}
	}
	if n.parts.Logs != nil {
		for name, lost := range n.parts.Logs.Drops() {
			out["logs/"+name] = &apiv1.Queue{Dropped: lost}
		}
	}
	for name, lost := range n.health.kernelDrops() {
		out["kernel/"+name] = &apiv1.Queue{Dropped: lost}
	}
	return out
}

// Doctor implements api.Backend: what this host can see and stop, and what it cannot.
func (b backend) Doctor(ctx context.Context) ([]*apiv1.Check, error) {
	var out []*apiv1.Check
	add := func(name string, ok bool, detail, lost string) {
		if ok {
			lost = ""
		}
		out = append(out, &apiv1.Check{Name: name, Ok: ok, Detail: detail, Lost: lost})
	}
	checks := b.checks(ctx)
	for _, c := range checks {
		add(c.Name, c.OK, c.Detail, c.Lost)
	}
	out = append(out, b.coverageCheck(ctx))
	if text := b.health.sensorText(); text != "" {
		add("sensor", false, text, "nothing that happens on this host becomes a finding, but decoy touches")
	}
	add("kernel integrity", kernelWhole(), kernelText(), "what runs in the kernel was not all made with it, and may hide from every sensor")
	ok, detail, lost := b.rules.check()
	add("rules", ok, detail, lost)
	ok, detail, lost = b.indicatorCheck()
	add("indicators", ok, detail, lost)
	ok, detail, lost = b.yaraCheck(ctx)
	add("yara", ok, detail, lost)
	mode, _ := b.mode.Load().(string)
	lost = "responses are said, not done"
	if mode == config.ModeReadOnly {
		lost += "; nothing is written but below " + b.cfg.Dir + ", and no self-test is made"
	}
	add("mode", mode == config.ModeEnforce, mode, lost)
	if os.Geteuid() == 0 {
		add("two processes", false, "the whole node runs as root", "a fault in what parses other hosts' bytes has root's power; set split: true")
	} else if mode == config.ModeEnforce || len(checks) > 0 {
		add("two processes", true, fmt.Sprintf("the half that parses runs as uid %d without capabilities", os.Geteuid()), "")
	}
	ok, detail, lost = b.keyAtRest()
	add("key at rest", ok, detail, lost)
	ok, detail, lost = b.randomness()
	add("entropy", ok, detail, lost)
	ok, detail, lost = b.anonymity()
	add("anonymous reports", ok, detail, lost)
	ok, detail, lost = b.nextKey()
	add("next key", ok, detail, lost)
	add("authority", b.readOnly() == "", fmt.Sprintf("a member's word came %s ago", b.fresh.silence().Round(time.Second)), "no new duty and no other's finding is acted on until one comes (at most "+trust.MaxSilence.String()+" old)")
	skew := b.clock.skew()
	add("clock", skew == 0, fmt.Sprintf("the peers' median is %s off", time.Duration(b.clock.median.Load()).Round(time.Millisecond)), "entries of this host may be refused as dated ahead")
	free, err := freeSpace(b.layout.Dir)
	detail = fmt.Sprintf("%d MiB free", free>>20)
	if err != nil {
		detail = err.Error()
	}
	add("disk", err == nil && free >= uint64(b.cfg.ReservedDisk)<<20, detail, "findings and receipts cannot be kept, so none is published")
	faults := b.ledger.Faults()
	detail = "every feed reads"
	if len(faults) > 0 {
		detail = fmt.Sprintf("%d damaged, such as %s: %s", len(faults), faults[0].File, faults[0].Detail)
	}
	add("store", len(faults) == 0, detail, "entries until peers give them back")
	addrs := b.swarm.Addrs()
	add("listening", len(addrs) > 0, fmt.Sprint(addrs), "nobody can call this host; it can only call")
	add("peers", len(b.swarm.Peers()) > 0 || b.othersActive() == 0, fmt.Sprintf("%d of %d connected", len(b.swarm.Peers()), b.othersActive()), "this host sees and acts by itself")
	for _, s := range b.decoy.Services() {
		if slices.Contains(b.roles.Running(), b.decoy.Name()) {
			add("decoy "+s.Name, s.State == "listening", s.State, "a touch of that decoy goes unseen")
		}
	}
	return out, nil
}

// kernelWhole says that no module hides, and that none came from outside the kernel's tree, unsigned or by force.
func kernelWhole() bool {
	for _, f := range facts.Read("/") {
		if f.Name == facts.HiddenModules && f.Value != "" || f.Name == "kernel.tainted" && strings.ContainsAny(facts.Taint(f.Value), "FOE") {
			return false
		}
	}
	return true
}

// kernelText is what the doctor says of the kernel: its taint, and what it lets root do to it.
func kernelText() string {
	var parts []string
	for _, f := range facts.Read("/") {
		switch f.Name {
		case "kernel.tainted":
			if t := facts.Taint(f.Value); t != "" {
				parts = append(parts, "tainted "+t)
			} else {
				parts = append(parts, "not tainted")
			}
		case "kernel.lockdown":
			_, on, _ := strings.Cut(f.Value, "[")
			on, _, _ = strings.Cut(on, "]")
			parts = append(parts, "lockdown "+on)
		case "kernel.modules_disabled":
			if f.Value == "1" {
				parts = append(parts, "no more modules")
			}
		case facts.HiddenModules:
			if f.Value != "" {
				parts = append(parts, "hidden modules "+f.Value)
			}
		}
	}
	return redact.Printable(strings.Join(parts, ", "), 200)
}

// encodeEvent is one line of OCSF, as this host saw it.
func (n *Node) encodeEvent(e *event.Event) ([]byte, error) { return ocsf.Encode(e, n.Name(), n.DID()) }
