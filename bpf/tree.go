package bpf

import (
	"strings"
	"sync"

	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of the process tree: more live processes than this lose lineage, never memory.
const (
	maxProcesses = 65536
	maxPaths     = 8192
)

// ProcessTree remembers, for each live process, when it started, whose child it is and what it runs, so that an event
// that carries only a pid still has a name and a parent. Pid reuse is told by the start time. Memory is bounded:
// 65,536 processes, 8,192 distinct paths. Safe for concurrent use.
type ProcessTree struct {
	mu        sync.Mutex
	processes map[uint32]treeNode
	paths     map[string]string // one copy of each path, however many run it
	lost      uint64
}

type treeNode struct {
	start  uint64
	parent event.ProcessKey
	exe    string
	uid    uint32
}

// NewProcessTree makes an empty tree.
func NewProcessTree() *ProcessTree {
	return &ProcessTree{processes: map[uint32]treeNode{}, paths: map[string]string{}}
}

// Seed fills the tree with the processes that were there before the sensor was, as far as /proc tells this user.
func (t *ProcessTree) Seed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	eachProcess(func(p *event.Process) {
		t.put(p.Key.PID, treeNode{start: p.Key.Start, parent: p.Parent, exe: t.intern(p.Exe), uid: p.UID})
	})
}

// Observe takes note of e, and adds to it what the tree knows: the executable's path where the record has none, and the parent's.
func (t *ProcessTree) Observe(e *event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &e.Process
	switch {
	case e.Class != event.ClassProcess:
		if n, ok := t.processes[p.Key.PID]; ok && sameStart(n.start, p.Key.Start) {
			if p.Exe == "" {
				p.Exe = n.exe
			}
			if p.Parent.PID == 0 {
				p.Parent = n.parent
			}
		}
	case e.Activity == event.ActivityFork:
		p.Exe = t.processes[p.Parent.PID].exe
		t.put(p.Key.PID, treeNode{start: p.Key.Start, parent: p.Parent, exe: p.Exe, uid: p.UID})
	case e.Activity == event.ActivityExec:
		p.Exe = t.intern(p.Exe)
		t.put(p.Key.PID, treeNode{start: p.Key.Start, parent: p.Parent, exe: p.Exe, uid: p.UID})
	case e.Activity == event.ActivityExit, e.Activity == event.ActivityKill:
		if n, ok := t.processes[p.Key.PID]; ok && sameStart(n.start, p.Key.Start) {
			p.Exe = n.exe
			if e.Activity == event.ActivityExit {
				delete(t.processes, p.Key.PID)
			}
		}
	}
	if parent, ok := t.processes[p.Parent.PID]; ok && sameStart(parent.start, p.Parent.Start) {
		p.ParentExe = parent.exe
	}
}

// Lookup returns what the tree knows of a pid.
func (t *ProcessTree) Lookup(pid uint32) (p event.Process, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.processes[pid]
	return event.Process{Key: event.ProcessKey{PID: pid, Start: n.start}, Parent: n.parent, Exe: n.exe, UID: n.uid}, ok
}

// Len is how many processes the tree holds, and Lost how many found it full.
func (t *ProcessTree) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.processes)
}

// Lost counts the processes that found the tree full.
func (t *ProcessTree) Lost() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost
}

func (t *ProcessTree) put(pid uint32, n treeNode) {
	if _, there := t.processes[pid]; !there && len(t.processes) >= maxProcesses {
		t.lost++
		return
	}
	t.processes[pid] = n
}

// intern returns one lasting copy of path; past the bound, a copy of its own.
func (t *ProcessTree) intern(path string) string {
	if path == "" {
		return ""
	}
	if p, ok := t.paths[path]; ok {
		return p
	}
	p := strings.Clone(path)
	if len(t.paths) < maxPaths {
		t.paths[p] = p
	}
	return p
}

// sameStart compares start times of the kernel (ns) and of /proc (hundredths of a second); 0 means not known.
func sameStart(a, b uint64) bool {
	const tick = 10_000_000
	return a == 0 || b == 0 || a/tick == b/tick || a/tick+1 == b/tick || b/tick+1 == a/tick
}
