package node

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A folder whose node has been killed is waited for; one whose node lives, or says nothing of itself, is refused.
func TestLockWaitsForWhoIsDying(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("a second node: %v", err)
	}
	unlock()

	held, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "no number\n", "99999999999999999999999\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := lock(path); !errors.Is(err, ErrLocked) {
			t.Errorf("%q: %v", text, err)
		}
	}
	dead := exec.Command("/bin/true")
	if err := dead.Start(); err != nil { // nobody waits for it: it stays a zombie
		t.Fatal(err)
	}
	defer dead.Wait()
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n", dead.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*killTime, func() { held.Close() })
	if unlock, err = lock(path); err != nil {
		t.Fatal(err)
	}
	unlock()
}
