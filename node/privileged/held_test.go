package privileged

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/node/privileged/quarantine"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/guard"
)

func keepFrom(path string) event.Response {
	return event.Response{ID: id, Action: event.ActionDeny, Target: event.Target{Write: path}, Authority: event.AuthorityLocal, TTL: time.Hour}
}

// Writing is denied within the rails, outlives its host, is listed, and a release or a panic ends it; what is made there is sealed.
func TestWritingIsDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the immutable attribute is root's to give")
	}
	dir, held := t.TempDir(), filepath.Join(t.TempDir(), "held")
	file := filepath.Join(held, "settings")
	if err := os.Mkdir(held, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("as it was"), 0o644); err != nil {
		t.Fatal(err)
	}
	mode := ModeEnforce
	k := &fake{standing: map[string]event.Response{}}
	again := func() *Host {
		return host(t, mode, k, func(o *HostOptions) {
			o.Dir, o.Keep, o.Held = dir, filepath.Join(dir, "quarantine"), filepath.Join(dir, "held")
		})
	}
	writable := func() bool { return os.WriteFile(file, []byte("as it was"), 0o644) == nil }
	h := again()
	t.Cleanup(func() { _, _ = h.Panic(context.Background()) })
	for path, rail := range map[string]string{"/": guard.RailSystem, "/etc": guard.RailSystem, "relative": guard.RailTarget, dir: guard.RailSelf, filepath.Dir(dir): guard.RailSelf} {
		if rc := outcome(t, h, keepFrom(path)); rc.Outcome != event.OutcomeRefused || rc.Guard != rail {
			t.Errorf("%s: %+v", path, rc)
		}
	}
	auto := keepFrom(held)
	auto.Authority = event.AuthorityPolicy
	if rc := outcome(t, h, auto); rc.Guard != guard.RailAuthority {
		t.Errorf("by a policy: %+v", rc)
	}
	both := keepFrom(held)
	both.Target.Path = held
	if rc := outcome(t, h, both); rc.Guard != guard.RailTarget {
		t.Errorf("two targets: %+v", rc)
	}
	if err := h.Allow(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	if rc := outcome(t, h, keepFrom(held)); rc.Guard != guard.RailAllow || !writable() {
		t.Errorf("on the allow list: %+v", rc)
	}
	if err := h.Disallow(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	if rc := outcome(t, h, keepFrom(held)); rc.Outcome != event.OutcomeDone || len(rc.Means) != 1 || !strings.Contains(rc.Detail, "1 files and 1 folders") || writable() {
		t.Fatalf("%+v, writable %t", rc, writable())
	}
	h = again() // the one before was killed
	if active, err := h.Active(t.Context()); err != nil || len(active) != 1 || active[0].Target.Write != held || !active[0].Adopted {
		t.Errorf("%+v %v", active, err)
	}
	if rc := outcome(t, h, keepFrom(held)); rc.Outcome != event.OutcomeAdopted || writable() {
		t.Errorf("heard again: %+v", rc)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { h.KeepHeld(ctx) })
	made := false
	for range 1000 { // against who puts the attribute back
		if err := setImmutable(held, false); err != nil {
			t.Fatal(err)
		}
		if made = os.WriteFile(filepath.Join(held, "new"), []byte("evil"), 0o644) == nil; made {
			break
		}
	}
	if !made {
		t.Fatal("nothing can be made there")
	}
	for range 100 {
		if gone(filepath.Join(held, "new")) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if sealed := h.sealed.List(); len(sealed) != 1 || sealed[0].Path != filepath.Join(held, "new") {
		t.Errorf("%+v", sealed)
	}
	if rc, err := h.Release(t.Context(), id); err != nil || rc.Outcome != event.OutcomeReleased || !writable() {
		t.Errorf("%+v %v", rc, err)
	}
	if rc := outcome(t, h, keepFrom(held)); rc.Outcome != event.OutcomeDone || writable() {
		t.Fatalf("%+v", rc)
	}
	if n, err := h.Panic(t.Context()); err != nil || n != 2 || !writable() {
		t.Errorf("panic released %d: %v", n, err)
	}
	if rc := outcome(t, h, keepFrom(held)); rc.Outcome != event.OutcomeObserved || !writable() {
		t.Errorf("after a panic: %+v", rc)
	}
	cancel()
	wg.Wait()
}

// Where a file system has no such attribute the receipt says so, and what is made there does not fill the quarantine: half of it is
// left to responses.
func TestWritingIsReverted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a file system")
	}
	dir, bare := t.TempDir(), t.TempDir()
	if err := unix.Mount("ramfs", bare, "ramfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(bare, unix.MNT_DETACH) })
	h := host(t, ModeEnforce, &fake{standing: map[string]event.Response{}}, func(o *HostOptions) {
		o.Dir, o.Keep, o.Held = dir, filepath.Join(dir, "quarantine"), filepath.Join(dir, "held")
	})
	if rc := outcome(t, h, keepFrom(bare)); rc.Outcome != event.OutcomeFailed || !strings.Contains(rc.Detail, "is mounted") { // what is mounted there is not what its folder holds
		t.Errorf("a mount: %+v", rc)
	}
	held := filepath.Join(bare, "held")
	if err := os.Mkdir(held, 0o755); err != nil {
		t.Fatal(err)
	}
	if rc := outcome(t, h, keepFrom(held)); rc.Outcome != event.OutcomeDone || !slices.Equal(rc.Means, []string{meansReverted}) || !strings.Contains(rc.Detail, "the kernel refuses nothing") {
		t.Fatalf("%+v", rc)
	}
	const made = quarantine.MaxSealed/2 + 1
	for i := range made {
		if err := os.WriteFile(filepath.Join(held, fmt.Sprint(i)), []byte("evil"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { h.KeepHeld(ctx) })
	defer wg.Wait()
	defer cancel()
	for range 300 {
		if c := h.heldCheck(); !c.OK {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if c := h.heldCheck(); c.OK || !strings.Contains(c.Lost, "left to responses") {
		t.Errorf("%+v", c)
	}
	if n := len(h.sealed.List()); n != made-1 {
		t.Errorf("%d files were quarantined", n)
	}
	if n, err := h.Panic(t.Context()); err != nil || n < 1 {
		t.Errorf("panic released %d: %v", n, err)
	}
}

// setImmutable does what chattr does.
func setImmutable(path string, on bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if on {
		flags = 0x10
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}
