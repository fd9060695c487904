package immutable

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/node/privileged/durable"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const id = "0123456789abcdef0123456789abcdef"

// place is a folder to hold and a keeper; what is evicted is moved to evicted.
type place struct {
	*testing.T
	dir, evicted string
	k            *Keeper
}

func newPlace(t *testing.T) *place {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the immutable attribute is root's to give")
	}
	p := &place{T: t, dir: filepath.Join(t.TempDir(), "held"), evicted: t.TempDir()}
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p.start()
	t.Cleanup(func() {
		if _, err := p.k.ReleaseAll(); err != nil {
			t.Error(err)
		}
		p.k.Close()
	})
	return p
}

func (p *place) start() {
	p.Helper()
	var err error
	p.k, err = Open(Options{Dir: filepath.Join(filepath.Dir(p.dir), "state"), Log: slog.New(slog.DiscardHandler), Evict: func(path string, inode, _ uint64) error {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Ino != inode {
			return fmt.Errorf("another: %v", err)
		}
		return sh(p.T, `mv "$1" "$2"`, path, p.evicted) // it may be of another file system
	}})
	if err != nil {
		p.Fatal(err)
	}
}

func (p *place) write(name, content string) string {
	p.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		p.Fatal(err)
	}
	return path
}

func (p *place) hold(path string) Report {
	p.Helper()
	r, err := p.k.Hold(id, path, bpf.BootTime()+uint64(time.Hour), func(string, uint64, uint64) error { return nil })
	if err != nil {
		p.Fatal(err)
	}
	return r
}

func sh(t *testing.T, script string, args ...string) error {
	t.Helper()
	out, err := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func is(t *testing.T, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s: %q, %v; want %q", path, b, err, want)
	}
}

// Whatever root tries on a file that is held is refused by the kernel, and works again once it is released.
func TestWritesAreRefused(t *testing.T) {
	p := newPlace(t)
	one := p.write("one", "as it was")
	tries := map[string]string{
		"write": `echo x > "$1"`, "append": `echo x >> "$1"`, "cut": `truncate -s 0 "$1"`, "remove": `rm -f "$1"`, "rename": `mv "$1" "$1.moved"`,
		"replace": `echo x > "$1.new" && mv -f "$1.new" "$1"`, "mode": `chmod 777 "$1"`, "owner": `chown 7 "$1"`, "link": `ln "$1" "$1.link"`, "date": `touch -d 2001-01-01 "$1"`,
		"by an editor": `sed -i s/was/is/ "$1"`,
	}
	before, err := os.OpenFile(one, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if r := p.hold(one); r != (Report{Files: 1}) {
		t.Errorf("%+v", r)
	}
	for name, script := range tries {
		if err := sh(t, script, one); err == nil {
			t.Errorf("%s went through", name)
		}
	}
	if _, err := before.WriteAt([]byte("X"), 0); err == nil {
		t.Error("written by a descriptor from before")
	}
	is(t, one, "as it was")
	if err := p.k.Release(id); err != nil {
		t.Fatal(err)
	}
	if err := sh(t, `echo x > "$1" && chmod 600 "$1" && rm "$1"`, one); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(filepath.Dir(p.dir), "state")); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// withoutAttribute mounts a file system that has no immutable attribute.
func withoutAttribute(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// Where a file system has no such attribute nothing is refused, and everything is put back, also what was written through a mapping
// made before, which moves no time; a later life goes on with it, and what is released may be written.
func TestWritesAreReverted(t *testing.T) {
	p := newPlace(t)
	p.dir = withoutAttribute(t)
	p.start()
	one, two := p.write("one", "as it was"), p.write("two", "another")
	if err := os.Mkdir(filepath.Join(p.dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	deep := p.write("folder/deep", "below")
	f, err := os.OpenFile(two, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mapped, err := unix.Mmap(int(f.Fd()), 0, 7, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	if r := p.hold(filepath.Join(p.dir, "folder")); r != (Report{Files: 1, Folders: 1, Reverted: true}) {
		t.Errorf("%+v", r)
	}
	second := strings.Repeat("b", 32)
	for i, path := range []string{one, two} {
		if _, err := p.k.Hold(strings.Repeat(string(rune('b'+i)), 32), path, bpf.BootTime()+uint64(time.Hour), func(string, uint64, uint64) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range map[string]string{
		"write": `echo x > "$1"`, "cut": `truncate -s 0 "$1"`, "remove": `rm -f "$1"`, "rename": `mv "$1" "$1.moved"`, "mode": `chmod 777 "$1"`, "owner": `chown 7 "$1"`,
		"replace": `echo x > "$1.new" && mv -f "$1.new" "$1"`, "the folder": `rm -r "${1%/*}"`, "a file beside": `echo x > "$1.evil"`,
	} {
		for _, path := range []string{one, deep} {
			if path == one && (name == "the folder" || name == "a file beside") {
				continue
			}
			if err := sh(t, script, path); err != nil {
				t.Fatalf("%s was refused: %v", name, err)
			}
			p.k.look()
			is(t, one, "as it was")
			is(t, deep, "below")
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil || st.Mode&0o7777 != 0o640 || st.Uid != 0 {
				t.Errorf("%s: mode %o, owner %d, %v", name, st.Mode, st.Uid, err)
			}
			if _, err := os.Lstat(deep + ".evil"); err == nil {
				t.Error("what was made beside is there still")
			}
			_ = os.Remove(path + ".moved")
		}
	}
	copy(mapped, "written") // the first write moves the file's time, and none after it does
	p.k.look()
	is(t, two, "another")
	time.Sleep(2 * settled)
	p.k.look()
	copy(mapped, "written")
	for range wholeLook {
		p.k.look()
	}
	is(t, two, "another")
	for _, h := range p.k.List() {
		if h.Lost != 0 || h.Path != two && h.Undone == 0 {
			t.Errorf("%+v", h)
		}
	}
	p.k.Close()
	p.start()
	if err := sh(t, `echo x > "$1"`, one); err != nil {
		t.Fatal(err)
	}
	p.k.look()
	is(t, one, "as it was")
	if err := p.k.Release(second); err != nil {
		t.Fatal(err)
	}
	if err := sh(t, `echo x > "$1"`, one); err != nil {
		t.Fatal(err)
	}
	p.k.look()
	is(t, one, "x\n")
}

// What a file system without nameless files gets in their place replaces nothing, and leaves nothing behind.
func TestFileIsMadeAside(t *testing.T) {
	at := t.TempDir()
	dir, err := os.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, name := range []string{".aside", "taken"} {
		if err := os.WriteFile(filepath.Join(at, name), []byte("from before"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for base, free := range map[string]bool{"taken": false, "new": true} {
		f, give, err := aside(dir, ".aside")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("whole"); err != nil {
			t.Fatal(err)
		}
		if err := give(base); (err == nil) != free {
			t.Errorf("%s: %v", base, err)
		}
		f.Close()
	}
	is(t, filepath.Join(at, "taken"), "from before")
	is(t, filepath.Join(at, "new"), "whole")
	if names, err := list(dir); err != nil || len(names) != 2 {
		t.Errorf("left %v, %v", names, err)
	}
}

// A root that takes the attribute off first finds everything as it was half a second later: contents, mode, owner, attributes, what
// was removed, replaced, renamed and made anew, folders too; what came is kept elsewhere.
func TestChangesAreUndone(t *testing.T) {
	p := newPlace(t)
	one, two := p.write("one", "first"), p.write("two", "second")
	if err := os.Mkdir(filepath.Join(p.dir, "sub"), 0o750); err != nil {
		t.Fatal(err)
	}
	three := p.write("sub/three", "third")
	if err := os.Symlink("one", filepath.Join(p.dir, "link")); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(p.dir, "program")
	if err := sh(t, `cp /bin/true "$1" && chmod 4711 "$1"`, program); err != nil {
		t.Fatal(err)
	}
	if r := p.hold(p.dir); r != (Report{Files: 4, Folders: 2, Passed: 1}) {
		t.Errorf("%+v", r)
	}
	off := `chattr -f -R -i "$2" || true; `
	for _, c := range []struct{ name, script, path string }{
		{"content", `echo evil > "$1"`, one},
		{"the same length", `printf FIRST > "$1"`, one},
		{"longer", `echo evil >> "$1"`, one},
		{"attribute alone", ``, one},
		{"mode", `chmod 777 "$1"`, one},
		{"owner", `chown 7:8 "$1"`, one},
		{"removed", `rm "$1"`, two},
		{"replaced", `echo evil > "$1.x"; mv "$1.x" "$1"`, two},
		{"renamed", `mv "$1" "$1.renamed"`, two},
		{"made a link", `rm "$1"; ln -s /etc/passwd "$1"`, two},
		{"made a folder", `rm "$1"; mkdir "$1"`, two},
		{"a new file", `echo evil > "$1.new"`, one},
		{"the whole folder", `rm -r "$(dirname "$1")"`, three},
		{"a program", `cp /bin/false "$1"`, program},
	} {
		if err := sh(t, off+c.script, c.path, p.dir); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		p.k.look()
		p.k.look() // what a first look made anew is settled by the second
		is(t, one, "first")
		is(t, two, "second")
		is(t, three, "third")
		if err := exec.Command(program).Run(); err != nil {
			t.Errorf("%s: the program: %v", c.name, err)
		}
		if names, err := filepath.Glob(p.dir + "/*"); err != nil || len(names) != 5 {
			t.Errorf("%s: %v %v", c.name, names, err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(one, &st); err != nil || st.Mode&0o7777 != 0o640 || st.Uid != 0 || st.Gid != 0 {
			t.Errorf("%s: mode %o, owner %d:%d", c.name, st.Mode, st.Uid, st.Gid)
		}
		if err := syscall.Stat(program, &st); err != nil || st.Mode&0o7777 != 0o4711 {
			t.Errorf("%s: mode %o of the program", c.name, st.Mode)
		}
		for _, path := range []string{one, two, three, p.dir, filepath.Dir(three)} {
			if err := sh(t, `! touch "$1" 2>/dev/null`, path); err != nil {
				t.Errorf("%s: %s may be written to", c.name, path)
			}
		}
	}
	if l := p.k.List(); len(l) != 1 || l[0].Undone < 14 || l[0].Lost != 0 {
		t.Errorf("%+v", l)
	}
	for _, name := range []string{"two.renamed", "one.new"} {
		if _, err := os.Stat(filepath.Join(p.evicted, name)); err != nil {
			t.Errorf("what came is not kept: %v", err)
		}
	}
}

// A folder above that is renamed, and a link in its place, lead nobody elsewhere: what is held is held, and what the link leads to is
// not touched.
func TestFolderAboveIsSwapped(t *testing.T) {
	p := newPlace(t)
	one := p.write("one", "first")
	p.hold(one)
	elsewhere := t.TempDir()
	victim := filepath.Join(elsewhere, "one")
	if err := os.WriteFile(victim, []byte("the victim's"), 0o600); err != nil {
		t.Fatal(err)
	}
	moved := p.dir + ".moved"
	if err := sh(t, `mv "$1" "$2" && ln -s "$3" "$1" && chattr -i "$2/one" && echo evil > "$2/one"`, p.dir, moved, elsewhere); err != nil {
		t.Fatal(err)
	}
	p.k.look()
	is(t, victim, "the victim's")
	is(t, filepath.Join(moved, "one"), "first")
	if err := sh(t, `touch "$1"`, victim); err != nil {
		t.Error(err)
	}
	if l := p.k.List(); l[0].Lost != 1 || !strings.Contains(l[0].Example, "renamed or replaced") {
		t.Errorf("that the path leads elsewhere is not told: %+v", l)
	}
	if err := sh(t, `rm "$1" && mv "$2" "$1"`, p.dir, moved); err != nil {
		t.Fatal(err)
	}
	p.k.look()
	if l := p.k.List(); l[0].Lost != 0 {
		t.Errorf("it leads there again: %+v", l)
	}
}

// A name may hold any byte, and attributes come in any order: nothing is found changed that is not.
func TestNothingIsUndoneWithoutAChange(t *testing.T) {
	p := newPlace(t)
	odd := p.write("odd\xff\n\x1b[31m", "first")
	for _, name := range []string{"user.b", "user.c", "user.a"} {
		if err := unix.Setxattr(odd, name, []byte(name), 0); err != nil {
			t.Skip("no extended attributes here: ", err)
		}
	}
	p.hold(p.dir)
	p.k.Close()
	p.start()
	for range 3 {
		p.k.look()
	}
	if l := p.k.List(); len(l) != 1 || l[0].Undone != 0 || l[0].Lost != 0 {
		t.Fatalf("%+v", l)
	}
	if err := sh(t, `chattr -i "$1"`, odd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Removexattr(odd, "user.b"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(odd, "user.evil", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		p.k.look()
	}
	if l := p.k.List(); l[0].Undone != 1 || l[0].Lost != 0 {
		t.Errorf("%+v", l)
	}
	if err := p.k.Release(id); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(odd); err != nil {
		t.Error(err)
	}
}

// A full disk keeps nobody from letting go.
func TestReleaseWithoutRoomForItsRecord(t *testing.T) {
	p := newPlace(t)
	one := p.write("one", "first")
	p.hold(one)
	blocked := p.k.file(id, endRecord+durable.New) // a folder there fails the write as a full disk does
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	if n, err := p.k.ReleaseAll(); err != nil || n != 1 {
		t.Errorf("%d %v", n, err)
	}
	if err := os.Remove(one); err != nil {
		t.Error(err)
	}
}

// It ends by itself; it outlives its keeper, changes meanwhile are undone, and the next keeper ends it on time.
func TestHoldOutlivesItsKeeper(t *testing.T) {
	p := newPlace(t)
	one, two := p.write("one", "first"), p.write("two", "second")
	p.hold(p.dir)
	p.k.Close()
	if err := sh(t, `! echo x > "$1"`, one); err != nil {
		t.Fatal("with no keeper it may be written to")
	}
	if err := sh(t, `chattr -i "$1" "$2" "$3"; echo evil > "$1"; rm "$2"`, one, two, p.dir); err != nil {
		t.Fatal(err)
	}
	p.start()
	if l := p.k.List(); len(l) != 1 || !l[0].Adopted || l[0].Path != p.dir {
		t.Fatalf("%+v", l)
	}
	p.k.look()
	is(t, one, "first")
	is(t, two, "second")
	p.k.mu.Lock()
	p.k.holds[id].Expires = bpf.BootTime() + uint64(300*time.Millisecond)
	p.k.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { p.k.Run(ctx) })
	for range 100 {
		if len(p.k.List()) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	cancel()
	wg.Wait()
	if err := sh(t, `echo x > "$1" && rm "$2"`, one, two); err != nil {
		t.Error("past its end:", err)
	}
}

// What cannot be held is refused, and nothing of it is changed.
func TestHoldRefuses(t *testing.T) {
	p := newPlace(t)
	one := p.write("one", "x")
	link := filepath.Join(p.dir, "link")
	if err := os.Symlink(one, link); err != nil {
		t.Fatal(err)
	}
	by := p.dir + ".link"
	if err := os.Symlink(p.dir, by); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(p.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	may := func(string, uint64, uint64) error { return nil }
	end := bpf.BootTime() + uint64(time.Hour)
	for path, why := range map[string]string{
		"/": "no clean", "one": "no clean", p.dir + "/../held": "no clean", p.dir + "/none": "no such file", link: "symbolic link", by + "/one": "symbolic link", fifo: "no file and no folder",
		"/proc/1/status": "no file and no folder", "/sys/kernel/mm": "no file and no folder",
	} {
		if _, err := p.k.Hold(id, path, end, may); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", path, err)
		}
	}
	asked := 0
	no := errors.New("a rail")
	if _, err := p.k.Hold(id, p.dir, end, func(path string, _, _ uint64) error {
		if asked++; path == one {
			return no
		}
		return nil
	}); !errors.Is(err, no) || asked < 2 {
		t.Errorf("%v after %d", err, asked)
	}
	if left, _ := os.ReadDir(filepath.Join(filepath.Dir(p.dir), "state")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	bare := withoutAttribute(t)
	if err := sh(t, `truncate -s 17M "$1/x"`, bare); err != nil {
		t.Fatal(err)
	}
	if _, err := p.k.Hold(id, bare+"/x", end, may); !errors.Is(err, ErrUnsupported) {
		t.Errorf("without the attribute, and too large to be put back: %v", err)
	}
	if err := sh(t, `echo still >> "$1/x" && rm "$1/x"`, bare); err != nil {
		t.Error(err)
	}
	p.hold(one)
	if _, err := p.k.Hold(strings.Repeat("a", 32), p.dir, end, may); err == nil || !strings.Contains(err.Error(), id) {
		t.Errorf("a folder of what is held: %v", err)
	}
	if err := sh(t, `touch "$1/free" && rm "$1/free"`, p.dir); err != nil {
		t.Error(err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, raw := range map[string]string{
		"nothing": ``, "no files": `{"id":"` + id + `","path":"/a"}`, "a path up": `{"id":"` + id + `","path":"/a","files":[{"name":"","mode":16877},{"name":"Li4vYg==","mode":33188}]}`,
		"below a file": `{"id":"` + id + `","path":"/a","files":[{"name":"","mode":33188},{"name":"Yg==","mode":33188}]}`, "a device": `{"id":"` + id + `","path":"/a","files":[{"name":"","mode":8630}]}`,
		"a large copy": `{"id":"` + id + `","path":"/a","files":[{"name":"","mode":33188,"copied":true,"size":99999999}]}`, "something else": `{"id":"` + id + `","path":"/a","evil":1}`,
	} {
		if _, err := Parse([]byte(raw)); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"id":"` + id + `","path":"/a","boot":"x","expires":1,"files":[{"name":"","mode":16877},{"name":"Yg==","mode":33188,"size":3,"copied":true,"xattrs":[{"name":"user.x","value":"eA=="}]}],"passed":[{"name":"bA==","inode":3}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Parse(raw)
		if err != nil {
			return
		}
		for i := range r.Files {
			if joined := filepath.Join(r.Path, string(r.Files[i].Name)); joined != r.Path && !strings.HasPrefix(joined, r.Path+"/") {
				t.Fatalf("%q leads out of %q", r.Files[i].Name, r.Path)
			}
		}
	})
}
