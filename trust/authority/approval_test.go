package authority

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust/identity"
)

// asks opens an invite whose joiners an operator must approve.
func (w *world) asks(op string, uses int, roles ...string) (*Token, []byte) {
	w.t.Helper()
	tok, body, err := NewInvite(w.genesis.SwarmID(), w.did(op), InviteOptions{Roles: roles, Uses: uses, Approve: true, Now: w.now, NotAfter: w.now.Add(time.Hour)})
	if err != nil {
		w.t.Fatal(err)
	}
	return tok, idOf(w.says(op, body))
}

// TestApprovalIsAnOperators: on an invite that asks for approval no member's word makes a member, whoever holds the
// token; an operator's does, with the invite's roles and at the cost of a use.
func TestApprovalIsAnOperators(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.member("op0", "n1")
	tok, id := w.asks("op0", 1, "scheduler")
	w.admits("n1", "n2", tok) // n1 turned bad
	f := fold(w, w.entries)
	if _, in := f.State().Member(w.did("n2")); in {
		t.Fatal("a member alone let a joiner in where an operator must")
	}
	let := w.says("op0", &MemberBody{Inception: w.identity("n2").Inception().Encode(), Invite: id})
	if err := f.Apply(let); err != nil {
		t.Fatal(err)
	}
	if roles := f.State().Roles(w.did("n2"), w.now); !slices.Equal(roles, []string{"scheduler"}) {
		t.Errorf("roles %v", roles)
	}
	var spent *InviteSpentError
	if err := f.Apply(w.says("op0", &MemberBody{Inception: w.identity("n3").Inception().Encode(), Invite: id})); !errors.As(err, &spent) {
		t.Errorf("a second joiner on one use: %v", err)
	}
	if _, in := f.State().Member(w.did("n3")); in {
		t.Error("two joined on one use")
	}
}

func TestJoinRequestRoundTrip(t *testing.T) {
	w := newWorld(t, 1, 1)
	r := JoinRequest{Inception: w.identity("n1").Inception().Encode(), Invite: make([]byte, 16), Address: netip.MustParseAddr("192.0.2.7")}
	raw, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, inception, err := DecodeJoinRequest(raw)
	if err != nil || inception.DID() != w.did("n1") || got.Address != r.Address {
		t.Fatalf("%+v, %v", got, err)
	}
	raw[len(raw)/2] ^= 1
	if _, _, err := DecodeJoinRequest(raw); err == nil {
		t.Error("a spoilt inception was taken")
	}
	if _, err := (&JoinRequest{Inception: r.Inception, Invite: make([]byte, 15)}).Encode(); !errors.Is(err, ErrBody) {
		t.Error(err)
	}
}

func FuzzDecodeJoinRequest(f *testing.F) {
	f.Add([]byte{0xa2, 0x01, 0x41, 0x00, 0x02, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0xa3, 0x01, 0x40, 0x02, 0x40, 0x03, 0x44, 127, 0, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, i, err := DecodeJoinRequest(raw)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil || string(again) != string(raw) || i.DID() == identity.DID("") {
			t.Errorf("read what it cannot write: %v", err)
		}
	})
}
