package bpf

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// actEnv makes this binary the one who changes files in TestFileEvents, in the folder it names.
const actEnv = "FILE_ACTIONS_IN"

// fileAction is one real system call and the event it must make. Names are below the test's folder.
type fileAction struct {
	name        string
	do          func(dir string) error
	activity    event.Activity
	path, other string // below the folder; other as it is when it begins with '='
	result      unix.Errno
	check       func(*event.Event) bool
}

func write(name string, flags int) error {
	fd, err := unix.Open(name, flags, 0o640)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("x"))
	return err
}

// inDirectory runs f with a descriptor of dir.
func inDirectory(dir string, f func(fd int) error) error {
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

func inFile(name string, f func(fd int) error) error {
	fd, err := unix.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// fileActions are done in this order; the working directory is DIR/here.
var fileActions = []fileAction{
	{name: "create", do: func(d string) error { return write(d+"/new", unix.O_CREAT|unix.O_WRONLY) }, activity: event.ActivityFileCreate, path: "/new",
		check: func(e *event.Event) bool {
			return e.File.Inode != 0 && e.File.Mode&0o777 == 0o640 && e.File.Flags&unix.O_CREAT != 0
		}},
	{name: "write", do: func(d string) error { return write(d+"/new", unix.O_WRONLY|unix.O_APPEND) }, activity: event.ActivityFileWrite, path: "/new",
		check: func(e *event.Event) bool { return e.File.Inode != 0 }},
	{name: "write-relative", do: func(string) error { return write("../rel", unix.O_CREAT|unix.O_RDWR) }, activity: event.ActivityFileCreate, path: "/rel"},
	{name: "write-link", do: func(d string) error { return write(d+"/here/link/through", unix.O_CREAT|unix.O_WRONLY) }, activity: event.ActivityFileCreate, path: "/deep/through"},
	{name: "write-newline", do: func(d string) error { return write(d+"/a\nb\x1b[31m\xff", unix.O_CREAT|unix.O_WRONLY) }, activity: event.ActivityFileCreate, path: "/a\nb\x1b[31m\xff"},
	{name: "openat2", do: func(d string) error {
		return inDirectory(d, func(fd int) error {
			n, err := unix.Openat2(fd, "two", &unix.OpenHow{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0o600})
			if err == nil {
				unix.Close(n)
			}
			return err
		})
	}, activity: event.ActivityFileCreate, path: "/two"},
	{name: "mkdir", do: func(string) error { return unix.Mkdir("made", 0o700) }, activity: event.ActivityFileCreate, path: "/here/made",
		check: func(e *event.Event) bool { return e.File.Mode&0o777 == 0o700 }},
	{name: "mknod", do: func(d string) error { return unix.Mknod(d+"/pipe", unix.S_IFIFO|0o600, 0) }, activity: event.ActivityFileCreate, path: "/pipe"},
	{name: "rename", do: func(d string) error { return unix.Rename(d+"/new", d+"/./deep/../renamed") }, activity: event.ActivityFileRename, path: "/renamed", other: "/new"},
	{name: "rename-over", do: func(d string) error { return unix.Rename("../two", d+"/renamed") }, activity: event.ActivityFileRename, path: "/renamed", other: "/here/../two"},
	{name: "renameat", do: func(d string) error {
		return inDirectory(d+"/deep", func(fd int) error { return unix.Renameat(fd, "through", fd, "moved") })
	}, activity: event.ActivityFileRename, path: "/deep/moved", other: "/deep/through"},
	{name: "link", do: func(d string) error { return unix.Link(d+"/renamed", d+"/hard") }, activity: event.ActivityFileLink, path: "/hard", other: "/renamed"},
	{name: "symlink", do: func(d string) error { return unix.Symlink("../etc/shadow", d+"/soft") }, activity: event.ActivityFileLink, path: "/soft", other: "=../etc/shadow"},
	{name: "chmod", do: func(d string) error { return unix.Chmod(d+"/hard", 0o4755) }, activity: event.ActivityFileChmod, path: "/hard",
		check: func(e *event.Event) bool { return e.File.Mode == 0o4755 }},
	{name: "fchmod", do: func(d string) error { return inFile(d+"/hard", func(fd int) error { return unix.Fchmod(fd, 0o600) }) }, activity: event.ActivityFileChmod, path: "/hard",
		check: func(e *event.Event) bool { return e.File.Mode == 0o600 && e.File.Inode != 0 }},
	{name: "chown", do: func(d string) error { return unix.Lchown(d+"/hard", 12, 13) }, activity: event.ActivityFileChown, path: "/hard",
		check: func(e *event.Event) bool { return e.File.UID == 12 && e.File.GID == 13 }},
	{name: "setxattr", do: func(d string) error { return unix.Setxattr(d+"/hard", "user.omega", []byte("1"), 0) }, activity: event.ActivityFileSetXattr, path: "/hard", other: "=user.omega"},
	{name: "removexattr", do: func(d string) error { return unix.Removexattr(d+"/hard", "user.omega") }, activity: event.ActivityFileSetXattr, path: "/hard", other: "=user.omega"},
	{name: "truncate", do: func(d string) error { return unix.Truncate(d+"/rel", 0) }, activity: event.ActivityFileWrite, path: "/rel"},
	{name: "unlink", do: func(d string) error { return unix.Unlink(d + "/hard") }, activity: event.ActivityFileUnlink, path: "/hard"},
	{name: "unlinkat", do: func(d string) error {
		return inDirectory(d, func(fd int) error { return unix.Unlinkat(fd, "soft", 0) })
	}, activity: event.ActivityFileUnlink, path: "/soft"},
	{name: "rmdir", do: func(string) error { return unix.Rmdir("made") }, activity: event.ActivityFileUnlink, path: "/here/made"},
	{name: "refused", do: func(d string) error {
		if err := write(d+"/locked", unix.O_CREAT|unix.O_WRONLY); err != nil {
			return err
		}
		if err := unix.Setfsuid(12345); err != nil {
			return err
		}
		err := write(d+"/locked", unix.O_WRONLY)
		if err2 := unix.Setfsuid(0); err2 != nil {
			return err2
		}
		if err != unix.EACCES {
			return fmt.Errorf("opened what is another's: %v", err)
		}
		return nil
	}, activity: event.ActivityFileWrite, path: "/locked", result: unix.EACCES},
	{name: "bind mount", do: func(d string) error {
		if err := unix.Mount(d+"/deep", d+"/bound", "", unix.MS_BIND, ""); err != nil {
			return err
		}
		return write(d+"/bound/below", unix.O_CREAT|unix.O_WRONLY)
	}, activity: event.ActivityFileCreate, path: "/bound/below"},
	{name: "mount", do: func(d string) error { return unix.Mount("none", d+"/here", "tmpfs", unix.MS_NOEXEC, "") }, activity: event.ActivityMount, path: "/here", other: "=none",
		check: func(e *event.Event) bool { return e.File.FS == "tmpfs" && e.File.Flags == unix.MS_NOEXEC }},
	{name: "umount", do: func(d string) error { return unix.Unmount(d+"/here", unix.MNT_DETACH) }, activity: event.ActivityUnmount, path: "/here"},
	{name: "long", do: func(d string) error { return unix.Unlink(longName(d)) }, activity: event.ActivityFileUnlink, path: "/rel"},
	{name: "chroot", do: func(d string) error {
		if err := unix.Chroot(d + "/deep"); err != nil {
			return err
		}
		return write("/jailed", unix.O_CREAT|unix.O_WRONLY)
	}, activity: event.ActivityFileCreate, path: "=/jailed"},
}

// longName is a way to DIR/rel that is almost as long as a path may be.
func longName(dir string) string {
	return dir + strings.Repeat("/.", (4000-len(dir))/2) + "/rel"
}

func actOnFiles(dir string) int {
	unix.Umask(0)
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		fmt.Println("unshare", err)
		return 1
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Println("private mounts", err)
		return 1
	}
	for _, a := range fileActions {
		if err := a.do(dir); err != nil {
			fmt.Println(a.name, err)
			return 1
		}
	}
	return 0
}

func TestFileEvents(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{without: []string{"sensor/rights"}})
	find := a.watch(k)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"here", "deep", "bound"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../deep", dir+"/here/link"); err != nil {
		t.Fatal(err)
	}
	if out, err := a.run(context.Background(), "/bin/sh", "-c", "cd "+dir+"/here && "+actEnv+"="+dir+" exec "+selfExe(t)); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, act := range fileActions {
		path, other := dir+act.path, act.other
		if strings.HasPrefix(act.path, "=") {
			path = act.path[1:]
		}
		switch {
		case strings.HasPrefix(other, "="):
			other = other[1:]
		case other != "":
			other = cleaned(dir + other)
		}
		e := find(act.name+" "+path, func(e *event.Event) bool {
			return e.Class == event.ClassFile && e.Activity == act.activity && e.File.Path == path && e.File.Other == other && e.Result == int32(act.result) && (act.check == nil || act.check(e))
		})
		if e.Process.Exe != selfExe(t) || e.Process.Key.Start == 0 || e.Process.CgroupID == 0 || e.Process.Flags&event.FlagPathTruncated != 0 {
			t.Errorf("%s: by whom? %+v", act.name, e.Process)
		}
		t.Logf("%-16s %-9s %.60q other=%q result=%d by %s", act.name, e.Activity, strings.TrimPrefix(e.File.Path, dir), strings.TrimPrefix(e.File.Other, dir), e.Result, filepath.Base(e.Process.Exe))
	}
}

func selfExe(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// What a process does to one file again and again is one event a second; of a watched path each is told.
func TestFileRepeatsAreGathered(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{without: []string{"sensor/rights"}})
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := k.WatchFiles([]string{dir + "/watched"}, []string{dir + "/left"}, []string{dir + "/own", dir + "/mine"}); err != nil {
		t.Fatal(err)
	}
	// What the agent itself does to its own files is not told: this test's process stands for the agent.
	if err := k.SetProtected([]uint32{uint32(os.Getpid())}); err != nil {
		t.Fatal(err)
	}
	find := a.watch(k)
	if err := a.within(func() error { return os.WriteFile(dir+"/mine", nil, 0o600) }); err != nil {
		t.Fatal(err)
	}
	const loop = `for n in 1 2 3 4 5 6 7 8 9 10; do echo $n >> plain; echo $n >> watched; echo $n >> watched.not; echo $n >> left; echo $n >> own; done; echo end > end`
	began := time.Now()
	if out, err := a.run(t.Context(), "/bin/sh", "-c", "cd "+dir+" && "+loop); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	took := time.Since(began)
	told := map[string]map[uint64]bool{} // by path and instant: find looks at all of them again with each that comes
	find("the end", func(e *event.Event) bool {
		if e.Class == event.ClassFile {
			name := strings.TrimPrefix(e.File.Path, dir+"/")
			if told[name] == nil {
				told[name] = map[uint64]bool{}
			}
			told[name][e.Boot] = true
			if watched := e.Process.Flags&event.FlagWatchedPath != 0; watched != (e.File.Path == dir+"/watched") {
				t.Errorf("%s: watched is %t", e.File.Path, watched)
			}
		}
		return e.File.Path == dir+"/end"
	})
	if len(told["watched"]) < 10 || len(told["own"]) < 10 || len(told["left"]) != 0 || len(told["mine"]) != 0 {
		t.Errorf("told %v", told)
	}
	// Its creation, and one a second: the loop may be slow where the machine is busy.
	if n := len(told["plain"]); n == 0 || n > 3+int(took.Seconds()) {
		t.Errorf("a file written over and over in %s was told %d times: %v", took, n, told)
	}
	if err := k.WatchFiles([]string{"relative"}, nil, nil); err == nil {
		t.Error("a relative path is watched")
	}
}

func TestFileRecordLayoutIsTheObjects(t *testing.T) {
	spec, err := loadFiles()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		size uintptr
		last string
		at   uintptr
	}{
		"record_file":  {uintptr(fileSize) + fileData, "data", uintptr(fileSize)},
		"call_shape":   {unsafe.Sizeof(callShape{}), "how", unsafe.Offsetof(callShape{}.How)},
		"watch_prefix": {unsafe.Sizeof(watchPrefix{}), "path", unsafe.Offsetof(watchPrefix{}.Path)},
	} {
		var s *btf.Struct
		if err := spec.Types.TypeByName(name, &s); err != nil {
			t.Error(err)
			continue
		}
		if uintptr(s.Size) != want.size {
			t.Errorf("%s is %d bytes, want %d", name, s.Size, want.size)
		}
		for _, m := range s.Members {
			if m.Name == want.last && uintptr(m.Offset.Bytes()) != want.at {
				t.Errorf("%s.%s lies at %d, want %d", name, want.last, m.Offset.Bytes(), want.at)
			}
		}
	}
}

// fileRecord is a record as the kernel would write it.
func fileRecord(kind uint16, path, other string) []byte {
	b := make([]byte, fileSize, fileSize+len(path)+len(other))
	b = append(append(b, path...), other...)
	binary.NativeEndian.PutUint16(b, kind)
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	f := (*recordFile)(unsafe.Pointer(&b[forkSize]))
	f.PathLen, f.OtherLen = uint16(len(path)), uint16(len(other))
	return aligned(b)
}

func TestDecodeFileAllocatesNothing(t *testing.T) {
	b := fileRecord(recordFileRename, "/etc/passwd", "/etc/passwd.new")
	var e event.Event
	if n := testing.AllocsPerRun(100, func() {
		if err := decode(b, 0, &e); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if e.Activity != event.ActivityFileRename || e.File.Path != "/etc/passwd" || e.File.Other != "/etc/passwd.new" {
		t.Errorf("%+v", e.File)
	}
	f := (*recordFile)(unsafe.Pointer(&b[forkSize]))
	f.OtherLen++
	if err := decode(b, 0, &e); err == nil {
		t.Error("names longer than the record are taken")
	}
}

func FuzzDecodeFile(f *testing.F) {
	f.Add(fileRecord(recordFileWrite, "/etc/passwd", ""))
	f.Add(fileRecord(recordFileRename, "/a//../b", "relative"))
	f.Add(fileRecord(recordFilePivot, "", "/"))
	f.Add(fileRecord(recordFileCreate, "/a\nb\x1b\xff", ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e event.Event
		if err := decode(aligned(b), 0, &e); err != nil || e.Class != event.ClassFile {
			return
		}
		if len(e.File.Path)+len(e.File.Other) > len(b) {
			t.Errorf("%d bytes of names from a record of %d", len(e.File.Path)+len(e.File.Other), len(b))
		}
	})
}
