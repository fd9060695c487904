package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func runSim(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	a := newApp(strings.NewReader(""), &o, &e)
	code = a.run(context.Background(), append([]string{"sim"}, args...))
	return code, o.String(), e.String()
}

// What is recorded replays cleanly under its own rules and fails, with exit code 1, under the others.
func TestSimRecordAndReplay(t *testing.T) {
	dir := t.TempDir()
	if code, _, e := runSim(t, "record", "--red", "b_line", "--policy", "react", "--episodes", "5", "--out", filepath.Join(dir, "a.jsonl")); code != exitDone {
		t.Fatalf("record: exit %d, %s", code, e)
	}
	for version, want := range map[string]int{"leaderboard": exitDone, "later": exitFailed} {
		code, out, _ := runSim(t, "replay", "--scenario", "cage2", "--version", version, "--json", dir)
		var r struct {
			Episodes, Steps, Mismatches int
			First                       *struct{ Field string }
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if code != want || r.Episodes != 5 || r.Steps != 500 || (r.Mismatches > 0) != (want != 0) || (r.First != nil) != (want != 0) {
			t.Errorf("%s: exit %d, %s", version, code, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "b.jsonl"), []byte("{\"ep\":{\"red\":\"b_line\",\"steps\":3}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, e := runSim(t, "replay", dir); code != exitFailed || !strings.Contains(e, "truncated: 0 of 3 steps") {
		t.Errorf("a truncated recording: exit %d, %s", code, e)
	}
}

func TestSimEval(t *testing.T) {
	code, out, e := runSim(t, "eval", "--scenario", "cage2", "--policy", "rules", "--episodes", "20", "--seed", "3", "--json")
	var s struct {
		Settings []struct {
			Red        string
			Steps      int
			Mean, CI95 float64
		}
		Total, CI95 float64
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != exitDone {
		t.Fatalf("exit %d, %v, %s", code, err, e)
	}
	sum := 0.0
	for _, x := range s.Settings {
		sum += x.Mean
	}
	if len(s.Settings) != 9 || s.Total > -60 || s.Total < -250 || s.Total-sum > 1e-6 || sum-s.Total > 1e-6 {
		t.Errorf("settings %d, total %v, sum %v", len(s.Settings), s.Total, sum)
	}
	for _, bad := range [][]string{{"eval", "--policy", "magic"}, {"eval", "--version", "v9"}, {"eval", "--scenario", "cage9"}, {"replay"}, {"explain", "--step", "-1"}, {"explain", "--red", "blue"}} {
		if code, _, _ := runSim(t, bad...); code != exitUsage {
			t.Errorf("%v: exit %d, want %d", bad, code, exitUsage)
		}
	}
}
