package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// twoFaced is a member that runs no node, and keeps two versions of its feed.
type twoFaced struct {
	*swarm.Swarm
	one, other *ledger.Entry
}

// twoFace takes over what r has, which is stopped, and has it sign two entries of one number.
func twoFace(t *testing.T, r *rig, bootstrap ...string) *twoFaced {
	t.Helper()
	layout := Layout{r.dir}
	id, err := identity.Open(layout.Identity(), identity.Options{NextDir: layout.Next()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Close() })
	g, err := loadGenesis(layout)
	if err != nil {
		t.Fatal(err)
	}
	version := func(text string) (*ledger.Ledger, *authority.Fold, *ledger.Entry) {
		dir := filepath.Join(t.TempDir(), "ledger")
		if err := os.CopyFS(dir, os.DirFS(layout.Ledger())); err != nil {
			t.Fatal(err)
		}
		fold := authority.NewFold(g)
		l, err := ledger.Open(dir, g.SwarmID(), id, fold, ledger.Options{OnEntry: func(e *ledger.Entry) { _ = fold.Apply(e) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		if err := l.Replay(func(e *ledger.Entry) error { _ = fold.Apply(e); return nil }); err != nil {
			t.Fatal(err)
		}
		e, err := l.Append(t.Context(), ledger.Activity, ledger.KindFinding, []byte(text), true)
		if err != nil {
			t.Fatal(err)
		}
		return l, fold, e
	}
	_, _, other := version("all is well")
	l, fold, one := version("an intruder")
	s, err := swarm.New(swarm.Config{
		Transport: id.Transport(), Swarm: g.SwarmID(), Self: id, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Bootstrap: bootstrap,
		Ledger: l, Members: members{fold},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = s.Close()
	})
	return &twoFaced{Swarm: s, one: one, other: other}
}

// TestTwoVersionsConvict: a member that serves two versions of its feed is convicted by every peer by itself, each posts
// the proof, the connection to it is closed, and both entries are shown.
func TestTwoVersionsConvict(t *testing.T) {
	rigs := mesh(t, []string{"sentinel"}, "n1", "n2", "n3")
	n1, n2, n3 := rigs[0], rigs[1], rigs[2]
	did := n3.status().Did
	n3.stop()
	var bootstrap []string
	for _, r := range rigs[:2] {
		bootstrap = append(bootstrap, r.status().Addrs...)
	}
	liar := twoFace(t, n3, bootstrap...)
	if liar.one.Seq != liar.other.Seq || liar.one.Hash() == liar.other.Hash() {
		t.Fatal("not two entries of one number")
	}
	eventually(t, "the liar is connected to both", func() bool { return len(liar.Peers()) == 2 })
	start, said := time.Now(), time.Time{}
	tell := func() { // again and again: what is sent while a connection is new may reach nobody
		if time.Since(said) < time.Second {
			return
		}
		said = time.Now()
		for _, e := range []*ledger.Entry{liar.one, liar.other} {
			if err := liar.Publish(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range []*rig{n1, n2} {
		eventually(t, r.name+" convicts", func() bool { tell(); return problem(r.status(), "fork") != "" })
		eventually(t, r.name+" closes the connection", func() bool { return r.status().Peers == 1 })
	}
	t.Logf("convicted and cut off everywhere after %s", time.Since(start).Round(time.Millisecond))
	for _, r := range []*rig{n1, n2} {
		eventually(t, r.name+" has both peers' proofs", func() bool {
			by := map[string]bool{}
			for _, e := range r.listed(&apiv1.EntriesRequest{Kind: "evidence"}) {
				by[e.Author] = true
			}
			return by[n1.status().Did] && by[n2.status().Did]
		})
		both := r.listed(&apiv1.EntriesRequest{Evidence: true})
		if len(both) != 2 || both[0].Author != did || both[0].Seq != both[1].Seq || both[0].Hash == both[1].Hash {
			t.Errorf("%s shows %v", r.name, both)
		}
	}
}

// listed is what r's API gives.
func (r *rig) listed(q *apiv1.EntriesRequest) []*apiv1.Entry {
	r.t.Helper()
	s, err := r.client.Entries(r.t.Context(), q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	var out []*apiv1.Entry
	for s.Receive() {
		out = append(out, s.Msg())
	}
	return out
}
