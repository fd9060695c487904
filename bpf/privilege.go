package bpf

import (
	"unsafe"

	"github.com/omega-mesh/omega/swarm/event"
)

// rights are what a process was last known to hold by right: from its own calls, from its parent, or from a program that
// gives them. What it holds beyond that was taken, by a hole in the kernel or in a program that has them.
type rights struct {
	caps  uint64
	euid  uint32
	known bool
}

// and are the rights of a process two of whose threads hold a and b.
func (a rights) and(b rights) rights {
	if !a.known {
		return b
	}
	a.caps |= b.caps
	if b.euid == 0 {
		a.euid = 0
	}
	return a
}

// watchRights compares what the process of a record holds with what it held by right, and says what it gained. It is
// called before Observe. Every record of the kernel's says who its process is now, so a gain shows with the next thing
// that process does, whatever that is, and costs the kernel nothing.
//
// Not compared: capabilities in a user namespace of its own, where having all of them is no right over the host, and an
// exec that gives rights (set-id, file capabilities, root's). Where records were lost, what a lost one gave counts as gained.
func (t *ProcessTree) watchRights(b []byte, e *event.Event) (gain event.Access, gained bool) {
	h := (*recordHeader)(unsafe.Pointer(unsafe.SliceData(b)))
	if h.Kind == recordAccept || h.Kind == recordClose || h.Kind == recordProbe || e.Process.Key.PID == 0 {
		return gain, false // of these the process is a bare key
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := rights{caps: e.Process.Caps, euid: e.Process.EUID, known: true}
	if h.Flags&flagUserNS != 0 {
		now.caps = 0
	}
	var before rights
	n := t.find(e.Process.Key)
	if h.Kind == recordFork {
		if parent := t.find(e.Process.Parent); parent != nil {
			before = parent.rights
		}
		n = nil
	} else if n != nil {
		before = n.rights
	}
	t.pending = now
	if n != nil && h.Kind != recordExec {
		n.rights = before.and(now)
		if h.Kind == recordRights {
			n.rights = given(h, b, n.rights, now)
		}
	}
	if !before.known || e.Process.Flags&event.FlagBeforeAgent != 0 {
		return gain, false
	}
	if h.Kind == recordExec && (e.Process.Flags&event.FlagSetID != 0 || before.euid == 0 || e.Process.UID == 0) {
		return gain, false
	}
	more := now.caps &^ before.caps
	if (now.euid != 0 || before.euid == 0) && more == 0 {
		return gain, false
	}
	return event.Access{Operation: "privilege_gain", OldUID: before.euid, NewUID: now.euid, Gained: more}, true
}

// given is what a process holds by right after a call of its own. Where one thread alone made it, the others still hold
// what they had; the C library makes it in each of them, the first included.
func given(h *recordHeader, b []byte, before, now rights) rights {
	r := (*recordAccess)(unsafe.Pointer(&b[forkSize]))
	if r.Result != 0 {
		return before
	}
	after := rights{caps: r.Held, euid: r.NewUID, known: true}
	if r.Operation == opSetfsuid || r.Operation == opSetfsgid {
		after.euid = now.euid
	}
	if h.Flags&flagUserNS != 0 {
		after.caps = 0
	}
	if h.Flags&flagThread != 0 {
		return before.and(after)
	}
	return after
}
