package authority

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust/credential"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/root"
)

// mayRelease lends a member a credential to release modules.
func (w *world) mayRelease(by, to, action string, peers ...identity.DID) credential.Chain {
	w.t.Helper()
	s := fold(w, w.entries).State()
	c, err := credential.Issue(w.identity(by), credential.Content{
		Swarm: w.genesis.SwarmID(), Subject: w.did(to), NotBefore: w.now.Add(-time.Minute), NotAfter: w.now.Add(time.Hour),
		Capabilities: []credential.Capability{{Action: action, Peers: peers}}, RootSeq: s.Root().Seq, RootHead: s.Root().Head,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return credential.Chain{c}
}

// TestModuleReleases: what was released stands by whoever may, in any order of arrival, until it is withdrawn, its
// credential revoked, or its author put out.
func TestModuleReleases(t *testing.T) {
	w := newWorld(t, 3, 2, "n1", "n2")
	w.member("op0", "n1")
	w.member("op0", "n2")
	module := [32]byte{7}
	release := func(who string, chain credential.Chain, withdraw bool, seen ...ledger.Head) *ledger.Entry {
		b := &ModuleReleaseBody{Module: module[:], Name: "base", Version: "1.0.0", Withdraw: withdraw}
		if chain != nil {
			b.Credential = chain.Encode()
		}
		return w.says(who, b, seen...)
	}
	check := func(when string, want ...string) {
		t.Helper()
		for i := range 6 {
			entries := append([]*ledger.Entry(nil), w.entries...)
			if i > 0 {
				rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
				entries = append(entries, entries[:min(3, len(entries))]...)
			}
			r, ok := fold(w, entries).State().Released(module)
			names := map[identity.DID]string{}
			for n := range w.ids {
				names[w.did(n)] = n
			}
			got := map[string]bool{}
			for _, by := range r.By {
				got[names[by.DID]] = true
				if by.Operator == (names[by.DID][0] == 'n') || by.Version != "1.0.0" {
					t.Errorf("%s: %+v", when, by)
				}
			}
			if r.Root {
				got["root"] = true
			}
			wanted := map[string]bool{}
			for _, n := range want {
				wanted[n] = true
			}
			if ok != (len(want) > 0) || fmt.Sprint(got) != fmt.Sprint(wanted) {
				t.Fatalf("%s: released by %v (%v), want %v", when, got, ok, want)
			}
			if others := len(r.By); !r.Root && (r.Enough(others+1) || others > 0 && !r.Enough(others)) {
				t.Errorf("%s: %d are enough for %d", when, others, others+1)
			}
		}
	}
	check("nobody spoke")
	release("n1", nil, false)
	release("n1", w.mayRelease("op0", "n1", "respond-deny"), false)
	release("n1", w.mayRelease("op0", "n1", CapabilityModuleRelease, w.did("n2")), false) // for one host
	release("n2", w.mayRelease("op0", "n1", CapabilityModuleRelease), false)              // another's
	release("n2", w.mayRelease("n1", "n2", CapabilityModuleRelease), false)               // of no issuer
	check("none may")
	lent := w.mayRelease("op0", "n1", CapabilityModuleRelease)
	release("n1", lent, false)
	check("a member under a credential", "n1")
	release("op1", nil, false)
	check("and an operator", "n1", "op1")
	release("n1", lent, true)
	check("a member withdraws its own", "op1")
	release("n1", lent, false)
	check("and releases again", "n1", "op1")
	gone := release("op2", nil, true)
	check("an operator withdraws all")
	release("op1", nil, false)
	check("one that does not know of it")
	release("op1", nil, false, gone.Head())
	release("n1", lent, false, gone.Head())
	check("and those that do", "n1", "op1")
	w.says("op0", &RevokeCredentialBody{Serial: lent[0].Serial[:], Why: "lost"})
	check("its credential revoked", "op1")
	w.changes("n1", &root.Release{Name: "module/base", Version: "1", SHA256: module[:]}, "op0", "op1")
	check("the root", "op1", "root")
	release("op0", nil, true)
	check("no operator alone takes back the root's", "root")
	w.changes("n1", &root.Release{Name: "module/base", Version: "1"}, "op0", "op1")
	check("the root withdraws")
}

// TestNobodyPushesOutReleases: a member without a right to it fills its own share only.
func TestNobodyPushesOutReleases(t *testing.T) {
	w := newWorld(t, 1, 1, "n1")
	w.member("op0", "n1")
	module := [32]byte{7}
	w.says("op0", &ModuleReleaseBody{Module: module[:]})
	f := fold(w, w.entries)
	forged := w.mayRelease("n1", "op0", CapabilityModuleRelease).Encode()
	for i := range 70 {
		b := &ModuleReleaseBody{Module: w.hash("n1"), Credential: forged, Name: fmt.Sprint(i)}
		if err := f.Apply(w.says("n1", b)); err == nil {
			t.Fatal("a forged credential releases")
		}
	}
	if r, ok := f.State().Released(module); !ok || len(r.By) != 1 || len(f.released[w.did("n1")]) > 64 {
		t.Errorf("%+v, %d facts of the flood", r, len(f.released[w.did("n1")]))
	}
}
