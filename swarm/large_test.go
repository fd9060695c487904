package swarm

import (
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marcopolo/simnet"
)

// Thirty-two peers (sixty-four where SOAK_FOR is set), past the size at which an author pushes to everybody: each knows eight that came before it, as a join's
// answer tells, and what one says reaches all over the gossip mesh, also after a quarter of them fell silent at once.
func TestLargeSwarm(t *testing.T) {
	peers := 32
	if os.Getenv("SOAK_FOR") != "" {
		peers = 64
	}
	synctest.Test(t, func(t *testing.T) {
		wires := &wires{net: &simnet.Simnet{LatencyFunc: simnet.StaticLatency(25 * time.Millisecond)}}
		wires.net.Start()
		defer wires.net.Close()
		w := newWorld(t)
		var people []*person
		for k := range peers {
			people = append(people, w.member(fmt.Sprintf("p%d", k)))
		}
		var nodes []*node
		defer func() {
			for _, n := range nodes {
				n.stop()
			}
		}()
		for k, p := range people {
			o := []option{wires.attach()}
			for i := range min(k, 8) {
				o = append(o, bootstrap(nodes[(i*7+k*k)%k]))
			}
			nodes = append(nodes, p.up(o...))
		}
		for _, n := range nodes {
			n.until("has a mesh's worth of peers", 5*time.Minute, func() bool { return len(n.swarm.Peers()) >= 6 })
		}
		time.Sleep(10 * time.Second) // ten heartbeats: the mesh stands
		reach := func(among []*node, from int, what string) {
			t.Helper()
			began := time.Now()
			e := among[from].say(what)
			for _, n := range among {
				n.hears(e, time.Minute)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("%s: %s until all %d had it", what, took, len(among))
			} else {
				t.Logf("%s: %s", what, took)
			}
		}
		for k := range 4 {
			reach(nodes, k*peers/4, fmt.Sprint("from p", k*peers/4))
		}
		for _, n := range nodes[peers*3/4:] {
			n.stop()
		}
		reach(nodes[:peers*3/4], 5, "after a quarter fell silent")
	})
}
