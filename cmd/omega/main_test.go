package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/node"
)

func TestMain(m *testing.M) {
	if node.IsChild() {
		os.Exit(node.Child())
	}
	if os.Getenv(runAsOmega) != "" {
		main()
	}
	os.Exit(m.Run())
}

// omega runs one command line.
func omega(t *testing.T, in string, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	a := newApp(strings.NewReader(in), &o, &e)
	code = a.run(t.Context(), args)
	return o.String(), e.String(), code
}

// Scripts decide by these numbers.
func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("mod: enforce\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"version"}, exitDone, ""},
		{[]string{"--help"}, exitDone, ""},
		{[]string{"nonsense"}, exitUsage, "nonsense"},
		{[]string{"status", "extra"}, exitUsage, "--help"},
		{[]string{"status", "--nonsense"}, exitUsage, "--nonsense"},
		{[]string{"status", "--dir", dir}, exitUnreachable, "omega up"},
		{[]string{"status", "--json", "--dir", dir}, exitUnreachable, "omega up"},
		{[]string{"up", "--dir", filepath.Join(dir, "none")}, exitNotFound, "omega init"},
		{[]string{"up", "--mode", "sleep", "--dir", dir}, exitUsage, "mode"},
		{[]string{"config", "show", "--config", bad}, exitUsage, "mode"},
		{[]string{"join", "omega1nonsense", "--dir", dir}, exitUsage, "token"},
		{[]string{"join", "@" + filepath.Join(dir, "none"), "--dir", dir}, exitFailed, "token"},
		{[]string{"invite", "--ttl", "1s", "--dir", dir}, exitUsage, "--ttl"},
		{[]string{"invite", "--roles", "emperor", "--dir", dir}, exitUsage, "emperor"},
		{[]string{"invite", "--dir", dir}, exitNotPermitted, "operator"},
		{[]string{"respond", "deny", "ip", "not-an-address", "--dir", dir}, exitUsage, "address"},
		{[]string{"respond", "deny", "exec", "relative/path", "--dir", dir}, exitUsage, "absolute"},
		{[]string{"respond", "kill", "1@n1", "--dir", dir}, exitUsage, "PID@PEER"},
		{[]string{"respond", "quarantine", "miner", "--dir", dir}, exitUsage, "absolute path"},
		{[]string{"respond", "quarantine", "/tmp/miner@", "--dir", dir}, exitUsage, "absolute path"},
		{[]string{"respond", "quarantine", "/tmp/miner", "--scope", "all", "--dir", dir}, exitUsage, "FILE@PEER"},
		{[]string{"leave", "--dir", dir}, exitUsage, "--yes"},
		{[]string{"findings", "--since", "yesterday", "--dir", dir}, exitUsage, "--since"},
		{[]string{"bench", "no-such-benchmark"}, exitNotFound, "no-such-benchmark"},
		{[]string{"peer", "suspend", "n1", "--dir", dir}, exitUsage, "--why"},
		{[]string{"init", "--swarm", "x", "--operators", "1/2", "--dir", dir}, exitUsage, "--operators"},
	} {
		out, errOut, code := omega(t, "", c.args...)
		if code != c.code || !strings.Contains(errOut, c.says) {
			t.Errorf("omega %s: exit %d, want %d; standard error %q, want %q in it", strings.Join(c.args, " "), code, c.code, errOut, c.says)
		}
		if code != exitDone && (out != "" || strings.Count(strings.TrimSpace(errOut), "\n") != 0) {
			t.Errorf("omega %s: an error is one line on standard error; got %q and %q", strings.Join(c.args, " "), out, errOut)
		}
	}
}

// A token given by mistake must not come back in the error, which may land in a log.
func TestTokenIsNotEchoed(t *testing.T) {
	const secret = "omega1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"
	for _, args := range [][]string{{"join", secret}, {"join", "-"}} {
		_, errOut, code := omega(t, secret, append(args, "--dir", t.TempDir())...)
		if code == exitDone || strings.Contains(errOut, secret) {
			t.Errorf("%v: exit %d, %q", args, code, errOut)
		}
	}
}

func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Parent() != nil && c.Parent().Name() == "completion" || c.Name() == "help" || c.Hidden {
			return
		}
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s: no short help or no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(newApp(nil, nil, nil)))
}

func TestOutputDrivesNoTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcode":      "plain ünïcode",
		"a\x1b[2Jb":          `a\x1b[2Jb`,
		"tab\there":          `tab\x09here`,
		"bad\xffutf8":        `bad\xffutf8`,
		"right\u202eto left": `right\u202eto left`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestInitPrintsWhatItMade(t *testing.T) {
	dir := t.TempDir()
	out, errOut, code := omega(t, "", "init", "--swarm", "home", "--name", "n1", "--dir", dir, "--json")
	if code != exitDone {
		t.Fatal(errOut)
	}
	var made struct{ DID, Name, Swarm, Operator string }
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Name != "n1" || len(made.Swarm) != 64 || !strings.HasPrefix(made.Operator, "did:omega:") || made.Operator == made.DID {
		t.Errorf("%q %v", out, err)
	}
	if _, errOut, code := omega(t, "", "init", "--swarm", "other", "--dir", dir); code != exitFailed || !strings.Contains(errOut, "already") {
		t.Errorf("a second swarm in one folder: %d %q", code, errOut)
	}
}
