package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExportVerifiesElsewhere: an export is whole on a machine that has nothing but the swarm's id, and a flipped byte
// in it is named and exits with 1.
func TestExportVerifiesElsewhere(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "swarm.omega")
	out, errOut, code := omega(t, "", "init", "--swarm", "home", "--name", "n1", "--dir", dir, "--json")
	if code != exitDone {
		t.Fatal(out, errOut)
	}
	if out, errOut, code = omega(t, "", "ledger", "export", file, "--dir", dir); code != exitDone {
		t.Fatal(out, errOut)
	}
	type result struct {
		OK      bool
		Swarm   string
		Feeds   int
		Entries int
		Faults  []struct {
			Record, Feed, Cause string
			Seq                 int
		}
	}
	verify := func(want int, args ...string) (r result, line string) {
		t.Helper()
		out, errOut, code := omega(t, "", append([]string{"ledger", "verify", "--json"}, args...)...)
		if code != want {
			t.Fatalf("verify %v: exit %d, %q %q", args, code, out, errOut)
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err, out)
		}
		return r, out
	}
	own, _ := verify(exitDone, "--dir", dir) // no node runs: its folder is read
	elsewhere := t.TempDir()
	whole, line := verify(exitDone, "--file", file, "--genesis", own.Swarm, "--dir", elsewhere)
	if !whole.OK || whole.Feeds == 0 || whole.Entries == 0 || whole.Entries != own.Entries || !strings.Contains(line, `"faults":[]`) {
		t.Errorf("%+v, own %+v, %s", whole, own, line)
	}
	other, _ := verify(exitFailed, "--file", file, "--genesis", strings.Repeat("0", 64), "--dir", elsewhere)
	if other.OK || other.Faults[0].Cause != "genesis" {
		t.Errorf("of another swarm: %+v", other)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-2000] ^= 1
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	spoilt, _ := verify(exitFailed, "--file", file, "--genesis", own.Swarm, "--dir", elsewhere)
	if spoilt.OK || len(spoilt.Faults) == 0 || spoilt.Faults[0].Record != "entry" || !strings.HasPrefix(spoilt.Faults[0].Feed, "did:omega:") {
		t.Errorf("a flipped byte: %+v", spoilt)
	}
	for _, wrong := range [][]string{{"ledger", "verify", "--genesis", "00"}, {"ledger", "verify", "--file", file, "--genesis", "zz"}, {"ledger", "export"}, {"ledger", "show", "--evidence", "--follow"}} {
		if _, errOut, code := omega(t, "", append(wrong, "--dir", dir)...); code != exitUsage {
			t.Errorf("omega %v: exit %d, %q", wrong, code, errOut)
		}
	}
}
