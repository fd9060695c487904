package install

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/node"
	"github.com/omega-mesh/omega/node/privileged"
)

// tree lists every file below root.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestInstallAndUninstall: into a root of its own, twice, and gone again.
func TestInstallAndUninstall(t *testing.T) {
	root := t.TempDir()
	o := Options{Root: root, Dir: "/var/lib/omega", Mode: "enforce"}
	for range 2 {
		if _, err := Install(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(root, "usr/local/bin/omega"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Fatalf("binary: %v, %v", info, err)
	}
	unit, err := os.ReadFile(filepath.Join(root, "etc/systemd/system/omega.service"))
	if err != nil || !strings.Contains(string(unit), "ExecStart=/usr/local/bin/omega --dir /var/lib/omega up --mode enforce\n") {
		t.Fatalf("unit: %v\n%s", err, unit)
	}
	if tool, err := exec.LookPath("systemd-analyze"); err == nil {
		// Without the distribution's own units it cannot succeed; what it does not understand it says by line.
		out, _ := exec.Command(tool, "verify", "--root="+root, "omega.service").CombinedOutput()
		if regexp.MustCompile(`omega\.service:\d+:`).Match(out) {
			t.Errorf("systemd-analyze verify:\n%s", out)
		}
	}
	if _, err := Uninstall(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	left := slices.DeleteFunc(tree(t, root), func(p string) bool {
		switch filepath.Base(p) { // the image's own registry of users, which sysusers begins
		case "passwd", "group", "shadow", "gshadow", "passwd-", "group-", "shadow-", "gshadow-", ".pwd.lock":
			return filepath.Dir(p) == "/etc"
		}
		return false
	})
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd")); err == nil && strings.Contains(string(passwd), "omega:") {
		t.Errorf("the user is still there:\n%s", passwd)
	}
	if steps, err := Uninstall(t.Context(), o); err != nil || slices.ContainsFunc(steps, func(s Step) bool { return s.Done }) {
		t.Errorf("uninstalling what is not there: %v, %v", steps, err)
	}
}

// TestUnitIsHardened: the unit gives the node the capabilities that it says it needs and no other, starts it again whatever
// ended it, and of a host that nothing may be changed on it can write to the state folder alone.
func TestUnitIsHardened(t *testing.T) {
	lines := func(mode string) map[string]string {
		out := map[string]string{}
		o := Options{Dir: "/var/lib/omega", Mode: mode}
		for line := range strings.Lines(o.unitText()) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				out[name] = value
			}
		}
		return out
	}
	for _, mode := range []string{"", "observe", "enforce", "read-only"} {
		unit := lines(mode)
		for name, want := range map[string]string{"Restart": "always", "StartLimitIntervalSec": "0", "NoNewPrivileges": "yes", "LimitCORE": "0", "SystemCallArchitectures": "native", "OOMPolicy": "continue"} {
			if unit[name] != want {
				t.Errorf("mode %q: %s is %q, want %q", mode, name, unit[name], want)
			}
		}
		caps := strings.Fields(unit["CapabilityBoundingSet"])
		if !slices.Equal(caps, privileged.Kept()) || slices.Contains(caps, "CAP_SYS_MODULE") {
			t.Errorf("mode %q: capabilities %v", mode, caps)
		}
		strict, folders := "", ""
		if mode == "read-only" {
			strict, folders = "strict", "/var/lib/omega"
		}
		if unit["ProtectSystem"] != strict || unit["ReadWritePaths"] != folders {
			t.Errorf("mode %q: ProtectSystem=%s ReadWritePaths=%s", mode, unit["ProtectSystem"], unit["ReadWritePaths"])
		}
	}
}

// TestUninstallKeepsTheIdentity unless told to wipe it.
func TestUninstallKeepsTheIdentity(t *testing.T) {
	root := t.TempDir()
	o := Options{Root: root, Dir: "/srv/omega"}
	dir := filepath.Join(root, "srv/omega")
	if _, err := node.Init(dir, node.InitOptions{Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Uninstall(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "identity", "key")); err != nil {
		t.Fatal("the identity is gone:", err)
	}
	o.Purge = true
	if _, err := Uninstall(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the state folder is still there:", err)
	}
}

func TestRefusals(t *testing.T) {
	for name, o := range map[string]Options{
		"relative root":       {Root: "tmp", Dir: "/var/lib/omega"},
		"a unit file to be":   {Root: "/tmp", Dir: "/x\nExecStart=/bin/sh"},
		"a specifier":         {Root: "/tmp", Dir: "/x%h"},
		"a mode that is none": {Root: "/tmp", Dir: "/x", Mode: "attack"},
		"no folder":           {Root: "/tmp"},
	} {
		if _, err := Install(t.Context(), o); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
