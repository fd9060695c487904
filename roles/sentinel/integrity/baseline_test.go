package integrity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func take(t *testing.T, dir string, before *Baseline) *Baseline {
	t.Helper()
	b, err := Take(t.Context(), Options{Paths: []string{dir}, Exclude: []string{filepath.Join(dir, "left")}, Before: before, Share: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Each kind of change, made by real calls, is told by its name and path; and nothing else is.
func TestChangesAreNamed(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"content", "mode", "gone", "owner", "attr", "kind"} {
		put(t, filepath.Join(dir, name), "of "+name)
	}
	if err := errors.Join(os.Mkdir(dir+"/left", 0o755), os.Symlink("/etc/passwd", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	before := take(t, dir, nil)
	if got := Compare(before, take(t, dir, before)); len(got) != 0 {
		t.Fatalf("nothing was done, and %+v", got)
	}

	var st unix.Stat_t
	if err := unix.Stat(dir+"/content", &st); err != nil {
		t.Fatal(err)
	}
	put(t, dir+"/content", "of someone") // as long as before, and its times set back: the ctime tells
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/content", times, 0); err != nil {
		t.Fatal(err)
	}
	put(t, dir+"/left/x", "nobody looks here")
	put(t, dir+"/new", "x")
	want := map[string]string{"content": "content", "mode": "mode", "gone": "removed", "kind": "type", "new": "added", "link": "target"}
	if err := errors.Join(os.Chmod(dir+"/mode", 0o4755|os.ModeSetuid), os.Remove(dir+"/gone"), os.Remove(dir+"/kind"), os.Symlink("/", dir+"/kind"),
		os.Remove(dir+"/link"), os.Symlink("/etc/shadow", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		want["owner"] = "owner"
		if err := os.Lchown(dir+"/owner", 12, 13); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(dir+"/attr", "user.omega", []byte("1"), 0); err == nil {
		want["attr"] = "xattr"
	}
	after := take(t, dir, before)
	got := map[string]string{}
	for _, c := range Compare(before, after) {
		got[filepath.Base(c.Path)] = c.What
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if before.Root() == after.Root() {
		t.Error("the root is the same")
	}
}

// Who changes a file and the baseline with it gives the baseline another root.
func TestTamperedBaselineHasAnotherRoot(t *testing.T) {
	dir := t.TempDir()
	for i := range 5 {
		put(t, filepath.Join(dir, fmt.Sprint(i)), fmt.Sprint(i))
	}
	b := take(t, dir, nil)
	published := b.Root()
	if published != take(t, dir, nil).Root() {
		t.Fatal("the same files have two roots")
	}
	for i := range b.Entries {
		for _, change := range []func(*Entry){
			func(e *Entry) { e.Digest[7] ^= 1 }, func(e *Entry) { e.Mode ^= 0o4000 }, func(e *Entry) { e.UID++ },
			func(e *Entry) { e.Xattrs[0]++ }, func(e *Entry) { e.Target += "x" }, func(e *Entry) { e.Path += "x" },
		} {
			was := b.Entries[i]
			change(&b.Entries[i])
			if b.Root() == published {
				t.Errorf("entry %d: changed, and the root is the same", i)
			}
			b.Entries[i] = was
		}
	}
	b.Entries = b.Entries[:len(b.Entries)-1]
	if b.Root() == published {
		t.Error("an entry is missing, and the root is the same")
	}
}

func TestTakeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Take(ctx, Options{Paths: []string{t.TempDir()}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Take(t.Context(), Options{Paths: []string{"etc"}}); err == nil {
		t.Error("a relative path is watched")
	}
}

// A pipe in a watched folder must not be opened, nor waited for.
func TestPipesAreNotRead(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	if b := take(t, dir, nil); len(b.Entries) != 2 || b.Skipped != 0 {
		t.Errorf("%+v", b)
	}
}

func BenchmarkTake(b *testing.B) {
	dir := b.TempDir()
	for i := range 10_000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 4096), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for _, again := range []bool{false, true} {
		b.Run(fmt.Sprintf("again=%t", again), func(b *testing.B) {
			var before *Baseline
			if again {
				before, _ = Take(b.Context(), Options{Paths: []string{dir}, Share: 1})
			}
			for b.Loop() {
				if _, err := Take(b.Context(), Options{Paths: []string{dir}, Share: 1, Before: before}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
