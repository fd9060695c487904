package bpf

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// What an interpreter runs, what gives rights, what an overlay's upper layer holds, and who is at which terminal: each is
// read in the kernel, at the exec itself.
func TestExecSaysWhatReallyRuns(t *testing.T) {
	a, _ := twoHosts(t)
	find := a.watch(a.load(Options{}))
	dir := t.TempDir()
	script := filepath.Join(dir, "job")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec /bin/true of-script\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	setid := filepath.Join(dir, "setid")
	if out, err := exec.Command("cp", "/bin/true", setid).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	if err := os.Chmod(setid, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if out, err := a.run(t.Context(), "/bin/sh", "-c", script+"; "+setid+" of-setid; /bin/true plain"); err != nil {
		t.Fatal(err, out)
	}
	e := find("the script", func(e *event.Event) bool { return e.Activity == event.ActivityExec && e.Process.Script == script })
	if e.Process.Flags&event.FlagScript == 0 || e.Process.Exe == script || e.Process.Session == 0 {
		t.Errorf("%+v", e.Process)
	}
	find("the set-id program", func(e *event.Event) bool {
		return e.Process.Exe == setid && e.Process.Flags&event.FlagSetID != 0
	})
	plain := find("the plain program", func(e *event.Event) bool { return e.Process.Args == "/bin/true\x00plain" })
	if plain.Process.Flags&(event.FlagSetID|event.FlagScript|event.FlagUpperLayer) != 0 || plain.Process.Script != "" {
		t.Errorf("%+v", plain.Process)
	}
	if ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err == nil && scriptTool() != "" {
		ptmx.Close()
		if out, err := a.run(t.Context(), scriptTool(), "-qc", "/bin/true at-terminal", "/dev/null"); err != nil {
			t.Fatal(err, out)
		}
		e := find("the one at a terminal", func(e *event.Event) bool {
			return e.Activity == event.ActivityExec && e.Process.Args == "/bin/true\x00at-terminal"
		})
		if matched, _ := filepath.Match("pts/[0-9]*", e.Process.TTY); !matched || e.Process.Session == plain.Process.Session {
			t.Errorf("terminal %q, session %d", e.Process.TTY, e.Process.Session)
		}
	}
}

func scriptTool() string {
	path, _ := exec.LookPath("script")
	return path
}

func TestExecFromTheUpperLayer(t *testing.T) {
	a, _ := twoHosts(t)
	dir := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []string{"lower/image", "upper/added"} {
		if out, err := exec.Command("cp", "/bin/true", filepath.Join(dir, to)).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
	merged := filepath.Join(dir, "merged")
	if err := unix.Mount("overlay", merged, "overlay", 0, "lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work"); err != nil {
		t.Skip("no overlay can be mounted here:", err)
	}
	defer unix.Unmount(merged, unix.MNT_DETACH)
	find := a.watch(a.load(Options{}))
	if out, err := a.run(t.Context(), "/bin/sh", "-c", merged+"/image; "+merged+"/added"); err != nil {
		t.Fatal(err, out)
	}
	find("what was added", func(e *event.Event) bool {
		return e.Process.Exe == merged+"/added" && e.Process.Flags&event.FlagUpperLayer != 0
	})
	e := find("what is the image's", func(e *event.Event) bool { return e.Process.Exe == merged+"/image" })
	if e.Process.Flags&event.FlagUpperLayer != 0 {
		t.Error("a file of the image is said to lie in the upper layer")
	}
}
