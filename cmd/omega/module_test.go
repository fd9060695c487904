package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestModuleIsMadeBuiltTestedAndRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fetch-watch")
	if _, errOut, code := omega(t, "", "module", "init", "--lang", "lua", dir); code != exitDone {
		t.Fatal(code, errOut)
	}
	if _, errOut, code := omega(t, "", "module", "init", "--lang", "cobol", dir+"2"); code == exitDone || !strings.Contains(errOut, "one of go, rust") {
		t.Error(code, errOut)
	}
	out, errOut, code := omega(t, "", "module", "build", dir, "--json")
	if code != exitDone {
		t.Fatal(code, errOut)
	}
	var built struct{ CID, Name, Version, Kind, File string }
	if err := json.Unmarshal([]byte(out), &built); err != nil || built.Name != "fetch-watch" || built.Kind != "lua" || !strings.HasPrefix(built.CID, "baf") {
		t.Fatal(err, out)
	}
	out, errOut, code = omega(t, "", "module", "test", built.File)
	if code != exitDone || strings.Count(out, "passed") != 2 {
		t.Fatal(code, out, errOut)
	}
	out, errOut, code = omega(t, "", "module", "run", built.File, "--events", filepath.Join(dir, "tests", "positive.jsonl"))
	var f struct {
		Line   int
		RuleID string `json:"rule_id"`
	}
	if err := json.Unmarshal([]byte(out), &f); err != nil || code != exitDone || f.Line != 1 || f.RuleID != "module.fetch-watch.fetch-to-memory" || !strings.Contains(errOut, "1 findings") {
		t.Fatal(err, code, out, errOut)
	}
	b, err := os.ReadFile(built.File)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	broken := filepath.Join(t.TempDir(), "broken.car")
	if err := os.WriteFile(broken, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code := omega(t, "", "module", "test", broken); code != exitFailed || !strings.Contains(errOut, "not what its name says") {
		t.Errorf("a changed byte: exit %d, %s", code, errOut)
	}
	if _, _, code := omega(t, "", "module", "test", dir+"-nowhere"); code != exitNotFound {
		t.Errorf("no file: exit %d", code)
	}
	if err := os.WriteFile(filepath.Join(dir, "detect.lua"), []byte("function detect(e) end"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, code := omega(t, "", "module", "test", dir); code != exitFailed || !strings.Contains(out, "FAILED") {
		t.Errorf("a module that finds nothing: exit %d, %s", code, out)
	}
}
