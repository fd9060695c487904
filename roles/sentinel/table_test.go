package sentinel

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/pack"
)

// builtin are the detectors written in Go, as the table has them; TestDetects holds them to it.
func builtin() []pack.Rule {
	rule := func(id, title, level, component string, attack ...string) pack.Rule {
		return pack.Rule{ID: id, Title: title, Level: level, Kind: "go", Attack: attack, Components: strings.Split(component, ", ")}
	}
	return []pack.Rule{
		rule("omega.shell.socket", "A shell talks over a socket", "high", "Process Creation, Network Connection Creation", "T1059.004"),
		rule("omega.exec.memfd", "A program was started that has no file", "high", "Process Creation", "T1620"),
		rule("omega.exec.written", "What was just written or fetched is started", "medium", "Process Creation", "T1105", "T1204.002"),
		rule("omega.exec.writable", "A program in a folder that everyone may write is started", "medium", "Process Creation", "T1059"),
		rule("omega.net.scan", "An address tries the ports of this host", "medium", "Network Connection Creation", "T1046"),
		rule("omega.auth.brute", "An address guesses passwords", "medium", "User Account Authentication", "T1110.001"),
		rule("omega.auth.guessed", "An address logged on after failures", "high", "User Account Authentication", "T1110.001", "T1078"),
		rule("omega.net.refused", "A program reached for a refused address", "medium", "Network Connection Creation", "T1071"),
	}
}

// TestCoverageTable holds COVERAGE.md to the rules there are; UPDATE_GOLDEN=1 writes it.
func TestCoverageTable(t *testing.T) {
	rules, err := pack.Rules()
	if err != nil {
		t.Fatal(err)
	}
	rules = append(rules, builtin()...)
	known := map[string]bool{}
	for _, c := range components() {
		known[c.name] = true
	}
	type line struct {
		technique string
		rule      *pack.Rule
	}
	var lines []line
	techniques, kinds := map[string]bool{}, map[modules.Kind]int{}
	for i := range rules {
		r := &rules[i]
		kinds[r.Kind]++
		for _, c := range r.Components {
			if !known[c] {
				t.Errorf("%s is seen by %q, which no self-test knows", r.ID, c)
			}
		}
		for _, id := range r.Attack {
			if pack.Technique(id) == "" {
				t.Errorf("%s has no name", id)
			}
			techniques[id] = true
			lines = append(lines, line{id, r})
		}
	}
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.technique, b.technique), cmp.Compare(a.rule.ID, b.rule.ID))
	})
	var b strings.Builder
	fmt.Fprintf(&b, "# What this build detects\n\nMade by `make generate` from the rules; do not edit. %d techniques and sub-techniques of ATT&CK 18, %d detections: %d Sigma rules, %d Lua and %d WASM\n"+
		"modules of the pack (`modules/pack`), %d detectors in Go. Each line of the pack has a recording that its rule finds and nothing else, and one\n"+
		"near to it that nothing finds: `modules/pack/testdata/recordings/RULE.positive.jsonl` and `RULE.negative.jsonl`, held by the test named. `omega rules\n"+
		"show RULE` says why it is bad and what to do; `omega coverage` whether a host's sensors give what a line is seen by.\n\n", len(techniques), len(rules), kinds[modules.KindSigma], kinds[modules.KindLua], kinds[modules.KindWASM], kinds["go"])
	b.WriteString("| technique | name | seen by | rule | kind | level | test |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, l := range lines {
		test := "`TestRecordings/" + l.rule.ID + "`"
		if l.rule.Kind == "go" {
			test = "`roles/sentinel` `TestDetects`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | `%s` | %s | %s | %s |\n", l.technique, pack.Technique(l.technique), strings.Join(l.rule.Components, ", "), l.rule.ID, l.rule.Kind, l.rule.Level, test)
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile("COVERAGE.md", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile("COVERAGE.md")
	if err != nil || string(have) != b.String() {
		t.Errorf("COVERAGE.md is not what the rules say: run make generate (%v)", err)
	}
}
