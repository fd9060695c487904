package authority

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

func sampleBodies() []Body {
	subject := bytes.Repeat([]byte{9}, 32)
	return []Body{
		&MemberBody{Inception: []byte("inception")},
		&InviteBody{KeyHash: make([]byte, 32), Roles: []string{"a", "b"}, Uses: 1, NotAfter: 1},
		&WithdrawBody{Invite: make([]byte, 16), Stand: [][]byte{subject}},
		&AdmitBody{Inception: []byte("x"), InviteKey: make([]byte, composite.PublicKeySize(trust.SuiteCNSA)), Signature: make([]byte, composite.SignatureSize(trust.SuiteCNSA))},
		&GrantBody{Subject: subject, Roles: []string{"sentinel"}, NotAfter: 5},
		&RevokeRoleBody{Subject: subject, Roles: []string{"sentinel"}},
		&SuspendBody{Subject: subject, NotAfter: 5, Why: "why"},
		&RevokeBody{Subject: subject, Authority: 1, Activity: 2, Why: "why"},
		&ResponseBody{Response: event.Response{Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix("203.0.113.9/32")}, Scope: []string{string(identity.DIDFromBytes([32]byte{1}))}, Authority: event.AuthorityOperator, Issued: 1, TTL: time.Hour, Findings: []string{strings.Repeat("0a", 16)}}},
		&ResponseBody{Response: event.Response{Action: event.ActionRelease, Releases: strings.Repeat("0a", 16), Authority: event.AuthorityOperator, Issued: 1}},
		&AllowBody{Address: netip.MustParsePrefix("2001:db8::/32")},
		&AllowBody{Path: "/usr/sbin/sshd"},
		&DisallowBody{Address: netip.MustParsePrefix("192.0.2.0/24")},
		&PolicyBody{Text: "permit (principal, action, resource);"},
		&ApproveBody{Response: strings.Repeat("0a", 16)},
		&RejectBody{Response: strings.Repeat("0a", 16)},
		&ModuleReleaseBody{Module: subject, Name: "base", Version: "1.0.0"},
		&ModuleReleaseBody{Module: subject, Withdraw: true, Why: "bad"},
		&DeployBody{Module: subject, Name: "base", Version: "1.0.0", Roles: []string{"decoy", "sentinel"}, Labels: []string{"web"}, Peers: [][]byte{subject}, Share: 10, Shadow: true, Why: "try"},
		&UndeployBody{Module: subject, Why: "noisy"},
	}
}

func TestBodiesRoundTrip(t *testing.T) {
	for _, b := range sampleBodies() {
		raw, err := b.Encode()
		if err != nil {
			t.Errorf("%s: %v", b.Kind(), err)
			continue
		}
		got, err := DecodeBody(b.Kind(), raw)
		if err != nil {
			t.Errorf("%s: %v", b.Kind(), err)
			continue
		}
		again, err := got.Encode()
		if err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%s: encodes to other bytes: %v", b.Kind(), err)
		}
		if _, err := DecodeBody(b.Kind(), append(raw, 0)); !errors.Is(err, ErrBody) {
			t.Errorf("%s: a trailing byte: %v", b.Kind(), err)
		}
	}
	if _, err := DecodeBody(0x0abc, nil); !errors.Is(err, ErrUnknownKind) {
		t.Error(err)
	}
}

func TestBodyRefusals(t *testing.T) {
	subject := bytes.Repeat([]byte{9}, 32)
	for name, b := range map[string]Body{
		"subject":             &GrantBody{Subject: subject[:31], Roles: []string{"a"}},
		"no roles":            &GrantBody{Subject: subject},
		"unsorted roles":      &GrantBody{Subject: subject, Roles: []string{"b", "a"}},
		"role with a space":   &GrantBody{Subject: subject, Roles: []string{"a b"}},
		"escape in a reason":  &RevokeBody{Subject: subject, Why: "\x1b]0;x\x07"},
		"long reason":         &RevokeBody{Subject: subject, Why: strings.Repeat("x", trust.MaxReason+1)},
		"both":                &AllowBody{Address: netip.MustParsePrefix("192.0.2.0/24"), Path: "/x"},
		"neither":             &AllowBody{},
		"host bits":           &AllowBody{Address: netip.MustParsePrefix("192.0.2.1/24")},
		"mapped":              &AllowBody{Address: netip.MustParsePrefix("::ffff:192.0.2.1/128")},
		"relative path":       &AllowBody{Path: "x"},
		"for ever":            &ResponseBody{Response: event.Response{Action: event.ActionDeny, Authority: event.AuthorityOperator, Issued: 1}},
		"another's authority": &ResponseBody{Response: event.Response{Action: event.ActionDeny, Authority: event.AuthorityPolicy, Issued: 1, TTL: time.Hour}},
		"action":              &ResponseBody{Response: event.Response{Action: "burn", Authority: event.AuthorityOperator, Issued: 1, TTL: time.Hour}},
		"id":                  &ApproveBody{Response: "0A"},
		"long policy":         &PolicyBody{Text: strings.Repeat("x", trust.MaxAuthorityBody)},
		"uses":                &InviteBody{KeyHash: make([]byte, 32), Uses: trust.MaxInviteUses + 1, NotAfter: 1},
		"unsorted joiners":    &WithdrawBody{Invite: make([]byte, 16), Stand: [][]byte{subject, subject}},
	} {
		if _, err := b.Encode(); err == nil {
			t.Errorf("%s was encoded", name)
		}
	}
}

func TestGenesis(t *testing.T) {
	w := newWorld(t, 3, 2)
	g, err := DecodeGenesis(w.genesis.Encode())
	if err != nil || g.SwarmID() != w.genesis.SwarmID() || len(g.Operators) != 3 || g.Threshold != 2 {
		t.Fatalf("%+v %v", g, err)
	}
	for i := 0; i < len(g.Encode()); i += 37 {
		bad := bytes.Clone(g.Encode())
		bad[i] ^= 1
		if b, err := DecodeGenesis(bad); err == nil && b.SwarmID() == g.SwarmID() {
			t.Fatalf("byte %d changed, and the swarm is the same", i)
		}
	}
	ops := g.Operators
	for name, f := range map[string]func() error{
		"half":          func() error { _, err := NewGenesis("s", ops[:2], 1, GenesisOptions{}); return err },
		"more than all": func() error { _, err := NewGenesis("s", ops[:1], 2, GenesisOptions{}); return err },
		"none":          func() error { _, err := NewGenesis("s", nil, 0, GenesisOptions{}); return err },
		"the same twice": func() error {
			_, err := NewGenesis("s", []*identity.Inception{ops[0], ops[0]}, 2, GenesisOptions{})
			return err
		},
		"name": func() error { _, err := NewGenesis("a b", ops, 2, GenesisOptions{}); return err },
		"for ever": func() error {
			_, err := NewGenesis("s", ops, 2, GenesisOptions{LongestLife: 1000 * time.Hour})
			return err
		},
		"recovery size": func() error {
			_, err := NewGenesis("s", ops, 2, GenesisOptions{Recovery: [][]byte{{1}}, RecoveryK: 1})
			return err
		},
		"recovery without": func() error { _, err := NewGenesis("s", ops, 2, GenesisOptions{RecoveryK: 1}); return err },
	} {
		if err := f(); !errors.Is(err, ErrGenesis) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeGenesis(f *testing.F) {
	w := newWorld(f, 1, 1)
	f.Add(w.genesis.Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		g, err := DecodeGenesis(raw)
		if err == nil && !bytes.Equal(g.Encode(), raw) {
			t.Fatal("decoded to something else")
		}
	})
}

func FuzzDecodeBody(f *testing.F) {
	for _, b := range sampleBodies() {
		raw, err := b.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint16(b.Kind()), raw)
	}
	f.Fuzz(func(t *testing.T, kind uint16, raw []byte) {
		b, err := DecodeBody(ledger.Kind(kind), raw)
		if err != nil {
			return
		}
		again, err := b.Encode()
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("two encodings of one body: %v", err)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	w := newWorld(f, 1, 1)
	tok, _, err := NewInvite(w.genesis.SwarmID(), w.did("op0"), InviteOptions{Addrs: []string{"/ip4/192.0.2.1/tcp/1"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tok.Secret())
	f.Add("omega1")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err == nil && tok.Secret() != strings.TrimSpace(s) {
			t.Fatal("two spellings of one token")
		}
	})
}

func FuzzDecodeJoin(f *testing.F) {
	w := newWorld(f, 1, 1)
	w.now = time.Now()
	tok, _ := w.invites("op0", 1)
	s := fold(w, w.entries).State()
	exporter := make([]byte, 32)
	proof, err := ProveJoin(tok, w.identity("n1"), exporter)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(proof)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if j, err := VerifyJoin(s, raw, exporter, w.now); err == nil && !bytes.Equal(raw, proof) {
			if j.Inception.DID() != w.did("n1") {
				t.Fatal("a stranger joins")
			}
		}
	})
}

// BenchmarkApplyGrant is the cost of one more grant in a swarm of 3,000.
func BenchmarkApplyGrant(b *testing.B) {
	w := newWorld(b, 1, 1)
	f := fold(w, []*ledger.Entry{w.member("op0", "n1")})
	// The other members share an inception: what is measured is the tables, not the records.
	m := f.members[w.did("n1")]
	for i := range 3000 {
		did := identity.DIDFromBytes([32]byte{byte(i), byte(i >> 8), 7, byte(i)})
		f.members[did] = m
	}
	f.publishAll()
	subject := w.hash("n1")
	e := w.says("op0", &GrantBody{Subject: subject, Roles: []string{"sentinel"}})
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Apply(e); err != nil {
			b.Fatal(err)
		}
	}
}
