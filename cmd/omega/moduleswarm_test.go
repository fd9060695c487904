package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An analyst whose issuer the root lets lend it publishes a module of its own, deploys it and takes it back, without an
// operator's key; the operator's host runs it, and says by whose word. What it was not lent it may not do.
func TestModuleByAMembersCredential(t *testing.T) {
	if testing.Short() {
		t.Skip("runs nodes")
	}
	dir := t.TempDir()
	n1, n2, watch, issuers := filepath.Join(dir, "n1"), filepath.Join(dir, "n2"), filepath.Join(dir, "watch"), filepath.Join(dir, "issuers.pem")
	must := func(in string, args ...string) string {
		t.Helper()
		out, errOut, code := process(t, in, args...)
		if code != exitDone {
			t.Fatalf("omega %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errOut)
		}
		return out
	}
	must("", "init", "--swarm", "home", "--name", "n1", "--dir", n1)
	up(t, n1, freePort(t))
	must("", "role", "grant", "n1", "sentinel", "--dir", n1)
	must(must("", "invite", "--dir", n1, "--quiet"), "join", "-", "--name", "n2", "--dir", n2)
	up(t, n2, freePort(t))
	must("", "module", "init", "--lang", "lua", watch)
	if _, errOut, code := process(t, "", "module", "publish", watch, "--dir", n2); code != exitNotPermitted || !strings.Contains(errOut, "operator") || !strings.Contains(errOut, "credential") {
		t.Errorf("published by nobody's word: exit %d, %q", code, errOut)
	}

	lend := func(capabilities string) {
		t.Helper()
		if err := os.WriteFile(issuers, []byte(must("", "root", "propose", "issuers", "n1="+capabilities, "--dir", n1)), 0o600); err != nil {
			t.Fatal(err)
		}
		must("", "root", "sign", issuers, "--dir", n1)
		must("", "root", "submit", issuers, "--dir", n1)
		poll(t, "n2 holds "+capabilities, func() (bool, string) {
			out, _, _ := process(t, "", "credential", "list", "--json", "--dir", n2)
			for line := range strings.Lines(out) {
				var c struct {
					Name, Why    string
					Capabilities []struct{ Action string }
				}
				if json.Unmarshal([]byte(line), &c) != nil || c.Name != "n2" || c.Why != "" {
					continue
				}
				var held []string
				for _, k := range c.Capabilities {
					held = append(held, k.Action)
				}
				if strings.Join(held, ",") == capabilities {
					return true, ""
				}
			}
			return false, out
		})
	}
	lend("module-release")
	cid := strings.TrimSpace(must("", "module", "publish", watch, "--dir", n2, "--quiet"))
	if _, errOut, code := process(t, "", "module", "deploy", "watch", "--role", "sentinel", "--dir", n2); code != exitNotPermitted || !strings.Contains(errOut, "module-deploy") {
		t.Errorf("deployed without being lent it: exit %d, %q", code, errOut)
	}
	lend("module-deploy,module-release")
	if _, errOut, code := process(t, "", "module", "deploy", "nothing", "--dir", n2); code != exitNotFound {
		t.Errorf("what nobody released: exit %d, %q", code, errOut)
	}
	out := must("", "module", "deploy", "watch", "--role", "sentinel", "--dir", n2, "--json")
	if !strings.Contains(out, cid) || strings.Count(out, `"state":"running"`) != 2 {
		t.Errorf("deploy: %s", out)
	}
	if out := must("", "module", "show", cid, "--dir", n1); !strings.Contains(out, "n2") {
		t.Errorf("n1 does not say by whose word it runs: %s", out)
	}
	must("", "module", "undeploy", "watch", "--withdraw", "--why", "it is wrong", "--dir", n2)
	poll(t, "n1 forgets what was withdrawn", func() (bool, string) {
		out, _, _ := process(t, "", "module", "list", "--dir", n1)
		return out == "", out
	})
}
