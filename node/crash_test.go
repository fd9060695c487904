package node

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
)

// crashEnv makes this binary a node of its own process, with the configuration that it holds: one that can be killed.
const crashEnv = "NODE_TEST_UP"

func upToBeKilled(raw string) int {
	os.Unsetenv(crashEnv)
	cfg := config.Default("")
	if err := json.Unmarshal([]byte(raw), cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := Up(context.Background(), cfg, UpOptions{Version: "test", Log: os.Stderr}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process starts r's node as a process of its own and returns once it answers and is in sync.
func (r *rig) process() *exec.Cmd {
	r.t.Helper()
	raw, err := json.Marshal(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+string(raw))
	cmd.Stderr = r.log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) // again, where it was killed: no matter
	eventually(r.t, r.name+" is up and in sync", func() bool {
		r.http.CloseIdleConnections()
		s, err := r.client.Status(r.t.Context(), &apiv1.StatusRequest{})
		return err == nil && s.Synced
	})
	return cmd
}

// entries are the raw bytes of every entry that r's node has.
func (r *rig) entries() map[string]bool {
	s, err := r.client.Entries(r.t.Context(), &apiv1.EntriesRequest{})
	if err != nil {
		return nil
	}
	defer s.Close()
	out := map[string]bool{}
	for s.Receive() {
		out[string(s.Msg().Raw)] = true
	}
	return out
}

// A node that is killed at any moment has afterwards all that it said yes to, and no other peer takes it for one that
// tells two stories: it signs receipts all the while.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	if testing.Short() {
		t.Skip("runs nodes")
	}
	rigs := mesh(t, []string{"sentinel"}, "n1", "n2")
	n1, n2 := rigs[0], rigs[1]
	n1.operate(&authority.GrantBody{Subject: subject(t, n1), Roles: []string{"sentinel"}})
	op, err := identity.ReadInception(Layout{n1.dir}.Operator())
	if err != nil {
		t.Fatal(err)
	}
	n1.stop()
	n1.cfg.Split = os.Geteuid() == 0 // two processes, as it is run: the second dies with the first
	var kept [][]byte                // what was acknowledged
	next := 0
	for round := range 4 {
		cmd := n1.process()
		have := n1.entries()
		for i, raw := range kept {
			if !have[string(raw)] {
				t.Fatalf("round %d: entry %d of %d was acknowledged, and is gone after the kill", round, i, len(kept))
			}
		}
		ended := make(chan [][]byte, 1)
		go func() {
			var said [][]byte
			for ; ; next++ {
				_, raw, err := n1.submit(&authority.ResponseBody{Response: event.Response{
					Action: event.ActionDeny, Target: event.Target{Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(next >> 8), byte(next)}), 32)},
					Reason: "test", TTL: time.Hour, Authority: event.AuthorityOperator, By: string(op.DID()), Issued: time.Now().UnixNano()}})
				if err != nil {
					ended <- said
					return
				}
				said = append(said, raw)
			}
		}()
		eventually(t, "something was acknowledged", func() bool { return len(n1.entries()) > len(have) })
		time.Sleep(time.Duration(rand.Int64N(int64(200 * time.Millisecond)))) // at any moment
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		kept = append(kept, <-ended...)
	}
	n1.process()
	t.Logf("%d entries were acknowledged over four kills", len(kept))
	for _, r := range rigs {
		eventually(t, r.name+" has them all", func() bool {
			have := r.entries()
			return !slices.ContainsFunc(kept, func(raw []byte) bool { return !have[string(raw)] })
		})
		if text := problem(r.status(), "fork"); text != "" {
			t.Errorf("%s: %s", r.name, text)
		}
	}
	eventually(t, "n2 has what n1 signed last", func() bool {
		mine, theirs := n1.entries(), n2.entries()
		for raw := range mine {
			if !theirs[raw] {
				return false
			}
		}
		return len(mine) > 0
	})
	if text := problem(n2.status(), "fork"); text != "" {
		t.Error(text)
	}
}
