package indicator

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

var then = time.Unix(1764000000, 0)

func build(t testing.TB, f func(b *Builder, r *Report)) (*Set, *Report) {
	t.Helper()
	b := NewBuilder(0, then)
	var r Report
	f(b, &r)
	if sum := r.Taken + r.Duplicate + r.Expired + Total(r.NotApplicable) + Total(r.Rejected); sum != r.Read {
		t.Errorf("%d of %d accounted for", sum, r.Read)
	}
	return b.Set(), &r
}

func TestLookups(t *testing.T) {
	sha := strings.Repeat("ab", 32)
	s, r := build(t, func(b *Builder, r *Report) {
		it := Item{Source: "list", Confidence: 80}
		for _, v := range []string{sha, "203.0.113.9", "198.51.100.0/24", "2001:db8::1", "2001:db8:5::/48", "Evil.Example.", "*.only-below.example", "http://Host.example:80/x#f",
			"/tmp/.hidden/miner", "::ffff:203.0.113.77", "bücher.example", strings.Repeat("0f", 16), strings.Repeat("1e", 20)} {
			if err := b.Guess(r, v, it); err != nil {
				t.Fatal(err)
			}
		}
		it.Exact = true
		_ = b.Add(r, Domain, "exact.example", it)
		_ = b.Add(r, Name, "evil.sh", it)
		_ = b.Add(r, IPv4, "203.0.113.200", Item{Source: "list", Expires: then.Add(time.Hour)})
		_ = b.Add(r, IPv4, "203.0.113.201", Item{Source: "list", Expires: then.Add(-time.Hour)})
		for _, bad := range []string{"", "127.0.0.1", "0.0.0.0/0", "224.0.0.1", "com", "co.uk", "localhost", "???", "d41d8cd98f00b204e9800998ecf8427e", "10.0.0.0/7"} {
			_ = b.Guess(r, bad, it)
		}
	})
	if r.Taken != 16 || r.Expired != 1 || Total(r.Rejected) != 10 || s.Len() != 16 {
		t.Errorf("%+v %d", r, s.Len())
	}
	now := Unix(then)
	for _, c := range []struct {
		kind, value, want string
	}{
		{"file:sha256", strings.ToUpper(sha), sha}, {"", sha, sha}, {"sha1", strings.Repeat("1e", 20), strings.Repeat("1e", 20)}, {"md5", strings.Repeat("0f", 16), strings.Repeat("0f", 16)},
		{"ipv4-addr", "203.0.113.9", "203.0.113.9"}, {"", "::ffff:203.0.113.9", "203.0.113.9"}, {"", "203.0.113.10", ""}, {"", "203.0.113.77", "203.0.113.77"},
		{"", "198.51.100.255", "198.51.100.0/24"}, {"", "198.51.101.0", ""}, {"", "2001:db8::1", "2001:db8::1"}, {"", "2001:db8:5:1::1", "2001:db8:5::/48"}, {"", "2001:db8:6::1", ""},
		{"domain-name", "evil.example", "evil.example"}, {"", "a.b.EVIL.example", "evil.example"}, {"", "notevil.example", ""}, {"", "only-below.example", ""}, {"", "x.only-below.example", "only-below.example"},
		{"", "exact.example", "exact.example"}, {"", "x.exact.example", ""}, {"", "xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"url", "HTTP://user@host.EXAMPLE/x", "http://host.example/x"}, {"url", "http://host.example/X", ""}, {"path", "/tmp/.hidden/miner", "/tmp/.hidden/miner"}, {"path", "/tmp/.hidden", ""},
		{"file:name", "evil.sh", "evil.sh"}, {"", "203.0.113.200", "203.0.113.200"}, {"", "203.0.113.201", ""}, {"unheard-of", "evil.sh", ""},
	} {
		m, ok := s.Lookup(c.kind, c.value, now)
		if ok != (c.want != "") || m.Value != c.want || ok && m.Origin.Source != "list" {
			t.Errorf("%s %s: %+v %v", c.kind, c.value, m, ok)
		}
	}
	if _, ok := s.Lookup("", "203.0.113.200", now+3600); ok {
		t.Error("what has ended is still found")
	}
}

// The surer source is named, and the later end holds.
func TestTwoSourcesOfOneValue(t *testing.T) {
	for _, v := range []string{"203.0.113.9", "203.0.113.0/24"} {
		s, _ := build(t, func(b *Builder, r *Report) {
			_ = b.Guess(r, v, Item{Source: "faint", Confidence: 10})
			_ = b.Guess(r, v, Item{Source: "sure", Confidence: 90, Expires: then.Add(time.Hour)})
		})
		if m, ok := s.Address(netip.MustParseAddr("203.0.113.9"), Unix(then)+7200); !ok || m.Origin.Source != "sure" || s.Len() != 1 {
			t.Errorf("%s: %+v, %d", v, m, s.Len())
		}
	}
}

// Prefixes that nest, by the plainest way there is.
func TestPrefixesAgainstALoop(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var p prefixes
	var all []netip.Prefix
	for range 3 * firstFrom {
		a := netip.AddrFrom4([4]byte{byte(20 + rng.IntN(4)), byte(rng.IntN(8)), byte(rng.IntN(256)), byte(rng.IntN(256))})
		x := netip.PrefixFrom(a, 8+rng.IntN(25)).Masked()
		all = append(all, x)
		p.add(x, Meta{})
	}
	p.settle()
	if p.first == nil {
		t.Fatal("no index")
	}
	for range 3_000 {
		a := netip.AddrFrom4([4]byte{byte(19 + rng.IntN(6)), byte(rng.IntN(9)), byte(rng.IntN(256)), byte(rng.IntN(256))})
		want := -1
		for _, x := range all {
			if x.Contains(a) {
				want = max(want, x.Bits())
			}
		}
		got := -1
		if s := p.find(a, 1); s != nil {
			got = int(s.bits)
		}
		if got != want {
			t.Fatalf("%s: /%d, want /%d", a, got, want)
		}
	}
}

// Every one of many values is found, and none of as many others.
func TestManyValues(t *testing.T) {
	const n = 30_000
	s := made(n, share)
	for i := range n {
		for odd := range 2 {
			v := value(share(i), i, odd)
			text := v.text
			var ok bool
			switch v.kind {
			case IPv4:
				text = v.prefix.Addr().String()
				_, ok = s.Address(v.prefix.Addr(), 1)
			case Domain, URL:
				_, ok = s.find(v.kind, text, 1)
			default:
				text = fmt.Sprintf("%x", v.sum)
				_, ok = s.Digest(v.sum, 1)
			}
			if ok != (odd == 0) {
				t.Fatalf("%s %s: %v", v.kind, text, ok)
			}
		}
	}
	if s.Len() != n {
		t.Errorf("%d of %d", s.Len(), n)
	}
}

func TestASetIsBounded(t *testing.T) {
	b := NewBuilder(1<<20, then)
	var r Report
	for i := range 1 << 20 {
		if err := b.Guess(&r, fmt.Sprintf("host-%d.example", i), Item{}); err != nil {
			if s := b.Set(); s.Bytes() > 1<<20 || s.Len() < 1000 {
				t.Errorf("%d bytes, %d indicators", s.Bytes(), s.Len())
			}
			return
		}
	}
	t.Error("no bound")
}

func findings(t testing.TB, d *Detector, e *event.Event) []event.Finding {
	t.Helper()
	var out []event.Finding
	if err := d.Detect(t.Context(), []*event.Event{e}, func(f event.Finding) { out = append(out, f) }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEventsOfAHost(t *testing.T) {
	for _, c := range []struct {
		indicator, rule string
		event           int
	}{
		{"151.101.2.132", "indicator.address", 1}, {"151.101.0.0/16", "indicator.address", 1}, {"debian.org", "indicator.domain", 1}, {"debian.org", "indicator.domain", 2},
		{"2a04:4e42::/32", "indicator.address", 2}, {"fastlydns.net", "indicator.domain", 2}, {"https://deb.debian.org/debian/dists/stable/InRelease", "indicator.url", 0},
		{"deb.debian.org", "indicator.domain", 0}, {"/usr/bin/curl", "indicator.path", 0}, {"0f343b0931126a20f133d67c2b018a3b5f9b3c9ee2f5b4a1a1a0f8ed3e3d3b1c", "indicator.hash", 3},
		{"192.0.2.0/24", "indicator.address", 4},
	} {
		s, _ := build(t, func(b *Builder, r *Report) {
			_ = b.Guess(r, c.indicator, Item{Source: "list", Label: "Storm", Confidence: 80})
		})
		var current Current
		var seen Sightings
		d := NewDetector(&current, &seen)
		e := ordinary()[c.event][0]
		if got := findings(t, d, e); len(got) != 0 {
			t.Fatalf("%s without a set: %v", c.indicator, got)
		}
		current.Store(s)
		got := findings(t, d, e)
		if len(got) != 1 || got[0].RuleID != c.rule || got[0].Severity != event.SeverityHigh || !strings.Contains(fmt.Sprint(got[0].Evidence), "{source list} {label Storm}") {
			t.Errorf("%s: %+v", c.indicator, got)
			continue
		}
		if again := findings(t, d, e); len(again) != 0 {
			t.Errorf("%s is told twice of one moment", c.indicator)
		}
		e.Boot += uint64(time.Minute)
		e.Time += int64(time.Minute)
		if again := findings(t, d, e); len(again) != 1 {
			t.Errorf("%s is not told again", c.indicator)
		}
		if all := seen.All(); len(all) != 1 || all[0].Count != 2 || all[0].Last-all[0].First != int64(time.Minute) {
			t.Errorf("%+v", all)
		}
	}
}

// Patterns that are alternatives of values go to the sets; others are held against events, and outlive a new set.
func TestPatterns(t *testing.T) {
	sets := []string{
		"[ipv4-addr:value = '203.0.113.9']", "[ipv4-addr:value ISSUBSET '203.0.113.0/24' OR domain-name:value IN ('a.example', 'b.example')]",
		"[file:hashes.'SHA-256' = '" + strings.Repeat("ab", 32) + "'] OR [url:value = 'http://x.example/']", "[domain-name:value LIKE '%.evil.example']",
		"[file:hashes.MD5 = '" + strings.Repeat("0f", 16) + "' AND file:hashes.'SHA-1' = '" + strings.Repeat("1e", 20) + "']",
	}
	two := "[domain-name:value = 'deb.debian.org'] FOLLOWEDBY [network-traffic:dst_port = 443] WITHIN 60 SECONDS"
	s, r := build(t, func(b *Builder, r *Report) {
		for _, p := range append(sets, two, "[email-message:subject = 'hello']", "[file:name = ", "[ipv4-addr:value = '127.0.0.1']") {
			if err := b.Pattern(r, p, Item{Source: "stix", Confidence: 50}); err != nil {
				t.Fatal(err)
			}
		}
	})
	if r.Taken != 6 || Total(r.NotApplicable) != 1 || Total(r.Rejected) != 2 || s.Len(Pattern) != 1 || s.Len() != 9 {
		t.Fatalf("%+v, %d, %v %v", r, s.Len(), Refusals(r.NotApplicable), Refusals(r.Rejected))
	}
	if m, ok := s.Lookup("", strings.Repeat("1e", 20), 1); !ok || m.Kind != SHA1 {
		t.Error("the stronger digest of one file is not the one that is looked for")
	}
	var current Current
	current.Store(s)
	d := NewDetector(&current, nil)
	all := ordinary()
	if got := findings(t, d, all[2][0]); len(got) != 0 {
		t.Fatal(got)
	}
	again, _ := build(t, func(b *Builder, r *Report) { _ = b.Pattern(r, two, Item{Source: "stix"}) })
	current.Store(again)
	all[1][0].Time += int64(time.Second)
	if got := findings(t, d, all[1][0]); len(got) != 1 || got[0].RuleID != "indicator.pattern" {
		t.Fatalf("%+v", got)
	}
}

func TestNoAllocationWithoutAMatch(t *testing.T) {
	s, _ := build(t, func(b *Builder, r *Report) {
		for i := range 10_000 {
			v := value(share(i), i, 0)
			_, _ = b.put(v, Meta{}, false)
		}
		b.set.origins = []Origin{{}}
		_ = b.Pattern(r, "[process:command_line LIKE '%--evil%' AND file:name = 'x']", Item{})
		_ = b.Pattern(r, "[network-traffic:dst_port = 4444 AND network-traffic:protocols[*] = 'udp']", Item{})
		_ = b.Pattern(r, "[domain-name:value MATCHES '^[a-z]{30}[.]example$']", Item{})
	})
	if s.Len(Pattern) != 3 {
		t.Fatal(s.Len(Pattern))
	}
	var current Current
	current.Store(s)
	d := NewDetector(&current, nil)
	emit := func(event.Finding) { t.Error("a match") }
	for _, batch := range ordinary() {
		if n := testing.AllocsPerRun(100, func() { _ = d.Detect(t.Context(), batch, emit) }); n != 0 {
			t.Errorf("%v: %v allocations", batch[0].Class, n)
		}
	}
}

// BenchmarkLookup is that of `omega bench modules/indicators`, beside what one read of the same memory costs, each waiting
// for the one before it.
func BenchmarkLookup(b *testing.B) {
	s := made(benchSize, share)
	for odd, name := range []string{"present", "absent"} {
		b.Run(name, func(b *testing.B) { run(b, lookups(s, benchSize, odd)) })
	}
	b.Run("one-read", func(b *testing.B) {
		run(b, func(n int) error {
			var last uint64
			for i := range n {
				last = s.values.lines[mix(uint64(i)+last&1)%uint64(len(s.values.lines))].hash[0]
			}
			runtime.KeepAlive(last)
			return nil
		})
	})
}

func run(b *testing.B, f func(int) error) {
	b.ReportAllocs()
	b.ResetTimer()
	if err := f(b.N); err != nil {
		b.Fatal(err)
	}
}

// Values whose first hash is one and the same are told apart by the second, and found past full lines.
func TestEntriesThatMeet(t *testing.T) {
	x := newTable()
	if !x.grow(64 * lineBytes) {
		t.Fatal("no room")
	}
	const same = 1 << 63
	for i := range 20 {
		v := fmt.Sprint(i)
		if l, _ := x.search(same, v); l != nil {
			t.Fatalf("%s is found before it is there", v)
		}
		l, at := x.insert(same, x.checkOf(v))
		l.put(at, Meta{Origin: uint16(i)})
	}
	for i := range 20 {
		if l, at := x.search(same, fmt.Sprint(i)); l == nil || l.at(at).Origin != uint16(i) {
			t.Errorf("%d is not found", i)
		}
	}
	if l, _ := x.search(same, "another"); l != nil {
		t.Error("another is found")
	}
	last := ^uint64(0) // the last line goes on in the first
	for i := range perLine + 1 {
		x.insert(last, x.checkOf(fmt.Sprint("last", i)))
	}
	if l, _ := x.search(last, fmt.Sprint("last", perLine)); l == nil {
		t.Error("not found past the end")
	}
}
