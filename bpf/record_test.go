package bpf

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"go.uber.org/goleak"

	"github.com/omega-mesh/omega/swarm/event"
)

func TestMain(m *testing.M) {
	if os.Getenv(readerEnv) != "" { // before any test: this process is the child of one
		os.Exit(readAsChild())
	}
	if args := os.Getenv(killedEnv); args != "" {
		os.Exit(blockAndWait(args))
	}
	if dir := os.Getenv(actEnv); dir != "" {
		os.Exit(actOnFiles(dir))
	}
	goleak.VerifyTestMain(m)
}

// The Go structs are cast over bytes the kernel wrote: each field must lie where the C compiler put it.
func TestRecordLayoutIsTheObjects(t *testing.T) {
	spec, err := loadDeny()
	if err != nil {
		t.Fatal(err)
	}
	process, err := loadProcess()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		types *btf.Spec
		name  string
		size  uintptr
		last  string
		at    uintptr
	}{
		{spec.Types, "record_flow", uintptr(flowSize), "network", uintptr(forkSize)},
		{process.Types, "record_header", unsafe.Sizeof(recordHeader{}), "boot", unsafe.Offsetof(recordHeader{}.Boot)},
		{process.Types, "record_process", unsafe.Sizeof(recordProcess{}), "comm", unsafe.Offsetof(recordProcess{}.Comm)},
		{process.Types, "record_process", unsafe.Sizeof(recordProcess{}), "pid", unsafe.Offsetof(recordProcess{}.PID)},
		{spec.Types, "record_network", unsafe.Sizeof(recordNetwork{}), "repeats", unsafe.Offsetof(recordNetwork{}.Repeats)},
		{spec.Types, "until", unsafe.Sizeof(untilValue{}), "id", unsafe.Offsetof(untilValue{}.ID)},
		{process.Types, "record_exec", uintptr(execSize) + 512 + 1024 + 512 + 256, "data", uintptr(execSize)},
	} {
		var s *btf.Struct
		if err := c.types.TypeByName(c.name, &s); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if uintptr(s.Size) != c.size {
			t.Errorf("%s is %d bytes, want %d", c.name, s.Size, c.size)
		}
		found := false
		for _, m := range s.Members {
			if m.Name == c.last {
				found = true
				if uintptr(m.Offset.Bytes()) != c.at {
					t.Errorf("%s.%s lies at %d, want %d", c.name, c.last, m.Offset.Bytes(), c.at)
				}
			}
		}
		if !found {
			t.Errorf("%s has no %s", c.name, c.last)
		}
	}
}

// aligned copies b to an 8-byte boundary, where the ring's records always are.
func aligned(b []byte) []byte {
	words := make([]uint64, len(b)/8+1)
	out := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)[:len(b)]
	copy(out, b)
	return out
}

func execRecord(exe, args, cwd string) []byte {
	b := make([]byte, execSize, execSize+len(exe)+len(args)+len(cwd))
	binary.NativeEndian.PutUint16(b, recordExec)
	binary.NativeEndian.PutUint16(b[forkSize:], uint16(len(exe)))
	binary.NativeEndian.PutUint16(b[forkSize+2:], uint16(len(args)))
	binary.NativeEndian.PutUint16(b[forkSize+4:], uint16(len(cwd)))
	b = append(append(append(b, exe...), args...), cwd...)
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	return aligned(b)
}

func TestDecodeExec(t *testing.T) {
	var e event.Event
	if err := decode(execRecord("/bin/ls", "ls\x00-la\x00", "/tmp"), 0, &e); err != nil {
		t.Fatal(err)
	}
	if e.Process.Exe != "/bin/ls" || e.Process.CWD != "/tmp" || len(e.Process.Argv()) != 2 {
		t.Errorf("%+v", e.Process)
	}
	short := execRecord("/bin/ls", "ls", "/")
	binary.NativeEndian.PutUint16(short[forkSize:], 60000)
	if err := decode(short, 0, &e); err == nil {
		t.Error("a string longer than its record was believed")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(execRecord("/bin/ls", "ls\x00-la\x00", "/tmp")))
	flow := make([]byte, flowSize)
	binary.NativeEndian.PutUint16(flow, recordRefuse)
	binary.NativeEndian.PutUint16(flow[2:], uint16(flowSize))
	f.Add(flow)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e event.Event
		if err := decode(aligned(b), 0, &e); err != nil {
			return
		}
		c := e.Clone() // touches every string
		if len(c.Process.Exe)+len(c.Process.Args)+len(c.Process.CWD)+len(c.Process.Script) > len(b) {
			t.Errorf("%d bytes gave longer strings", len(b))
		}
	})
}

func TestProcessTreeTellsReusedPids(t *testing.T) {
	tree := NewProcessTree()
	tree.Observe(&event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Process: event.Process{Key: event.ProcessKey{PID: 10, Start: 1e9}, Exe: "/bin/sh"}})
	child := event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Process: event.Process{Key: event.ProcessKey{PID: 11, Start: 2e9}, Parent: event.ProcessKey{PID: 10, Start: 1e9}, Exe: "/bin/ls"}}
	tree.Observe(&child)
	if child.Process.ParentExe != "/bin/sh" {
		t.Errorf("parent is %q", child.Process.ParentExe)
	}
	stranger := event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Process: event.Process{Key: event.ProcessKey{PID: 12, Start: 9e9}, Parent: event.ProcessKey{PID: 10, Start: 8e9}, Exe: "/bin/ls"}}
	tree.Observe(&stranger)
	if stranger.Process.ParentExe != "" {
		t.Errorf("a reused pid lent its name: %q", stranger.Process.ParentExe)
	}
	tree.Observe(&event.Event{Class: event.ClassProcess, Activity: event.ActivityExit, Process: event.Process{Key: event.ProcessKey{PID: 10, Start: 1e9}}})
	if _, ok := tree.Lookup(10); ok {
		t.Error("it exited and is still there")
	}
}

func TestReadsThisProcess(t *testing.T) {
	p, err := ReadProcess(uint32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	self, _ := os.Executable()
	if filepath.Base(p.Exe) != filepath.Base(self) || p.Key.Start == 0 || p.UID != uint32(os.Geteuid()) {
		t.Errorf("%+v", p)
	}
}

func BenchmarkDecode(b *testing.B) {
	record := execRecord("/usr/bin/curl", "curl\x00-sS\x00http://192.0.2.1/x\x00", "/root")
	b.ReportAllocs()
	b.SetBytes(int64(len(record)))
	var e event.Event
	for b.Loop() {
		if err := decode(record, 0, &e); err != nil {
			b.Fatal(err)
		}
	}
}
