package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDetectAndRulesCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("rules/a.yml", "title: Curl\nid: curl\nlevel: high\ntags: [attack.t1105]\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {Image|endswith: /curl}, condition: s}\n")
	write("rules/b.yml", "title: Windows\nid: win\nlogsource: {product: windows}\ndetection: {s: {Image: x}, condition: s}\n")
	events := write("events.jsonl", `{"EventID":1,"Image":"/bin/ls","CommandLine":"ls"}`+"\n"+`{"EventID":1,"Image":"/usr/bin/curl","CommandLine":"curl x","ProcessId":4}`+"\n")
	rules := filepath.Join(dir, "rules")

	out, errOut, code := omega(t, "", "detect", "--rules", rules, "--events", events)
	if code != exitDone {
		t.Fatal(code, errOut)
	}
	var f struct {
		Line     int
		RuleID   string `json:"rule_id"`
		Severity string
		Attack   []string
		Subject  struct{ Exe string }
	}
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatal(err, out)
	}
	if f.Line != 2 || f.RuleID != "curl" || f.Severity != "high" || len(f.Attack) != 1 || f.Attack[0] != "T1105" || f.Subject.Exe != "/usr/bin/curl" {
		t.Errorf("%s", out)
	}
	if !strings.Contains(errOut, "2 events") || !strings.Contains(errOut, "1 findings") {
		t.Errorf("summary: %s", errOut)
	}

	out, _, code = omega(t, "", "rules", "check", rules, "--json")
	var c struct {
		Files, Rules, Loaded int
		NotApplicable        int `json:"not_applicable"`
		Rejected             []struct{ File, Why string }
	}
	if err := json.Unmarshal([]byte(out), &c); err != nil || code != exitDone {
		t.Fatal(code, err, out)
	}
	if c.Files != 2 || c.Rules != 2 || c.Loaded != 1 || c.NotApplicable != 1 || len(c.Rejected) != 0 {
		t.Errorf("%+v", c)
	}
	write("rules/c.yml", "title: Broken\nlogsource: {product: linux}\ndetection: {s: {A|sounds: x}, condition: s}\n")
	if out, _, code = omega(t, "", "rules", "check", rules, "--json"); code != exitFailed || !strings.Contains(out, "sounds") {
		t.Errorf("a rejected rule: exit %d, %s", code, out)
	}
	if _, _, code = omega(t, "", "rules", "check", filepath.Join(dir, "nowhere")); code != exitNotFound {
		t.Errorf("no folder: exit %d", code)
	}
	if _, _, code = omega(t, "", "detect", "--events", events); code != exitUsage {
		t.Errorf("no rules: exit %d", code)
	}
}
