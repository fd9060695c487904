package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

// feed is a list on the web that asks for a token, and is another each time.
type feed struct {
	mu     sync.Mutex
	lines  []string
	visits int
}

func (f *feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer of-the-test" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = w.Write([]byte(strings.Join(f.lines[:min(f.visits+1, len(f.lines))], "\n") + "\n"))
	f.visits++
}

// What `omega indicators` says and does, by real processes: a configured list that was seen, files, a folder, standard input
// and a list on the web that are added, looked up, visited again and removed; each mistake has its exit code.
func TestIndicators(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o711); err != nil { // the half that reads what is configured is another user
			t.Fatal(err)
		}
	}
	put := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	n1 := filepath.Join(dir, "n1")
	must := func(in string, args ...string) string {
		t.Helper()
		out, errOut, code := process(t, in, append(args, "--dir", n1)...)
		if code != exitDone {
			t.Fatalf("omega %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errOut)
		}
		return out
	}
	if _, _, code := process(t, "", "indicators", "list", "--dir", n1); code != exitUnreachable {
		t.Errorf("no node: exit %d", code)
	}
	seen := event.Event{Time: 1764000000e9, Class: event.ClassDNS, Activity: event.ActivityDNSQuery}
	seen.Process.Key, seen.Process.Exe = event.ProcessKey{PID: 4711, Start: 1}, "/usr/bin/curl"
	seen.DNS.Name, seen.DNS.Type = "c2.evil.example", 1
	line, err := ocsf.Encode(&seen, "n1", "did:omega:x")
	if err != nil {
		t.Fatal(err)
	}
	recording := put("events.jsonl", append(bytes.TrimSpace(line), '\n'))
	must("", "init", "--swarm", "home", "--name", "n1", "--roles", "sentinel")
	up(t, n1, freePort(t), "--sensor", "replay:"+recording, "--indicator-sources", put("configured.txt", []byte("evil.example\n")))

	// What is configured was seen.
	poll(t, "the configured list's sighting", func() (bool, string) {
		out, _, _ := process(t, "", "indicators", "sightings", "--json", "--dir", n1)
		var s struct {
			Kind, Value, Source string
			Count               int
		}
		return json.Unmarshal([]byte(out), &s) == nil && s.Value == "evil.example" && s.Count == 1, out
	})
	if out := must("", "indicators", "sightings", "--limit", "1"); !strings.Contains(out, "evil.example") || !strings.Contains(out, "LAST") {
		t.Errorf("sightings: %s", out)
	}

	// A file, a folder, standard input.
	type source struct {
		ID, Name, Kind, Error           string
		Read, Taken, Duplicate, Expired int
		Confidence                      int
		TTL                             float64 `json:"ttl_ms"`
		Exact, Configured               bool
		Rejected, NotApplicable         []struct{ Why string }
	}
	add := func(in string, args ...string) (s source) {
		t.Helper()
		out := must(in, append([]string{"indicators", "add", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return s
	}
	list := put("block.txt", []byte("# a comment\n203.0.113.9\n198.51.100.0/24\nexample-c2.test\n/tmp/.x\n???\n"))
	if s := add("", list, "--name", "blocklist", "--ttl", "720h", "--confidence", "90", "--exact"); s.Name != "blocklist" || s.Kind != "kept" || s.Taken != 4 || len(s.Rejected) != 1 || s.Confidence != 90 || s.TTL != 720*3600e3 || !s.Exact {
		t.Errorf("%+v", s)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte("gzip.example\n"))
	z.Close()
	put("folder/a.txt", []byte("hxxp://bad[.]example/x\n"))
	put("folder/deep/b.txt.gz", packed.Bytes())
	put("folder/.hidden", []byte("hidden.example\n"))
	put("folder/.git/c.txt", []byte("hidden.example\n"))
	if s := add("", filepath.Join(dir, "folder")); s.Name != "folder" || s.Taken != 2 || len(s.Rejected) != 0 {
		t.Errorf("%+v", s)
	}
	bundle := `{"type":"bundle","id":"bundle--5d3f0c9e-3f0c-4f0c-9d0e-0f4b8a5d3c11","objects":[{"type":"indicator","spec_version":"2.1","id":"indicator--5d3f0c9e-3f0c-4f0c-9d0e-0f4b8a5d3c12","created":"2026-01-01T00:00:00Z","modified":"2026-01-01T00:00:00Z","name":"the test's","pattern":"[domain-name:value = 'stix.example']","pattern_type":"stix","valid_from":"2026-01-01T00:00:00Z","confidence":80}]}`
	if s := add(bundle, "-", "--name", "by hand"); s.Taken != 1 {
		t.Errorf("%+v", s)
	}

	// What is looked for, and by whom.
	type match struct {
		Kind, Value, Source, Label string
		Confidence                 int
	}
	for asked, want := range map[string]match{
		"203.0.113.9":      {"ipv4-addr", "203.0.113.9", "blocklist", "", 90},
		"198.51.100.77":    {"prefix", "198.51.100.0/24", "blocklist", "", 90},
		"example-c2.test":  {"domain-name", "example-c2.test", "blocklist", "", 90},
		"/tmp/.x":          {"path", "/tmp/.x", "blocklist", "", 90},
		"www.gzip.example": {"domain-name", "gzip.example", "folder", "", 50},
		"stix.example":     {"domain-name", "stix.example", "by-hand", "the test's", 80},
	} {
		out := must("", "indicators", "lookup", asked, "--json")
		var m match
		if err := json.Unmarshal([]byte(out), &m); err != nil || m != want {
			t.Errorf("%s: %+v, want %+v (%v)", asked, m, want, err)
		}
	}
	for _, asked := range []string{"203.0.113.10", "sub.example-c2.test", "hidden.example", "unknown.example"} {
		if out, errOut, code := process(t, "", "indicators", "lookup", asked, "--dir", n1); code != exitNotFound || out != "" || !strings.Contains(errOut, "not looked for") {
			t.Errorf("%s: exit %d, %s%s", asked, code, out, errOut)
		}
	}
	if out := must("", "indicators", "lookup", "evil.example"); !strings.Contains(out, "seen 1 times") {
		t.Errorf("lookup: %s", out)
	}

	// A list on the web, visited again.
	web := &feed{lines: []string{"first.example", "second.example"}}
	server := httptest.NewTLSServer(web)
	defer server.Close()
	ca := put("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	token := put("token", []byte("of-the-test\n"))
	s := add("", server.URL+"/list.txt", "--name", "web", "--token-file", token, "--ca", ca)
	poll(t, "the list was fetched", func() (bool, string) {
		out, errOut, code := process(t, "", "indicators", "lookup", "first.example", "--dir", n1)
		return code == exitDone, out + errOut
	})
	if out := must("", "indicators", "list", "--json"); strings.Contains(out, "of-the-test") || !strings.Contains(out, `"web"`) {
		t.Errorf("the list tells a secret, or not of the source: %s", out)
	}
	must("", "indicators", "refresh", s.ID)
	poll(t, "it was fetched again", func() (bool, string) {
		out, errOut, code := process(t, "", "indicators", "lookup", "second.example", "--dir", n1)
		return code == exitDone, out + errOut
	})

	// How it all stands.
	var status struct {
		Indicators, Sources, Sightings int
		Failed                         int `json:"sources_failed"`
		Kinds                          map[string]int
		Bytes, Limit                   int64
	}
	if out := must("", "indicators", "status", "--json"); json.Unmarshal([]byte(out), &status) != nil || status.Sources != 5 || status.Failed != 0 || status.Indicators != 10 || status.Sightings != 1 || status.Kinds["domain-name"] == 0 {
		t.Errorf("status: %s", out)
	}
	if out := must("", "indicators", "status"); !strings.Contains(out, "of 5 sources (0 failed)") {
		t.Errorf("status: %s", out)
	}
	if out := must("", "indicators", "list"); strings.Count(out, "\n") != 6 || !strings.Contains(out, "SOURCE") {
		t.Errorf("list: %s", out)
	}
	if out, _, _ := process(t, "", "__complete", "--dir", n1, "indicators", "remove", ""); !strings.Contains(out, s.ID) {
		t.Errorf("completion: %s", out)
	}

	// What is removed is looked for no more.
	must("", "indicators", "remove", s.ID)
	if _, _, code := process(t, "", "indicators", "lookup", "first.example", "--dir", n1); code != exitNotFound {
		t.Errorf("after it was removed: exit %d", code)
	}

	// Mistakes.
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		why  string
	}{
		{[]string{"add", filepath.Join(dir, "nowhere")}, exitNotFound, "nowhere"},
		{[]string{"add", empty}, exitNotFound, "no files"},
		{[]string{"add", "ftp://feeds.example/list"}, exitUsage, "https"},
		{[]string{"add", "http://feeds.example/list"}, exitUsage, "https"},
		{[]string{"add", list, "--confidence", "101"}, exitUsage, "confidence"},
		{[]string{"add", server.URL, "--token-file", filepath.Join(dir, "nowhere")}, exitNotFound, "nowhere"},
		{[]string{"add"}, exitUsage, "arg"},
		{[]string{"remove", "nothing"}, exitNotFound, "list"},
		{[]string{"refresh", "nothing"}, exitNotFound, "list"},
		{[]string{"lookup", "x", "--kind", "colour"}, exitNotFound, "not looked for"},
	} {
		if _, errOut, code := process(t, "", append(append([]string{"indicators"}, c.args...), "--dir", n1)...); code != c.code || !strings.Contains(errOut, c.why) {
			t.Errorf("indicators %s: exit %d, want %d: %s", strings.Join(c.args, " "), code, c.code, errOut)
		}
	}
	configured := ""
	for line := range strings.Lines(must("", "indicators", "list", "--json")) {
		var x source
		if json.Unmarshal([]byte(line), &x) == nil && x.Configured {
			configured = x.ID
		}
	}
	if _, errOut, code := process(t, "", "indicators", "remove", configured, "--dir", n1); code == exitDone || !strings.Contains(errOut, "configuration") {
		t.Errorf("what is configured was removed: exit %d, %s", code, errOut)
	}
	if !slices.Contains(strings.Fields(must("", "indicators", "list")), configured) {
		t.Error("what is configured is gone")
	}
}
