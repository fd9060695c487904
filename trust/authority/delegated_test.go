package authority

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/credential"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// lends issues to a member what an operator allows it: to deny addresses for an hour.
func (w *world) lends(by, to string, depth uint8) credential.Chain {
	w.t.Helper()
	s := fold(w, w.entries).State()
	c, err := credential.Issue(w.identity(by), credential.Content{
		Swarm: w.genesis.SwarmID(), Subject: w.did(to), NotBefore: w.now.Add(-time.Minute), NotAfter: w.now.Add(time.Hour), Depth: depth,
		Capabilities: []credential.Capability{{Action: "respond-deny", MaxTTL: time.Hour}}, RootSeq: s.Root().Seq, RootHead: s.Root().Head,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return credential.Chain{c}
}

func (w *world) orders(who string, chain credential.Chain, change func(*event.Response)) *ledger.Entry {
	w.t.Helper()
	r := event.Response{Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix("192.0.2.9/32")}, Authority: event.AuthorityDelegated, Issued: 1, TTL: time.Hour}
	if change != nil {
		change(&r)
	}
	return w.says(who, &ResponseBody{r, chain.Encode()})
}

// TestOrdersUnderCredentials: a member with a credential orders what that allows, nobody else does, and what it ordered
// ends with the credential's revocation; the same in any order of arrival.
func TestOrdersUnderCredentials(t *testing.T) {
	w := newWorld(t, 3, 2)
	for _, n := range []string{"n1", "n2", "n3"} {
		w.member("op0", n)
	}
	lent := w.lends("op0", "n1", 2)
	passed, err := lent.Delegate(w.identity("n1"), w.did("n2"), credential.Content{Capabilities: []credential.Capability{{Action: "respond-deny", MaxTTL: time.Minute}}})
	if err != nil {
		t.Fatal(err)
	}
	late := w.lends("op1", "n3", 0)
	good := w.orders("n1", lent, nil)
	w.orders("n2", lent, nil)   // another's
	w.orders("n2", passed, nil) // for longer than it was lent
	short := w.orders("n2", passed, func(r *event.Response) { r.TTL = time.Minute })
	w.orders("n1", lent, func(r *event.Response) {
		r.Action, r.Releases, r.Target = event.ActionRelease, good.ID(), event.Target{}
	}) // another action
	w.orders("n3", w.lends("n1", "n3", 0), nil) // by no operator
	third := w.orders("n3", late, nil)

	want := map[string]bool{good.ID(): true, short.ID(): true, third.ID(): true}
	check := func(when string, entries []*ledger.Entry) {
		t.Helper()
		got := fold(w, entries).State().Responses()
		for _, r := range got {
			if !want[r.ID] || r.Authority != event.AuthorityDelegated {
				t.Errorf("%s: %s by %s counts", when, r.Action, r.By)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d orders count, want %d", when, len(got), len(want))
		}
	}
	shuffled := func(when string) {
		t.Helper()
		check(when, w.entries)
		for range 8 {
			entries := append([]*ledger.Entry(nil), w.entries...)
			rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
			check(when+", shuffled", append(entries, entries[:3]...))
		}
	}
	shuffled("lent")
	w.says("op2", &RevokeCredentialBody{Serial: late[0].Serial[:], Why: "lost"})
	delete(want, third.ID())
	shuffled("one serial revoked")
	w.says("n3", &RevokeCredentialBody{Serial: lent[0].Serial[:], Why: "no operator says so"})
	shuffled("revoked by nobody")
	for _, op := range []string{"op0", "op1"} {
		w.says(op, &RevokeBody{Subject: w.hash("n1"), Authority: 1 << 20, Activity: 1 << 20, Why: "bad"})
	}
	clear(want) // n2's rests on n1's
	shuffled("the first holder revoked")
}

// TestDelegateEndsNoOperatorsOrder: a credential to release is not one to lift what an operator ordered.
func TestDelegateEndsNoOperatorsOrder(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.member("op0", "n1")
	s := fold(w, w.entries).State()
	c, err := credential.Issue(w.identity("op0"), credential.Content{
		Swarm: w.genesis.SwarmID(), Subject: w.did("n1"), NotBefore: w.now.Add(-time.Minute), NotAfter: w.now.Add(time.Hour),
		Capabilities: []credential.Capability{{Action: "respond-deny", MaxTTL: time.Hour}, {Action: "respond-release"}}, RootSeq: s.Root().Seq, RootHead: s.Root().Head,
	})
	if err != nil {
		t.Fatal(err)
	}
	deny := event.Response{Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix("192.0.2.1/32")}, Authority: event.AuthorityOperator, Issued: 1, TTL: time.Hour}
	operators := w.says("op0", &ResponseBody{Response: deny})
	own := w.orders("n1", credential.Chain{c}, nil)
	release := func(id string) *ledger.Entry {
		return w.orders("n1", credential.Chain{c}, func(r *event.Response) {
			r.Action, r.Releases, r.Target, r.TTL = event.ActionRelease, id, event.Target{}, 0
		})
	}
	release(operators.ID())
	good := release(own.ID())
	var releases []string
	for _, r := range fold(w, w.entries).State().Responses() {
		if r.Action == event.ActionRelease {
			releases = append(releases, r.ID)
		}
	}
	if len(releases) != 1 || releases[0] != good.ID() {
		t.Errorf("releases that count: %v, want only that of its own order", releases)
	}
}

func TestCredentialOfAMemberVerifies(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.member("op0", "n1")
	lent := w.lends("op0", "n1", 0)
	s := fold(w, w.entries).State()
	if c, err := s.VerifyCredential(lent, w.did("n1"), w.now); err != nil || !c.Allows("respond-deny", []identity.DID{w.did("n1")}, time.Hour) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := s.VerifyCredential(lent, w.did("n1"), w.now.Add(2*time.Hour)); err == nil {
		t.Error("an expired credential verifies")
	}
}
