package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/anonymous"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// nameless are the titles, sorted, of the anonymous findings that r's API shows.
func (r *rig) nameless() []string {
	r.t.Helper()
	s, err := r.client.Findings(r.t.Context(), &apiv1.FindingsRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	var out []string
	for s.Receive() {
		f := s.Msg()
		if f.Anonymous == nil {
			continue
		}
		if f.Peer != "" || f.Host != "" || f.Anonymous.Carrier == "" || f.Boot != 0 || f.Time.AsTime().Second() != 0 {
			r.t.Errorf("%s: an anonymous finding that tells too much: %v", r.name, f)
		}
		out = append(out, f.Title)
	}
	if s.Err() != nil {
		r.t.Fatal(s.Err())
	}
	slices.Sort(out)
	return out
}

// anonymity is what r's doctor says of it.
func (r *rig) anonymity() string {
	r.t.Helper()
	d, err := r.client.Doctor(r.t.Context(), &apiv1.DoctorRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	i := slices.IndexFunc(d.Checks, func(c *apiv1.Check) bool { return c.Name == "anonymous reports" })
	return fmt.Sprint(d.Checks[i].Ok, " ", d.Checks[i].Detail)
}

// cheat is a member that runs no node of ours: the keys and the ledger of r, which is stopped.
type cheat struct {
	*swarm.Swarm
	ledger  *ledger.Ledger
	key     *anonymous.Key
	genesis *authority.Genesis
}

func cheatAs(t *testing.T, r *rig, bootstrap ...string) *cheat {
	t.Helper()
	layout := Layout{r.dir}
	id, err := identity.Open(layout.Identity(), identity.Options{NextDir: layout.Next()})
	if err != nil {
		t.Fatal(err)
	}
	g, err := loadGenesis(layout)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := id.Derive(anonymous.KeyLabel)
	if err != nil {
		t.Fatal(err)
	}
	x := &cheat{genesis: g}
	if x.key, err = anonymous.NewKey(secret); err != nil {
		t.Fatal(err)
	}
	fold := authority.NewFold(g)
	if x.ledger, err = ledger.Open(layout.Ledger(), g.SwarmID(), id, fold, ledger.Options{OnEntry: func(e *ledger.Entry) { _ = fold.Apply(e) }}); err != nil {
		t.Fatal(err)
	}
	if err := x.ledger.Replay(func(e *ledger.Entry) error { _ = fold.Apply(e); return nil }); err != nil {
		t.Fatal(err)
	}
	x.Swarm, err = swarm.New(swarm.Config{
		Transport: id.Transport(), Swarm: g.SwarmID(), Self: id, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Bootstrap: bootstrap,
		Ledger: x.ledger, Members: members{fold},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = x.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = x.Close()
		_ = x.ledger.Close()
		_ = id.Close()
	})
	return x
}

func (x *cheat) signs(t *testing.T, k *anonymous.Key, epoch anonymous.Epoch, ring anonymous.Ring, title string) []byte {
	t.Helper()
	body, err := anonymous.EncodeClaim(anonymous.Threshold{}, &event.Finding{Title: title, RuleID: "r", Severity: event.SeverityHigh})
	if err != nil {
		t.Fatal(err)
	}
	r, err := k.Sign(x.genesis.SwarmID(), epoch, 0, ring, body)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestAnonymousReport: what one member says without a name arrives everywhere, in a feed that is not its own; one more
// than its share, a stranger's, an old and a repeated one are refused everywhere, and nobody acts on any of them.
func TestAnonymousReport(t *testing.T) {
	rigs := mesh(t, []string{"analyst", "sentinel"}, "n1", "n2", "n3")
	n1, n2, n3 := rigs[0], rigs[1], rigs[2]
	for _, r := range rigs {
		eventually(t, r.name+" knows three keys", func() bool { return strings.HasPrefix(r.anonymity(), "true an author hides among 3 ") })
	}
	ask := &apiv1.ReportRequest{Finding: &apiv1.Finding{
		RuleId: "report.manual", Severity: "critical", Confidence: 100, Subject: &apiv1.Subject{Address: "192.0.2.66"},
	}}
	for i, title := range []string{"one", "two", "three", "four"} {
		ask.Finding.Title = title
		if out, err := n2.client.Report(t.Context(), ask); err != nil || out.Ring != 3 || int(out.Slot) != i+1 {
			t.Fatalf("%s: %v, %v", title, out, err)
		}
	}
	ask.Finding.Title = "five"
	if _, err := n2.client.Report(t.Context(), ask); err == nil || !strings.Contains(err.Error(), "used up") {
		t.Errorf("the fifth of an hour: %v", err)
	}
	ask.StandingHours = 1
	if _, err := n1.client.Report(t.Context(), ask); err == nil || !strings.Contains(err.Error(), "--standing") {
		t.Errorf("nobody has been a member for an hour: %v", err)
	}
	said := []string{"four", "one", "three", "two"}
	for _, r := range rigs {
		eventually(t, r.name+" has the reports", func() bool { return slices.Equal(r.nameless(), said) })
	}
	letters := n1.listed(&apiv1.EntriesRequest{Kind: "anonymous"})
	if len(letters) < 4 {
		t.Fatalf("%d letters in the feeds", len(letters))
	}
	for _, e := range letters {
		if e.Author == n2.status().Did {
			t.Error("the author carried its own report")
		}
	}

	// The same member cheats: it uses a slot again, hides behind a key that nobody gave out, is a day late, repeats.
	e, err := ledger.Decode(letters[0].Raw)
	if err != nil {
		t.Fatal(err)
	}
	first, err := anonymous.Decode(e.Body)
	if err != nil {
		t.Fatal(err)
	}
	n2.stop()
	var bootstrap []string
	for _, r := range []*rig{n1, n3} {
		bootstrap = append(bootstrap, r.status().Addrs...)
	}
	x := cheatAs(t, n2, bootstrap...)
	eventually(t, "the cheat is connected to both", func() bool { return len(x.Peers()) == 2 && x.Synced() })
	x.ledger.Ready()
	stranger, err := anonymous.NewKey([32]byte{9})
	if err != nil {
		t.Fatal(err)
	}
	ring := append(slices.Clone(first.Ring[:2]), stranger.Public())
	slices.SortFunc(ring, func(a, b anonymous.PublicKey) int { return bytes.Compare(a[:], b[:]) })
	for _, raw := range [][]byte{
		x.signs(t, stranger, first.Epoch, ring, "a stranger's"), e.Body,
		x.signs(t, x.key, first.Epoch, first.Ring, "one too many"),
		x.signs(t, x.key, first.Epoch-trust.AnonymousWindow, first.Ring, "a day late"),
	} {
		if err := x.Hand(t.Context(), raw); !bytes.Equal(raw, e.Body) && !errors.Is(err, swarm.ErrNoCarrier) {
			t.Errorf("a member takes what it should refuse: %v", err)
		}
		mine, err := x.ledger.Append(t.Context(), ledger.Activity, ledger.KindAnonymous, raw, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Publish(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(r *rig) {
		t.Helper()
		eventually(t, r.name+" has judged them", func() bool { return strings.Contains(r.anonymity(), " 2 reports refused") })
		if got := r.nameless(); !slices.Equal(got, said) {
			t.Errorf("%s shows %v", r.name, got)
		}
		if rs, err := r.client.ListResponses(t.Context(), &apiv1.ListResponsesRequest{}); err != nil || len(rs.Responses) > 0 {
			t.Errorf("%s: an anonymous report made it act: %v, %v", r.name, rs, err)
		}
	}
	refused(n1)
	refused(n3)
	n3.stop()
	n3.up() // which of two reports in a slot counts, a restart does not change
	eventually(t, "the reports are there after a restart", func() bool { return len(n3.nameless()) == 4 })
	refused(n3)
}
