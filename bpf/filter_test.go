package bpf

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// Filters take effect at once, and what they mute still has its place in lineage.
func TestFiltersMuteLive(t *testing.T) {
	a, _ := twoHosts(t)
	tool := actions(t)
	k := a.load(Options{without: []string{}})
	find := a.watch(k)
	run := func(args string) {
		t.Helper()
		if out, err := a.run(t.Context(), "/bin/sh", "-c", args+"; :"); err != nil {
			t.Fatal(err, out)
		}
	}
	set := func(f Filters) {
		t.Helper()
		if err := k.SetFilters(f); err != nil {
			t.Fatal(err)
		}
	}
	for mark, f := range map[string]Filters{"uid": {UIDs: []uint32{0}}, "cgroup": {Cgroups: []string{a.cgroup}}} {
		set(f)
		run("/bin/true " + mark)
		run(tool + " memfd_create")
		set(Filters{})
		run("/bin/true past-" + mark)
		quiet := true
		find(mark, func(e *event.Event) bool {
			if e.Process.Args == "/bin/true\x00"+mark || e.Activity == event.ActivityMemfdCreate {
				quiet = false
			}
			return e.Process.Args == "/bin/true\x00past-"+mark
		})
		if !quiet {
			t.Errorf("%s: what is muted was told", mark)
		}
	}
	// Beyond its share a cgroup is muted, and each record counted.
	set(Filters{CgroupRate: 5})
	run("for i in 1 2 3 4 5 6 7 8; do " + tool + " memfd_create; done")
	set(Filters{})
	suppressed, err := k.Suppressed()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(a.cgroup, &st); err != nil {
		t.Fatal(err)
	}
	if suppressed[Suppressed{CgroupID: st.Ino, Class: uint64(event.ClassProcess)}] == 0 || suppressed[Suppressed{CgroupID: st.Ino, Class: uint64(event.ClassKernel)}] == 0 {
		t.Errorf("%v", suppressed)
	}
	// An own process is not told of, but what is done to it is.
	if err := k.SetProtected([]uint32{uint32(os.Getpid())}); err != nil {
		t.Fatal(err)
	}
	if err := k.SetProtected(nil); err != nil {
		t.Fatal(err)
	}
}

func TestFilterBounds(t *testing.T) {
	for _, f := range []Filters{{Paths: []string{"relative"}}, {Paths: []string{"/a/../b"}}, {UIDs: make([]uint32, maxFilterValues+1)}, {CgroupRate: maxFilterRate + 1}, {Cgroups: []string{"/x\x00"}}} {
		if err := f.Validate(); !errors.Is(err, ErrFilter) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	good := Filters{Paths: []string{"/var/lib/docker"}, Ports: []uint16{443}, Cgroups: []string{filepath.Clean("/sys/fs/cgroup/a")}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
