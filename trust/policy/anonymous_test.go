package policy

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

func nobody(i int) *event.Finding {
	return &event.Finding{
		ID: fmt.Sprintf("%032x", 1000+i), Time: 1, RuleID: "report.manual", Severity: event.SeverityCritical, Confidence: 100,
		Subject:   event.Subject{Address: netip.MustParseAddr("192.0.2.9")},
		Anonymous: &event.Anonymity{Ring: 9, Standing: 48 * time.Hour, Role: "sentinel"},
	}
}

func named(i int, peer string) *event.Finding {
	f := nobody(i)
	f.Peer, f.Host, f.Anonymous = peer, peer, nil
	return f
}

// TestAnonymousReportsTriggerNothing: neither alone nor together nor beside a named witness, whatever the policy says of
// witnesses in general; and one at most where it says so of anonymous ones.
func TestAnonymousReportsTriggerNothing(t *testing.T) {
	const believes = `permit (principal, action == Action::"witness", resource) when { context.anonymous && context.standing >= 24 };`
	const all = `permit (principal, action, resource);`
	for name, c := range map[string]struct {
		policy   string
		findings []*event.Finding
		want     Verdict
	}{
		"default, alone":              {DefaultText(), []*event.Finding{nobody(1)}, None},
		"default, two":                {DefaultText(), []*event.Finding{nobody(1), nobody(2)}, None},
		"default, beside one":         {DefaultText(), []*event.Finding{named(3, "did:omega:a"), nobody(1)}, None},
		"everything permitted, alone": {all, []*event.Finding{nobody(1)}, Ask},
		"everything permitted, two":   {all, []*event.Finding{nobody(1), nobody(2)}, Ask},
		"believed, two":               {DefaultText() + believes, []*event.Finding{nobody(1), nobody(2)}, None},
		"believed, beside one":        {DefaultText() + believes, []*event.Finding{named(3, "did:omega:a"), nobody(1)}, Everywhere},
		"too short a member": {DefaultText() + `permit (principal, action == Action::"witness", resource) when { context.anonymous && context.standing >= 72 };`,
			[]*event.Finding{named(3, "did:omega:a"), nobody(1)}, None},
	} {
		e, err := Parse(c.policy)
		if err != nil {
			t.Fatal(err)
		}
		fold := NewFold(e, FoldOptions{Self: "did:omega:self"})
		got := None
		for _, f := range c.findings {
			if f.Anonymous != nil {
				f.Handshake, f.Decoy = true, "tcp/23" // a lie that must not help
			}
			if p, ok := fold.Add(f); ok {
				got = max(got, p.Verdict)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
