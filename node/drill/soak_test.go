package drill

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/cilium/ebpf"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/testnet"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

// TestSoakBooks keeps a host of a testnet busy with programs, files and connections for as long as SOAK_FOR says (ten
// seconds without it), and holds its node to its books: of each kind, what was done is what the journal has and what is
// counted as lost; and neither the memory nor the descriptors of the node's processes, nor their threads, nor what its maps in the
// kernel hold, grow with it.
func TestSoakBooks(t *testing.T) {
	needRoot(t)
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc")
	}
	soak, err := time.ParseDuration(os.Getenv("SOAK_FOR"))
	if err != nil {
		soak = 10 * time.Second
	}
	n, err := testnet.Up(t.Context(), testnet.Options{Nodes: 2, Binary: omegaBinary(t), Progress: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	s := swarm{t, n}
	dir := t.TempDir()
	load := filepath.Join(dir, "load")
	if out, err := exec.Command(gcc, "-O1", "-o", load, "testdata/load.c").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const port = "4747"
	n2 := s.host("n2")
	server := exec.CommandContext(t.Context(), load, "serve", n2.Addr.String(), port)
	ready, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(n2, server); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	defer server.Process.Kill()
	if !bufio.NewScanner(ready).Scan() {
		t.Fatal("nobody takes connections")
	}
	files := filepath.Join(dir, "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		t.Fatal(err)
	}
	busy := func(d time.Duration) (rounds int) {
		t.Helper()
		var out, errOut bytes.Buffer
		cmd := exec.CommandContext(t.Context(), load, fmt.Sprint(d.Seconds()), "300", files, n2.Addr.String(), port)
		cmd.Stdout, cmd.Stderr = &out, &errOut
		if err := n.Start(s.host("n1"), cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, errOut.String())
		}
		rounds, err := strconv.Atoi(strings.TrimSpace(out.String()))
		if err != nil || rounds == 0 {
			t.Fatalf("%q", out.String())
		}
		return rounds
	}
	done := busy(min(soak/5, 2*time.Minute)) // what the first records need stays
	before := s.processes("n1")
	done += busy(soak)
	// Processes and connections that just ended leave the maps within a second or two.
	after := s.processes("n1")
	for range 50 {
		if after.entries <= before.entries+mapSlack {
			break
		}
		time.Sleep(100 * time.Millisecond)
		after = s.processes("n1")
	}

	kinds := []struct {
		name, class string // of what is lost
		is          func(*event.Event) bool
	}{
		{"exec", "exec", func(e *event.Event) bool {
			return e.Activity == event.ActivityExec && filepath.Base(e.Process.Exe) == "true"
		}},
		{"exit", "exit", func(e *event.Event) bool {
			return e.Activity == event.ActivityExit && filepath.Base(e.Process.Exe) == "true"
		}},
		{"create", "file_create", func(e *event.Event) bool {
			return e.Activity == event.ActivityFileCreate && filepath.Dir(e.File.Path) == files
		}},
		{"rename", "file_rename", func(e *event.Event) bool {
			return e.Activity == event.ActivityFileRename && filepath.Dir(e.File.Path) == files
		}},
		{"unlink", "file_unlink", func(e *event.Event) bool {
			return e.Activity == event.ActivityFileUnlink && filepath.Dir(e.File.Path) == files
		}},
		{"connect", "connect", func(e *event.Event) bool {
			return e.Activity == event.ActivityConnect && e.Network.Remote.Addr() == n2.Addr && fmt.Sprint(e.Network.Remote.Port()) == port
		}},
		{"close", "close", func(e *event.Event) bool {
			return e.Activity == event.ActivityClose && e.Network.Remote.Addr() == n2.Addr && fmt.Sprint(e.Network.Remote.Port()) == port
		}},
	}
	kept := make([]int, len(kinds))
	lost, everywhere := map[string]int{}, 0
	for range 20 { // the last ones are on their way to the journal
		clear(kept)
		s.eachEvent("n1", func(e *event.Event) {
			for i, k := range kinds {
				if k.is(e) {
					kept[i]++
				}
			}
		})
		status, err := s.host("n1").Client().Status(t.Context(), &apiv1.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		clear(lost)
		everywhere = 0
		for name, q := range status.GetQueues() {
			if where, class, ok := strings.Cut(name, "/"); ok && (where == "kernel" || where == "journal" || where == "sensor") {
				lost[class] += int(q.GetDropped())
				everywhere += int(q.GetDropped())
			}
		}
		short := false
		for i, k := range kinds {
			short = short || kept[i]+lost[k.class] < done
		}
		if !short {
			break
		}
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "EVENT\tDONE\tKEPT\tCOUNTED AS LOST\t")
	for i, k := range kinds {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t\n", k.name, done, kept[i], lost[k.class])
		// A lost record may be another program's of that kind, so with losses there may be more than what was done.
		if sum := kept[i] + lost[k.class]; sum < done || kept[i] > done {
			t.Errorf("%s: %d kept and %d lost of %d", k.name, kept[i], lost[k.class], done)
		}
	}
	w.Flush()
	t.Logf("in %s, %d lost of every kind\n%s\nn1 before: %+v\nn1 after:  %+v", soak, everywhere, table.String(), before, after)
	if after.rss > before.rss+16<<20 || after.threads > before.threads+4 || after.files > before.files+4 || after.entries > before.entries+mapSlack {
		t.Errorf("grew from %+v to %+v", before, after)
	}
}

// footprint is what the processes of a node hold together.
type footprint struct {
	processes, threads, files int
	rss                       int // bytes
	maps, entries             int // of the kernel's that are not arrays, and what is in them
}

// mapSlack is how many entries more are no growth: the host's own life comes and goes.
const mapSlack = 256

// processes measures what runs on a host: its node, once the load is over.
func (s swarm) processes(on string) (f footprint) {
	s.Helper()
	members, err := os.ReadFile(filepath.Join(s.host(on).Cgroup, "cgroup.procs"))
	if err != nil {
		s.Fatal(err)
	}
	held := map[ebpf.MapID]bool{}
	for pid := range strings.FieldsSeq(string(members)) {
		dir := filepath.Join("/proc", pid)
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			continue
		}
		f.processes++
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(line, ":")
			number, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			switch name {
			case "VmRSS":
				f.rss += number << 10
			case "Threads":
				f.threads += number
			}
		}
		fds, err := os.ReadDir(filepath.Join(dir, "fdinfo"))
		if err != nil {
			continue
		}
		f.files += len(fds)
		for _, fd := range fds {
			info, err := os.ReadFile(filepath.Join(dir, "fdinfo", fd.Name()))
			if _, id, ok := strings.Cut(string(info), "map_id:"); ok && err == nil {
				id, _, _ = strings.Cut(strings.TrimSpace(id), "\n")
				number, err := strconv.ParseUint(strings.TrimSpace(id), 10, 32)
				if err != nil {
					s.Fatal(err)
				}
				held[ebpf.MapID(number)] = true
			}
		}
	}
	for id := range held {
		n, err := entries(id)
		if err != nil {
			s.Fatal(err)
		}
		if n >= 0 {
			f.maps++
			f.entries += n
		}
	}
	if f.processes == 0 {
		s.Fatal("no process of ", on)
	}
	return f
}

// entries counts what a map holds; -1 where it always holds the same.
func entries(id ebpf.MapID) (int, error) {
	m, err := ebpf.NewMapFromID(id)
	if errors.Is(err, os.ErrNotExist) { // closed meanwhile
		return -1, nil
	} else if err != nil {
		return 0, err
	}
	defer m.Close()
	switch m.Type() {
	case ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.LPMTrie:
	default:
		return -1, nil
	}
	n := 0
	key, next := make([]byte, m.KeySize()), make([]byte, m.KeySize())
	err = m.NextKey(nil, next)
	for ; err == nil && n < int(m.MaxEntries()); n++ {
		copy(key, next)
		err = m.NextKey(key, next)
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	return n, err
}

// eachEvent hands over what a host keeps, oldest first.
func (s swarm) eachEvent(on string, f func(*event.Event)) {
	s.Helper()
	stream, err := s.host(on).Client().Events(s.Context(), &apiv1.EventsRequest{Since: "48h"})
	if err != nil {
		s.Fatal(err)
	}
	defer stream.Close()
	for stream.Receive() {
		e, err := ocsf.Decode([]byte(stream.Msg().GetOcsfJson()))
		if err != nil {
			s.Fatalf("%v: %s", err, stream.Msg().GetOcsfJson())
		}
		f(e)
	}
	if err := stream.Err(); err != nil {
		s.Fatal(err)
	}
}
