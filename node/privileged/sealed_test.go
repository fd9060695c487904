package privileged

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/guard"
)

// keeper is a host with a store, and a file to take; again makes it anew, as a restart does.
func keeper(t *testing.T, mode string, k *fake) (again func() *Host, dir, path string) {
	t.Helper()
	dir, path = t.TempDir(), filepath.Join(t.TempDir(), "evil")
	if err := os.WriteFile(path, []byte("evil"), 0o755); err != nil {
		t.Fatal(err)
	}
	return func() *Host {
		return host(t, mode, k, func(o *HostOptions) { o.Dir, o.Keep = dir, filepath.Join(dir, "quarantine") })
	}, dir, path
}

func take(path string) event.Response {
	return event.Response{ID: id, Action: event.ActionQuarantine, Target: event.Target{Path: path}, Authority: event.AuthorityLocal, TTL: time.Hour}
}

func gone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, os.ErrNotExist)
}

func TestAQuarantineOutlastsItsBlockAndItsHost(t *testing.T) {
	k := &fake{standing: map[string]event.Response{}}
	again, _, path := keeper(t, ModeEnforce, k)
	h := again()
	rc := outcome(t, h, take(path))
	if rc.Outcome != event.OutcomeDone || !gone(path) || !strings.Contains(rc.Detail, "sealed") {
		t.Fatalf("%+v, gone %t", rc, gone(path))
	}
	if block := k.standing[id]; block.Action != event.ActionDeny || block.Target.Inode == 0 || block.Target.Path != "" {
		t.Errorf("the kernel was told %+v", block)
	}
	// The block's end: what is sealed stays so.
	if _, err := k.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	h = again()
	if active, err := h.Active(t.Context()); err != nil || len(active) != 1 || active[0].Action != event.ActionQuarantine || active[0].Target.Path != path {
		t.Errorf("after the end and a restart: %+v, %v", active, err)
	}
	// The same order is heard again after a restart: whatever has the name now is another file.
	if err := os.WriteFile(path, []byte("innocent"), 0o644); err != nil {
		t.Fatal(err)
	}
	if rc := outcome(t, h, take(path)); rc.Outcome != event.OutcomeAdopted || gone(path) {
		t.Errorf("heard again: %+v, gone %t", rc, gone(path))
	}
	if rc, err := h.Release(t.Context(), id); err != nil || rc.Outcome != event.OutcomeFailed || !strings.Contains(rc.Detail, "name") {
		t.Errorf("released onto another file: %+v, %v", rc, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if rc, err := h.Release(t.Context(), id); err != nil || rc.Outcome != event.OutcomeReleased {
		t.Errorf("released: %+v, %v", rc, err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "evil" {
		t.Errorf("given back: %q, %v", got, err)
	}
}

func TestRailsAreAskedOfTheFileThatWasOpened(t *testing.T) {
	k := &fake{standing: map[string]event.Response{}}
	again, dir, path := keeper(t, ModeEnforce, k)
	h := again()
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Skip("no shell here:", err)
	}
	refused := func(what, path, rail string) {
		t.Helper()
		rc := outcome(t, h, take(path))
		if rc.Outcome != event.OutcomeRefused || rc.Guard != rail || len(k.standing) != 0 || gone(path) {
			t.Errorf("%s: %+v, kernel %v, gone %t", what, rc, k.standing, gone(path))
		}
	}
	link := filepath.Join(filepath.Dir(path), "link")
	if err := os.Symlink(shell, link); err != nil {
		t.Fatal(err)
	}
	refused("a link to a shell", link, guard.RailShell)
	folder := filepath.Join(filepath.Dir(path), "folder")
	if err := os.Symlink(filepath.Dir(shell), folder); err != nil {
		t.Fatal(err)
	}
	refused("a shell in a folder that is a link", filepath.Join(folder, filepath.Base(shell)), guard.RailShell)
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	hard := own + ".link"
	if err := os.Link(own, hard); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(hard)
	refused("a hard link to this program", hard, guard.RailSelf)
	key := filepath.Join(dir, "identity.key")
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("what this node keeps", key, guard.RailSelf)
	if rc := outcome(t, h, take(path+".none")); rc.Outcome != event.OutcomeFailed || len(k.standing) != 0 {
		t.Errorf("a file that is not there: %+v, kernel %v", rc, k.standing)
	}
}

func TestPanicGivesFilesBack(t *testing.T) {
	k := &fake{standing: map[string]event.Response{}}
	again, _, path := keeper(t, ModeEnforce, k)
	h := again()
	outcome(t, h, take(path))
	if n, err := h.Panic(t.Context()); n != 2 || err != nil || gone(path) || len(k.standing) != 0 {
		t.Errorf("panic: %d, %v, gone %t, kernel %v", n, err, gone(path), k.standing)
	}
	if rc := outcome(t, h, take(path)); rc.Outcome != event.OutcomeObserved || gone(path) {
		t.Errorf("after a panic: %+v", rc)
	}
}
