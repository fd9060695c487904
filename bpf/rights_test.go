package bpf

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// actions builds the program that does what is watched.
func actions(t *testing.T) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc here to build what is to be seen")
	}
	tool := filepath.Join(t.TempDir(), "actions")
	if out, err := exec.Command(gcc, "-O1", "-o", tool, "testdata/actions.c").CombinedOutput(); err != nil {
		t.Skip("no C library here to build what is to be seen: ", string(out))
	}
	return tool
}

// Each watched action is done with the real system call, and the event says what it was, who did it and how it ended.
func TestRightsAreSeen(t *testing.T) {
	a, _ := twoHosts(t)
	tool := actions(t)
	k := a.load(Options{without: []string{}})
	find := a.watch(k)
	if err := k.SetProtected([]uint32{uint32(os.Getpid())}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "by-ring")
	cases := []struct {
		do, arg  string
		activity event.Activity
		is       func(*event.Event) bool
	}{
		{"setuid", "", event.ActivitySetUID, func(e *event.Event) bool {
			return e.Access.Operation == "setuid" && e.Access.NewUID == 12345 && e.Access.OldUID == 0 && e.Process.EUID == 0 && e.Process.Caps != 0 && e.Result == 0
		}},
		{"setuid-denied", "", event.ActivitySetUID, func(e *event.Event) bool {
			return e.Access.Number == 0 && e.Process.EUID == 12345 && e.Result == int32(unix.EPERM)
		}},
		{"setgid", "", event.ActivitySetGID, func(e *event.Event) bool { return e.Access.Number == 12345 && e.Process.GID == 0 }},
		{"capset", "", event.ActivityCapSet, func(e *event.Event) bool { return e.Result == 0 }},
		{"ptrace", "", event.ActivityPtrace, func(e *event.Event) bool {
			return e.Access.Operation == "PTRACE_ATTACH" && e.Access.Target.PID != 0 && e.Access.Target.Start != 0 && e.Access.TargetExe == tool
		}},
		{"ptrace", "", event.ActivityPtrace, func(e *event.Event) bool { return e.Access.Operation == "PTRACE_POKEDATA" && e.Access.Address != 0 }},
		{"process_vm_writev", "", event.ActivityProcessWrite, func(e *event.Event) bool {
			return e.Access.Length == 8 && e.Access.Address != 0 && e.Access.TargetExe == tool
		}},
		{"memfd_create", "", event.ActivityMemfdCreate, func(e *event.Event) bool { return e.Access.Operation == "hidden payload" }},
		{"mmap", "", event.ActivityMemoryExecutable, func(e *event.Event) bool { return e.Access.Operation == "mmap" && e.Access.Length == 8192 }},
		{"mprotect", "", event.ActivityMemoryExecutable, func(e *event.Event) bool { return e.Access.Operation == "mprotect" && e.Count == 49 }},
		{"unshare", "", event.ActivityUnshare, func(e *event.Event) bool { return e.Access.Number == unix.CLONE_NEWUTS }},
		{"setns", "", event.ActivitySetNS, func(e *event.Event) bool { return e.Access.Number == unix.CLONE_NEWUTS }},
		{"keyctl", "", event.ActivityKeyctl, func(e *event.Event) bool { return e.Access.Operation == "KEYCTL_GET_KEYRING_ID" }},
		{"add_key", "", event.ActivityKeyctl, func(e *event.Event) bool { return e.Access.Operation == "the secret" }},
		{"bpf", "", event.ActivityBPF, func(e *event.Event) bool {
			return e.Access.Operation == "BPF_PROG_LOAD" && e.Access.Number == 1 && e.File.Path == "listener"
		}},
		{"signal", fmt.Sprint(os.Getpid()), event.ActivitySignal, func(e *event.Event) bool {
			return e.Access.Operation == "SIGCONT" && e.Access.Target.PID == uint32(os.Getpid())
		}},
		{"uring-open", file, event.ActivityIOUring, func(e *event.Event) bool {
			return e.Access.Operation == "IORING_OP_OPENAT" && e.File.Path == file
		}},
		{"uring-rename", file, event.ActivityIOUring, func(e *event.Event) bool {
			return e.Access.Operation == "IORING_OP_RENAMEAT" && e.File.Path == file
		}},
		{"uring-unlink", file + ".new", event.ActivityIOUring, func(e *event.Event) bool {
			return e.Access.Operation == "IORING_OP_UNLINKAT" && e.File.Path == file+".new"
		}},
		{"uring-connect", "", event.ActivityIOUring, func(e *event.Event) bool {
			return e.Access.Operation == "IORING_OP_CONNECT" && e.Network.Remote.String() == "127.0.0.1:4321"
		}},
	}
	for _, c := range cases {
		out, err := a.run(t.Context(), "/bin/sh", "-c", tool+" "+c.do+" "+c.arg+"; exit $?")
		if code, ok := err.(*exec.ExitError); ok && code.ExitCode() == 77 {
			t.Logf("%-20s not allowed on this kernel", c.do)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v %s", c.do, err, out)
			continue
		}
		e := find(c.do, func(e *event.Event) bool { return e.Activity == c.activity && e.Process.Exe == tool && c.is(e) })
		if filepath.Base(e.Process.ParentExe) == "actions" || e.Process.ParentExe == "" || e.Process.CgroupID == 0 || e.Process.Session == 0 {
			t.Errorf("%s: whose was it? %+v", c.do, e.Process)
		}
		t.Logf("%-20s %s/%s %s by %s of %s", c.do, e.Class, e.Activity, e.Access.Operation, filepath.Base(e.Process.Exe), filepath.Base(e.Process.ParentExe))
	}
}

// Rights that were given are no gain: dropped and taken back, in a namespace of one's own, by a set-id program.
func TestGivenRightsAreNoGain(t *testing.T) {
	a, _ := twoHosts(t)
	tool := actions(t)
	find := a.watch(a.load(Options{without: []string{"sensor/file"}}))
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	setid := filepath.Join(dir, "setid")
	if out, err := exec.Command("cp", "/bin/true", setid).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	if err := os.Chmod(setid, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	script := tool + " setresuid-back; " + tool + " capset; " + tool + " unshare-user; setpriv --reuid 12345 --regid 12345 --clear-groups " + setid + "; /bin/true last"
	if out, err := a.run(t.Context(), "/bin/sh", "-c", script); err != nil {
		t.Fatal(err, out)
	}
	gained := false
	find("the end", func(e *event.Event) bool {
		if e.Activity == event.ActivityPrivilegeGain {
			gained = true
			t.Logf("%s %+v", e.Process.Exe, e.Access)
		}
		return e.Process.Args == "/bin/true\x00last"
	})
	if gained {
		t.Error("rights that were given are told as a gain")
	}
}

func lifeRecord(kind uint16, pid, parent uint32, euid uint32, caps uint64) []byte {
	b := make([]byte, forkSize)
	if kind == recordExec {
		b = make([]byte, execSize)
	}
	b = aligned(b)
	h := (*recordHeader)(unsafe.Pointer(&b[0]))
	h.Kind, h.Size = kind, uint16(len(b))
	p := (*recordProcess)(unsafe.Pointer(&b[headerSize]))
	p.PID, p.Start, p.ParentPID, p.ParentStart = pid, uint64(pid)*1e9, parent, uint64(parent)*1e9
	p.UID, p.EUID, p.Caps = 1000, euid, caps
	return b
}

// What no call of its own gave a process shows with the next thing it does.
func TestTakenRightsAreAGain(t *testing.T) {
	s := memoryRing(nil)
	var gains []event.Event
	read := func(b []byte) {
		var e event.Event
		if err := decode(b, 0, &e); err != nil {
			t.Fatal(err)
		}
		s.hand(b, &e, func(e *event.Event) {
			if e.Activity == event.ActivityPrivilegeGain {
				gains = append(gains, *e)
			}
		})
	}
	read(lifeRecord(recordExec, 10, 1, 1000, 0))
	read(lifeRecord(recordFork, 11, 10, 1000, 0))
	if len(gains) != 0 {
		t.Fatalf("%+v", gains)
	}
	read(lifeRecord(recordExec, 11, 10, 0, 1<<21)) // root, and no set-id program
	if len(gains) != 1 || gains[0].Access.OldUID != 1000 || gains[0].Access.NewUID != 0 || gains[0].Access.Gained != 1<<21 || gains[0].Process.Key.PID != 11 {
		t.Fatalf("%+v", gains)
	}
	read(lifeRecord(recordExec, 11, 10, 0, 1<<21))
	if len(gains) != 1 {
		t.Errorf("told again: %+v", gains)
	}
	read(lifeRecord(recordFork, 12, 10, 1000, 1<<12)) // the parent was given it unseen, and its child has it
	if len(gains) != 2 || gains[1].Access.Gained != 1<<12 || gains[1].Access.NewUID != 1000 {
		t.Errorf("%+v", gains)
	}
	setid := lifeRecord(recordExec, 13, 10, 1000, 0)
	read(setid)
	setid = lifeRecord(recordExec, 13, 10, 0, 1<<21)
	(*recordHeader)(unsafe.Pointer(&setid[0])).Flags = uint32(event.FlagSetID)
	read(setid)
	if len(gains) != 2 {
		t.Errorf("a set-id program gave it: %+v", gains[2:])
	}
}

func accessRecord(kind, operation uint16, name string) []byte {
	b := append(make([]byte, accessSize), name...)
	binary.NativeEndian.PutUint16(b, kind)
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	b = aligned(b)
	r := (*recordAccess)(unsafe.Pointer(&b[forkSize]))
	r.Operation, r.NameLen = operation, uint16(len(name))
	return b
}

func TestAccessLayoutIsTheObjects(t *testing.T) {
	spec, err := loadRights()
	if err != nil {
		t.Fatal(err)
	}
	var s *btf.Struct
	if err := spec.Types.TypeByName("record_access", &s); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Members {
		want, checked := map[string]uintptr{"target_start": 0, "held": unsafe.Offsetof(recordAccess{}.Held), "target_pid": unsafe.Offsetof(recordAccess{}.TargetPID),
			"operation": unsafe.Offsetof(recordAccess{}.Operation), "name_len": unsafe.Offsetof(recordAccess{}.NameLen), "name": unsafe.Sizeof(recordAccess{})}[m.Name]
		if checked && uintptr(m.Offset.Bytes()) != uintptr(forkSize)+want {
			t.Errorf("%s lies at %d, want %d", m.Name, m.Offset.Bytes(), uintptr(forkSize)+want)
		}
	}
	var e *btf.Enum
	if err := spec.Types.TypeByName("operation", &e); err != nil {
		t.Fatal(err)
	}
	if got := e.Values[len(e.Values)-1].Value; got != operations {
		t.Errorf("the kernel half knows %d operations, the reader %d", got, operations)
	}
}

func FuzzDecodeAccess(f *testing.F) {
	f.Add(accessRecord(recordMemory, opMemfdCreate, "payload"))
	f.Add(accessRecord(recordUring, opUring, "/etc/passwd"))
	f.Add(accessRecord(recordKernel, opBPF, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = aligned(b)
		var e event.Event
		if err := decode(b, 0, &e); err != nil {
			return
		}
		if c := e.Clone(); c.Class == 0 || len(c.Access.Operation)+len(c.File.Path) > len(b)+64 {
			t.Errorf("%+v", c)
		}
	})
}
