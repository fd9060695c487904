package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/omega-mesh/omega/modules/yara"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

func (r *rig) check(name string) *apiv1.Check {
	r.t.Helper()
	doctor, err := r.client.Doctor(r.t.Context(), &apiv1.DoctorRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, c := range doctor.GetChecks() {
		if c.GetName() == name {
			return c
		}
	}
	r.t.Fatalf("the doctor says nothing of %s", name)
	return nil
}

// all are the findings this node knows of.
func (r *rig) all() (out []*apiv1.Finding) {
	r.t.Helper()
	s, err := r.client.Findings(r.t.Context(), &apiv1.FindingsRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	for s.Receive() {
		out = append(out, proto.CloneOf(s.Msg()))
	}
	if s.Err() != nil {
		r.t.Fatal(s.Err())
	}
	return out
}

// yaraRules writes rules that find what a test drops; a file of them is broken.
func (r *rig) yaraRules() {
	r.t.Helper()
	rules := filepath.Join(filepath.Dir(r.dir), "yara")
	if err := os.Mkdir(rules, 0o700); err != nil {
		r.t.Fatal(err)
	}
	for name, text := range map[string]string{
		"implant.yar": `rule implant { meta: description = "The test's implant" severity = "critical" attack = "T1105" strings: $a = "OMEGA-YARA-` + `IMPLANT" condition: $a }`,
		"broken.yar":  `rule {`,
	} {
		if err := os.WriteFile(filepath.Join(rules, name), []byte(text), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	r.cfg.YaraRules = []string{rules}
}

// A host that was given YARA rules but no YARA goes on, and its doctor says what to do.
func TestYaraRulesWithoutYara(t *testing.T) {
	if yara.Built {
		t.Skip("this build has YARA")
	}
	r := newRig(t, "plain")
	r.yaraRules()
	r.found("lab")
	r.up()
	if c := r.check("yara"); c.Ok || !strings.Contains(c.Detail, "make build-yara") || c.Lost == "" {
		t.Errorf("%v", c)
	}
	if !strings.Contains(r.log.String(), "make build-yara") {
		t.Error("the log does not say what to do")
	}
	r.stop()
	r.cfg.YaraRules = nil
	r.up()
	if c := r.check("yara"); !c.Ok || !strings.Contains(c.Detail, "make build-yara") {
		t.Errorf("%v", c)
	}
}

// What is dropped and executed, a program and a script, is found by a rule, with its process and its hashes; what is
// quarantined is, by its sealed copy; the doctor says what is not used and what was lost.
func TestYara(t *testing.T) {
	if !yara.Built {
		t.Skip("this build has no YARA")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to see what is executed")
	}
	r := newRig(t, "n1")
	r.yaraRules()
	r.cfg.Sensor, r.cfg.Split, r.cfg.Mode = "auto", true, "enforce"
	t.Cleanup(func() {
		r.stop()
		if _, err := Cleanup(r.dir); err != nil {
			t.Error(err)
		}
	})
	if _, err := Init(r.dir, InitOptions{Name: "n1", Swarm: "lab", Roles: []string{"sentinel"}}); err != nil {
		t.Fatal(err)
	}
	r.up()
	eventually(t, "the rules are compiled", func() bool { return strings.Contains(r.check("yara").Detail, "1 rules of 1 files") })
	if c := r.check("yara"); c.Ok || !strings.Contains(c.Lost, "broken.yar") || !strings.Contains(c.Lost, "syntax") {
		t.Errorf("%v", c)
	}

	base := filepath.Dir(r.dir)
	program, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	drop := func(name string, content []byte) string {
		path := filepath.Join(base, name)
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	found := func(file string) *apiv1.Finding {
		var got *apiv1.Finding
		eventually(t, "a rule finds "+file, func() bool {
			for _, f := range r.all() {
				if f.RuleId == "yara.implant" && f.Subject.GetFile() == file {
					got = f
				}
			}
			return got != nil
		})
		return got
	}
	evidence := func(f *apiv1.Finding, name string) string {
		for _, e := range f.Evidence {
			if e.Name == name {
				return e.Value
			}
		}
		return ""
	}

	// A program that runs, one that is gone at once, and a script.
	implant := drop("implant", append(program, "OMEGA-YARA-IMPLANT"...))
	cmd := exec.Command(implant, "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	f := found(implant)
	if p := f.Subject; !p.Process || p.Pid != uint32(cmd.Process.Pid) || p.Exe != implant {
		t.Errorf("process %v", p)
	}
	sum, err := exec.Command("sha256sum", implant).Output()
	if err != nil {
		t.Fatal(err)
	}
	if f.Severity != "critical" || f.Title != "The test's implant" || fmt.Sprint(f.Attack) != "[T1105]" || evidence(f, "sha256") != strings.Fields(string(sum))[0] || len(evidence(f, "blake3")) != 64 || !strings.HasSuffix(evidence(f, "rule file"), "implant.yar") {
		t.Errorf("%v", f)
	}
	brief := drop("brief", append(program, "OMEGA-YARA-IMPLANT brief"...))
	if err := exec.Command(brief, "0").Run(); err != nil {
		t.Fatal(err)
	}
	found(brief)
	script := drop("script.sh", []byte("#!/bin/sh\n# OMEGA-YARA-IMPLANT\nsleep 0\n"))
	if err := exec.Command(script).Run(); err != nil {
		t.Fatal(err)
	}
	found(script)

	// One that has no file.
	fd, err := unix.MemfdCreate("dropped", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "dropped")
	defer memory.Close()
	if _, err := memory.Write(append(program, "OMEGA-YARA-IMPLANT in memory"...)); err != nil {
		t.Fatal(err)
	}
	nameless := exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), "300")
	if err := nameless.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nameless.Process.Kill(); _ = nameless.Wait() }()
	eventually(t, "a rule finds what runs from memory", func() bool {
		return slices.ContainsFunc(r.all(), func(f *apiv1.Finding) bool {
			return f.RuleId == "yara.implant" && f.Subject.Pid == uint32(nameless.Process.Pid)
		})
	})

	// A file that nobody executes, and that is quarantined.
	sealed := drop("sealed", []byte("holds OMEGA-YARA-IMPLANT"))
	out, err := r.client.RespondLocal(t.Context(), &apiv1.RespondLocalRequest{Response: &apiv1.Response{Action: "quarantine", Target: &apiv1.Target{Path: sealed}, Reason: "test", TtlMs: 60_000}})
	if err != nil || out.Receipt.Outcome != "done" {
		t.Fatalf("%v %v", out, err)
	}
	if f := found(sealed); evidence(f, "quarantined by response") == "" {
		t.Errorf("%v", f)
	}

	// What is clean is not found.
	clean := drop("clean", program)
	if err := exec.Command(clean, "0").Run(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all of them were scanned", func() bool { return strings.Contains(r.check("yara").Detail, "6 files scanned, 5 found") })
	if c := r.check("yara"); strings.Contains(c.Lost, "room") || strings.Contains(c.Lost, "fell") {
		t.Errorf("%v", c)
	}
}
