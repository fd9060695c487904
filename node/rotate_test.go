package node

import (
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/trust/anonymous"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// rotate goes on with the next key, as `omega key rotate` does.
func (r *rig) rotate() {
	r.t.Helper()
	layout := Layout{r.dir}
	step, err := identity.Succeed(layout.Identity(), identity.Options{NextDir: layout.Next()})
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = step.Close() }()
	if _, err := r.client.Rotate(r.t.Context(), &apiv1.RotateRequest{Seed: step.Key.Seed(), Next: step.Next[:]}); err != nil {
		r.t.Fatal(err)
	}
	if err := step.Done(); err != nil {
		r.t.Fatal(err)
	}
}

// latest is the newest entry of a kind that author signed, as r has it.
func (r *rig) latest(kind, author string) *ledger.Entry {
	r.t.Helper()
	var last *ledger.Entry
	for _, x := range r.listed(&apiv1.EntriesRequest{Kind: kind, Peer: author}) {
		e, err := ledger.Decode(x.Raw)
		if err != nil {
			r.t.Fatal(err)
		}
		if last == nil || e.Seq > last.Seq {
			last = e
		}
	}
	return last
}

// TestRotationBringsItsKeys: who stole a key has what follows from it, too; so from the rotation on, and not from the next
// start on, a member hides behind another key.
func TestRotationBringsItsKeys(t *testing.T) {
	rigs := mesh(t, []string{"analyst"}, "n1", "n2", "n3")
	n1, n2 := rigs[0], rigs[1]
	did := n2.status().Did
	for _, r := range rigs {
		eventually(t, r.name+" knows three keys", func() bool { return strings.HasPrefix(r.anonymity(), "true an author hides among 3 ") })
	}
	stolen, err := anonymous.DecodeKey(n1.latest("anonymous-key", did))
	if err != nil {
		t.Fatal(err)
	}
	n2.rotate()
	var fresh anonymous.PublicKey
	eventually(t, "n1 has n2's new key", func() bool {
		fresh, err = anonymous.DecodeKey(n1.latest("anonymous-key", did))
		return err == nil && fresh != stolen
	})
	eventually(t, "n2 knows that it gave it out", func() bool { return strings.HasPrefix(n2.anonymity(), "true an author hides among 3 ") })
	// Its connections are made anew with the new key; until they are, nobody takes a report, and the answer is to try again.
	eventually(t, "somebody takes n2's report", func() bool {
		_, err := n2.client.Report(t.Context(), &apiv1.ReportRequest{Finding: &apiv1.Finding{
			RuleId: "report.manual", Severity: "high", Confidence: 100, Title: "after", Subject: &apiv1.Subject{Address: "192.0.2.66"},
		}})
		if err != nil && connect.CodeOf(err) != connect.CodeUnavailable {
			t.Fatal(err)
		}
		return err == nil
	})
	for _, r := range rigs {
		eventually(t, r.name+" has the report", func() bool { return slices.Equal(r.nameless(), []string{"after"}) })
	}
	letters := n1.listed(&apiv1.EntriesRequest{Kind: "anonymous"})
	e, err := ledger.Decode(letters[0].Raw)
	if err != nil {
		t.Fatal(err)
	}
	report, err := anonymous.Decode(e.Body)
	if err != nil || slices.Contains(report.Ring, stolen) || !slices.Contains(report.Ring, fresh) {
		t.Errorf("the author's old key is in the ring, or its new one is not: %v", err)
	}
}
