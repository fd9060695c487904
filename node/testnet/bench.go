package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
)

const (
	benchLimit = 2 * time.Minute
	// settle is how long a new swarm is left alone before it counts as at rest; restFor is how long it is watched.
	settle  = 5 * time.Second
	restFor = 10 * time.Second
)

// Benchmarks are the figures of a whole swarm that `omega bench` shows. All come from one testnet, made on first use
// and removed after its measurements; they need root.
func Benchmarks() []event.Benchmark {
	measure := sync.OnceValues(measureSwarm)
	figure := func(pick func(*figures) float64) func() (float64, error) {
		return func() (float64, error) {
			f, err := measure()
			if err != nil {
				return 0, err
			}
			return pick(f), nil
		}
	}
	return []event.Benchmark{
		{Name: "testnet/ready", Unit: "ms", Limit: 5000, Measure: figure(func(f *figures) float64 { return f.readyMS })},
		{Name: "node/cpu-at-rest", Unit: "%", Limit: 1, Measure: figure(func(f *figures) float64 { return f.cpuPercent })},
		{Name: "node/rss-at-rest", Unit: "MiB", Limit: 80, Measure: figure(func(f *figures) float64 { return f.rssMiB })},
		{Name: "node/up-to-synced", Unit: "ms", Limit: 3000, Measure: figure(func(f *figures) float64 { return f.restartMS })},
		{Name: "testnet/revocation", Unit: "ms", Limit: 150, Measure: figure(func(f *figures) float64 { return f.revokedMS })},
	}
}

type figures struct {
	readyMS    float64 // from nothing to five synced nodes
	cpuPercent float64 // of one core, of the busiest node at rest, both its processes
	rssMiB     float64 // of the largest node at rest, both its processes: the binary's pages, which they share, are counted once
	revokedMS  float64 // from an operator's word against a peer to its last live connection closed: the slowest of three
	restartMS  float64 // from exec of a killed node's `omega up` to synced again
}

func measureSwarm() (_ *figures, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), benchLimit)
	defer cancel()
	began := time.Now()
	n, err := Up(ctx, Options{Nodes: DefaultNodes, Mode: ModeNetns})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	f := &figures{readyMS: milliseconds(time.Since(began))}

	time.Sleep(settle)
	before := map[string]time.Duration{}
	watched := time.Now()
	for _, h := range n.Members() {
		if before[h.Name], err = cpuTime(h.Cgroup); err != nil {
			return nil, err
		}
	}
	time.Sleep(restFor)
	for _, h := range n.Members() {
		used, err := cpuTime(h.Cgroup)
		if err != nil {
			return nil, err
		}
		f.cpuPercent = max(f.cpuPercent, 100*float64(used-before[h.Name])/float64(time.Since(watched)))
		rss, err := residentMiB(h.Cgroup)
		if err != nil {
			return nil, err
		}
		f.rssMiB = max(f.rssMiB, rss)
	}

	last, err := n.Host("n5")
	if err != nil {
		return nil, err
	}
	if err := Kill(n.State(), last); err != nil {
		return nil, err
	}
	if err := emptied(ctx, last.Cgroup); err != nil {
		return nil, err
	}
	again := time.Now()
	if err := Heal(n.State(), last); err != nil {
		return nil, err
	}
	if err := Reached(ctx, last); err != nil {
		return nil, err
	}
	f.restartMS = milliseconds(time.Since(again))
	for _, victim := range []string{"n5", "n4", "n3"} {
		took, err := revoke(ctx, n, victim)
		if err != nil {
			return nil, err
		}
		f.revokedMS = max(f.revokedMS, milliseconds(took))
	}
	return f, nil
}

// revoke puts a peer out for good, as the founder's operator, and says how long until nobody is connected to it.
func revoke(ctx context.Context, n *Net, name string) (time.Duration, error) {
	victim, err := n.Host(name)
	if err != nil {
		return 0, err
	}
	out, err := victim.status(ctx)
	if err != nil {
		return 0, err
	}
	subject, err := identity.DID(out.GetDid()).Bytes()
	if err != nil {
		return 0, err
	}
	first := n.Members()[0]
	c := client.New(first.Dir)
	defer c.Close()
	op, err := c.OpenOperator(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer op.Close()
	all := uint64(1) << 40 // everything it said stands
	began := time.Now()
	if _, err := op.Submit(ctx, &authority.RevokeBody{Subject: subject[:], Authority: all, Activity: all, Why: "measured"}); err != nil {
		return 0, err
	}
	for _, h := range n.Members() {
		if h.Name == name {
			continue
		}
		for connected := true; connected; {
			peers, err := h.Client().ListPeers(ctx, &apiv1.ListPeersRequest{})
			if err != nil {
				if ctx.Err() != nil || h.Name < name {
					return 0, err
				}
				break // revoked before: it may have given up
			}
			connected = slices.ContainsFunc(peers.GetPeers(), func(p *apiv1.Peer) bool { return p.GetDid() == out.GetDid() && p.GetConnected() })
		}
	}
	return time.Since(began), nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// cpuTime is what all processes of a cgroup have used.
func cpuTime(cgroup string) (time.Duration, error) {
	raw, err := os.ReadFile(filepath.Join(cgroup, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "usage_usec" {
			us, err := strconv.ParseInt(f[1], 10, 64)
			return time.Duration(us) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("%s/cpu.stat has no usage_usec", cgroup)
}

// residentMiB is the memory of a host's processes: what each has for itself, and the most that one has of files. Both are the
// same binary, whose pages are in memory once.
func residentMiB(cgroup string) (float64, error) {
	procs, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		return 0, err
	}
	var own, files uint64 // KiB
	for _, pid := range strings.Fields(string(procs)) {
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(status)) {
			f := strings.Fields(line)
			if len(f) < 2 || !strings.HasPrefix(f[0], "Rss") {
				continue
			}
			n, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s of process %s: %w", f[0], pid, err)
			}
			if f[0] == "RssFile:" {
				files = max(files, n)
			} else {
				own += n
			}
		}
	}
	return float64(own+files) / 1024, nil
}
