package privileged

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const probeName = "omega: probe"

// probe is what the child of TestChildHasNothing runs: it writes what it has to descriptor 3.
func probe() int {
	out := os.NewFile(3, "out")
	status, err := os.ReadFile("/proc/self/status")
	fmt.Fprintf(out, "%s\nstatus=%v\n", status, err)
	_, err = os.ReadFile(os.Getenv("SECRET"))
	fmt.Fprintf(out, "secret=%v\n", err)
	return 0
}

// TestChildHasNothing shows that the unprivileged half keeps no way back to root, nor to root's files.
func TestChildHasNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	secret := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	uid := UID(secret)
	c, err := Spawn(ChildOptions{Name: probeName, UID: uid, Files: []*os.File{w}, Env: []string{"SECRET=" + secret}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(io.LimitReader(r, 1<<16))
	<-c.Done()
	if err != nil || c.Err() != nil {
		t.Fatal(err, c.Err())
	}
	flat := strings.ReplaceAll(string(out), "\t", " ")
	for _, want := range []string{
		fmt.Sprintf("Uid: %d %d %d %d", uid, uid, uid, uid), fmt.Sprintf("Gid: %d %d %d %d", uid, uid, uid, uid), "NoNewPrivs: 1",
		"CapInh: 0000000000000000", "CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapBnd: 0000000000000000", "CapAmb: 0000000000000000",
		"secret=open " + secret + ": permission denied",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("the child lacks %q in\n%s", want, flat)
		}
	}
	if !regexp.MustCompile(`(?m)^Groups: *$`).MatchString(flat) {
		t.Errorf("the child has supplementary groups:\n%s", flat)
	}
}
