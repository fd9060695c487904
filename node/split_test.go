package node

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/privileged"
)

// TestTwoProcesses: as root the node that parses is another user, cannot read the operator's or the next key, comes
// back when it is killed, and goes when its parent is told to end.
func TestTwoProcesses(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	r := newRig(t, "n1")
	r.cfg.Split = true
	r.found("lab")
	r.up()
	uid := privileged.UID(r.dir)
	pid := childOf(t, r.dir)
	if u := owner(t, "/proc/"+strconv.Itoa(pid)); u != uid {
		t.Fatalf("the half that parses runs as uid %d, want %d", u, uid)
	}
	for _, path := range []string{filepath.Join(Layout{r.dir}.Operator(), "key"), filepath.Join(Layout{r.dir}.Operator(), "next", "key"), filepath.Join(Layout{r.dir}.Next(), "key")} {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if readableBy(t, path, uid) {
			t.Errorf("the unprivileged half can read %s", path)
		}
	}
	for _, mine := range []string{"identity/key", "genesis.cbor"} {
		if !readableBy(t, filepath.Join(r.dir, mine), uid) {
			t.Errorf("the unprivileged half cannot read %s", mine)
		}
	}
	// Asked for through the unprivileged half, checked by the other.
	out, err := r.client.RespondLocal(t.Context(), &apiv1.RespondLocalRequest{Response: &apiv1.Response{
		Action: "deny", Target: &apiv1.Target{Address: "127.0.0.1"}, Reason: "test", TtlMs: 60_000}})
	if err != nil || out.Receipt.Outcome != "refused" || out.Receipt.Guard != "loopback" {
		t.Errorf("%v, %v", out, err)
	}
	if _, err := r.client.Allow(t.Context(), &apiv1.AllowRequest{What: "192.0.2.1"}); err != nil {
		t.Error(err)
	}
	if u := owner(t, filepath.Join(r.dir, "allow.txt")); u != 0 {
		t.Errorf("the allow list belongs to uid %d", u)
	}

	// What each half gave up is said, and the kernel says the same.
	doctor, err := r.client.Doctor(t.Context(), &apiv1.DoctorRequest{})
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, c := range doctor.Checks {
		said[c.Name] = c.Ok
	}
	for _, name := range []string{"self/privileged", "self/seccomp", "self/landlock"} {
		if _, ok := said[name]; !ok {
			t.Errorf("the doctor says nothing of %s", name)
		}
	}
	if status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status"); err != nil || strings.Contains(string(status), "Seccomp:\t2") != said["self/seccomp"] {
		t.Errorf("seccomp is said to stand: %t, and the kernel says: %v %s", said["self/seccomp"], err, status)
	}

	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is started again", func() bool {
		s, err := r.client.Status(t.Context(), &apiv1.StatusRequest{})
		return err == nil && problem(s, "restarted") != ""
	})
	again := childOf(t, r.dir)
	if again == pid {
		t.Error("the same process answers")
	}
	if n, err := Panic(t.Context(), r.dir); err != nil || n != 0 {
		t.Errorf("panic: %d, %v", n, err)
	}
	eventually(t, "the mode is panic", func() bool { return r.status().Mode == "panic" })
	r.stop()
	if err := syscall.Kill(again, 0); err == nil {
		t.Error("the unprivileged half outlived its parent's drain")
	}
	for _, s := range []string{"omega.sock", "panic.sock"} {
		if _, err := os.Lstat(filepath.Join(r.dir, s)); err == nil {
			t.Errorf("%s is left behind", s)
		}
	}
}

// childOf finds the unprivileged half of the node in dir among this process's children.
func childOf(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmd, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil || strings.TrimRight(string(cmd), "\x00") != childName {
			continue
		}
		if cwd, err := os.Readlink("/proc/" + e.Name() + "/cwd"); err == nil && cwd == dir {
			return pid
		}
	}
	t.Fatal("there is no unprivileged half")
	return 0
}

func owner(t *testing.T, path string) uint32 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid
}

// readableBy works out from modes alone whether uid, in no other group, can open path.
func readableBy(t *testing.T, path string, uid uint32) bool {
	t.Helper()
	may := func(p string, own, other uint32) bool {
		var st syscall.Stat_t
		if err := syscall.Stat(p, &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid == uid {
			return st.Mode&own != 0
		}
		return st.Mode&other != 0
	}
	for dir := filepath.Dir(path); dir != "/" && dir != "/tmp"; dir = filepath.Dir(dir) {
		if !may(dir, 0o100, 0o001) {
			return false
		}
	}
	return may(path, 0o400, 0o004)
}
