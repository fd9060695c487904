package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, yaml string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "omega.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLaterSourcesWin(t *testing.T) {
	dir := write(t, "mode: enforce\nlog_level: warn\ndecoys: [tcp/21, telnet@23]\nmdns: false\n")
	c, err := Load(Source{Dir: dir, Environ: []string{"OMEGA_LOG_LEVEL=error", "OMEGA_WINDOW=500", "OMEGA_DIR=/x", "HOME=/", "OMEGA_BOOTSTRAP=/ip4/10.0.0.1/tcp/1, /ip4/10.0.0.2/tcp/1"},
		Flags: map[string]any{"window": 600, "interfaces": []string{"eth0"}}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Mode != "enforce" || c.LogLevel != "error" || c.Window != 600 || c.MDNS || !slices.Equal(c.Decoys, []string{"tcp/21", "telnet@23"}) || len(c.Bootstrap) != 2 {
		t.Fatalf("%+v", c)
	}
	want := map[string]string{"mode": filepath.Join(dir, "omega.yaml"), "log_level": "OMEGA_LOG_LEVEL", "window": "--window", "interfaces": "--interfaces", "sensor": "default"}
	for _, s := range c.Settings() {
		if w, ok := want[s.Key]; ok && s.Origin != w {
			t.Errorf("%s is from %s, want %s", s.Key, s.Origin, w)
		}
		delete(want, s.Key)
	}
	if len(want) != 0 {
		t.Errorf("never listed: %v", want)
	}
}

func TestUnknownKeyNamesTheNearest(t *testing.T) {
	for _, c := range []struct {
		src  Source
		want string
	}{
		{Source{Dir: write(t, "mod: enforce\n")}, `nearest is "mode"`},
		{Source{Dir: write(t, "interface: [eth0]\n")}, `nearest is "interfaces"`},
		{Source{Dir: t.TempDir(), Environ: []string{"OMEGA_LOGLEVEL=info"}}, `nearest is "log_level"`},
	} {
		_, err := Load(c.src)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v does not say %s", err, c.want)
		}
	}
}

func TestBadValuesAreRefused(t *testing.T) {
	for _, yaml := range []string{"mode: panic", "mode: 3", "listen: []", "listen: [localhost]", "decoys: [tcp]", "decoys: [tcp/0]", "decoys: [tcp/70000]",
		"allow: [example.org]", "allow: [/a/../b]", "window: 1", "window: many", "mdns: perhaps", "cgroup: relative", "log_level: loud", "sensor: eyes",
		"rules: [relative]", "yara_rules: [relative]", "indicator_sources: [relative]", "indicator_sources: ['http://feeds.example/list']", "indicator_refresh_s: 1", "indicator_mib: 1", "decoys: {a: b}", "decoys: [[a]]", "- a", "mode: [", "filter_paths: [relative]", "filter_uids: [root]", "filter_rate: -1", "filter_cgroups: [/a/..]", "reserved_disk_mib: -1"} {
		if _, err := Load(Source{Dir: write(t, yaml+"\n")}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", yaml, err)
		}
	}
	if _, err := Load(Source{Dir: t.TempDir(), File: "/nonexistent/omega.yaml"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a named file that is not there: %v", err)
	}
	if _, err := Load(Source{Dir: write(t, strings.Repeat("# long\n", maxFile/7+1))}); err == nil {
		t.Error("an endless file was read")
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("mode: enforce\ndecoys: [tcp/21]\n", "OMEGA_WINDOW=500")
	f.Add("a: &a [*a]", "OMEGA_=")
	f.Fuzz(func(t *testing.T, yaml, env string) {
		c, err := Load(Source{Dir: write(t, yaml), Environ: []string{env}})
		if err == nil && c.Validate() != nil {
			t.Fatal("Load returned what Validate refuses")
		}
	})
}
