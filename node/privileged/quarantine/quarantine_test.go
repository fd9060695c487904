package quarantine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/node/privileged/durable"
)

const id = "00112233445566778899aabbccddeeff"

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// victim makes a file with a megabyte that is not a whole number of blocks.
func victim(t *testing.T) (path string, content []byte) {
	t.Helper()
	content = bytes.Repeat([]byte("\x7fELF evil "), 111_111)
	path = filepath.Join(t.TempDir(), "evil")
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func seal(t *testing.T, s *Store, path string) (Record, error) {
	t.Helper()
	f, err := Find(path)
	if err != nil {
		return Record{}, err
	}
	defer f.Close()
	return s.Seal(id, f, 0)
}

// names are what lies in a folder.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func dressing(t *testing.T, path string) string {
	t.Helper()
	f, err := Find(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	x, err := Xattrs(int(f.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	st := f.stat
	return fmt.Sprintf("%o %d:%d %v %v flags %x %v", st.Mode, st.Uid, st.Gid, st.Atim, st.Mtim, f.flags&fixed, x)
}

func TestAFileIsGivenBackAsItWas(t *testing.T) {
	path, content := victim(t)
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 1234, 2345); err != nil {
			t.Fatal(err)
		}
		// cap_net_raw=ep, as setcap(8) writes it
		caps := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		if err := unix.Setxattr(path, "security.capability", caps, 0); err != nil {
			t.Log("no capabilities on this file system:", err)
		}
	} else {
		t.Log("not root: owner, capabilities and the immutable attribute are not tried")
	}
	if err := unix.Setxattr(path, "user.note", []byte("a\x00b"), 0); err != nil {
		t.Log("no user attributes on this file system:", err)
	}
	if err := unix.Chmod(path, 0o4751); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Unix(1_000_000_000, 123_456_789), time.Unix(1_100_000_000, 987_654_321)); err != nil {
		t.Fatal(err)
	}
	if f, err := os.Open(path); err == nil && os.Geteuid() == 0 {
		if err := setFlags(int(f.Fd()), 0x10); err != nil {
			t.Log("no immutable files on this file system:", err)
		}
		t.Cleanup(func() {
			if f, err := os.Open(path); err == nil {
				setFlags(int(f.Fd()), 0)
				f.Close()
			}
		})
		f.Close()
	}
	before := dressing(t, path)
	dir := filepath.Join(t.TempDir(), "store")
	r, err := seal(t, open(t, dir), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("it has its name still:", err)
	}
	if got := names(t, filepath.Dir(path)); got != "" {
		t.Errorf("left in its folder: %q", got)
	}
	sealed, err := os.ReadFile(filepath.Join(dir, id+endCopy))
	if err != nil || len(sealed) != len(content) || bytes.Contains(sealed, content[:64]) {
		t.Errorf("the copy: %d bytes, readable %t, %v", len(sealed), bytes.Contains(sealed, content[:64]), err)
	}
	if r.SHA256 == "" || r.State != Sealed {
		t.Errorf("record %+v", r)
	}
	// By another life of the store.
	if _, err := open(t, dir).Restore(id); err != nil {
		t.Fatal(err)
	}
	if after := dressing(t, path); after != before {
		t.Errorf("given back as\n%s, was\n%s", after, before)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("given back with %d bytes of %d, %v", len(got), len(content), err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("left in the store: %q", got)
	}
}

// A power cut at any step leaves the file, or a copy that can be given back.
func TestPowerCuts(t *testing.T) {
	for name, cut := range map[string]func(t *testing.T, path, dir string, r *Record, s *Store){
		"before the record": func(t *testing.T, path, dir string, r *Record, s *Store) {
			if err := os.Remove(s.file(id, endRecord)); err != nil {
				t.Fatal(err)
			}
		},
		"before the name": func(*testing.T, string, string, *Record, *Store) {},
		"with a half-written one": func(t *testing.T, path, dir string, r *Record, s *Store) {
			os.WriteFile(s.file(id, endRecord+durable.New), []byte("{"), 0o600)
		},
		"after the rename": func(t *testing.T, path, dir string, r *Record, s *Store) {
			if err := os.Rename(path, filepath.Join(filepath.Dir(path), asideName(id))); err != nil {
				t.Fatal(err)
			}
		},
		"after the removal": func(t *testing.T, path, dir string, r *Record, s *Store) { os.Remove(path) },
	} {
		t.Run(name, func(t *testing.T) {
			path, content := victim(t)
			dir := filepath.Join(t.TempDir(), "store")
			s := open(t, dir)
			f, err := Find(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			// As Seal does it, up to the name.
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			r := &Record{ID: id, State: Sealing, Path: f.path, Device: f.stat.Dev, Inode: f.stat.Ino, Size: f.stat.Size, Mode: f.stat.Mode,
				UID: f.stat.Uid, GID: f.stat.Gid, Modified: timeOf(f.stat.Mtim), Accessed: timeOf(f.stat.Atim), Key: make([]byte, keySize)}
			if err := s.copyIn(r, f); err != nil {
				t.Fatal(err)
			}
			if err := s.write(r); err != nil {
				t.Fatal(err)
			}
			cut(t, path, dir, r, s)
			s = open(t, dir)
			if _, err := os.Lstat(path); err != nil {
				if r, ok := s.Get(id); !ok || r.State != Sealed {
					t.Fatalf("neither the file nor a copy: %+v", r)
				}
				if _, err := s.Restore(id); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes of %d, %v", len(got), len(content), err)
			}
			if left := names(t, dir); left != "" {
				t.Errorf("left in the store: %q", left)
			}
			if left := names(t, filepath.Dir(path)); left != "evil" {
				t.Errorf("in the folder: %q", left)
			}
		})
	}
}

func TestWhatIsNotQuarantined(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	must(os.Symlink("file", filepath.Join(dir, "link")))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	big, err := os.Create(filepath.Join(dir, "big"))
	must(err)
	must(big.Truncate(MaxSize + 1))
	must(big.Close())
	for path, want := range map[string]error{
		dir + "/link": ErrNotRegular, dir + "/fifo": ErrNotRegular, dir + "/folder": ErrNotRegular, dir + "/big": ErrTooLarge,
		"/proc/self/status": ErrNotRegular, dir + "/none": os.ErrNotExist,
	} {
		if f, err := Find(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
			if err == nil {
				f.Close()
			}
		}
	}
	for _, path := range []string{"", "/", "file", dir + "/../x", dir + "/a\x00b", "/" + strings.Repeat("a", maxPath)} {
		if f, err := Find(path); err == nil {
			f.Close()
			t.Errorf("%.40q was opened", path)
		}
	}
}

// Between the look and the taking, a name may be given to another file, or the file written.
func TestTheFileThatWasOpenedIsTaken(t *testing.T) {
	for name, meanwhile := range map[string]func(path string) error{
		"another file of the name": func(path string) error {
			if err := os.Rename(path, path+".hidden"); err != nil {
				return err
			}
			return os.WriteFile(path, []byte("innocent"), 0o644)
		},
		"a write": func(path string) error { return os.WriteFile(path, []byte("innocent"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := victim(t)
			s := open(t, filepath.Join(t.TempDir(), "store"))
			f, err := Find(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := meanwhile(path); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Seal(id, f, 0); !errors.Is(err, ErrChanged) {
				t.Errorf("sealed: %v", err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != "innocent" {
				t.Errorf("the innocent file: %q, %v", got, err)
			}
			if left := names(t, s.dir); left != "" || len(s.List()) != 0 {
				t.Errorf("left in the store: %q", left)
			}
		})
	}
}

func TestAReleaseOverwritesNothing(t *testing.T) {
	path, content := victim(t)
	s := open(t, filepath.Join(t.TempDir(), "store"))
	if _, err := seal(t, s, path); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, want error) {
		t.Helper()
		if _, err := s.Restore(id); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
		if _, ok := s.Get(id); !ok {
			t.Fatalf("%s: it is sealed no more", what)
		}
	}
	if err := os.WriteFile(path, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	refused("its name was taken", ErrTaken)
	if got, err := os.ReadFile(path); err != nil || string(got) != "new" {
		t.Errorf("what took its name: %q, %v", got, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	// A link in place of its folder would have it put elsewhere.
	folder := filepath.Dir(path)
	elsewhere := t.TempDir()
	if err := errors.Join(os.Rename(folder, folder+".old"), os.Symlink(elsewhere, folder)); err != nil {
		t.Fatal(err)
	}
	refused("its folder is a link", unix.ELOOP)
	if got := names(t, elsewhere); got != "" {
		t.Errorf("put elsewhere: %q", got)
	}
	if err := errors.Join(os.Remove(folder), os.Rename(folder+".old", folder)); err != nil {
		t.Fatal(err)
	}
	at := s.file(id, endCopy)
	sealed, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	sealed[len(sealed)/2] ^= 1
	if err := errors.Join(os.Chmod(at, 0o600), os.WriteFile(at, sealed, 0o600)); err != nil {
		t.Fatal(err)
	}
	refused("its copy was changed", nil)
	if got := names(t, folder); got != "" {
		t.Errorf("left in its folder: %q", got)
	}
	sealed[len(sealed)/2] ^= 1
	if err := os.WriteFile(at, sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := s.RestoreAll(); n != 1 || err != nil {
		t.Errorf("%d given back, %v", n, err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes of %d, %v", len(got), len(content), err)
	}
	if _, err := s.Restore(id); !errors.Is(err, ErrUnknown) {
		t.Errorf("given back twice: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"id":"` + id + `","state":"sealed","path":"/tmp/x","sha256":"` + strings.Repeat("a", 64) + `","key":"` + strings.Repeat("A", 43) + `="}`))
	f.Add([]byte(`{"id":"../x","state":"sealing","path":"/tmp/../etc/passwd"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Parse(raw)
		if err != nil {
			if r != nil || !errors.Is(err, ErrRecord) {
				t.Errorf("%+v, %v", r, err)
			}
			return
		}
		if filepath.Clean(r.Path) != r.Path || !filepath.IsAbs(r.Path) || len(r.ID) != 32 || len(r.Key) != keySize {
			t.Errorf("taken: %+v", r)
		}
	})
}

// What nobody ordered takes half of the bytes, and half of the places (TestWritingIsReverted), at most.
func TestHalfIsLeftToResponses(t *testing.T) {
	s, err := Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Find(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size, full := range map[int64]bool{maxTotal/2 - 1: false, maxTotal / 2: true} {
		s.records[id] = Record{ID: id, Size: size}
		if err := s.Spare(f); errors.Is(err, ErrFull) != full {
			t.Errorf("%d bytes: %v", size, err)
		}
		if !s.fits(1, 1) {
			t.Errorf("a response has no room beside %d bytes", size)
		}
	}
}
