package node

import (
	"slices"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
)

// TestSwarmOfTheLargerSuite: a swarm of ML-DSA-87 and SecP384r1MLKEM1024 lives as any other: its members join by a token,
// an operator's grant reaches them, and what one finds all know.
func TestSwarmOfTheLargerSuite(t *testing.T) {
	n1, n2 := newRig(t, "n1"), newRig(t, "n2")
	if _, err := Init(n1.dir, InitOptions{Name: n1.name, Swarm: "lab", Suite: trust.SuiteCNSA}); err != nil {
		t.Fatal(err)
	}
	n1.up()
	n2.join(n1.invite(1, []string{"sentinel"}))
	n2.up()
	rigs := []*rig{n1, n2}
	eventually(t, "both are connected and in sync", func() bool {
		return !slices.ContainsFunc(rigs, func(r *rig) bool { s := r.status(); return s.Peers != 1 || !s.Synced })
	})
	n1.operate(&authority.GrantBody{Subject: subject(t, n2), Roles: []string{"decoy"}})
	eventually(t, "n2 runs decoy", func() bool { return slices.Contains(n2.running(), "decoy") })
	n2.touch()
	for _, r := range rigs {
		eventually(t, r.name+" knows of the touch", func() bool {
			return slices.ContainsFunc(r.findings(), func(s string) bool { return strings.HasPrefix(s, "n2 omega.decoy") })
		})
	}
}
