package swarm

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marcopolo/simnet"

	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// TestReturnAfterTwelveHours, in virtual time: two of three peers are cut off for twelve hours, in which one of them is
// revoked and the other loses a role. When the wires are mended, neither is a peer of anybody before it knows: the one is
// never let in, and the other holds the role no longer, by its own fold too, from the first moment that it has a peer who
// was not cut off.
func TestReturnAfterTwelveHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wires := &wires{net: &simnet.Simnet{LatencyFunc: simnet.StaticLatency(25 * time.Millisecond)}}
		wires.net.Start()
		defer wires.net.Close()
		w := newWorld(t)
		var people []*person
		for _, name := range []string{"home", "away", "stolen"} {
			people = append(people, w.member(name))
		}
		did, err := people[1].id.DID().Bytes()
		check(t, err)
		say := func(b authority.Body) []byte {
			raw, err := b.Encode()
			check(t, err)
			return w.sign(b.Kind(), raw)
		}
		say(&authority.GrantBody{Subject: did[:], Roles: []string{"decoy"}})
		var nodes []*node
		for _, p := range people {
			o := []option{wires.attach()}
			for _, n := range nodes {
				o = append(o, bootstrap(n))
			}
			nodes = append(nodes, p.up(o...))
		}
		defer func() {
			for _, n := range nodes {
				n.stop()
			}
		}()
		for _, n := range nodes {
			n.meets(2, time.Minute)
		}
		home, away, stolen := nodes[0], nodes[1], nodes[2]

		wires.cut.Store(2)
		time.Sleep(2 * time.Minute) // connections across the cut die
		for _, raw := range [][]byte{w.revoke(people[2]), say(&authority.RevokeRoleBody{Subject: did[:], Roles: []string{"decoy"}})} {
			e, err := home.ledger.Ingest(context.Background(), raw)
			check(t, err)
			check(t, home.swarm.Publish(context.Background(), e))
		}
		time.Sleep(12 * time.Hour)
		if s := away.fold.State(); s.Revoked(people[2].id.DID()) || !s.HasRole(people[1].id.DID(), "decoy", time.Now()) {
			t.Fatal("the cut does not cut")
		}

		wires.cut.Store(0)
		has := func(n *node, did identity.DID) bool {
			return slices.ContainsFunc(n.swarm.Peers(), func(p PeerStatus) bool { return p.DID == did })
		}
		away.until("is back", 30*time.Minute, func() bool {
			if has(home, people[2].id.DID()) {
				t.Fatal("the revoked one was let in")
			}
			back := has(away, home.id.DID())
			if s := away.fold.State(); back && (!s.Revoked(people[2].id.DID()) || s.HasRole(people[1].id.DID(), "decoy", time.Now())) {
				t.Fatal("it has a peer who was not cut off, and honours what was granted to it before")
			}
			return back
		})
		_ = stolen.say("from beyond")
		home.hears(away.say("back"), time.Minute)
		if n, ok := home.ledger.Head(people[2].id.DID(), ledger.Activity); ok {
			t.Errorf("%s took %d entries of the revoked one", home.name, n.Seq+1)
		}
	})
}
