package credential

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

// swarm is what the tests' verifier knows: an operator, an issuer of one capability, and members.
type swarm struct {
	t       testing.TB
	id      trust.SwarmID
	people  map[string]*identity.Identity
	issuers map[identity.DID][]string
	out     map[identity.DID]bool
	serials map[[16]byte]bool
	root    []byte // one letter an entry
	now     time.Time
}

func newSwarm(t testing.TB) *swarm {
	s := &swarm{t: t, id: trust.SwarmID{7}, people: map[string]*identity.Identity{}, issuers: map[identity.DID][]string{}, out: map[identity.DID]bool{},
		serials: map[[16]byte]bool{}, root: []byte("abc"), now: time.Unix(1_800_000_000, 0)}
	dir := t.TempDir()
	for _, name := range []string{"op", "issuer", "n1", "n2", "n3", "n4", "n5"} {
		id, err := identity.Create(filepath.Join(dir, name), identity.Options{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = id.Close() })
		s.people[name] = id
	}
	s.issuers[s.did("issuer")] = []string{"respond-deny"}
	return s
}

func (s *swarm) did(name string) identity.DID { return s.people[name].DID() }

func (s *swarm) Key(d identity.DID) (*composite.PublicKey, bool) {
	for _, p := range s.people {
		if p.DID() == d {
			return p.Inception().PublicKey(), true
		}
	}
	return nil, false
}
func (s *swarm) Signed(_ int, c *Credential, key *composite.PublicKey) bool { return c.Verify(key) }
func (s *swarm) May(d identity.DID) ([]string, bool)                        { return s.issuers[d], d == s.did("op") }
func (s *swarm) Out(d identity.DID, serial [16]byte) bool {
	return s.out[d] || s.serials[serial]
}
func (s *swarm) Root(seq uint64) (uint64, [32]byte, bool) {
	n := uint64(len(s.root))
	if seq > n {
		return n, [32]byte{}, false
	}
	return n, sha256.Sum256(s.root[:seq]), true
}

// content is a day's permission to deny and to hunt, to be passed on three times.
func (s *swarm) content(subject string) Content {
	return Content{
		Swarm: s.id, Subject: s.did(subject), NotBefore: s.now.Add(-time.Minute), NotAfter: s.now.Add(time.Hour), Roles: []string{"analyst"}, Depth: 3,
		Capabilities: []Capability{{Action: "respond-deny", MaxTTL: time.Hour}, {Action: "hunt", Peers: sorted(s.did("n4"), s.did("n5"))}},
		RootSeq:      2, RootHead: sha256.Sum256(s.root[:2]),
	}
}

func sorted(d ...identity.DID) []identity.DID { slices.Sort(d); return d }

func (s *swarm) issue(by string, c Content) *Credential {
	s.t.Helper()
	x, err := Issue(s.people[by], c)
	if err != nil {
		s.t.Fatal(err)
	}
	return x
}

func TestChainOfThree(t *testing.T) {
	s := newSwarm(t)
	c := Chain{s.issue("op", s.content("n1"))}
	var err error
	for i, to := range []string{"n2", "n3", "n4"} {
		by := []string{"n1", "n2", "n3"}[i]
		if c, err = c.Delegate(s.people[by], s.did(to), Content{Depth: 3, Capabilities: []Capability{{Action: "respond-deny", MaxTTL: time.Hour >> i}}}); err != nil {
			t.Fatal(err)
		}
	}
	again, err := DecodeChain(c.Encode())
	if err != nil {
		t.Fatal(err)
	}
	got, err := again.Verify(s.id, s.did("n4"), s.now, s)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Allows("respond-deny", nil, 15*time.Minute) || got.Allows("respond-deny", nil, time.Hour) || got.Allows("hunt", nil, 0) {
		t.Errorf("it allows the wrong things: %+v", got.Capabilities)
	}
	if _, err := c.Delegate(s.people["n4"], s.did("n5"), Content{}); !errors.Is(err, ErrWider) {
		t.Errorf("passed on a fourth time: %v", err)
	}
}

// TestRefusals: what each line changes of a good chain makes it a bad one, for the reason it names.
func TestRefusals(t *testing.T) {
	s := newSwarm(t)
	base := func() Content { return s.content("n1") }
	delegated := func(by string, change func(parent *Credential, c *Content)) Chain {
		parent := s.issue("op", base())
		c := base()
		c.Subject, c.Parent, c.Depth, c.NotBefore, c.NotAfter = s.did("n2"), parent.ID(), 2, parent.NotBefore, parent.NotAfter
		c.Capabilities = []Capability{{Action: "hunt", Peers: sorted(s.did("n4"))}}
		change(parent, &c)
		return Chain{parent, s.issue(by, c)}
	}
	one := func(by string, change func(*Content)) Chain {
		c := base()
		change(&c)
		return Chain{s.issue(by, c)}
	}
	var behind *BehindError
	for name, x := range map[string]struct {
		chain  Chain
		holder string
		want   any
	}{
		"good":                    {one("op", func(*Content) {}), "n1", nil},
		"good, delegated":         {delegated("n1", func(*Credential, *Content) {}), "n2", nil},
		"good, by an issuer":      {one("issuer", func(c *Content) { c.Capabilities = c.Capabilities[:1] }), "n1", nil},
		"issuer over its bounds":  {one("issuer", func(*Content) {}), "n1", ErrIssuer},
		"by a member":             {one("n5", func(*Content) {}), "n1", ErrIssuer},
		"another's":               {one("op", func(*Content) {}), "n2", ErrCredential},
		"of another swarm":        {one("op", func(c *Content) { c.Swarm = trust.SwarmID{9} }), "n1", ErrCredential},
		"over":                    {one("op", func(c *Content) { c.NotAfter = s.now }), "n1", ErrExpired},
		"not yet":                 {one("op", func(c *Content) { c.NotBefore = s.now.Add(time.Second) }), "n1", ErrExpired},
		"of a newer root":         {one("op", func(c *Content) { c.RootSeq = 4 }), "n1", &behind},
		"of another root":         {one("op", func(c *Content) { c.RootHead[0]++ }), "n1", ErrCredential},
		"without its beginning":   {delegated("n1", func(*Credential, *Content) {})[1:], "n2", ErrIssuer},
		"passed on by a stranger": {delegated("n3", func(*Credential, *Content) {}), "n2", ErrCredential},
		"longer than its parent":  {delegated("n1", func(p *Credential, c *Content) { c.NotAfter = p.NotAfter.Add(time.Second) }), "n2", ErrWider},
		"deeper than its parent":  {delegated("n1", func(_ *Credential, c *Content) { c.Depth = 3 }), "n2", ErrWider},
		"a host more":             {delegated("n1", func(_ *Credential, c *Content) { c.Capabilities[0].Peers = sorted(s.did("n3"), s.did("n4")) }), "n2", ErrWider},
		"every host":              {delegated("n1", func(_ *Credential, c *Content) { c.Capabilities[0].Peers = nil }), "n2", ErrWider},
		"for longer": {delegated("n1", func(_ *Credential, c *Content) {
			c.Capabilities = []Capability{{Action: "respond-deny", MaxTTL: 2 * time.Hour}}
		}), "n2", ErrWider},
		"another action":               {delegated("n1", func(_ *Credential, c *Content) { c.Capabilities[0].Action = "module-deploy" }), "n2", ErrWider},
		"another role":                 {delegated("n1", func(_ *Credential, c *Content) { c.Roles = []string{"scheduler"} }), "n2", ErrWider},
		"rests on something else":      {delegated("n1", func(_ *Credential, c *Content) { c.Parent[0]++ }), "n2", ErrCredential},
		"five links":                   {slices.Repeat(one("op", func(*Content) {}), 5), "n1", ErrCredential},
		"signed for another's subject": {spoil(t, one("op", func(*Content) {})[0]), "n1", ErrSignature},
	} {
		_, err := x.chain.Verify(s.id, s.did(x.holder), s.now, s)
		switch want := x.want.(type) {
		case nil:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case **BehindError:
			if !errors.As(err, want) {
				t.Errorf("%s: %v", name, err)
			}
		case error:
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
	}
}

// spoil changes one bit of the signature.
func spoil(t testing.TB, c *Credential) Chain {
	raw := slices.Clone(c.Encode())
	raw[len(raw)-1] ^= 1
	x, err := Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if x.ID() != c.ID() {
		t.Error("the signature is part of the id: a revocation could be slipped by signing again")
	}
	return Chain{x}
}

func TestRevocationReachesThroughTheChain(t *testing.T) {
	s := newSwarm(t)
	c := Chain{s.issue("op", s.content("n1"))}
	c, err := c.Delegate(s.people["n1"], s.did("n2"), Content{Depth: 0})
	if err != nil {
		t.Fatal(err)
	}
	for name, revoke := range map[string]func() func(){
		"the first serial": func() func() { s.serials[c[0].Serial] = true; return func() { delete(s.serials, c[0].Serial) } },
		"the last serial":  func() func() { s.serials[c[1].Serial] = true; return func() { delete(s.serials, c[1].Serial) } },
		"who passed it on": func() func() { s.out[s.did("n1")] = true; return func() { delete(s.out, s.did("n1")) } },
		"the operator":     func() func() { s.out[s.did("op")] = true; return func() { delete(s.out, s.did("op")) } },
	} {
		undo := revoke()
		if _, err := c.Verify(s.id, s.did("n2"), s.now, s); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s: %v", name, err)
		}
		undo()
	}
	if _, err := c.Verify(s.id, s.did("n2"), s.now, s); err != nil {
		t.Error(err)
	}
}

// TestDelegationNeverWidens: whatever a chain of delegations asks for, what its end allows, its beginning allowed.
func TestDelegationNeverWidens(t *testing.T) {
	s := newSwarm(t)
	names := []string{"n1", "n2", "n3", "n4"}
	actions := []string{"respond-deny", "hunt", "module-deploy"}
	hosts := []identity.DID{s.did("n3"), s.did("n4"), s.did("n5")}
	capability := rapid.Custom(func(t *rapid.T) Capability {
		return Capability{
			Action: rapid.SampledFrom(actions).Draw(t, "action"), MaxTTL: time.Duration(rapid.IntRange(0, 3).Draw(t, "ttl")) * time.Hour,
			Peers: sorted(rapid.SliceOfNDistinct(rapid.SampledFrom(hosts), 0, 2, rapid.ID).Draw(t, "peers")...),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		c := s.content("n1")
		c.Capabilities = rapid.SliceOfN(capability, 0, 4).Draw(t, "first")
		c.Depth = uint8(rapid.IntRange(0, 3).Draw(t, "depth"))
		chain := Chain{s.issue("op", c)}
		for i := range rapid.IntRange(0, 3).Draw(t, "links") {
			next, err := chain.Delegate(s.people[names[i]], s.did(names[i+1]), Content{
				Depth: uint8(rapid.IntRange(0, 3).Draw(t, "depth")), Capabilities: rapid.SliceOfN(capability, 0, 3).Draw(t, "part"),
				NotAfter: s.now.Add(time.Duration(rapid.IntRange(1, 120).Draw(t, "minutes")) * time.Minute),
			})
			if err != nil {
				break
			}
			chain = next
		}
		end, err := chain.Verify(s.id, chain[len(chain)-1].Subject, s.now, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range actions {
			for _, ttl := range []time.Duration{0, time.Hour, 3 * time.Hour} {
				for _, p := range append([][]identity.DID{nil}, hosts[:1], hosts[1:2], hosts[2:]) {
					if end.Allows(a, p, ttl) && !chain[0].Allows(a, p, ttl) {
						t.Fatalf("%s on %v for %s came from nowhere", a, p, ttl)
					}
				}
			}
		}
		if end.NotAfter.After(chain[0].NotAfter) || len(chain) > 1+int(chain[0].Depth) {
			t.Fatalf("it outlives or outruns its beginning")
		}
	})
}

func TestRenewAtHalfLife(t *testing.T) {
	c := Content{NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1000, 0)}
	for share, want := range map[float64]int64{0: 400, 0.5: 500, 1: 600} {
		if got := c.Renew(share).Unix(); got != want {
			t.Errorf("share %v: renewed at %d s, want %d", share, got, want)
		}
	}
}

func TestBounds(t *testing.T) {
	s := newSwarm(t)
	for name, change := range map[string]func(*Content){
		"more than a day":    func(c *Content) { c.NotAfter = c.NotBefore.Add(24*time.Hour + time.Second) },
		"no time":            func(c *Content) { c.NotAfter = c.NotBefore },
		"too deep":           func(c *Content) { c.Depth = 4 },
		"to oneself":         func(c *Content) { c.Subject = s.did("op") },
		"unsorted roles":     func(c *Content) { c.Roles = []string{"sentinel", "analyst"} },
		"a role twice":       func(c *Content) { c.Roles = []string{"analyst", "analyst"} },
		"an action in caps":  func(c *Content) { c.Capabilities[0].Action = "Respond" },
		"part of a second":   func(c *Content) { c.Capabilities[0].MaxTTL = time.Millisecond },
		"seventeen":          func(c *Content) { c.Capabilities = slices.Repeat(c.Capabilities[:1], 17) },
		"unsorted peers":     func(c *Content) { slices.Reverse(c.Capabilities[1].Peers) },
		"an empty action":    func(c *Content) { c.Capabilities[0].Action = "" },
		"an endless action":  func(c *Content) { c.Capabilities[0].Action = fmt.Sprintf("%049d", 0) },
		"for ever":           func(c *Content) { c.Capabilities[0].MaxTTL = trust.MaxLifetime + time.Second },
		"a subject that isn": func(c *Content) { c.Subject = "did:omega:x" },
	} {
		c := s.content("n1")
		change(&c)
		if _, err := Issue(s.people["op"], c); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	s := newSwarm(f)
	f.Add(s.issue("op", s.content("n1")).Encode())
	f.Add([]byte{1, 0x84, 0x40, 0xa0, 0x40, 0x40})
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := Decode(raw)
		if err != nil {
			return
		}
		payload, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(c.Encode())
		if err != nil || again.ID() != c.ID() || len(payload) == 0 {
			t.Fatalf("read what it cannot write: %v", err)
		}
	})
}

func BenchmarkVerifyChain(b *testing.B) {
	s := newSwarm(b)
	c := Chain{s.issue("op", s.content("n1"))}
	c, err := c.Delegate(s.people["n1"], s.did("n2"), Content{Depth: 2})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Verify(s.id, s.did("n2"), s.now, s); err != nil {
			b.Fatal(err)
		}
	}
}

// TestVC: what the W3C view proves by is the credential itself, bit for bit.
func TestVC(t *testing.T) {
	s := newSwarm(t)
	c := s.issue("op", s.content("n1"))
	raw, err := c.VC()
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Issuer  string `json:"issuer"`
		Subject struct {
			ID           string `json:"id"`
			Capabilities []struct {
				Action string `json:"action"`
			} `json:"capabilities"`
		} `json:"credentialSubject"`
		Proof struct {
			Value        string `json:"proofValue"`
			Experimental bool   `json:"experimental"`
		} `json:"proof"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	signed, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(v.Proof.Value, "u"))
	if err != nil || string(signed) != string(c.Encode()) || !v.Proof.Experimental {
		t.Errorf("proof: %v", err)
	}
	if v.Issuer != string(s.did("op")) || v.Subject.ID != string(s.did("n1")) || len(v.Subject.Capabilities) != 2 {
		t.Errorf("%s", raw)
	}
}
