package cage2

import (
	"os"
	"path/filepath"
	"testing"
)

// recorded is the folder of episodes recorded from the reference environment; the test is skipped where it is absent.
func recorded(t *testing.T, v Version) string {
	t.Helper()
	root := os.Getenv("REFERENCE_DATA")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir := filepath.Join(root, "cage2", v.String())
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no recorded episodes of the reference environment: %v", err)
	}
	return dir
}

func TestReplayReference(t *testing.T) {
	for _, v := range []Version{Leaderboard, Later} {
		t.Run(v.String(), func(t *testing.T) {
			r, err := ReplayDir(recorded(t, v), v)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d episodes, %d steps", r.Episodes, r.Steps)
			if r.Mismatches != 0 {
				t.Fatalf("%d mismatches; the first: %+v", r.Mismatches, *r.First)
			}
			if r.Episodes < 40 || r.Steps < 4000 {
				t.Fatalf("only %d episodes and %d steps: the proof is thinner than it claims", r.Episodes, r.Steps)
			}
		})
	}
}

// The versions differ, so the wrong rules must be found out: otherwise a clean replay would prove nothing.
func TestReplayReferenceUnderOtherRules(t *testing.T) {
	r, err := ReplayDir(recorded(t, Leaderboard), Later)
	if err != nil {
		t.Fatal(err)
	}
	if r.Mismatches == 0 {
		t.Fatal("leaderboard recordings replay cleanly under the later rules")
	}
	t.Logf("%d mismatches; the first: %+v", r.Mismatches, *r.First)
}
