package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"pgregory.net/rapid"
)

const minute = int64(time.Minute)

// at is a finding by one peer on one address at a minute; it scans, unless changed.
func at(peer string, minutes int64, address string, change ...func(*event.Finding)) *event.Finding {
	f := &event.Finding{Peer: "did:omega:" + peer, Host: peer, Time: 1e18 + minutes*minute, RuleID: "omega.net.scan",
		Severity: event.SeverityMedium, Confidence: 60, Subject: event.Subject{Address: netip.MustParseAddr(address)}}
	for _, c := range change {
		c(f)
	}
	f.ID = fmt.Sprintf("%032x", []byte(fmt.Sprintf("%s/%d/%s", peer, minutes, address))[:min(16, len(peer)+len(address)+8)])
	return f
}

func decoy(f *event.Finding) {
	f.RuleID, f.Handshake, f.Decoy, f.Confidence, f.Severity = "omega.decoy.touch", true, "tcp/2323", 100, event.SeverityHigh
}
func sure(f *event.Finding) { f.Confidence = 95 }

func hasRole(did, role string) bool {
	return role == "decoy" && (did == "did:omega:n2" || did == "did:omega:n4")
}
func fold(self string) *Fold {
	return NewFold(Default(), FoldOptions{Self: "did:omega:" + self, HasRole: hasRole})
}

func TestDefaultPolicy(t *testing.T) {
	for _, c := range []struct {
		name     string
		findings []*event.Finding
		want     Verdict
		reason   string
	}{
		{"a decoy touch", []*event.Finding{at("n2", 0, "10.0.0.66", decoy)}, Everywhere, "decoy-touch"},
		{"a decoy touch by who holds no decoy", []*event.Finding{at("n3", 0, "10.0.0.66", decoy)}, None, ""},
		{"a decoy touch without a handshake", []*event.Finding{at("n2", 0, "10.0.0.66", decoy, func(f *event.Finding) { f.Handshake = false })}, None, ""},
		{"one scan", []*event.Finding{at("n3", 0, "10.0.0.66")}, None, ""},
		{"one peer twice", []*event.Finding{at("n3", 0, "10.0.0.66"), at("n3", 1, "10.0.0.66")}, None, ""},
		{"two peers", []*event.Finding{at("n3", 0, "10.0.0.66"), at("n5", 9, "10.0.0.66")}, Everywhere, "two-witnesses"},
		{"two peers, one in the mapped form", []*event.Finding{at("n3", 0, "10.0.0.66"), at("n5", 9, "::ffff:10.0.0.66")}, Everywhere, "two-witnesses"},
		{"two peers, too far apart", []*event.Finding{at("n3", 0, "10.0.0.66"), at("n5", 11, "10.0.0.66")}, None, ""},
		{"two peers, two addresses", []*event.Finding{at("n3", 0, "10.0.0.66"), at("n5", 1, "10.0.0.67")}, None, ""},
		{"two peers, one unsure", []*event.Finding{at("n3", 0, "10.0.0.66", func(f *event.Finding) { f.Confidence = 59 }), at("n5", 1, "10.0.0.66")}, None, ""},
		{"two peers, one mild", []*event.Finding{at("n3", 0, "10.0.0.66", func(f *event.Finding) { f.Severity = event.SeverityLow }), at("n5", 1, "10.0.0.66")}, None, ""},
		{"sure, at home", []*event.Finding{at("n1", 0, "10.0.0.66", sure)}, Local, "sure-at-home"},
		{"sure, elsewhere", []*event.Finding{at("n3", 0, "10.0.0.66", sure)}, None, ""},
	} {
		f := fold("n1")
		var got Proposal
		for _, x := range c.findings {
			got, _ = f.Add(x)
		}
		if got.Verdict != c.want {
			t.Errorf("%s: %s, want %s", c.name, got.Verdict, c.want)
			continue
		}
		if c.want == None {
			continue
		}
		r := got.Response
		if !slices.Equal(got.Reasons, []string{c.reason}) || r.TTL != time.Hour || r.Target.Address.String() != "10.0.0.66/32" || len(r.ID) != 32 || r.Authority != event.AuthorityPolicy {
			t.Errorf("%s: %+v %v", c.name, r, got.Reasons)
		}
		if (c.want == Local) != slices.Equal(r.Scope, []string{"did:omega:n1"}) {
			t.Errorf("%s: scope %v", c.name, r.Scope)
		}
	}
}

func TestSameResponseOnce(t *testing.T) {
	f := fold("n1")
	x := at("n2", 0, "10.0.0.66", decoy)
	first, ok := f.Add(x)
	if !ok {
		t.Fatal("nothing")
	}
	if _, again := f.Add(x); again {
		t.Fatal("the same finding twice gave two responses")
	}
	if want := ResponseID(event.ActionDeny, first.Response.Target, []string{x.ID}); first.Response.ID != want {
		t.Fatalf("id %s, want %s", first.Response.ID, want)
	}
	if ResponseID(event.ActionDeny, event.Target{Peer: "ab"}, nil) == ResponseID(event.ActionDeny, event.Target{Peer: "a"}, []string{"b"}) {
		t.Fatal("ids of different things are the same")
	}
}

func TestQuota(t *testing.T) {
	f := fold("n1")
	address := func(i int) string { return fmt.Sprintf("10.9.%d.%d", i/250, 1+i%250) }
	acted := 0
	for i := range 40 {
		if _, ok := f.Add(at("n2", 0, address(i), decoy)); ok {
			acted++
		}
	}
	if acted != MaxTargets || f.OverQuota() != 24 {
		t.Fatalf("%d targets, %d over", acted, f.OverQuota())
	}
	if _, ok := f.Add(at("n2", 1, address(3), decoy)); !ok {
		t.Fatal("an address named before is no new target")
	}
	if _, ok := f.Add(at("n4", 1, address(30), decoy)); !ok {
		t.Fatal("another author pays for the first")
	}
	if _, ok := f.Add(at("n2", -600, address(31), decoy)); ok {
		t.Fatal("a claimed time in the past refills the quota")
	}
	if _, ok := f.Add(at("n2", 61, address(32), decoy)); !ok {
		t.Fatal("the quota does not refill")
	}
}

// TestOrder: the order in which feeds arrive changes neither which addresses are denied nor the response that rests on
// the earliest findings.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		feeds := map[string][]*event.Finding{}
		var peers []string
		for i := range rapid.IntRange(1, 5).Draw(rt, "peers") {
			peer := fmt.Sprintf("n%d", i+1)
			peers = append(peers, peer)
			clock := int64(0)
			for range rapid.IntRange(0, 3).Draw(rt, "findings") {
				clock += int64(rapid.IntRange(0, 4).Draw(rt, "later"))
				var kind []func(*event.Finding)
				switch rapid.IntRange(0, 5).Draw(rt, "kind") {
				case 0:
					kind = append(kind, decoy)
				case 1:
					kind = append(kind, func(f *event.Finding) { f.Confidence = 40 })
				}
				x := at(peer, clock, fmt.Sprintf("10.0.0.%d", rapid.IntRange(60, 62).Draw(rt, "address")), kind...)
				x.ID = fmt.Sprintf("%030x%02x", i, len(feeds[peer]))
				feeds[peer] = append(feeds[peer], x)
			}
		}
		run := func(label string) (targets, ids map[string]bool) {
			f, next := fold("outside"), map[string]int{}
			targets, ids = map[string]bool{}, map[string]bool{}
			for {
				var ready []string
				for _, p := range peers {
					if next[p] < len(feeds[p]) {
						ready = append(ready, p)
					}
				}
				if len(ready) == 0 {
					return targets, ids
				}
				p := rapid.SampledFrom(ready).Draw(rt, label)
				if got, ok := f.Add(feeds[p][next[p]]); ok {
					targets[got.Response.Target.Address.String()] = true
					ids[got.Response.ID] = true
				}
				next[p]++
			}
		}
		targets1, ids1 := run("first")
		targets2, ids2 := run("second")
		if fmt.Sprint(targets1) != fmt.Sprint(targets2) {
			rt.Fatalf("targets differ: %v, %v", targets1, targets2)
		}
		shared := 0
		for id := range ids1 {
			if ids2[id] {
				shared++
			}
		}
		if shared < len(targets1) {
			rt.Fatalf("%d responses in common for %d targets: %v, %v", shared, len(targets1), ids1, ids2)
		}
	})
}

func TestFloor(t *testing.T) {
	e, err := Parse(`permit (principal, action, resource);`)
	if err != nil {
		t.Fatal(err)
	}
	if d := e.Decide(Case{Finding: at("n3", 0, "10.0.0.66"), Witnesses: 1}); d.Verdict != Ask || !slices.Equal(d.Reasons, []string{"floor"}) && d.Verdict != Ask {
		t.Errorf("a policy went below the floor: %+v", d)
	}
	if d := e.Decide(Case{Finding: at("n3", 0, "10.0.0.66"), Witnesses: 2}); d.Verdict != Everywhere {
		t.Errorf("two witnesses: %+v", d)
	}
	if d := e.Decide(Case{Finding: at("n3", 0, "10.0.0.66"), Witnesses: 1, Own: true}); d.Verdict != Local {
		t.Errorf("own: %+v", d)
	}
}

func TestCustomPolicy(t *testing.T) {
	e, err := Parse(DefaultText() + `
@id("ask-brute") @ttl("10m")
permit (principal, action == Action::"ask", resource) when { context.rule == "omega.auth.brute" };
@id("never-lab")
forbid (principal, action, resource == Address::"10.0.0.66");`)
	if err != nil {
		t.Fatal(err)
	}
	brute := at("n3", 0, "10.0.0.67", func(f *event.Finding) { f.RuleID = "omega.auth.brute" })
	if d := e.Decide(Case{Finding: brute, Witnesses: 1}); d.Verdict != Ask || d.TTL != 10*time.Minute {
		t.Errorf("ask: %+v", d)
	}
	if d := e.Decide(Case{Finding: at("n2", 0, "10.0.0.66", decoy), DecoyRole: true, Witnesses: 1}); d.Verdict != None {
		t.Errorf("forbidden: %+v", d)
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "no statement",
		"permit (principal, action": "parse error",
		"permit (principal, action, resource) when { context.confidense > 3 };":                         "confidense",
		"\n\npermit (principal, action, resource) when { context.rule > 3 };":                           "line 3",
		`@ttl("soon") permit (principal, action, resource);`:                                            "soon",
		`@ttl("9000h") permit (principal, action, resource);`:                                           "9000h",
		`@advice("x") permit (principal, action, resource);`:                                            "@advice",
		`@id("a") permit (principal, action, resource); @id("a") permit (principal, action, resource);`: `"a"`,
		strings.Repeat("(", 5000): "nested",
		strings.Repeat("permit (principal, action, resource);\n", MaxPolicies+1): "statements",
		strings.Repeat(" ", MaxText+1):                                           "bytes",
	} {
		_, err := Parse(text)
		if !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(DefaultText())
	f.Add(`forbid (principal, action, resource);`)
	f.Add(`permit (principal, action, resource) when { context.attack.contains("T1046") && ip("10.0.0.1").isLoopback() };`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text)
		if err != nil {
			return
		}
		d := e.Decide(Case{Finding: at("n3", 0, "10.0.0.66"), Witnesses: 1})
		if d.Verdict == Everywhere || d.Verdict == Local {
			t.Fatalf("one peer's word acts: %+v", d)
		}
	})
}

// TestBounded: a flood of findings by many authors on many addresses does not grow a fold without end.
func TestBounded(t *testing.T) {
	f := fold("n1")
	for i := range MaxAddresses + 500 {
		x := at(fmt.Sprintf("p%d", i/MaxTargets), 0, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String())
		x.ID, x.Title = fmt.Sprintf("%032x", i), strings.Repeat("x", 10_000)
		f.Add(x)
	}
	if n := len(f.seen.items); n != MaxAddresses {
		t.Fatalf("%d addresses remembered", n)
	}
	for _, e := range f.seen.items {
		for _, x := range e.Value.(*pair[netip.Addr, []event.Finding]).value {
			if len(x.Title) > maxBrief {
				t.Fatalf("a title of %d bytes remembered", len(x.Title))
			}
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	e := Default()
	c := Case{Finding: at("n2", 0, "10.0.0.66", decoy), DecoyRole: true, Witnesses: 1}
	b.ReportAllocs()
	for b.Loop() {
		if e.Decide(c).Verdict != Everywhere {
			b.Fatal("not everywhere")
		}
	}
}

func BenchmarkFold(b *testing.B) {
	f := fold("n1")
	x := at("n2", 0, "10.0.0.66", decoy)
	b.ReportAllocs()
	for b.Loop() {
		f.Add(x)
	}
}
