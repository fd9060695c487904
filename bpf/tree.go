package bpf

import (
	"strings"
	"sync"

	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of the process tree: past them the processes longest unheard of lose their lineage; memory never grows.
const (
	maxProcesses = 131072
	maxPaths     = 16384
	maxAncestors = 8
	maxDead      = 1024 // processes that ended last, remembered for what comes of them after: the close of a connection
)

// ProcessTree remembers, for each live process, when it started, whose child it is, what it runs and with which rights, so
// that an event that carries only a pid still has a name, a parent and its ancestors. Pid reuse is told by the start time.
// Memory is bounded: 131,072 processes, 16,384 distinct texts; when it is full the process longest unheard of is
// forgotten, so that exits that were never seen cannot fill it for good. Safe for concurrent use; the text Observe puts
// into an event outlives the call.
type ProcessTree struct {
	mu      sync.Mutex
	at      map[uint32]int32 // pid → its node
	blocks  []*treeBlock     // of nodes: the first node closes the ring of recency, its next is the newest, its prev the oldest
	made    int32            // nodes, used or free
	free    int32            // the first unused node, chained by next; 0 is none
	paths   map[string]string
	chain   []byte // room to join ancestors in
	dead    []treeNode
	oldest  int    // of dead, once it is full
	pending rights // of the process that the record now read makes
	lost    uint64
	orphans uint64 // forks and execs whose parent was not known
	limit   int
}

type treeNode struct {
	start      uint64
	parent     event.ProcessKey
	exe        string
	cwd        string
	script     string
	tty        string
	ancestors  string // above the parent, when it was born or last executed
	rights     rights
	inode      uint64
	device     uint64
	cgroup     uint64
	pid        uint32
	uid, gid   uint32
	egid       uint32
	session    uint32
	login      uint32
	mount      uint32
	pids, net  uint32
	flags      event.ProcessFlag
	prev, next int32
}

// treeBlock is how many nodes are made at a time. A slice that grows would be copied again and again, and what it leaves is as
// large as what it holds.
type treeBlock [512]treeNode

func (t *ProcessTree) node(i int32) *treeNode {
	return &t.blocks[i/int32(len(treeBlock{}))][i%int32(len(treeBlock{}))]
}

// NewProcessTree makes an empty tree.
func NewProcessTree() *ProcessTree { return newProcessTree(maxProcesses) }

func newProcessTree(limit int) *ProcessTree {
	return &ProcessTree{at: map[uint32]int32{}, blocks: []*treeBlock{{}}, made: 1, paths: map[string]string{}, limit: limit}
}

// Seed fills the tree with the processes that were there before the sensor was, as far as /proc tells this user.
func (t *ProcessTree) Seed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = rights{}
	EachProcess(func(p *event.Process) { t.put(p) })
}

// Observe takes note of e, and adds to it what the tree knows: of a process that the record names by its key alone all of
// its identity, and always the parent's executable and the ancestors above it.
func (t *ProcessTree) Observe(e *event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &e.Process
	var n *treeNode
	switch {
	case e.Class == event.ClassProcess && e.Activity == event.ActivityFork:
		if parent := t.find(p.Parent); parent != nil {
			p.Exe, p.CWD, p.Script = parent.exe, parent.cwd, parent.script
			p.Flags |= parent.flags & event.FlagScript
		}
		n = t.put(p)
	case e.Class == event.ClassProcess && e.Activity == event.ActivityExec:
		t.resolveScript(p)
		n = t.put(p)
	default:
		if n = t.find(p.Key); n == nil && p.Key.PID != 0 {
			n = t.findDead(p.Key)
		}
		if n != nil {
			n.complete(p)
		}
	}
	if n != nil {
		p.Ancestors = n.ancestors
	}
	parent := t.find(p.Parent)
	if parent != nil {
		p.ParentExe = parent.exe
	}
	// A thread of the kernel runs no file: neither has a name nor lacks one.
	if unknown := parent == nil || parent.exe == "" && parent.inode != 0; unknown && p.Parent.PID != 0 && e.Class == event.ClassProcess &&
		(e.Activity == event.ActivityFork || e.Activity == event.ActivityExec) {
		t.orphans++
	}
	if i, ok := t.at[p.Key.PID]; ok && e.Class == event.ClassProcess && e.Activity == event.ActivityExit && n == t.node(i) {
		t.bury(t.node(i))
		t.remove(i)
	}
}

// resolveScript says which file an interpreter was given by its arguments, and makes that of any script a path from the root
// where the working folder is known. What a process from before calls its arguments may be its own invention by now.
func (t *ProcessTree) resolveScript(p *event.Process) {
	if p.Flags&(event.FlagBeforeAgent|event.FlagFromProcfs) != 0 {
		return
	}
	if p.Script == "" {
		if p.Script = givenScript(p.Exe, p.Args, p.Flags&event.FlagArgsTruncated != 0); p.Script == "" {
			return
		}
		p.Flags |= event.FlagScript
	}
	if p.Script[0] == '/' || p.CWD == "" || p.CWD[0] != '/' {
		return
	}
	rest := p.Script
	for strings.HasPrefix(rest, "./") {
		rest = strings.TrimLeft(rest[2:], "/")
	}
	t.chain = append(t.chain[:0], p.CWD...)
	if p.CWD != "/" {
		t.chain = append(t.chain, '/')
	}
	p.Script = t.intern(view(append(t.chain, rest...))) // a link may stand before "..": only the kernel may take that out
}

// bury remembers one that has ended a while longer.
func (t *ProcessTree) bury(n *treeNode) {
	if len(t.dead) < maxDead {
		t.dead = append(t.dead, *n)
		return
	}
	t.dead[t.oldest] = *n
	t.oldest = (t.oldest + 1) % maxDead
}

// findDead looks through those that ended last: seldom asked, so no index is kept.
func (t *ProcessTree) findDead(key event.ProcessKey) *treeNode {
	for i := range t.dead {
		if t.dead[i].pid == key.PID && t.dead[i].start == key.Start {
			return &t.dead[i]
		}
	}
	return nil
}

// complete adds to p what its record does not say.
func (n *treeNode) complete(p *event.Process) {
	if p.Exe == "" {
		p.Exe = n.exe
	}
	if p.CWD == "" {
		p.CWD = n.cwd
	}
	if p.Script == "" {
		p.Script = n.script
		p.Flags |= n.flags & event.FlagScript
	}
	if p.Parent.PID != 0 || p.CgroupID != 0 {
		return
	}
	// The record has the key alone.
	p.Parent, p.TTY, p.Session = n.parent, n.tty, n.session
	p.UID, p.GID, p.EUID, p.EGID, p.LoginUID, p.Caps = n.uid, n.gid, n.rights.euid, n.egid, n.login, n.rights.caps
	p.Inode, p.Device, p.CgroupID = n.inode, n.device, n.cgroup
	p.MountNS, p.PIDNS, p.NetNS = n.mount, n.pids, n.net
	p.Flags |= n.flags
}

// Lookup returns what the tree knows of a pid.
func (t *ProcessTree) Lookup(pid uint32) (p event.Process, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.at[pid]
	if !ok {
		return event.Process{Key: event.ProcessKey{PID: pid}}, false
	}
	n := t.node(i)
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

// Orphans counts the forks and execs that were told without their parent's name, for it was not known: its own record was
// lost, it was forgotten, or it is outside of what is watched.
func (t *ProcessTree) Orphans() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.orphans
}

// find returns the node of the process key means, now the newest heard of. It is valid until the next put.
func (t *ProcessTree) find(key event.ProcessKey) *treeNode {
	i, ok := t.at[key.PID]
	if !ok || !sameStart(t.node(i).start, key.Start) {
		return nil
	}
	t.unlink(i)
	t.link(i)
	return t.node(i)
}

// put makes p a node of the tree. Its texts become lasting ones.
func (t *ProcessTree) put(p *event.Process) *treeNode {
	p.Exe, p.CWD, p.Script = t.intern(p.Exe), t.intern(p.CWD), t.intern(p.Script)
	ancestors := t.ancestors(p)
	i, ok := t.at[p.Key.PID]
	if ok {
		t.unlink(i)
	} else {
		if len(t.at) >= t.limit {
			t.lost++
			t.remove(t.node(0).prev)
		}
		if i = t.free; i != 0 {
			t.free = t.node(i).next
		} else {
			if i = t.made; int(i) == len(t.blocks)*len(treeBlock{}) {
				t.blocks = append(t.blocks, new(treeBlock))
			}
			t.made++
		}
		t.at[p.Key.PID] = i
	}
	*t.node(i) = treeNode{start: p.Key.Start, parent: p.Parent, exe: p.Exe, cwd: p.CWD, script: p.Script, tty: t.intern(p.TTY), ancestors: ancestors,
		rights: t.pending, inode: p.Inode, device: p.Device, cgroup: p.CgroupID, pid: p.Key.PID, uid: p.UID, gid: p.GID, egid: p.EGID,
		session: p.Session, login: p.LoginUID, mount: p.MountNS, pids: p.PIDNS, net: p.NetNS, flags: p.Flags}
	t.pending = rights{}
	t.link(i)
	return t.node(i)
}

// ancestors names what runs above the parent of p, nearest first.
func (t *ProcessTree) ancestors(p *event.Process) string {
	t.chain = t.chain[:0]
	key := p.Parent
	for range maxAncestors + 1 {
		i, ok := t.at[key.PID]
		if !ok || !sameStart(t.node(i).start, key.Start) || key.PID == p.Key.PID {
			break
		}
		n := t.node(i)
		if key != p.Parent && n.exe != "" {
			if len(t.chain) > 0 {
				t.chain = append(t.chain, 0)
			}
			t.chain = append(t.chain, n.exe...)
		}
		if n.parent == key {
			break
		}
		key = n.parent
	}
	return t.intern(view(t.chain))
}

func (t *ProcessTree) remove(i int32) {
	t.unlink(i)
	delete(t.at, t.node(i).pid)
	*t.node(i) = treeNode{next: t.free}
	t.free = i
}

func (t *ProcessTree) link(i int32) {
	newest := t.node(0).next
	t.node(i).prev, t.node(i).next = 0, newest
	t.node(newest).prev = i
	t.node(0).next = i
}

func (t *ProcessTree) unlink(i int32) {
	prev, next := t.node(i).prev, t.node(i).next
	t.node(prev).next, t.node(next).prev = next, prev
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

// sameStart compares start times of the kernel (ns) and of /proc (hundredths of a second); 0 means not known. Two of the
// kernel's are one process's only if they are equal: a pid can be another's within a hundredth of a second.
func sameStart(a, b uint64) bool {
	const tick = 10_000_000
	if a%tick != 0 && b%tick != 0 {
		return a == b
	}
	return a == 0 || b == 0 || a/tick == b/tick || a/tick+1 == b/tick || b/tick+1 == a/tick
}
