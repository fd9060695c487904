package node

import (
	"context"
	"encoding/hex"
	"errors"
	"testing"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
)

// TestApproval: a joiner on an invite that asks for approval waits, shows on every member's screen with the words that its
// own shows, and is in once an operator says so; another is refused.
func TestApproval(t *testing.T) {
	rigs := mesh(t, []string{"analyst", "sentinel"}, "n1", "n2")
	n1, n2 := rigs[0], rigs[1]
	op, err := identity.ReadInception(Layout{n1.dir}.Operator())
	if err != nil {
		t.Fatal(err)
	}
	g, err := loadGenesis(Layout{n1.dir})
	if err != nil {
		t.Fatal(err)
	}
	// The token names n2 alone: it is n2 that passes the wish on, and n1's operator who answers.
	token, body, err := authority.NewInvite(g.SwarmID(), op.DID(), authority.InviteOptions{Roles: []string{"scheduler"}, Uses: 2, Approve: true, Addrs: n2.status().Addrs[:1]})
	if err != nil {
		t.Fatal(err)
	}
	n1.operate(body)

	joiners := func(name string) *apiv1.Joiner {
		list, err := n1.client.ListPending(t.Context(), &apiv1.ListPendingRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range list.Joiners {
			if j.Name == name {
				return j
			}
		}
		return nil
	}
	begin := func(name string) (*rig, chan error, func()) {
		r := newRig(t, name)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := Join(ctx, r.dir, token.Secret(), JoinOptions{Name: name})
			done <- err
		}()
		return r, done, cancel
	}
	n3, done, cancel := begin("n3")
	defer cancel()
	eventually(t, "n1 shows who waits", func() bool { return joiners("n3") != nil })
	j := joiners("n3")
	self, err := identity.ReadInception(Layout{n3.dir}.Identity())
	if err != nil {
		t.Fatal(err)
	}
	if j.Words != self.DID().Words() || j.Asked != "n2" || len(j.Roles) != 1 || j.Address != "127.0.0.1" {
		t.Errorf("%v", j)
	}
	invite, err := hex.DecodeString(j.Invite)
	if err != nil {
		t.Fatal(err)
	}
	n1.operate(&authority.MemberBody{Inception: j.Inception, Invite: invite})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	n3.up()
	eventually(t, "n3 is a scheduler", func() bool { s := n3.status(); return s.Synced && len(s.Roles) == 1 && s.Roles[0] == "scheduler" })
	if joiners("n3") != nil {
		t.Error("a member still waits")
	}

	_, done, cancel = begin("n4")
	defer cancel()
	eventually(t, "n1 shows the second", func() bool { return joiners("n4") != nil })
	n1.operate(&authority.RejectBody{Response: joiners("n4").Id})
	if err := <-done; !errors.Is(err, ErrJoinRefused) {
		t.Errorf("a rejected joiner: %v", err)
	}
	if joiners("n4") != nil {
		t.Error("a rejected joiner still waits")
	}
}
