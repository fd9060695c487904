package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/bpf/selftest"
	"github.com/omega-mesh/omega/node/api"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/roles/sentinel"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/ledger"
)

const (
	// testEvery is how often the sensors are put to the proof; a change of what is loaded brings it forward, at most each testLeast.
	testEvery = time.Hour
	testLeast = time.Minute
	// affirmEvery is how often a coverage that did not change is signed again.
	affirmEvery = 24 * time.Hour
	// maxCoverages bounds the members whose coverage is remembered.
	maxCoverages = 8192
)

// coverages are the latest of each member.
type coverages struct {
	mu    sync.Mutex
	last  map[string]*event.Coverage // by DID; values are never changed
	ended map[string]uint64          // CLOCK_BOOTTIME when a member said that it ends
	met   map[string]bool            // who proved itself to this peer in this life
	proof selftest.Proof
}

func newCoverages() *coverages {
	return &coverages{last: map[string]*event.Coverage{}, ended: map[string]uint64{}, met: map[string]bool{}}
}

func (c *coverages) take(e *ledger.Entry) error {
	x, err := ledger.DecodeCoverage(e)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last[x.Peer] != nil || len(c.last) < maxCoverages {
		c.last[x.Peer] = &x
		if delete(c.ended, x.Peer); x.Ended {
			c.ended[x.Peer] = bpf.BootTime()
		}
	}
	return nil
}

// meet notes that a member proved itself.
func (c *coverages) meet(did string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.met) < maxCoverages {
		c.met[did] = true
	}
}

// hasMet says whether a member proved itself in this life.
func (c *coverages) hasMet(did string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.met[did]
}

// end is when a member said that it ends; 0 where its last word is another.
func (c *coverages) end(did string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended[did]
}

// of is a member's latest; nil where it said nothing yet.
func (c *coverages) of(did string) *event.Coverage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[did]
}

func (c *coverages) proved(p selftest.Proof) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proof = p
}

func (c *coverages) lastProof() selftest.Proof {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proof
}

// checks is all that this host says of its eyes and hands.
func (n *Node) checks(ctx context.Context) []bpf.Check {
	var out []bpf.Check
	if list, err := n.service.Coverage(ctx); err != nil {
		out = append(out, bpf.Check{Name: "privileged side", Detail: err.Error(), Lost: "nothing can be refused, killed or contained"})
	} else {
		for _, c := range list {
			out = append(out, bpf.Check(c))
		}
	}
	for _, c := range n.parts.Confined {
		out = append(out, bpf.Check(c))
	}
	if p, ok := n.parts.Sensor.(interface{ Coverage() []bpf.Check }); ok {
		out = append(out, p.Coverage()...)
	}
	return out
}

// coverage is what this host can see and stop now.
func (n *Node) coverage(ctx context.Context) event.Coverage {
	proof := n.coverages.lastProof()
	drops := map[string]uint64{}
	for name, q := range n.queues() {
		if strings.HasPrefix(name, "kernel/") || strings.HasPrefix(name, "sensor/") || strings.HasPrefix(name, "logs/") {
			drops[name] = q.Dropped
		}
	}
	c := sentinel.Assess(n.checks(ctx), &proof, drops)
	c.Peer, c.Host, c.Time = n.DID(), n.Name(), n.clock.now().UnixNano()
	c.Mode, _ = n.mode.Load().(string)
	return c
}

// cover proves what this host sees, at start, each hour and after a change, and tells the swarm when that is not what it
// last said. At an end in good order it says that the silence to come means nothing.
func (n *Node) cover(ctx context.Context) error {
	tick := time.NewTicker(surveyEvery * refreshEvery)
	defer tick.Stop()
	for !n.synced.Load() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(refreshEvery):
		}
	}
	var tested time.Time
	var state string
	var said event.Coverage
	for {
		now := time.Now()
		loaded := outline(n.checks(ctx))
		if since := now.Sub(tested); tested.IsZero() || since >= testEvery || loaded != state && since >= testLeast {
			tested, state = now, loaded
			if !n.selfTest(ctx) {
				tested = now.Add(testLeast - testEvery) // again in a while: the host was busy
			}
		}
		if c := n.coverage(ctx); n.HasRole(n.DID(), roles.NameSentinel) && (!sentinel.SameCoverage(&c, &said) || time.Duration(c.Time-said.Time) > affirmEvery) {
			if err := n.sayCoverage(ctx, &c); err == nil {
				said = c
			} else if ctx.Err() == nil {
				n.log.Warn("coverage not published", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			if said.Time == 0 || errors.Is(context.Cause(ctx), errOrphaned) {
				return ctx.Err()
			}
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			said.Ended, said.Time = true, n.clock.now().UnixNano()
			if err := n.sayCoverage(last, &said); err != nil {
				n.log.Warn("the swarm was not told that this host ends", "err", err)
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// outline is what of the checks tells one state of the host from another; details come and go.
func outline(checks []bpf.Check) string {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "%s %t\n", c.Name, c.OK)
	}
	return b.String()
}

func (n *Node) sayCoverage(ctx context.Context, c *event.Coverage) error {
	body, err := ledger.EncodeCoverage(c)
	if err != nil {
		return fmt.Errorf("coverage: %w", err)
	}
	_, err = n.append(ctx, ledger.KindCoverage, body, false)
	return err
}

// selfTest has a process do what the sensors watch for, notes what came, and says whether it could.
func (n *Node) selfTest(ctx context.Context) bool {
	if n.parts.Sensor == nil || n.cfg.Mode == config.ModeReadOnly { // the self-test makes files, for a moment
		return true
	}
	parent := os.Getpid()
	if n.parts.Split {
		parent = os.Getppid()
	}
	secret := make([]byte, 16)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	w := selftest.NewWatch(hex.EncodeToString(secret), uint32(parent))
	n.telemetry.watch(w)
	defer n.telemetry.watch(nil)
	attempts, err := n.service.SelfTest(ctx, hex.EncodeToString(secret))
	if err != nil {
		if ctx.Err() == nil {
			n.log.Warn("what the sensors see could not be put to the proof", "err", err)
		}
		return false
	}
	n.coverages.proved(w.Judge(attempts, ctx.Done()))
	return true
}

// Coverage implements api.Backend: this host's as of now, or a member's latest word. peer is a DID or a name; empty is all.
func (b backend) Coverage(ctx context.Context, peer string) ([]*apiv1.Coverage, error) {
	own := b.coverage(ctx)
	if peer == b.DID() || peer == b.Name() {
		return []*apiv1.Coverage{coverageMessage(&own)}, nil
	}
	var out []*apiv1.Coverage
	if peer == "" {
		out = append(out, coverageMessage(&own))
	}
	known := false
	for _, m := range b.fold.State().Members() {
		if m.DID == b.self.DID() || peer != "" && peer != string(m.DID) && peer != m.Name {
			continue
		}
		known = true
		if c := b.coverages.of(string(m.DID)); c != nil {
			row := coverageMessage(c)
			row.Host = m.Name
			out = append(out, row)
		}
	}
	if peer != "" && !known {
		return nil, fmt.Errorf("%w: no member %q", api.ErrNotFound, peer)
	}
	if peer != "" && len(out) == 0 {
		return nil, fmt.Errorf("%w: %s has not said what it sees", api.ErrNotFound, peer)
	}
	return out, nil
}

func coverageMessage(c *event.Coverage) *apiv1.Coverage {
	out := &apiv1.Coverage{Peer: c.Peer, Host: c.Host, Time: timestamppb.New(c.When()), Mode: c.Mode, Ended: c.Ended, Blind: sentinel.Blind(c)}
	for _, k := range c.Components {
		out.Components = append(out.Components, &apiv1.Component{Name: k.Name, Sees: k.Sees, Stops: k.Stops, Proof: k.Proof, Lost: k.Lost})
	}
	for _, g := range c.Gaps {
		out.Gaps = append(out.Gaps, &apiv1.Check{Name: g.Name, Lost: g.Lost})
	}
	out.Drops = map[string]uint64{}
	for _, d := range c.Drops {
		out.Drops[d.Name] = d.Count
	}
	return out
}

// coverageCheck is the doctor's line: how much of what there is to see this host sees, by its own proof.
func (b backend) coverageCheck(ctx context.Context) *apiv1.Check {
	c := b.coverage(ctx)
	blind := sentinel.Blind(&c)
	proved := 0
	for _, k := range c.Components {
		if k.Proof == selftest.Seen.String() {
			proved++
		}
	}
	var odd []string
	for _, k := range c.Components {
		if k.Sees && k.Lost != "" {
			odd = append(odd, k.Name+" ("+k.Lost+")")
		}
	}
	out := &apiv1.Check{Name: "coverage", Ok: len(blind) == 0 && len(odd) == 0,
		Detail: fmt.Sprintf("sees %d of %d data components, %d proved by self-test", len(c.Components)-len(blind), len(c.Components), proved)}
	if !out.Ok {
		out.Lost = strings.Join(slices.Concat(blind, odd), ", ")
	}
	return out
}
