package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCeremony: two of three rule. One operator's machine has no node; what one signs alone is a proposal, what two sign
// cuts a live connection; and one alone can do no more than suspend.
func TestCeremony(t *testing.T) {
	if testing.Short() {
		t.Skip("runs nodes")
	}
	dir := t.TempDir()
	n1, n2, stick, file := filepath.Join(dir, "n1"), filepath.Join(dir, "n2"), filepath.Join(dir, "stick", "operator"), filepath.Join(dir, "revoke.pem")
	must := func(in string, args ...string) string {
		t.Helper()
		out, errOut, code := process(t, in, args...)
		if code != exitDone {
			t.Fatalf("omega %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errOut)
		}
		return out
	}
	must("", "root", "operator", "new", stick, "--name", "alice")
	var made struct {
		K         int      `json:"k"`
		Operators []string `json:"operators"`
		Carry     []string `json:"carry_away"`
	}
	out := must("", "init", "--swarm", "home", "--name", "n1", "--dir", n1, "--operators", "2/3", "--operator-inception", filepath.Join(stick, "inception"), "--recovery", "1", "--json")
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.K != 2 || len(made.Operators) != 3 || len(made.Carry) != 2 {
		t.Fatalf("%s, %v", out, err)
	}
	up(t, n1, freePort(t))
	must(must("", "invite", "--dir", n1, "--quiet"), "join", "-", "--name", "n2", "--dir", n2)
	up(t, n2, freePort(t))
	peers := func(want string) {
		t.Helper()
		poll(t, "n1 has "+want+" peers", func() (bool, string) {
			out, _, _ := process(t, "", "status", "--json", "--dir", n1)
			return strings.Contains(out, `"peers":`+want+`,`), out
		})
	}
	peers("1")

	if _, errOut, code := process(t, "", "peer", "suspend", "n1", "--why", "theft", "--dir", n1); code != exitNotPermitted {
		t.Errorf("one operator put out an operator's peer: exit %d, %s", code, errOut)
	}
	if out := must("", "peer", "revoke", "n2", "--why", "stolen", "--file", file, "--dir", n1); !strings.Contains(out, "1 of 2") || !strings.Contains(out, "suspended") {
		t.Errorf("revoke by one of two says %q", out)
	}
	peers("0")
	if _, errOut, code := process(t, "", "root", "submit", file, "--dir", n1); code != exitFailed || !strings.Contains(errOut, "1 more") {
		t.Errorf("submitting with one signature: exit %d, %q", code, errOut)
	}
	if out := must("", "root", "sign", file, "--operator-dir", stick); !strings.Contains(out, "revoke did:omega:") {
		t.Errorf("a signer is not told what it signs: %q", out)
	}
	must("", "root", "submit", file, "--dir", n1)
	type chain struct {
		Revoked []string `json:"revoked"`
		Seq     int      `json:"seq"`
		Chain   []struct {
			Hash string `json:"hash"`
		} `json:"chain"`
	}
	show := func() (c chain) {
		t.Helper()
		if err := json.Unmarshal([]byte(must("", "root", "show", "--json", "--dir", n1)), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := show(); len(c.Revoked) != 1 || c.Seq != 1 {
		t.Fatalf("%+v", c)
	}
	undo := filepath.Join(dir, "undo.pem")
	must("", "peer", "unrevoke", "n2", "--why", "mistake", "--file", undo, "--dir", n1)
	must("", "root", "sign", undo, "--operator-dir", filepath.Join(n1, "operator-3"))
	must("", "root", "submit", undo, "--dir", n1)
	if c := show(); len(c.Revoked) != 0 || c.Seq != 2 {
		t.Fatalf("%+v", c)
	}
	peers("1")

	// The recovery key takes it all back to where the two had only revoked.
	rescue := must("", "root", "propose", "recover", "--common", show().Chain[0].Hash, "--after", show().Chain[0].Hash, "--dir", n1)
	if err := os.WriteFile(file, []byte(rescue), 0o600); err != nil {
		t.Fatal(err)
	}
	must("", "root", "sign", file, "--recovery-key", filepath.Join(n1, "recovery", "recovery-1.key"))
	must("", "root", "submit", file, "--dir", n1)
	if c := show(); len(c.Revoked) != 1 {
		t.Fatalf("%+v", c)
	}
	peers("0")
}
