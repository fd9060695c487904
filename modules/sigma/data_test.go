package sigma

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// referenceData is where public data to measure against lies: never part of the project.
func referenceData(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("REFERENCE_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no public rules here: %v", err)
	}
	return dir
}

// Every public rule for Linux and the network is read; none is rejected.
func TestPublicRules(t *testing.T) {
	dir := filepath.Join(referenceData(t), "sigma")
	set, err := Load(context.Background(), Options{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range set.Rejected {
		t.Errorf("%s: %s", f.File, f.Why)
	}
	t.Logf("%d files, %d rules, %d loaded, %d not applicable, %d rejected", set.Files, set.Total(), set.Loaded(), len(set.NotApplicable), len(set.Rejected))
	whys := map[string]int{}
	for _, f := range set.NotApplicable {
		whys[f.Why]++
	}
	for why, n := range whys {
		t.Logf("%4d %s", n, why)
	}
	if set.Total() != set.Loaded()+len(set.NotApplicable)+len(set.Rejected) {
		t.Error("the account does not add up")
	}
}

// Real events that a rule has to match, each for its own.
func TestPublicPositives(t *testing.T) {
	dir := filepath.Join(referenceData(t), "sigma-regression")
	set, err := Load(context.Background(), Options{AnySource: true}, filepath.Join(dir, "rules"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range set.Rejected {
		t.Errorf("%s: %s", f.File, f.Why)
	}
	d := NewDetector(set)
	f, err := os.Open(filepath.Join(dir, "positives.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	cases, found := 0, 0
	for lines.Scan() {
		var c struct {
			RuleID    string `json:"rule_id"`
			RulePath  string `json:"rule_path"`
			LogSource map[string]string
			Events    []json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		cases++
		hit := false
		for _, raw := range c.Events {
			r, err := ReadRecord(raw)
			if err != nil {
				t.Fatal(err)
			}
			d.Record(r, 0, func(rule *Rule) { hit = hit || rule.ID == c.RuleID })
		}
		if hit {
			found++
		} else {
			t.Errorf("%s does not match its own event: %s", c.RuleID, c.RulePath)
		}
	}
	t.Logf("%d of %d rules match their own events", found, cases)
}
