package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// A scan and bills of materials become a scenario, and three decoys are proposed with the loss with and without them.
func TestSimPlace(t *testing.T) {
	file, placed := importShop(t), filepath.Join(t.TempDir(), "placed.yaml")
	code, out, e := runSim(t, "place", file, "--runs", "200", "--out", placed, "--json")
	var r struct {
		Method        string
		Decoys        []struct{ Host string }
		Before, After struct{ Loss, CI95 float64 }
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitDone {
		t.Fatalf("exit %d, %v, %s", code, err, e)
	}
	if len(r.Decoys) != 3 || r.Method != "exact" || r.After.Loss+r.After.CI95 > r.Before.Loss-r.Before.CI95 {
		t.Errorf("%s", out)
	}
	if code, _, e := runSim(t, "run", placed, "--runs", "2"); code != exitDone {
		t.Errorf("the scenario written cannot be run: exit %d, %s", code, e)
	}
	if code, out, _ := runSim(t, "place", file, "--runs", "50"); code != exitDone || strings.Count(out, "decoy   ") != 3 || !strings.Contains(out, "loss without") {
		t.Errorf("exit %d, %s", code, out)
	}
	for _, bad := range [][]string{{"place"}, {"place", file, "--decoys", "-1"}, {"place", file, "--method", "guess"}, {"place", file, "--runs", "1"}} {
		if code, _, _ := runSim(t, bad...); code != exitUsage {
			t.Errorf("%v: exit %d", bad, code)
		}
	}
}
