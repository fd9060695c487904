package authority

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

func TestTokenRoundTrip(t *testing.T) {
	w := newWorld(t, 1, 1)
	tok, body, err := NewInvite(w.genesis.SwarmID(), w.did("op0"), InviteOptions{
		Roles: []string{"sentinel", "analyst", "sentinel"}, Uses: 3, Now: w.now, NotAfter: w.now.Add(time.Hour),
		Addrs: []string{"/ip4/192.0.2.1/udp/4001/quic-v1", "/ip4/192.0.2.1/tcp/4001"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(body.Roles) != "[analyst sentinel]" {
		t.Errorf("roles %v", body.Roles)
	}
	line := tok.Secret()
	got, err := ParseToken(" " + line + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.Secret() != line || got.Swarm != tok.Swarm || got.Issuer != tok.Issuer || got.Uses != 3 || !got.NotAfter.Equal(tok.NotAfter) || len(got.Addrs) != 2 {
		t.Fatalf("%+v", got)
	}
	hash, err := got.KeyHash()
	if err != nil || !bytes.Equal(hash[:], body.KeyHash) {
		t.Fatal("the token's key is not the invite's")
	}
	for i := range line {
		if i < len(tokenPrefix) {
			continue
		}
		bad := []byte(line)
		if bad[i]++; bad[i] == 'z'+1 {
			bad[i] = 'a'
		}
		if _, err := ParseToken(string(bad)); !errors.Is(err, ErrToken) || strings.Contains(err.Error(), line[10:30]) {
			t.Fatalf("character %d mistyped: %v", i, err)
		}
	}
	if _, err := ParseToken(strings.Repeat("omega1", 1000)); !errors.Is(err, ErrToken) {
		t.Error(err)
	}
}

func TestTokenHidesItsSecret(t *testing.T) {
	w := newWorld(t, 1, 1)
	tok, _, err := NewInvite(w.genesis.SwarmID(), w.did("op0"), InviteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "token", tok, "again", fmt.Sprintf("%v %+v %#v %s %q %x %d", tok, tok, tok, tok, tok, tok, tok))
	j, err := json.Marshal(tok)
	if err != nil {
		t.Fatal(err)
	}
	out := log.String() + string(j)
	secret := tok.Secret()
	for _, s := range []string{secret[40:60], fmt.Sprintf("%x", tok.seed), fmt.Sprint(tok.seed), fmt.Sprint(tok.seed[:4])[1:8]} {
		if strings.Contains(out, s) {
			t.Errorf("the secret is in %s", out)
		}
	}
	if !strings.Contains(out, "redacted") {
		t.Error(out)
	}
}

func TestInviteBounds(t *testing.T) {
	w := newWorld(t, 1, 1)
	for name, opt := range map[string]InviteOptions{
		"too long":      {NotAfter: time.Now().Add(trust.MaxInviteLifetime + time.Hour)},
		"past":          {NotAfter: time.Now().Add(-time.Second)},
		"uses":          {Uses: trust.MaxInviteUses + 1},
		"negative uses": {Uses: -1},
		"addresses":     {Addrs: []string{"/a", "/b", "/c", "/d"}},
		"address":       {Addrs: []string{"example.org"}},
		"control":       {Addrs: []string{"/dns4/\x1b[2J"}},
		"role":          {Roles: []string{"Root!"}},
	} {
		if _, _, err := NewInvite(w.genesis.SwarmID(), w.did("op0"), opt); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestJoin(t *testing.T) {
	for _, suite := range trust.Suites() {
		t.Run(suite.Name(), func(t *testing.T) { testJoin(t, suite) })
	}
}

func testJoin(t *testing.T, suite trust.Suite) {
	w := newWorldOf(t, suite, 1, 1)
	w.now = time.Now()
	w.member("op0", "n1")
	tok, inv := w.invites("op0", 1, "sentinel")
	f := fold(w, w.entries)
	exporter, other := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	now := w.now.Add(time.Minute)
	proof, err := ProveJoin(tok, w.identity("n2"), exporter)
	if err != nil {
		t.Fatal(err)
	}
	j, err := VerifyJoin(f.State(), proof, exporter, now)
	if err != nil || j.Already || j.Inception.DID() != w.did("n2") || j.Invite.ID != inv.ID() {
		t.Fatalf("%+v %v", j, err)
	}
	if _, err := VerifyJoin(f.State(), proof, other, now); !errors.Is(err, ErrJoinProof) {
		t.Fatalf("relayed to another connection: %v", err)
	}
	for i := 0; i < len(proof); i += 101 {
		bad := bytes.Clone(proof)
		bad[i] ^= 1
		if _, err := VerifyJoin(f.State(), bad, exporter, now); err == nil {
			t.Fatalf("byte %d changed, and taken", i)
		}
	}
	if _, err := VerifyJoin(f.State(), proof, exporter, now.Add(2*time.Hour)); !errors.Is(err, ErrInviteExpired) {
		t.Fatalf("expired: %v", err)
	}
	stranger, _, err := NewInvite(w.genesis.SwarmID(), w.did("op0"), InviteOptions{Suite: suite})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := ProveJoin(stranger, w.identity("n2"), exporter)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyJoin(f.State(), foreign, exporter, now); !errors.Is(err, ErrInviteUnknown) {
		t.Fatalf("unknown invite: %v", err)
	}
	if err := f.Apply(w.says("n1", j.Body)); err != nil {
		t.Fatal(err)
	}
	if j, err := VerifyJoin(f.State(), proof, exporter, now); err != nil || !j.Already {
		t.Fatalf("the same joiner again: %+v %v", j, err)
	}
	second, err := ProveJoin(tok, w.identity("n3"), exporter)
	if err != nil {
		t.Fatal(err)
	}
	var spent *InviteSpentError
	if _, err := VerifyJoin(f.State(), second, exporter, now); !errors.As(err, &spent) || spent.Joiner != w.did("n3") || len(spent.Joiners) != 1 {
		t.Fatalf("another key on a spent token: %v", err)
	}
	if err := f.Apply(w.says("op0", &RevokeBody{Subject: w.hash("n2"), Why: "test"})); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyJoin(f.State(), proof, exporter, now); !errors.Is(err, ErrRevokedJoiner) {
		t.Fatalf("a revoked joiner: %v", err)
	}
	tok2, inv2 := w.invites("op0", 1)
	_ = f.Apply(inv2)
	id := inv2.Hash()
	if err := f.Apply(w.says("op0", &WithdrawBody{Invite: id[:16]})); err != nil {
		t.Fatal(err)
	}
	third, err := ProveJoin(tok2, w.identity("n3"), exporter)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyJoin(f.State(), third, exporter, now); !errors.Is(err, ErrInviteWithdrawn) {
		t.Fatalf("withdrawn: %v", err)
	}
}

// A swarm has one suite: what was made for another is refused wherever it could come in.
func TestAnotherSuiteIsRefused(t *testing.T) {
	w, other := newWorld(t, 1, 1), newWorldOf(t, trust.SuiteCNSA, 1, 1)
	w.now = time.Now()
	tok, _ := w.invites("op0", 1)
	f := fold(w, w.entries)
	stranger := other.identity("stranger")
	if _, err := ProveJoin(tok, stranger, make([]byte, 32)); !errors.Is(err, ErrSuite) {
		t.Errorf("proved: %v", err)
	}
	line := tok.Secret()
	tok.Suite = trust.SuiteCNSA // a hostile joiner does what it likes
	proof, err := ProveJoin(tok, stranger, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyJoin(f.State(), proof, make([]byte, 32), w.now); err == nil {
		t.Error("admitted")
	}
	again, err := ParseToken(tok.Secret())
	if err != nil || again.Suite != trust.SuiteCNSA || tok.Secret() == line {
		t.Errorf("the token's suite is lost: %v %v", again, err)
	}
	if err := f.Apply(w.says("op0", &MemberBody{Inception: stranger.Inception().Encode()})); !errors.Is(err, ErrSuite) {
		t.Errorf("made a member: %v", err)
	}
	mixed := []*identity.Inception{w.identity("op0").Inception(), other.identity("op0").Inception()}
	if _, err := NewGenesis("mixed", mixed, 2, GenesisOptions{}); !errors.Is(err, ErrSuite) {
		t.Errorf("founded: %v", err)
	}
	if other.genesis.Suite != trust.SuiteCNSA || other.genesis.Draft != 0 || w.genesis.Draft != trust.SuiteDraft {
		t.Error("the suites in the genesis records")
	}
}

// The formats of the default suite are as they were before there was another: this is one of its first tokens.
func TestTokenFormat(t *testing.T) {
	tok, _, err := NewInvite(trust.SwarmID{1}, identity.DIDFromBytes([32]byte{2}), InviteOptions{
		Now: time.Unix(1_800_000_000, 0), Random: bytes.NewReader(bytes.Repeat([]byte{3}, 32)), Addrs: []string{"/ip4/192.0.2.1/tcp/4001"},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = "omega1agtacwbaaeaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaewbaambqgaydambqgaydambqgaydambqgaydambqgaydambqgaydambqggtljmryababavmcaaqaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa2axol3joa2c6mjzgixdalrsfyys65ddoaxtimbqgfuzk2nu"
	if got := tok.Secret(); got != want {
		t.Errorf("token %s", got)
	}
	hash, err := tok.KeyHash()
	if got := fmt.Sprintf("%x", hash[:8]); err != nil || got != "c7f8a9a250185d24" {
		t.Errorf("invite key %s %v", got, err)
	}
}
