package journal

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
	"golang.org/x/sys/unix"
)

// childEnv makes this binary the journal of TestKilled, in the folder that it names.
const childEnv = "JOURNAL_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(appendForEver(dir))
	}
	os.Exit(m.Run())
}

// appendForEver says after each flush how many events are on the disk.
func appendForEver(dir string) int {
	j, err := Open(dir, Options{Budget: 64 << 20})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	ctx := context.Background()
	go func() { _ = j.Run(ctx) }()
	for i := 0; ; i++ {
		j.Append(life(i))
		if i%97 == 96 {
			if err := j.Flush(ctx); err != nil {
				return 1
			}
			fmt.Println(i + 1)
		}
	}
}

// TestKilled: what was flushed when the process was killed is there, whole and in its order, whatever it was doing.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if said, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatal(lines.Text())
		}
		if said >= 97*40 {
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // what it still said
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			said = n
		}
	}
	_ = cmd.Wait()
	j, _ := open(t, dir, Options{Budget: 64 << 20})
	n := 0
	if err := j.Read(t.Context(), Query{}, func(e *event.Event) error {
		if want := life(n); *e != *want {
			t.Fatalf("event %d is\n%+v\nnot\n%+v", n, e, want)
		}
		n++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n < said || said == 0 {
		t.Errorf("%d events after the kill, and %d were said to be written", n, said)
	}
}

// TestFullDisk: what a full disk takes is counted; when there is room again the journal goes on. Where it is the journal
// that fills the disk, its oldest goes.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small file system takes root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("no file system can be mounted: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	ballast := filepath.Join(dir, "ballast")
	_ = os.WriteFile(ballast, make([]byte, 8<<20), 0o600) // as much of it as fits
	j, stop := open(t, filepath.Join(dir, "journal"), Options{Budget: 64 << 20})
	defer stop()
	appendAll(t, j, 3*maxEvents, life)
	s := j.Stats()
	if s.Events != 0 || s.Dropped["process"] != 3*maxEvents || s.Failures == 0 {
		t.Errorf("on a full disk: %+v", s)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	appendAll(t, j, 2*maxEvents, life)
	if got := read(t, j, Query{}); len(got) != 2*maxEvents {
		t.Errorf("%d events after there was room again", len(got))
	}
	n := 0
	for ; j.Stats().Evicted == 0 && n < 200*maxEvents; n += maxEvents {
		appendAll(t, j, maxEvents, func(i int) *event.Event {
			e := life(n + i)
			e.Process.CWD = fmt.Sprintf("/%x/%x", uint64(n+i)*0x9e3779b97f4a7c15, uint64(n+i)*0xbf58476d1ce4e5b9)
			return e
		})
	}
	after := j.Stats()
	if after.Evicted == 0 || after.Events+after.Evicted+after.Dropped["process"]-s.Dropped["process"] != uint64(2*maxEvents+n) {
		t.Errorf("%d appended: %+v", n, after)
	}
}

// TestReserve: the journal leaves to others what it was told to, though its budget is larger.
func TestReserve(t *testing.T) {
	j, err := Open(t.TempDir(), Options{Reserve: 1 << 60})
	if err != nil {
		t.Fatal(err)
	}
	b := newBuilder()
	b.add(life(0))
	j.write(b)
	if s := j.Stats(); s.Dropped["process"] != 1 || s.Events != 0 {
		t.Errorf("%+v", s)
	}
}

// TestStrangeFiles: what is not the journal's is left alone, and does not keep it from opening.
func TestStrangeFiles(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"README": "x", "zz.events": "x", "0000000000000007.events": strings.Repeat("x", 500), "0000000000000008.events": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j, stop := open(t, dir, Options{})
	j.Append(life(0))
	if got := read(t, j, Query{}); len(got) != 1 {
		t.Errorf("%d events", len(got))
	}
	stop()
	for _, name := range []string{"README", "zz.events"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// FuzzBlock reads what a disk, or who has it, could have made of a block: it may refuse, and must not do more.
func FuzzBlock(f *testing.F) {
	b := newBuilder()
	for i := range 4 {
		b.add(connection(i))
	}
	f.Add(b.dictionary(nil), b.table(nil), uint32(4))
	f.Add([]byte{1, 0}, []byte{1}, uint32(1))
	f.Fuzz(func(t *testing.T, dict, table []byte, events uint32) {
		if len(dict) > dictLimit || len(table) > colsLimit {
			return
		}
		u := &unpacker{}
		if u.readDictionary(dict) != nil || u.readTable(table) != nil {
			return
		}
		n := uint32(0)
		_ = u.each(events%(maxEvents+1), func(*event.Event) error { n++; return nil })
		if n > maxEvents {
			t.Fatalf("%d events", n)
		}
	})
}

// FuzzFile reads a segment of any bytes, with right checksums: what is in them may lie.
func FuzzFile(f *testing.F) {
	var p packer
	b := newBuilder()
	for i := range 4 {
		b.add(connection(i))
	}
	block, err := p.pack(b)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(block)
	f.Add(block[:headerLen])
	f.Fuzz(func(t *testing.T, raw []byte) {
		if h, err := parseHeader(raw); err == nil && int(h.length) <= len(raw) {
			binary.LittleEndian.PutUint32(raw[4:], crc32.Checksum(raw[8:h.length], castagnoli))
		}
		dir := t.TempDir()
		if err := os.WriteFile(newSegment(dir, 1).path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		u, err := newUnpacker()
		if err != nil {
			t.Fatal(err)
		}
		defer u.close()
		r := &reading{journal: j, q: &Query{Until: 1<<63 - 1, Since: -1 << 63}, plan: compile(nil), u: u, yield: func(*event.Event) error { return nil }}
		for _, s := range j.segments {
			if err := r.segment(context.Background(), s); err != nil {
				t.Fatal(err)
			}
		}
	})
}
