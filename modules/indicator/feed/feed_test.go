package feed

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/indicator"
	"github.com/omega-mesh/omega/swarm/event"
)

var now = time.Unix(1764000000, 0)

func read(t testing.TB, text string, opt Options) (*indicator.Set, *indicator.Report, error) {
	t.Helper()
	b := indicator.NewBuilder(1<<22, now)
	var rep indicator.Report
	opt.Source, opt.Now = "feed", now
	err := Read(t.Context(), strings.NewReader(text), opt, b, &rep)
	if sum := rep.Taken + rep.Duplicate + rep.Expired + indicator.Total(rep.NotApplicable) + indicator.Total(rep.Rejected); sum != rep.Read && err == nil {
		t.Errorf("%d of %d accounted for", sum, rep.Read)
	}
	return b.Set(), &rep, err
}

func wants(t *testing.T, s *indicator.Set, values string, present bool) {
	t.Helper()
	for _, v := range strings.Fields(values) {
		if _, ok := s.Lookup("", v, indicator.Unix(now)); ok != present {
			t.Errorf("%s: found is %v", v, ok)
		}
	}
}

func TestLists(t *testing.T) {
	s, r, err := read(t, `# a list
evil.example
203.0.113.9:8080   ; what follows the first word is not read
hxxps://bad[.]example/x  # a comment
198[.]51[.]100[.]0/24
! a filter list
||ads.example^$third-party
127.0.0.1 localhost
0.0.0.0 hosts.example other.hosts.example
2026-01-02,"203.0.113.77","botnet",443
`+strings.Repeat("ab", 32)+`  /usr/bin/evil
/tmp/a file, with commas
10.0.0.1 5
nonsense
`, Options{Confidence: 40})
	if err != nil || r.Taken != 11 || indicator.Total(r.Rejected) != 1 {
		t.Errorf("%v %+v %v", err, r, indicator.Refusals(r.Rejected))
	}
	wants(t, s, "x.evil.example 203.0.113.9 https://bad.example/x 198.51.100.7 ads.example hosts.example other.hosts.example 203.0.113.77 10.0.0.1 "+strings.Repeat("ab", 32), true)
	wants(t, s, "sub.hosts.example 127.0.0.1 localhost bad.example", false)
	if _, ok := s.Lookup("path", "/tmp/a file, with commas", 1); !ok {
		t.Error("a path with blanks")
	}
}

func TestSTIX(t *testing.T) {
	bundle := `{"type":"bundle","id":"bundle--1","objects":[
	{"type":"indicator","id":"indicator--1","name":"Storm C2","pattern":"[ipv4-addr:value = '203.0.113.9']","pattern_type":"stix","valid_from":"2020-01-01T00:00:00Z","confidence":90},
	{"type":"indicator","id":"indicator--2","pattern":"[domain-name:value = 'gone.example']","valid_until":"2021-01-01T00:00:00Z"},
	{"type":"indicator","id":"indicator--3","pattern":"[domain-name:value = 'back.example']","revoked":true},
	{"type":"indicator","id":"indicator--4","pattern":"alert tcp any","pattern_type":"snort"},
	{"type":"indicator","id":"indicator--5","pattern":"[file:size = 3]"},
	{"type":"indicator","id":"indicator--6","pattern":7},
	{"type":"indicator","id":"indicator--7","pattern":"[domain-name:value = 'later.example']","valid_from":"2099-01-01T00:00:00Z"},
	{"type":"malware","id":"malware--1","name":"Storm"}]}`
	s, r, err := read(t, bundle, Options{})
	if err != nil || r.Read != 8 || r.Taken != 1 || r.Expired != 1 || indicator.Total(r.NotApplicable) != 5 || indicator.Total(r.Rejected) != 1 {
		t.Errorf("%v %+v %v %v", err, r, indicator.Refusals(r.NotApplicable), indicator.Refusals(r.Rejected))
	}
	m, ok := s.Lookup("ipv4-addr", "203.0.113.9", 1)
	if !ok || m.Origin.Label != "Storm C2" || m.Confidence != 90 {
		t.Errorf("%+v", m)
	}
	// The same as JSON Lines, of which but the last version counts.
	lines := `{"type":"indicator","id":"a","modified":"1","pattern":"[domain-name:value = 'old.example']"}
	{"type":"indicator","id":"a","modified":"2","pattern":"[domain-name:value = 'new.example']"}`
	s, r, err = read(t, lines, Options{Keep: func(_, modified string) bool { return modified == "2" }})
	if err != nil || r.Taken != 1 {
		t.Errorf("%v %+v", err, r)
	}
	wants(t, s, "new.example", true)
}

func TestMISP(t *testing.T) {
	event := `{"response":[{"Event":{"info":"A campaign","Attribute":[
	{"type":"ip-dst|port","value":"203.0.113.9|443","to_ids":true},{"type":"domain","value":"evil[.]example","to_ids":"1"},{"type":"hostname","value":"c2.host.example","to_ids":1},
	{"type":"url","value":"hxxp://evil.example/x","to_ids":true},{"type":"filename|sha256","value":"x.exe|` + strings.Repeat("ab", 32) + `","to_ids":true},
	{"type":"comment","value":"see there","to_ids":true},{"type":"domain","value":"harmless.example","to_ids":false},{"type":"filename","value":"C:\\x","to_ids":true}],
	"Object":[{"name":"file","Attribute":[{"type":"md5","value":"` + strings.Repeat("0f", 16) + `","to_ids":true},{"type":"sha1","value":"xyz","to_ids":true}]}]}}]}`
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	fmt.Fprint(w, event)
	w.Close()
	s, r, err := read(t, z.String(), Options{})
	if err != nil || r.Read != 10 || r.Taken != 6 || indicator.Total(r.NotApplicable) != 3 || indicator.Total(r.Rejected) != 1 {
		t.Errorf("%v %+v %v %v", err, r, indicator.Refusals(r.NotApplicable), indicator.Refusals(r.Rejected))
	}
	wants(t, s, "203.0.113.9 x.evil.example c2.host.example http://evil.example/x "+strings.Repeat("ab", 32), true)
	wants(t, s, "x.c2.host.example harmless.example", false)
	if m, _ := s.Lookup("", "203.0.113.9", 1); m.Origin.Label != "A campaign" {
		t.Errorf("%+v", m)
	}
}

func TestHostileFiles(t *testing.T) {
	if _, _, err := read(t, `{"objects":[{"type":"`+strings.Repeat("x", maxObject+100<<10)+`"}]}`, Options{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an endless object: %v", err)
	}
	if _, _, err := read(t, `{"a":`+strings.Repeat(`{"a":`, 100), Options{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("deep: %v", err)
	}
	if _, _, err := read(t, `{"objects":[{"type":"indicator"`, Options{}); err == nil {
		t.Error("half a document passes for a whole one")
	}
	_, r, err := read(t, strings.Repeat("x", 200<<10)+"\nevil.example\n", Options{})
	if err != nil || r.Taken != 1 || indicator.Total(r.Rejected) != 1 {
		t.Errorf("an endless line: %v %+v", err, r)
	}
	var many strings.Builder
	for i := range 1 << 18 {
		fmt.Fprintf(&many, "h%d.example\n", i)
	}
	if _, _, err := read(t, many.String(), Options{}); !errors.Is(err, indicator.ErrFull) {
		t.Errorf("a set without end: %v", err)
	}
}

func TestRefang(t *testing.T) {
	for in, want := range map[string]string{"hxxp://a[.]b(.)c": "http://a.b.c", "HXXPS[:]//x": "https://x", "fxp://x": "ftp://x", "a[dot]b": "a.b", "https://ok/[x]": "https://ok/[x]", "h": "h", "/tmp/[.]x": "/tmp/[.]x", `a\.b`: "a.b"} {
		if got := Refang(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("evil[.]example\n0.0.0.0 a.example\n1.2.3.4,x\n"))
	f.Add([]byte(`{"objects":[{"type":"indicator","pattern":"[ipv4-addr:value = '203.0.113.9']"}]}`))
	f.Add([]byte(`{"Event":{"info":"x","Attribute":[{"type":"ip-src","value":"203.0.113.9","to_ids":true}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _, _ = read(t, string(text), Options{})
	})
}

// A module whose payload is a list finds its domain in an event, under a rule of its own.
func TestEngine(t *testing.T) {
	m := &modules.Manifest{Name: "blocklist", Kind: modules.KindIndicators}
	p, err := Engine{}.Compile(t.Context(), m, []byte("evil.example\n"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Detector(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	e := &event.Event{Class: event.ClassDNS, Activity: event.ActivityDNSQuery, Time: now.UnixNano(), DNS: event.DNS{Name: "c2.evil.example"}}
	var got []event.Finding
	if err := d.Detect(t.Context(), []*event.Event{e}, func(f event.Finding) { got = append(got, f) }); err != nil || len(got) != 1 || got[0].RuleID != "module.blocklist.indicator.domain" {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"", "# nothing\n", "evil.example\n???\n", `{"objects":[{"type":"indicator","pattern":"[email-message:subject = 'x']"}]}`, `{"objects":[`} {
		if _, err := (Engine{}).Compile(t.Context(), m, []byte(bad)); !errors.Is(err, modules.ErrRefused) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
