package anonymous

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

func TestFindingsThatTellAreNotSigned(t *testing.T) {
	for name, f := range map[string]event.Finding{
		"boot": {Boot: 1}, "process": {Subject: event.Subject{Process: &event.ProcessRef{}}}, "decoy": {Decoy: "tcp/23"},
		"handshake": {Handshake: true}, "second": {Time: int64(time.Minute + time.Second)},
	} {
		if _, err := EncodeClaim(Threshold{}, &f); !errors.Is(err, ErrTelling) {
			t.Errorf("%s: %v", name, err)
		}
		raw, err := ledger.EncodeFinding(&f)
		if err != nil {
			t.Fatal(err)
		}
		body, err := canonical.Marshal(claimBody{Finding: raw})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := DecodeClaim(swarm, &Report{Body: body}); !errors.Is(err, ErrTelling) {
			t.Errorf("%s, read: %v", name, err)
		}
	}
	if _, err := EncodeClaim(Threshold{Role: "Root!"}, &event.Finding{}); !errors.Is(err, ErrBody) {
		t.Errorf("a role that is no name: %v", err)
	}
}

func keyEntry(t *testing.T, member byte, k *Key, rotation uint32, seq uint64) *ledger.Entry {
	t.Helper()
	did := identity.DIDFromBytes([32]byte{member})
	body, err := EncodeKey(swarm, did, k)
	if err != nil {
		t.Fatal(err)
	}
	return &ledger.Entry{Swarm: swarm, Author: did, Chain: ledger.Authority, Kind: ledger.KindAnonymousKey, Seq: seq, Rotation: rotation, Body: body}
}

// TestOneKeyOfEachMember: of several keys the first of its newest identity key counts, in any order of arrival.
func TestOneKeyOfEachMember(t *testing.T) {
	keys, public := newKeys(t, 4)
	entries := []*ledger.Entry{keyEntry(t, 1, keys[0], 0, 5), keyEntry(t, 1, keys[1], 0, 9), keyEntry(t, 2, keys[2], 1, 20), keyEntry(t, 2, keys[3], 0, 3)}
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}, {2, 0, 3, 1, 0, 2}} {
		r := NewRegistry()
		for _, i := range order {
			if err := r.Learn(entries[i]); err != nil {
				t.Fatal(err)
			}
		}
		one, _ := r.Of(entries[0].Author)
		two, _ := r.Of(entries[2].Author)
		if one != public[0] || two != public[2] || len(r.Keys(func(identity.DID) bool { return true })) != 2 {
			t.Errorf("order %v: %x, %x", order, one[:4], two[:4])
		}
	}
	stolen := keyEntry(t, 1, keys[0], 0, 1)
	stolen.Author = identity.DIDFromBytes([32]byte{7})
	if err := NewRegistry().Learn(stolen); !errors.Is(err, ErrPossession) {
		t.Errorf("another's key: %v", err)
	}
}

func FuzzKeyEntry(f *testing.F) {
	did := identity.DIDFromBytes([32]byte{1})
	k, err := NewKey([32]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	body, err := EncodeKey(swarm, did, k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := DecodeKey(&ledger.Entry{Swarm: swarm, Author: did, Kind: ledger.KindAnonymousKey, Body: data})
		if err == nil && got != k.Public() {
			t.Fatalf("a key that nobody here proved to hold: %x", data)
		}
	})
}

func FuzzClaim(f *testing.F) {
	body, err := EncodeClaim(Threshold{Standing: 3, Role: "decoy"}, &event.Finding{Title: "x", RuleID: "r", Severity: event.SeverityHigh})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add(bytes.Repeat([]byte{0xa1}, 9))
	f.Fuzz(func(t *testing.T, data []byte) {
		th, finding, err := DecodeClaim(swarm, &Report{Body: data})
		if err != nil {
			return
		}
		if th.Standing > trust.MaxStanding || finding.Peer != "" || finding.Host != "" || finding.Boot != 0 || finding.Anonymous == nil {
			t.Fatalf("%+v %+v", th, finding)
		}
	})
}
