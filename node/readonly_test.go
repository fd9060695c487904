package node

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/config"
)

// writes notes what is made or written on the file systems of some places, until it is asked.
type writes struct {
	t  *testing.T
	fd int
}

func watchWrites(t *testing.T, places ...string) *writes {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_NONBLOCK|unix.FAN_CLOEXEC|unix.FAN_UNLIMITED_QUEUE, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		t.Skip("what is written cannot be watched here: ", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, p := range places {
		if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_MODIFY|unix.FAN_CLOSE_WRITE, unix.AT_FDCWD, p); err != nil {
			t.Skip("what is written cannot be watched here: ", p, ": ", err)
		}
	}
	return &writes{t, fd}
}

// by are the paths that processes wrote to.
func (w *writes) by(pids ...int) (paths []string) {
	w.t.Helper()
	b := make([]byte, 1<<16)
	for {
		n, err := unix.Read(w.fd, b)
		if err != nil || n <= 0 {
			return paths
		}
		for at := 0; at+int(unsafe.Sizeof(unix.FanotifyEventMetadata{})) <= n; {
			m := b[at:]
			length, fd, pid := binary.NativeEndian.Uint32(m), int32(binary.NativeEndian.Uint32(m[16:])), int(int32(binary.NativeEndian.Uint32(m[20:])))
			path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(fd)))
			unix.Close(int(fd))
			for _, p := range pids {
				if p == pid && err == nil {
					paths = append(paths, path)
				}
			}
			at += int(length)
		}
	}
}

// A node that may change nothing says what it would have done, and writes to its state folder alone.
func TestReadOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, as what could change something does")
	}
	r := newRig(t, "n1")
	r.found("lab")
	r.cfg.Mode, r.cfg.Split, r.cfg.Sensor = config.ModeReadOnly, true, "auto"
	r.cfg.IntegrityPaths, r.cfg.Logs = []string{"off"}, []string{"off"}
	w := watchWrites(t, "/", os.TempDir(), "/dev/shm", "/run")
	r.up()
	child := childOf(t, r.dir)

	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.by() // that was this test
	for _, response := range []*apiv1.Response{
		{Action: "deny", Target: &apiv1.Target{Address: "198.51.100.7"}, Reason: "test", TtlMs: 60_000},
		{Action: "quarantine", Target: &apiv1.Target{Path: victim}, Reason: "test", TtlMs: 60_000},
	} {
		out, err := r.client.RespondLocal(t.Context(), &apiv1.RespondLocalRequest{Response: response})
		if err != nil {
			t.Fatal(err)
		}
		if rc := out.GetReceipt(); rc.GetOutcome() != "observed" || rc.GetDetail() != "read-only mode: nothing was done" {
			t.Errorf("%s: %v", response.Action, rc)
		}
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
	s := r.status()
	if s.GetMode() != "read-only" || problem(s, "watching") == "" {
		t.Errorf("status: mode %q, problems %v", s.GetMode(), s.GetProblems())
	}
	doctor, err := r.client.Doctor(t.Context(), &apiv1.DoctorRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range doctor.GetChecks() {
		if strings.HasPrefix(c.GetName(), "actuator/") && c.GetOk() {
			t.Errorf("%s is loaded: %s", c.GetName(), c.GetDetail())
		}
		if c.GetName() == "mode" && (c.GetDetail() != "read-only" || !strings.Contains(c.GetLost(), r.dir)) {
			t.Errorf("the doctor says of the mode: %v", c)
		}
	}
	if _, err := os.Lstat(PinDir(r.dir)); err == nil {
		t.Error("something is pinned")
	}
	r.stop()
	state := 0
	for _, path := range w.by(os.Getpid(), child) {
		if path = strings.TrimSuffix(path, " (deleted)"); strings.HasPrefix(path, r.dir+"/") {
			state++
		} else if !strings.HasPrefix(path, "/sys/") && !strings.HasPrefix(path, "/proc/") && !strings.Contains(path, "anon_inode") && filepath.Base(path) != "testlog.txt" { // of go test itself
			t.Errorf("%s was written", path)
		}
	}
	if state == 0 {
		t.Error("nothing was seen to be written, not even the state folder: this test sees nothing")
	}
}
