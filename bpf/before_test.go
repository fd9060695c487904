package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// What ran, listened and was connected before the sensor did is known once it looks, and lineage with it.
func TestSeesWhatWasBefore(t *testing.T) {
	a, _ := twoHostsAlways(t)
	dir := t.TempDir()
	cmd := exec.Command("/bin/sh", "-c", "sleep 100; true")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	// This process listens, and joins the cgroup for as long as the look takes.
	port := a.listen(t)
	c, err := a.dial(a.addr, port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	join := func(cgroup string, pid int) {
		if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	root, err := cgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(a.cgroup, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	join(inner, cmd.Process.Pid)
	defer func() { // the shell's child may have been born in there
		os.WriteFile(filepath.Join(inner, "cgroup.kill"), []byte("1"), 0)
		for range 200 {
			if err := os.Remove(inner); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	join(a.cgroup, os.Getpid())
	defer join(root, os.Getpid())
	k := a.load(Options{})
	find := a.watch(k)
	if err := k.TellBefore(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := find("the shell", func(e *event.Event) bool { return e.Process.Key.PID == uint32(cmd.Process.Pid) })
	if e.Process.Flags&event.FlagBeforeAgent == 0 || e.Process.Args != "/bin/sh\x00-c\x00sleep 100; true" || e.Process.CWD != dir || e.Process.ParentExe == "" || filepath.Dir(e.Process.Exe) == "" {
		t.Errorf("%+v", e.Process)
	}
	find("what listens", func(e *event.Event) bool {
		return e.Activity == event.ActivityListen && e.Network.Local.Port() == port && e.Process.Key.PID == uint32(os.Getpid()) && e.Process.Flags&event.FlagBeforeAgent != 0
	})
	find("what is connected", func(e *event.Event) bool {
		return e.Activity == event.ActivityConnect && e.Network.Remote.Port() == port && e.Process.Flags&event.FlagBeforeAgent != 0
	})
	find("its other end", func(e *event.Event) bool {
		return e.Activity == event.ActivityAccept && e.Network.Local.Port() == port && e.Network.Inbound
	})
}
