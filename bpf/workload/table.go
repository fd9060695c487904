package workload

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of a table.
const (
	generation = 4096             // cgroups kept that were seen lately, and as many that were before
	perSecond  = 1000             // looked up in /proc on an event's way; the others stay unknown until their next event
	waiting    = 256              // to be asked for in their own time
	maxWalk    = 16384            // cgroups looked at to find one whose process is gone
	again      = 10 * time.Second // before a runtime that knew nothing is asked again
	tries      = 3
)

// Describe asks a runtime for image and pod of a container, by its id.
type Describe func(ctx context.Context, container string) (Description, error)

// Description is what a runtime says of a container.
type Description struct {
	Image string `cbor:"1,keyasint,omitempty"`
	Pod   string `cbor:"2,keyasint,omitempty"` // namespace/name
}

// key names a workload: where containers live in hierarchies of cgroup v1 alone they share one unified cgroup, but no
// mount namespace.
type key struct {
	cgroup uint64
	mount  uint32
}

type entry struct {
	Identity
	asked  uint64 // CLOCK_BOOTTIME of the last question
	times  uint8
	walk   bool // its process was gone before its path was read
	settle bool // nothing more is to be asked
}

type request struct {
	key key
	of  entry
}

// Table keeps what processes belong to, by cgroup. Fill may be called from any goroutine.
type Table struct {
	proc, mount string
	describe    Describe
	asks        chan request

	mu         sync.Mutex
	young, old map[key]*entry
	second     uint64
	looked     int

	skipped atomic.Uint64
}

// NewTable makes a table that asks describe, if that is not nil, for what cgroups do not tell.
func NewTable(describe Describe) *Table {
	return &Table{proc: "/proc", mount: cgroupMount("/proc/self/mounts"), describe: describe, asks: make(chan request, waiting), young: map[key]*entry{}, old: map[key]*entry{}}
}

// cgroupMount is where the unified hierarchy is, "" if it is nowhere.
func cgroupMount(mounts string) string {
	f, err := os.Open(mounts)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() {
		if part := strings.Fields(lines.Text()); len(part) > 2 && part[2] == "cgroup2" {
			return part[1]
		}
	}
	return ""
}

// Fill completes e's process with what it belongs to. What a record says already stays.
func (t *Table) Fill(e *event.Event) {
	p := &e.Process
	if p.CgroupID == 0 || p.Key.PID == 0 {
		return
	}
	k := key{p.CgroupID, p.MountNS}
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.young[k]
	if x == nil {
		if x = t.old[k]; x == nil {
			if x = t.look(p, e.Boot); x == nil {
				return
			}
		}
		t.keep(k, x)
	}
	if !x.settle {
		t.ask(k, x, e.Boot)
	}
	if p.Container == "" {
		p.Container, p.Image, p.Pod = x.Container, x.Image, x.Pod
	}
	if p.Unit == "" {
		p.Unit = x.Unit
	}
}

// keep puts x among those seen lately. When they are too many, those seen before are forgotten.
func (t *Table) keep(k key, x *entry) {
	if len(t.young) >= generation {
		t.old, t.young = t.young, make(map[key]*entry, generation/8)
	}
	t.young[k] = x
}

// look reads the cgroup of a process that is most likely still there; nil where there were too many to look at.
func (t *Table) look(p *event.Process, boot uint64) *entry {
	if s := boot / uint64(time.Second); s != t.second {
		t.second, t.looked = s, 0
	}
	if t.looked++; t.looked > perSecond {
		t.skipped.Add(1)
		return nil
	}
	for _, pid := range [...]uint32{p.Key.PID, p.Parent.PID} { // who is gone already most often leaves a parent of the same cgroup
		if id, ok := t.read(pid, p.CgroupID); ok {
			return &entry{Identity: id, settle: id.Container == "" || t.describe == nil}
		}
	}
	return &entry{walk: true}
}

// read reads what /proc says of a pid, and makes sure that it is of this cgroup: the pid may be another's by now.
func (t *Table) read(pid uint32, cgroup uint64) (id Identity, ok bool) {
	f, err := os.Open(t.proc + "/" + strconv.FormatUint(uint64(pid), 10) + "/cgroup")
	if err != nil {
		return id, false
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 16*maxPath))
	if err != nil {
		return id, false
	}
	id, unified := parseProc(string(text))
	if unified == "" || inode(filepath.Join(t.mount, unified)) != cgroup {
		return id, false
	}
	return id, true
}

// inode is a cgroup's id: the number of its folder's inode.
func inode(path string) uint64 {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// ask hands an entry to Run, if it is time; it waits for nobody.
func (t *Table) ask(k key, x *entry, boot uint64) {
	if x.asked != 0 && boot-x.asked < uint64(again) {
		return
	}
	select {
	case t.asks <- request{k, *x}:
		if x.asked, x.times = boot|1, x.times+1; x.times >= tries {
			x.settle = true
		}
	default:
		t.skipped.Add(1)
	}
}

// Run answers what Fill could not, until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	for {
		select {
		case r := <-t.asks:
			t.answer(ctx, r)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *Table) answer(ctx context.Context, r request) {
	id, found := r.of.Identity, !r.of.walk
	if r.of.walk {
		id, found = t.find(r.key.cgroup)
	}
	var d Description
	described := id.Container == "" || t.describe == nil
	if !described {
		var err error
		d, err = t.describe(ctx, id.Container)
		described = err == nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range []map[key]*entry{t.young, t.old} {
		if x := m[r.key]; x != nil {
			x.Container, x.Unit, x.Image, x.Pod = id.Container, id.Unit, d.Image, d.Pod
			x.walk = !found
			x.settle = x.settle || found && described
		}
	}
}

// errFound ends a walk.
var errFound = errors.New("found")

// find looks for the cgroup of an id whose process is gone. One that is gone too is found nowhere.
func (t *Table) find(cgroup uint64) (id Identity, ok bool) {
	if t.mount == "" {
		return id, false
	}
	n := 0
	err := filepath.WalkDir(t.mount, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir // it vanished meanwhile, or is another's
		}
		if !d.IsDir() {
			return nil
		}
		if n++; n > maxWalk {
			return fs.SkipAll
		}
		if inode(path) == cgroup {
			id = Parse(strings.TrimPrefix(path, t.mount))
			return errFound
		}
		return nil
	})
	return id, errors.Is(err, errFound)
}

// Skipped counts lookups that were put off or given up, because there were too many at once.
func (t *Table) Skipped() uint64 { return t.skipped.Load() }
