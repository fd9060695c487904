package policy

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are the figures of the response policy that `omega bench` shows.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{{
		Name: "policy/decide", Unit: "us", Limit: 50, // one finding through the default policy
		Measure: func() (float64, error) {
			e := Default()
			c := Case{DecoyRole: true, Witnesses: 1, Finding: &event.Finding{ID: "0", Peer: "did:omega:n2", RuleID: "omega.decoy.touch", Severity: event.SeverityHigh,
				Confidence: 100, Handshake: true, Decoy: "tcp/2323", Subject: event.Subject{Address: netip.MustParseAddr("203.0.113.9")}}}
			var err error
			ns := event.PerOperation(func(b *testing.B) {
				for b.Loop() {
					if e.Decide(c).Verdict != Everywhere {
						err = errors.New("the default policy does not act on a decoy touch")
					}
				}
			})
			return ns / 1000, err
		},
	}}
}
