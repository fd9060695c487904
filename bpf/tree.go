package bpf

import (
	"strings"
	"sync"

	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of the process tree: past them the processes longest unheard of lose their lineage; memory never grows.
const (
	maxProcesses = 65536
	maxPaths     = 8192
)

// ProcessTree remembers, for each live process, when it started, whose child it is and what it runs, so that an event
// that carries only a pid still has a name and a parent. Pid reuse is told by the start time. Memory is bounded:
// 65,536 processes, 8,192 distinct paths; when it is full the process longest unheard of is forgotten, so that exits
// that were never seen cannot fill it for good. Safe for concurrent use.
type ProcessTree struct {
	mu    sync.Mutex
	at    map[uint32]int32 // pid → its node
	nodes []treeNode       // nodes[0] closes the ring of recency: its next is the newest, its prev the oldest
	free  int32            // the first unused node, chained by next; 0 is none
	paths map[string]string
	lost  uint64
	limit int
}

type treeNode struct {
	start      uint64
	parent     event.ProcessKey
	exe        string
	pid, uid   uint32
	prev, next int32
}

// NewProcessTree makes an empty tree.
func NewProcessTree() *ProcessTree { return newProcessTree(maxProcesses) }

func newProcessTree(limit int) *ProcessTree {
	return &ProcessTree{at: map[uint32]int32{}, nodes: make([]treeNode, 1), paths: map[string]string{}, limit: limit}
}

// Seed fills the tree with the processes that were there before the sensor was, as far as /proc tells this user.
func (t *ProcessTree) Seed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	EachProcess(func(p *event.Process) { t.put(p, t.intern(p.Exe)) })
}

// Observe takes note of e, and adds to it what the tree knows: the executable's path where the record has none, and the parent's.
func (t *ProcessTree) Observe(e *event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &e.Process
	switch {
	case e.Class != event.ClassProcess:
		if n := t.find(p.Key); n != nil {
			if p.Exe == "" {
				p.Exe = n.exe
			}
			if p.Parent.PID == 0 {
				p.Parent = n.parent
			}
		}
	case e.Activity == event.ActivityFork:
		if parent := t.find(p.Parent); parent != nil {
			p.Exe = parent.exe
		}
		t.put(p, p.Exe)
	case e.Activity == event.ActivityExec:
		p.Exe = t.intern(p.Exe)
		t.put(p, p.Exe)
	case e.Activity == event.ActivityExit, e.Activity == event.ActivityKill:
		if n := t.find(p.Key); n != nil {
			p.Exe = n.exe
			if e.Activity == event.ActivityExit {
				t.remove(t.at[p.Key.PID])
			}
		}
	}
	if parent := t.find(p.Parent); parent != nil {
		p.ParentExe = parent.exe
	}
}

// Lookup returns what the tree knows of a pid.
func (t *ProcessTree) Lookup(pid uint32) (p event.Process, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.at[pid]
	if !ok {
		return event.Process{Key: event.ProcessKey{PID: pid}}, false
	}
	n := &t.nodes[i]
	return event.Process{Key: event.ProcessKey{PID: pid, Start: n.start}, Parent: n.parent, Exe: n.exe, UID: n.uid}, true
}

// Len is how many processes the tree holds.
func (t *ProcessTree) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.at)
}

// Lost counts the processes that were forgotten because the tree was full.
func (t *ProcessTree) Lost() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost
}

// find returns the node of the process key means, now the newest heard of. It is valid until the next put.
func (t *ProcessTree) find(key event.ProcessKey) *treeNode {
	i, ok := t.at[key.PID]
	if !ok || !sameStart(t.nodes[i].start, key.Start) {
		return nil
	}
	t.unlink(i)
	t.link(i)
	return &t.nodes[i]
}

func (t *ProcessTree) put(p *event.Process, exe string) {
	i, ok := t.at[p.Key.PID]
	if ok {
		t.unlink(i)
	} else {
		if len(t.at) >= t.limit {
			t.lost++
			t.remove(t.nodes[0].prev)
		}
		if i = t.free; i != 0 {
			t.free = t.nodes[i].next
		} else {
			t.nodes = append(t.nodes, treeNode{})
			i = int32(len(t.nodes) - 1)
		}
		t.at[p.Key.PID] = i
	}
	t.nodes[i] = treeNode{start: p.Key.Start, parent: p.Parent, exe: exe, pid: p.Key.PID, uid: p.UID}
	t.link(i)
}

func (t *ProcessTree) remove(i int32) {
	t.unlink(i)
	delete(t.at, t.nodes[i].pid)
	t.nodes[i] = treeNode{next: t.free}
	t.free = i
}

func (t *ProcessTree) link(i int32) {
	newest := t.nodes[0].next
	t.nodes[i].prev, t.nodes[i].next = 0, newest
	t.nodes[newest].prev = i
	t.nodes[0].next = i
}

func (t *ProcessTree) unlink(i int32) {
	prev, next := t.nodes[i].prev, t.nodes[i].next
	t.nodes[prev].next, t.nodes[next].prev = next, prev
}

// intern returns one lasting copy of path. Full of paths, it begins anew: who holds one keeps it.
func (t *ProcessTree) intern(path string) string {
	if path == "" {
		return ""
	}
	if p, ok := t.paths[path]; ok {
		return p
	}
	if len(t.paths) >= maxPaths {
		clear(t.paths)
	}
	p := strings.Clone(path)
	t.paths[p] = p
	return p
}

// sameStart compares start times of the kernel (ns) and of /proc (hundredths of a second); 0 means not known.
func sameStart(a, b uint64) bool {
	const tick = 10_000_000
	return a == 0 || b == 0 || a/tick == b/tick || a/tick+1 == b/tick || b/tick+1 == a/tick
}
