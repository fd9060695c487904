package drill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/testnet"
)

// TestChaos kills, cuts off and heals hosts of a testnet at random for as long as SOAK_FOR says, while attackers touch
// decoys. When everything is healed, every node has the same findings, none convicts another, and the swarm still
// refuses the next attacker on every host.
func TestChaos(t *testing.T) {
	needRoot(t)
	soak, err := time.ParseDuration(os.Getenv("SOAK_FOR"))
	if err != nil {
		t.Skip("set SOAK_FOR to a duration: make soak does")
	}
	const nodes = 5
	n, err := testnet.Up(t.Context(), testnet.Options{Nodes: nodes, Binary: omegaBinary(t), Progress: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range n.State().Hosts {
				text, _ := os.ReadFile(h.Log)
				t.Logf("%s:\n%s", h.Name, text)
			}
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	s := swarm{t, n}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	down := map[string]bool{}
	acts, ordered := 0, 0
	for end := time.Now().Add(soak); time.Now().Before(end); acts++ {
		name := fmt.Sprintf("n%d", 1+random.IntN(nodes))
		state, err := testnet.Find(n.State().ID)
		if err != nil {
			t.Fatal(err)
		}
		h := s.host(name)
		switch {
		case down[name]:
			err = testnet.Heal(state, h)
			delete(down, name)
		case len(down) >= 2:
		case random.IntN(2) == 0:
			err = testnet.Kill(state, h)
			down[name] = true
		default:
			err = testnet.Partition(state, h)
			down[name] = true
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// Something to say to each other: an address that is refused everywhere for a while.
		if !down["n1"] && acts%4 == 0 {
			if out, err := s.run("n1", "", n.State().Binary, "respond", "deny", "ip", fmt.Sprintf("192.0.2.%d", 1+acts%250), "--ttl", "10m", "--wait", "1ms"); err != nil {
				t.Logf("n1 took no order: %v: %s", err, out) // it may be cut off from itself by what came before
			} else {
				ordered++
			}
		}
		wait(t, 200*time.Millisecond+time.Duration(random.Int64N(int64(time.Second))))
	}
	state, err := testnet.Find(n.State().ID)
	if err != nil {
		t.Fatal(err)
	}
	for name := range down {
		if err := testnet.Heal(state, s.host(name)); err != nil {
			t.Fatalf("heal %s: %v", name, err)
		}
	}
	t.Logf("%d acts of chaos, %d orders, all healed", acts, ordered)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for k := range nodes {
		h := s.host(fmt.Sprintf("n%d", k+1))
		for {
			status, err := h.Client().Status(ctx, &apiv1.StatusRequest{})
			if err == nil && status.Synced && status.Peers == nodes-1 {
				for _, p := range status.Problems {
					if p.Severity == "critical" {
						t.Errorf("%s: %s: %s", h.Name, p.Code, p.Text)
					}
				}
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("%s is not back with the others: %v, %v", h.Name, status, err)
			}
			wait(t, 100*time.Millisecond)
		}
	}
	// Everybody knows of every order that n1 took.
	s.eventually("all know the same orders", func() bool {
		for _, h := range n.Members() {
			list, err := h.Client().ListResponses(t.Context(), &apiv1.ListResponsesRequest{})
			known := 0
			for _, r := range list.GetResponses() {
				if r.Authority == "operator" {
					known++
				}
			}
			if err != nil || known < ordered {
				return false
			}
		}
		return true
	})
	// The swarm still does what it is for.
	x1 := s.host("x1")
	s.reaches("x1", "n2", s.host("n2").Decoy)
	s.eventually("all five refuse x1", func() bool {
		hosts, _ := s.refusing("deny", x1.Addr.String())
		return len(hosts) == nodes
	})
}

// wait passes time; what it waits for is asked again afterwards.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(context.Cause(t.Context()))
	}
}
