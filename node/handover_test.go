package node

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestHandOverGivesNothingElseAway: what the unprivileged half left in its folders may be a trap for root.
func TestHandOverGivesNothingElseAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	const uid = 61190
	dir := t.TempDir()
	l := Layout{dir}
	for _, d := range []string{l.Identity(), l.Ledger(), l.Operator(), l.Next()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	prize := filepath.Join(t.TempDir(), "shadow")
	for _, f := range []string{prize, l.Genesis(), filepath.Join(l.Identity(), "key"), filepath.Join(l.Operator(), "key")} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(prize, filepath.Join(l.Ledger(), "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(prize), filepath.Join(l.Ledger(), "folder")); err != nil {
		t.Fatal(err)
	}
	if err := handOver(l, uid); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint32{prize: 0, filepath.Dir(prize): 0, dir: 0, filepath.Join(l.Operator(), "key"): 0, l.Genesis(): 0,
		l.Next(): 0, l.Identity(): uid, filepath.Join(l.Identity(), "key"): uid, l.Ledger(): uid, l.Swarm(): uid} {
		if u := owner(t, path); u != want {
			t.Errorf("%s belongs to uid %d, want %d", path, u, want)
		}
	}
	var st syscall.Stat_t
	if err := syscall.Stat(l.Operator(), &st); err != nil || st.Mode&0o777 != 0o700 {
		t.Errorf("operator/ has mode %o", st.Mode&0o777)
	}
	if err := os.Link(prize, filepath.Join(l.Ledger(), "second-name")); err != nil {
		t.Skip("no hard link between these folders:", err)
	}
	if err := handOver(l, uid); err == nil {
		t.Error("a file with a second name was given away")
	}
	if owner(t, prize) != 0 {
		t.Error("root's file was given away by its second name")
	}
}
