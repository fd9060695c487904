package bpf

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/omega-mesh/omega/swarm/event"
)

// readerEnv makes this binary the unprivileged reader of TestReaderNeedsNoPrivilege.
const readerEnv = "BPF_TEST_READER"

func readAsChild() int {
	s, err := OpenRing(RingFile{File: os.NewFile(3, "ring"), Bytes: 4 << 20})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin) // until the parent lets go
		cancel()
	}()
	_, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	fmt.Println("uid", os.Geteuid(), "bpf refused", err != nil)
	if err := s.Run(ctx, func(e *event.Event) {
		if e.Activity == event.ActivityExec {
			fmt.Println("exec", e.Process.Exe)
		}
	}); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// The one who parses what the kernel wrote about attackers holds no privilege: the ring's descriptor is all it is given.
func TestReaderNeedsNoPrivilege(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{})
	ring, err := k.Ring()
	if err != nil {
		t.Fatal(err)
	}
	defer ring.File.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{readerEnv + "=1"}
	cmd.ExtraFiles = []*os.File{ring.File}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "uid 65534 bpf refused true" {
		t.Fatalf("the reader says %q", lines.Text())
	}
	if out, err := a.run(t.Context(), "/bin/true"); err != nil {
		t.Fatal(err, out)
	}
	seen := false
	for !seen && lines.Scan() {
		seen = strings.HasPrefix(lines.Text(), "exec ") && strings.HasSuffix(lines.Text(), "/true")
	}
	if !seen {
		t.Error("the reader never saw the exec")
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

const fuzzRing = 4096

// memoryRing is a sensor over plain memory, laid out as the kernel lays out a ring, data mapped twice over included.
func memoryRing(data []byte) *RingSensor {
	page := func(n int) []byte {
		words := make([]uint64, n/8)
		return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n)
	}
	s := &RingSensor{consumer: page(8), producer: page(8), data: page(2 * fuzzRing), mask: fuzzRing - 1,
		tree: newProcessTree(64), listeners: map[uint16]event.ProcessKey{}}
	n := copy(s.data[:fuzzRing], data)
	copy(s.data[fuzzRing:], s.data[:fuzzRing])
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&s.producer[0])), uint64(n&^7))
	return s
}

func framed(record []byte) []byte {
	b := make([]byte, ringHeader, (ringHeader+len(record)+7)&^7)
	b[0], b[1] = byte(len(record)), byte(len(record)>>8)
	b = append(b, record...)
	return b[:cap(b)]
}

// A ring of any bytes is read to its end, and never past it.
func FuzzDrain(f *testing.F) {
	one := framed(execRecord("/bin/ls", "ls\x00-la\x00", "/tmp"))
	f.Add(one)
	f.Add(append(bytes.Clone(one), one...))
	f.Add([]byte("\xff\xff\xff\x3f\x00\x00\x00\x00 a length past the end"))
	f.Add([]byte("\x40\x00\x00\x00\x00\x00\x00\x00 longer than what is there"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := memoryRing(b)
		var e event.Event
		s.drain(&e, func(e *event.Event) { _ = e.Clone() })
		s.rest()
		consumed := atomic.LoadUint64((*uint64)(unsafe.Pointer(&s.consumer[0])))
		produced := atomic.LoadUint64((*uint64)(unsafe.Pointer(&s.producer[0])))
		if consumed > produced {
			t.Errorf("read to %d of %d", consumed, produced)
		}
	})
}

func TestReadingAllocatesNothing(t *testing.T) {
	record := framed(execRecord("/usr/bin/curl", "curl\x00-sS\x00http://192.0.2.1/x\x00", "/root"))
	s := memoryRing(bytes.Repeat(record, fuzzRing/len(record)))
	var e event.Event
	n := 0
	out := func(e *event.Event) { n++ }
	if got := testing.AllocsPerRun(100, func() {
		atomic.StoreUint64((*uint64)(unsafe.Pointer(&s.consumer[0])), 0)
		s.drain(&e, out)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
	if n == 0 || s.Drops()["garbled"] != 0 {
		t.Errorf("%d events, %v", n, s.Drops())
	}
}

func TestFullTreeForgetsTheLongestUnheardOf(t *testing.T) {
	tree := newProcessTree(3)
	run := func(pid, parent uint32) *event.Event {
		e := &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Process: event.Process{
			Key: event.ProcessKey{PID: pid, Start: uint64(pid) * 1e9}, Parent: event.ProcessKey{PID: parent, Start: uint64(parent) * 1e9}, Exe: fmt.Sprintf("/bin/%d", pid)}}
		tree.Observe(e)
		return e
	}
	run(1, 0)
	run(2, 1)
	run(3, 1)
	if e := run(4, 1); e.Process.ParentExe != "/bin/1" {
		t.Errorf("a parent heard of all along was forgotten: %q", e.Process.ParentExe)
	}
	if _, ok := tree.Lookup(2); ok || tree.Len() != 3 || tree.Lost() != 1 {
		t.Errorf("%d processes, %d lost", tree.Len(), tree.Lost())
	}
	for pid := uint32(10); pid < 1000; pid++ { // exits that were never seen
		run(pid, pid-1)
	}
	if tree.Len() != 3 || int(tree.made) != 4 {
		t.Errorf("%d processes in %d nodes", tree.Len(), int(tree.made))
	}
}

func TestRecordingIsGivenAgain(t *testing.T) {
	var file bytes.Buffer
	var e event.Event
	if err := decode(execRecord("/bin/ls\xff\xfe", "ls\x00\xc3(\x00-la\x00", "/tmp/\x1b[2J"), 5, &e); err != nil {
		t.Fatal(err)
	}
	if err := WriteEvent(&file, &e); err != nil {
		t.Fatal(err)
	}
	file.WriteString("\nnot json\n{}\n" + strings.Repeat("x", 3*MaxRecordingLine) + "\n")
	if err := WriteEvent(&file, &e); err != nil {
		t.Fatal(err)
	}
	file.WriteString(`{"Class":1007,"Activity":2,"Process":{"Key":{"PID":7},"Exe":"/bin/old"}}`) // of the older form, and no end of line
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(file.Bytes()); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	e.Sensor = "recording"
	for name, in := range map[string]io.Reader{"plain": &file, "gzip": &packed} {
		s := NewRecording(in, false)
		var seen []*event.Event
		if err := s.Run(t.Context(), func(e *event.Event) { seen = append(seen, e.Clone()) }); err != nil {
			t.Fatal(err)
		}
		if len(seen) != 3 || *seen[0] != e || *seen[1] != e || seen[2].Process.Exe != "/bin/old" {
			t.Errorf("%s: %d events: %+v", name, len(seen), seen)
		}
		if d := s.Drops(); d["malformed"] != 2 || d["too_long"] != 1 || s.Given() != 3 {
			t.Errorf("%s: %v", name, d)
		}
	}
	for _, in := range []string{"", "\x1f", "\n\n"} {
		if err := NewRecording(strings.NewReader(in), false).Run(t.Context(), func(*event.Event) { t.Error("an event") }); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// TestRecordingInStep: between events there is the time that there was, no more than a minute of it, and none backwards.
func TestRecordingInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var file bytes.Buffer
		at := []time.Duration{time.Hour, time.Hour + 3*time.Second, time.Hour + 2*time.Second, 200 * time.Hour}
		for _, d := range at {
			if err := WriteEvent(&file, &event.Event{Class: event.ClassProcess, Activity: event.ActivityExit, Time: int64(d)}); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		var when []time.Duration
		if err := NewRecording(&file, true).Run(t.Context(), func(*event.Event) { when = append(when, time.Since(began)) }); err != nil {
			t.Fatal(err)
		}
		if want := []time.Duration{0, 3 * time.Second, 3 * time.Second, 63 * time.Second}; !slices.Equal(when, want) {
			t.Errorf("given at %v, want %v", when, want)
		}
	})
}

func FuzzRecording(f *testing.F) {
	f.Add([]byte(`{"Class":1007,"Activity":2,"Process":{"Exe":"/bin/ls","Args":"ls\u0000-la"}}` + "\n"))
	f.Add([]byte("{\n"))
	f.Add([]byte("\x1f\x8b\b\x00\x00"))
	f.Add([]byte(`{"class_uid":1007,"activity_id":1,"time":1,"process":{"pid":7,"cmd_line":"id"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := NewRecording(bytes.NewReader(b), false).Run(t.Context(), func(e *event.Event) {
			if err := WriteEvent(io.Discard, e); err != nil && len(b) < MaxRecordingLine/8 {
				t.Error(err)
			}
		}); err != nil && !bytes.HasPrefix(b, []byte("\x1f\x8b")) {
			t.Error(err)
		}
	})
}

// The kernel wakes a reader that has read all before a record. Ours is one record behind for as long as it looks by itself, and goes to
// sleep only if no record was completed before the kernel could know.
func TestRestsOnlyWhenTheNextRecordWakesIt(t *testing.T) {
	one := framed(execRecord("/bin/ls", "ls\x00-la\x00", "/tmp"))
	size := uint64(len(one))
	s := memoryRing(bytes.Repeat(one, 3))
	consumed, produced := (*uint64)(unsafe.Pointer(&s.consumer[0])), (*uint64)(unsafe.Pointer(&s.producer[0]))
	var e event.Event
	read := func(want int, position uint64) {
		t.Helper()
		if n := s.drain(&e, func(*event.Event) {}); n != want {
			t.Errorf("%d records read, %d are there", n, want)
		}
		if got := atomic.LoadUint64(consumed); got != position {
			t.Errorf("the kernel is told %d, want %d", got, position)
		}
	}
	atomic.StoreUint64(produced, 2*size)
	read(2, size) // the second is kept
	read(0, size)
	atomic.StoreUint64(produced, 3*size)
	if s.rest() {
		t.Error("it sleeps, and a record that is complete wakes nobody")
	}
	read(1, 2*size)
	if !s.rest() || atomic.LoadUint64(consumed) != 3*size {
		t.Errorf("all was read, and the kernel is told %d of %d", atomic.LoadUint64(consumed), 3*size)
	}
	s = memoryRing(one)
	s.data[3] |= ringBusy >> 24 // still being written: that it is done will wake the reader
	if n := s.drain(&e, func(*event.Event) { t.Error("a record that is not complete was read") }); n != 0 || !s.rest() {
		t.Errorf("%d records read; a record that is being written keeps the reader awake", n)
	}
}
