package analyst

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/roles/rolestest"
	"github.com/omega-mesh/omega/swarm/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func found(by, rule string, at int64, confidence uint8, severity event.Severity, attack ...string) *event.Finding {
	return &event.Finding{ID: fmt.Sprintf("%s-%s-%d", by, rule, at), Peer: "did:omega:" + by, Host: by, Time: at * int64(time.Minute), RuleID: rule, Title: rule,
		Confidence: confidence, Severity: severity, Attack: attack, Subject: event.Subject{Address: netip.MustParseAddr("203.0.113.9")}}
}

func TestCorrelates(t *testing.T) {
	a := New(Options{})
	a.correlate(found("n3", "scan", 100, 60, event.SeverityMedium, "T1046"))
	a.correlate(found("n3", "scan", 101, 60, event.SeverityMedium, "T1046"))
	a.correlate(found("n2", "decoy", 102, 90, event.SeverityHigh, "T1021"))
	got := a.Incidents()
	if len(got) != 1 {
		t.Fatalf("%d incidents", len(got))
	}
	i := got[0]
	want := Incident{ID: i.ID, Subject: "203.0.113.9", First: 100 * int64(time.Minute), Last: 102 * int64(time.Minute), Severity: event.SeverityHigh,
		Confidence: 96, // 1 - 0.4*0.1: the second scan of n3 is n3's word again
		Attack:     []string{"T1021", "T1046"}, Peers: []string{"did:omega:n2", "did:omega:n3"},
		Findings: []string{"n3-scan-100", "n3-scan-101", "n2-decoy-102"}, Count: 3, Title: "decoy", weight: i.weight}
	if !reflect.DeepEqual(i, want) {
		t.Errorf("%+v\nwant %+v", i, want)
	}
	a.correlate(found("n3", "scan", 102+61, 60, event.SeverityMedium))
	if j := a.Incidents()[0]; j.ID == i.ID || j.Count != 1 {
		t.Errorf("after a quiet hour: %+v", j)
	}
}

func TestBounded(t *testing.T) {
	a := New(Options{})
	for i := range MaxIncidents + 10 {
		f := found("n3", "scan", int64(i), 60, event.SeverityMedium)
		f.Subject.Address = netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		a.correlate(f)
	}
	if len(a.Incidents()) != MaxIncidents || a.Dropped() != 10 {
		t.Fatalf("%d incidents, %d dropped", len(a.Incidents()), a.Dropped())
	}
	for i := range 10 * maxPeers {
		a.correlate(found(fmt.Sprint("p", i), "scan", 100, 60, event.SeverityMedium, fmt.Sprint("T", i)))
	}
	for _, i := range a.Incidents() {
		if len(i.Findings) > MaxFindings || len(i.Peers) > maxPeers || len(i.Attack) > 32 {
			t.Fatalf("%d findings, %d peers, %d techniques", len(i.Findings), len(i.Peers), len(i.Attack))
		}
	}
}

func TestAsksAPerson(t *testing.T) {
	ctx, stop := context.WithTimeout(context.Background(), 15*time.Second)
	defer stop()
	w := rolestest.New()
	p := w.Add("n1", "10.0.0.1", roles.NameAnalyst)
	w.SetPolicy(`@id("ask") permit (principal, action == Action::"ask", resource) when { context.rule == "scan" };`)
	board := roles.NewBoard()
	a := New(Options{Board: board})
	inner, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- a.Run(inner, p) }()
	f := found("n1", "scan", 0, 60, event.SeverityMedium)
	f.Time = 0
	if _, err := p.Publish(ctx, *f); err != nil {
		t.Fatal(err)
	}
	if err := w.Until(ctx, func() bool { return len(board.Pending()) == 1 && len(a.Incidents()) == 1 }); err != nil {
		t.Fatalf("%v: %+v", err, board.Pending())
	}
	if got := board.Pending()[0]; got.Suggested != event.ActionDeny || got.Guard != "" || len(got.Evidence) != 1 || got.Proposal.Target.Address.String() != "203.0.113.9/32" {
		t.Errorf("%+v", got)
	}
	end()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
}
