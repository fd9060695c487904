package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPolicyTest: what a policy makes of findings and calls, offline.
func TestPolicyTest(t *testing.T) {
	finding := func(id, peer, address string, decoy bool) string {
		f := map[string]any{"id": id, "time": "2026-11-23T01:02:03.000000004Z", "peer": peer, "host": "n", "rule_id": "omega.x", "title": "x", "attack": []string{"T1046"},
			"severity": "medium", "confidence": 70, "subject": map[string]any{"address": address}}
		if decoy {
			f["decoy"], f["handshake"] = "tcp/2323", true
		}
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	in := finding("a1", "did:omega:n2", "192.0.2.1", true) + finding("a2", "did:omega:n3", "192.0.2.2", false) + finding("a3", "did:omega:n4", "192.0.2.2", false)
	out, errOut, code := omega(t, in, "policy", "test", "default", "--findings", "-", "--json")
	if code != exitDone {
		t.Fatal(errOut)
	}
	for i, want := range []string{`"verdict":"everywhere"`, `"verdict":"none"`, `"two-witnesses"`} {
		if lines := strings.Split(out, "\n"); !strings.Contains(lines[i], want) {
			t.Errorf("finding %d: %s, want %s", i+1, lines[i], want)
		}
	}
	for args, want := range map[string]string{
		"--call respond-deny --as operator":                 "respond-deny as operator: allowed by operators\n",
		"--call respond-deny --as delegate --capable=false": "respond-deny as delegate: denied: no statement allows it\n",
		"--call Events --as local":                          "Events as local: allowed by own-host\n",
	} {
		out, errOut, code := omega(t, "", append([]string{"policy", "test", "default"}, strings.Fields(args)...)...)
		if code != exitDone || out != want {
			t.Errorf("%s: %q, %q, want %q", args, out, errOut, want)
		}
	}
	bad := filepath.Join(t.TempDir(), "bad.cedar")
	if err := os.WriteFile(bad, []byte(`permit (principal, action, resource) when { context.misspelt };`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"misspelt":   {bad, "--findings", "-"},
		"line 1":     {"default", "--findings", "-"},
		"--as":       {"default", "--call", "x", "--as", "god"},
		"--findings": {"default"},
	} {
		_, errOut, code := omega(t, "{\"severity\":\"grave\"}\n", append([]string{"policy", "test"}, args...)...)
		if code != exitUsage || !strings.Contains(errOut, name) {
			t.Errorf("%s: exit %d, %q", name, code, errOut)
		}
	}
}

func FuzzParseFinding(f *testing.F) {
	f.Add([]byte(`{"id":"a","peer":"p","severity":"low","confidence":1,"subject":{"address":"::ffff:192.0.2.1"}}`))
	f.Add([]byte(`{"id":1e999}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		x, err := parseFinding(line)
		if err == nil && (x.ID == "" || x.Confidence > 100) {
			t.Errorf("took %s", fmt.Sprint(x))
		}
	})
}
