package authority

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/omega-mesh/omega/trust/credential"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// TestDeployments: what was deployed stands by whoever may, in any order of arrival, while its module is released.
func TestDeployments(t *testing.T) {
	w := newWorld(t, 3, 2, "n1", "n2")
	w.member("op0", "n1")
	w.member("op0", "n2")
	module := [32]byte{7}
	say := func(who string, chain credential.Chain, b DeployBody, seen ...ledger.Head) *ledger.Entry {
		b.Module, b.Name = module[:], "base"
		if chain != nil {
			b.Credential = chain.Encode()
		}
		return w.says(who, &b, seen...)
	}
	end := func(who string, chain credential.Chain) *ledger.Entry {
		b := UndeployBody{Module: module[:]}
		if chain != nil {
			b.Credential = chain.Encode()
		}
		return w.says(who, &b)
	}
	check := func(when string, want ...string) {
		t.Helper()
		names := map[identity.DID]string{}
		for n := range w.ids {
			names[w.did(n)] = n
		}
		for i := range 6 {
			entries := append([]*ledger.Entry(nil), w.entries...)
			if i > 0 {
				rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
			}
			var got []string
			for _, d := range fold(w, entries).State().Deployments() {
				got = append(got, fmt.Sprintf("%s:%d", names[d.By], d.Share))
				if d.Module != module || d.Operator == (names[d.By][0] == 'n') || d.Entry == "" {
					t.Errorf("%s: %+v", when, d)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("%s: deployed by %v, want %v", when, got, want)
			}
		}
	}
	peers := func(names ...string) (out [][]byte) {
		for _, n := range names {
			out = append(out, w.hash(n))
		}
		return sorted(out...)
	}
	say("op0", nil, DeployBody{Share: 10})
	check("a module that is not released")
	released := w.says("op0", &ModuleReleaseBody{Module: module[:]})
	check("its release comes", "op0:10")
	say("op0", nil, DeployBody{Share: 50})
	check("the last word of one author counts", "op0:50")
	say("n1", nil, DeployBody{})
	say("n1", w.mayRelease("op0", "n1", CapabilityModuleRelease), DeployBody{})
	one := w.mayRelease("op0", "n1", CapabilityModuleDeploy, w.did("n2"))
	say("n1", one, DeployBody{})
	say("n1", one, DeployBody{Peers: peers("n1", "n2")})
	say("n1", one, DeployBody{Peers: peers("n2"), Roles: []string{"sentinel"}})
	check("none of which its author may", "op0:50")
	say("n1", one, DeployBody{Peers: peers("n2"), Share: 3})
	say("n2", w.mayRelease("op0", "n2", CapabilityModuleDeploy), DeployBody{Share: 4})
	check("and members under credentials", "n1:3", "n2:4", "op0:50")
	end("n1", one)
	check("who undeploys takes back its own word", "n2:4", "op0:50")
	end("n1", nil)
	check("and nobody else's", "n2:4", "op0:50")
	gone := end("op1", nil)
	check("an operator takes back all")
	say("op0", nil, DeployBody{Share: 60})
	check("one that does not know of it")
	say("op0", nil, DeployBody{Share: 70}, gone.Head())
	check("and one that does", "op0:70")
	w.says("op1", &ModuleReleaseBody{Module: module[:], Withdraw: true}, released.Head())
	check("its release is withdrawn")
}

// TestWhoADeploymentIsFor: by role, label, peer, or all; and a larger share holds every host of a smaller one.
func TestWhoADeploymentIsFor(t *testing.T) {
	did := func(i int) identity.DID { return identity.DIDFromBytes([32]byte{byte(i), byte(i >> 8)}) }
	for _, c := range []struct {
		d             Deployment
		roles, labels []string
		want          bool
	}{
		{Deployment{}, nil, nil, true},
		{Deployment{Roles: []string{"decoy"}}, []string{"sentinel"}, []string{"decoy"}, false},
		{Deployment{Roles: []string{"decoy"}}, []string{"decoy", "sentinel"}, nil, true},
		{Deployment{Labels: []string{"web"}}, []string{"web"}, nil, false},
		{Deployment{Labels: []string{"db", "web"}}, nil, []string{"web"}, true},
		{Deployment{Peers: []identity.DID{did(1)}}, nil, nil, true},
		{Deployment{Peers: []identity.DID{did(2)}}, nil, nil, false},
	} {
		if got := c.d.Matches(did(1), c.roles, c.labels); got != c.want {
			t.Errorf("%+v for %v %v: %v", c.d, c.roles, c.labels, got)
		}
	}
	in := map[int]int{}
	for i := range 2000 {
		was := false
		for _, share := range []int{1, 10, 50, 99} {
			d := Deployment{Module: [32]byte{9}, Share: share}
			is := d.Matches(did(i), nil, nil)
			if was && !is {
				t.Fatalf("host %d is in a smaller share and not in %d", i, share)
			}
			if was = is; is {
				in[share]++
			}
		}
	}
	for share, n := range in {
		if n < 2000*share/100-80 || n > 2000*share/100+80 { // four standard deviations
			t.Errorf("%d of 2000 hosts are in a share of %d", n, share)
		}
	}
}
