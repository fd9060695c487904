package executable

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func image(t *testing.T, path string) Image {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return Image{Path: path, Inode: st.Ino, Device: uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))}
}

// The file that a process runs is hashed, also when its name leads elsewhere by now; another file of that name is not.
func TestImageOfAProcess(t *testing.T) {
	program, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	i := image(t, path)
	i.PID = uint32(cmd.Process.Pid)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("innocent"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := i.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var h Hasher
	got, err := h.Sum(t.Context(), f, true)
	if want := (Sums{SHA256: sha256.Sum256(program), Weak: true, SHA1: sha1.Sum(program), MD5: md5.Sum(program)}); err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	i.PID = 1 << 23 // there is none
	if f, err := i.Open(); err == nil {
		f.Close()
		t.Error("another file of the name is taken for it")
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, dir} {
		i := image(t, path)
		if f, err := i.Open(); err == nil {
			f.Close()
			t.Errorf("%s is taken", path)
		}
	}
	i := image(t, secret)
	i.Untrusted = true
	if f, err := i.Open(); err == nil {
		f.Close()
		t.Error("whoever names a file is told its digest")
	}
	i.Path = "secret"
	if f, err := i.Open(); err == nil {
		f.Close()
		t.Error("a path that is not absolute is taken")
	}
}

// What was hashed is remembered until it changes, what is too large is left, and a file of which only the strong digest is known is
// hashed again for the weak ones.
func TestHasherRemembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	content := bytes.Repeat([]byte("abc"), 100_000)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var h Hasher
	sum := func(weak bool) Sums {
		t.Helper()
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		s, err := h.Sum(t.Context(), f, weak)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := sum(false); s.SHA256 != sha256.Sum256(content) || s.Weak || len(h.known) != 0 {
		t.Errorf("%+v, %d known", s, len(h.known))
	}
	time.Sleep(1100 * time.Millisecond) // the stamp tells of a change from now on
	sum(false)
	if len(h.known) != 1 {
		t.Errorf("%d known", len(h.known))
	}
	if s := sum(true); s.MD5 != md5.Sum(content) {
		t.Errorf("%+v", s)
	}
	if _, err := f.WriteAt([]byte("X"), 5); err != nil {
		t.Fatal(err)
	}
	content[5] = 'X'
	if s := sum(true); s.SHA256 != sha256.Sum256(content) {
		t.Error("a changed file is remembered as what it was")
	}
	if err := f.Truncate(MaxSize + 1); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Sum(t.Context(), f, false); !errors.Is(err, ErrLarge) {
		t.Error(err)
	}
}
