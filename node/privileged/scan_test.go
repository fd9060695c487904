package privileged

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/omega-mesh/omega/bpf/executable"
	"github.com/omega-mesh/omega/node/privileged/scanner"
)

// TestScanRequestIsBounded: what the other half sends is refused before anything is opened.
func TestScanRequestIsBounded(t *testing.T) {
	id := strings.Repeat("a", 32)
	for _, r := range []ScanRequest{{}, {Response: "../../etc/shadow"}, {Response: id + "x"}, {PID: 1 << 23}, {PID: 1, Parent: 1 << 23}, {PID: 1, Exe: make([]byte, MaxText+1)}, {PID: 1, Script: make([]byte, MaxText+1)}} {
		if err := checkScan(&r); !errors.Is(err, ErrFrame) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range []ScanRequest{{Response: id}, {PID: 1}, {PID: 1, Exe: []byte("/bin/x\xff"), Script: []byte("s")}} {
		if err := checkScan(&r); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

const chrootName = "omega: test in another root"

// otherRoot is the life of a process that changes its root and waits.
func otherRoot() int {
	if err := errors.Join(syscall.Chroot(os.Args[1]), os.Chdir("/")); err != nil {
		return 1
	}
	_, _ = os.Stdout.WriteString(".")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

func text(t *testing.T, f *os.File, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, _ := f.Read(b)
	return string(b[:n])
}

// TestOpenAsTheProcessSeesIt: a path is opened below the root that its process has, and no link leads out of it.
func TestOpenAsTheProcessSeesIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to change a process's root")
	}
	outer := t.TempDir()
	root := filepath.Join(outer, "root")
	for _, d := range []string{root, filepath.Join(root, "dir"), filepath.Join(root, "proc")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(outer, "secret"), "outside")
	write(filepath.Join(root, "dir", "program"), "inside")
	if err := errors.Join(os.Symlink("/dir/program", filepath.Join(root, "absolute")), os.Symlink("../../../../../../.."+filepath.Join(outer, "secret"), filepath.Join(root, "up")),
		os.Symlink("/proc/1/root"+filepath.Join(outer, "secret"), filepath.Join(root, "magic")), syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(root, "self"), string(self))
	cmd := exec.Command(filepath.Join(root, "self"))
	cmd.Args = []string{chrootName, root}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	if n, err := out.Read(make([]byte, 1)); n != 1 {
		t.Fatal("the process has not changed its root: ", err)
	}
	r := &ScanRequest{PID: uint32(cmd.Process.Pid), MountNS: 1}
	f, err := openAs(r, "/dir/program")
	if got := text(t, f, err); got != "inside" {
		t.Errorf("read %q", got)
	}
	f, err = openAs(r, "/absolute")
	if got := text(t, f, err); got != "inside" {
		t.Errorf("by a link: %q", got)
	}
	for _, path := range []string{"/up", "/magic", "/../secret", filepath.Join(outer, "secret"), "relative", "/dir/program\x00"} {
		if f, err := openAs(r, path); err == nil {
			t.Errorf("%q was opened: %q", path, text(t, f, nil))
		}
	}
	done := make(chan error, 1)
	go func() {
		f, err := openAs(r, "/fifo")
		if err == nil {
			_, err = regular(f)
			f.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, executable.ErrNotRegular) {
			t.Errorf("a FIFO: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a FIFO holds the privileged half up")
	}
	// What it executes is opened by the process's own link, whatever its name has become.
	r.Exe = []byte(filepath.Join(root, "self"))
	if err := os.Remove(filepath.Join(root, "self")); err != nil {
		t.Fatal(err)
	}
	f, err = openExecuted(r)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := regular(f); err != nil || v.Size != int64(len(self)) {
		t.Errorf("%+v %v", v, err)
	}
	f.Close()
	// One that executes something else by now is not what was asked for.
	r.Exe = []byte("/dir/program")
	f, err = openExecuted(r)
	if got := text(t, f, err); got != "inside" {
		t.Errorf("another program's bytes: %q", got)
	}
}

// TestOldScriptIsLeft: what an interpreter is given every day is not opened for a scan.
func TestOldScriptIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := &ScanRequest{PID: uint32(os.Getpid()), Script: []byte(path)}
	f, err := openScript(r)
	if got := text(t, f, err); !strings.HasPrefix(got, "#!") {
		t.Errorf("a new one: %q", got)
	}
	r.Script = []byte("/bin/sh") // of the system: its change time cannot be set
	if f, err := openScript(r); err != nil || f != nil {
		t.Errorf("an old one: %v %v", f, err)
	}
	r.Script = []byte("/proc/self/status")
	if f, err := openScript(r); f != nil || err == nil {
		t.Errorf("a file of the kernel's: %v %v", f, err)
	}
}

// TestNoRulesNoScan: without rules nothing is opened, on either side of the line.
func TestNoRulesNoScan(t *testing.T) {
	s, err := scanner.New(scanner.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Host{{}, {opt: HostOptions{Scanner: s}}} {
		if _, err := h.Scan(t.Context(), ScanRequest{PID: 1}); !errors.Is(err, scanner.ErrNone) {
			t.Error(err)
		}
		if s, err := h.ScanStatus(t.Context()); err != nil || s.Asked || s.Why == "" {
			t.Errorf("%+v %v", s, err)
		}
	}
}

// TestLookedAtIsBounded: the oldest are forgotten.
func TestLookedAtIsBounded(t *testing.T) {
	var l lookedAt
	for i := range 2 * maxLookedAt {
		l.add(executable.Stamp{Inode: uint64(i)})
	}
	if len(l.files) != maxLookedAt || len(l.order) != maxLookedAt || l.has(executable.Stamp{Inode: 0}) || !l.has(executable.Stamp{Inode: 2*maxLookedAt - 1}) {
		t.Errorf("%d files, %d in order", len(l.files), len(l.order))
	}
}
