package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// TestSoak starts programs and writes files for as long as SOAK_FOR says (a second without it), and holds the sensor to
// its books: each program that was started and ended was delivered or counted as lost, and neither memory nor goroutines
// nor descriptors grew with them.
func TestSoak(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("short: a soak takes its time")
	}
	soak, err := time.ParseDuration(os.Getenv("SOAK_FOR"))
	if err != nil {
		soak = time.Second
	}
	const each = 50 // programs a round
	var execs, exits atomic.Uint64
	out := func(e *event.Event) {
		if e.Class == event.ClassProcess && strings.HasSuffix(e.Process.Exe, "/true") {
			switch e.Activity {
			case event.ActivityExec:
				execs.Add(1)
			case event.ActivityExit:
				exits.Add(1)
			}
		}
	}
	rounds := 0
	err = onHostTo(out, func(k *Kernel, _ *RingSensor, _ func() time.Duration) error {
		cgroup, err := os.Open(k.opt.Cgroup)
		if err != nil {
			return err
		}
		defer cgroup.Close()
		dir := t.TempDir()
		round := func() error {
			script := fmt.Sprintf(`i=0; while [ $i -lt %d ]; do /bin/true; echo $i > %s; mv %[2]s %[2]s.moved; rm %[2]s.moved; i=$((i+1)); done`, each, filepath.Join(dir, "f"))
			cmd := exec.Command("/bin/sh", "-c", script)
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
			rounds++
			return cmd.Run()
		}
		for range 2 { // what the first records need stays
			if err := round(); err != nil {
				return err
			}
		}
		before := sizes(t)
		for end := time.Now().Add(soak); time.Now().Before(end); {
			if err := round(); err != nil {
				return err
			}
		}
		produced := uint64(rounds * each)
		var drops map[string]uint64
		for range 200 { // the reader looks every 50 ms at most
			if drops, err = k.Drops(); err != nil {
				return err
			}
			if execs.Load()+drops["exec"] >= produced && exits.Load()+drops["exit"] >= produced {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		after := sizes(t)
		t.Logf("%d programs in %s: %d execs, %d exits delivered, lost %v; heap %d to %d KiB, %d to %d goroutines, %d to %d descriptors",
			produced, soak, execs.Load(), exits.Load(), drops, before.heap>>10, after.heap>>10, before.goroutines, after.goroutines, before.files, after.files)
		if drops["exec"] == 0 && execs.Load() != produced || execs.Load()+drops["exec"] < produced {
			t.Errorf("%d execs and %d lost of %d", execs.Load(), drops["exec"], produced)
		}
		if drops["exit"] == 0 && drops["exec"] == 0 && exits.Load() != produced {
			t.Errorf("%d exits of %d", exits.Load(), produced)
		}
		if after.heap > before.heap+8<<20 || after.goroutines > before.goroutines || after.files > before.files {
			t.Errorf("grew from %+v to %+v", before, after)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

type size struct {
	heap              uint64
	goroutines, files int
}

func sizes(t *testing.T) size {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return size{m.HeapAlloc, runtime.NumGoroutine(), len(files)}
}
