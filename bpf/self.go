package bpf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

const (
	nameSelf = "self/links"
	// lookEvery is at which tick of Run all links are looked at, whether or not there was an alarm.
	lookEvery = 5
)

// held is a link that another process can take off, give another program, or let end with the agent by removing its pin: what
// it is, and how it is put back.
type held struct {
	name    string          // as in a receipt, and of its pin
	on      string          // the interface or the cgroup's folder; empty for what the kernel itself has
	index   int             // of the interface; 0 for a cgroup
	first   ebpf.AttachType // TCX's, where it must be the first program of the interface; 0 where each is run
	program *ebpf.Program
	outlive bool                                         // pinned, where there is a pin folder
	attach  func() (l link.Link, pinned bool, err error) // pinned: as it should be, already

	link      link.Link
	id        link.ID
	runs      ebpf.ProgramID // program's
	off       error          // why it could not be put back
	overtaken int            // how often another program went before it
}

// there says whether what it was attached to is there still: the kernel takes a link off with it.
func (h *held) there() bool {
	if h.index != 0 {
		_, err := net.InterfaceByIndex(h.index)
		return err == nil
	}
	if h.on == "" {
		return true
	}
	_, err := os.Stat(h.on)
	return err == nil
}

// state asks the kernel for the link as it is now.
func (h *held) state() (attached, ours bool, err error) {
	info, err := h.link.Info()
	if err != nil {
		return false, false, err
	}
	ours = info.Program == h.runs
	switch info.Type {
	case link.CgroupType:
		c := info.Cgroup()
		return c != nil && c.CgroupId != 0, ours, nil
	case link.TCXType:
		t := info.TCX()
		return t != nil && t.Ifindex != 0, ours, nil
	case link.XDPType:
		x := info.XDP()
		return x != nil && x.Ifindex != 0, ours, nil
	}
	return true, ours, nil
}

// ahead is the program that runs before h's, which may let a packet pass so that h's never sees it; 0 where h's is the first.
func (h *held) ahead() (ebpf.ProgramID, error) {
	if h.first == 0 {
		return 0, nil
	}
	all, err := link.QueryPrograms(link.QueryOptions{Target: h.index, Attach: h.first})
	if err != nil {
		return 0, fmt.Errorf("ask for the programs of %s: %w", h.on, err)
	}
	if len(all.Programs) == 0 {
		return 0, nil
	}
	if id, ok := all.Programs[0].LinkID(); ok && id == h.id {
		return 0, nil
	}
	return all.Programs[0].ID, nil
}

// maxOvertaken bounds how often a program gets back to the first place: two agents that each insist on it would do so for ever.
const maxOvertaken = 8

// toFirst gives h the first place again, where another program was put before it. The kernel takes no program twice, so for the
// moment between there is none; connections are refused by the cgroup's programs in it.
func (k *Kernel) toFirst(h *held) (what string, err error) {
	other, err := h.ahead()
	if other == 0 || err != nil {
		return "", err
	}
	what = "place of " + h.name
	if h.overtaken++; h.overtaken > maxOvertaken {
		return what, fmt.Errorf("program %d was put before it again and again: bpftool prog show id %d", other, other)
	}
	if err := h.link.Detach(); err != nil {
		return what, err
	}
	return what, k.put(h)
}

// hold attaches h, and keeps it attached.
func (k *Kernel) hold(h *held) error {
	if err := k.put(h); err != nil {
		return err
	}
	k.held = append(k.held, h)
	return nil
}

// put attaches h, anew where it was before, and pins it where it is to outlive the node.
func (k *Kernel) put(h *held) error {
	l, pinned, err := h.attach()
	if err != nil {
		return err
	}
	if h.outlive && !pinned && k.opt.PinDir != "" {
		if err := pinLink(l, k.pinOf(h.name)); err != nil {
			l.Close()
			return err
		}
	}
	if h.link != nil {
		k.letGo(h)
	}
	h.link, h.id = l, 0
	if info, err := l.Info(); err == nil {
		h.id, h.runs = info.ID, info.Program
	}
	return k.nameLink(h)
}

// letGo closes h's link; what it was attached to, or the link itself, is gone.
func (k *Kernel) letGo(h *held) {
	if k.self != nil {
		_ = k.self.Maps["own_links"].Delete(uint32(h.id)) // not there: then there is nothing to forget
	}
	_ = h.link.Close() // the kernel took it off already
}

// nameLink has the kernel tell who reaches for h's link.
func (k *Kernel) nameLink(h *held) error {
	if k.self == nil || h.id == 0 {
		return nil
	}
	if err := k.self.Maps["own_links"].Put(uint32(h.id), uint8(1)); err != nil {
		return fmt.Errorf("name the link %s: %w", h.name, err)
	}
	return nil
}

// attachSelf puts the programs of self.c where they belong; it comes last, when there are links to name.
func (k *Kernel) attachSelf(c *ebpf.Collection) (string, error) {
	reach, reached := c.Programs["reach_link"], c.Programs["reached_link"]
	if reach == nil || reached == nil {
		return "", errors.New("the kernel does not take the programs at bpf()")
	}
	// The names first: what this process writes is no alarm, and would be one as long as it is not known as the agent's.
	k.self = c
	err := k.nameMaps()
	for _, h := range k.held {
		err = errors.Join(err, k.nameLink(h))
	}
	if err != nil {
		k.self = nil
		return "", err
	}
	detail, err := k.attachAlarms(c, reach, reached)
	if err != nil {
		k.self = nil
	}
	return detail, err
}

// attachAlarms puts the programs of self.c in force.
func (k *Kernel) attachAlarms(c *ebpf.Collection, reach, reached *ebpf.Program) (string, error) {
	points, err := openTracepoints()
	if err != nil {
		return "", err
	}
	defer points.close()
	var links []link.Link
	for event, p := range map[string]*ebpf.Program{"sys_enter_bpf": reach, "sys_exit_bpf": reached} {
		l, err := points.attach(event, p)
		if err != nil {
			for _, l := range links {
				l.Close()
			}
			return "", err
		}
		links = append(links, l)
	}
	detail := "a tracepoint at bpf(), and a look every 10 s"
	if p := c.Programs["on_moved"]; p != nil {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			k.checks = append(k.checks, Check{Name: nameSelf + "/on_moved", Detail: err.Error(), Lost: programLost["on_moved"]})
		} else {
			links = append(links, l)
			detail += ", tp_btf"
		}
	}
	k.links = append(k.links, links...)
	return detail, nil
}

// alarming says whether the kernel tells at once who takes a link off.
func (k *Kernel) alarming() bool { return k.self != nil }

// hearAlarms hands on what wakes it until ctx ends.
func (k *Kernel) hearAlarms(ctx context.Context, out chan<- recordTamper) {
	k.mu.Lock()
	self := k.self
	k.mu.Unlock()
	if self == nil {
		return
	}
	r, err := ringbuf.NewReader(self.Maps["alarms"])
	if err != nil {
		k.note(Check{Name: nameSelf + "/alarms", Detail: err.Error(), Lost: "who takes our programs off is not known"})
		return
	}
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	defer r.Close()
	var rec ringbuf.Record
	for {
		if err := r.ReadInto(&rec); err != nil {
			return // closed: nothing else ends it
		}
		var a recordTamper
		if len(rec.RawSample) != tamperSize {
			continue // no program of this build wrote it
		}
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&a)), tamperSize), rec.RawSample)
		select {
		case out <- a:
		case <-ctx.Done():
			return
		}
	}
}

func (k *Kernel) note(c Check) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.checks = append(k.checks, c)
}

// alarmed puts right what a names, and tells of it. wait is for how long the maps must rest before they are looked at again:
// who writes to them without end must not keep this process from its work.
func (k *Kernel) alarmed(a *recordTamper) (wait time.Duration) {
	if int(a.Process.PID) == os.Getpid() {
		return 0 // before SetProtected
	}
	if a.Command != unix.BPF_LINK_DETACH && a.Command != unix.BPF_LINK_UPDATE {
		name, ok := k.ownMaps[a.Link]
		if !ok {
			return 0
		}
		var err error
		if wait = time.Until(k.righted.Add(mapRest)); wait <= 0 {
			err = k.rightMaps()
		}
		if !slices.Contains(blockMaps[:], name) && name != "deny_hash" && name != "filters" {
			err = errors.ErrUnsupported // what it held is not known here
		}
		k.tell(a, "map "+name, err)
		return max(wait, 0)
	}
	for _, h := range k.held {
		if h.id != link.ID(a.Link) {
			continue
		}
		if what, err := k.mend(h); what != "" {
			k.tell(a, what, err)
		}
		return 0
	}
	if name, ok := k.untold[link.ID(a.Link)]; ok { // the look was faster than the alarm
		delete(k.untold, link.ID(a.Link))
		k.tell(a, name, nil)
	}
	return 0
}

// mapRest is the least time between two looks at all blocks, of which there may be maxEnforced.
const mapRest = time.Second

// rightMaps has every entry that a response stands by be what it is to be. What others added is told, not removed.
func (k *Kernel) rightMaps() error {
	k.righted = time.Now()
	var errs []error
	for _, e := range k.enforced {
		for _, s := range e.slots {
			if was, err := k.look(s); err != nil || was.Expires < e.expires {
				errs = append(errs, k.settle(s))
			}
		}
	}
	return errors.Join(append(errs, k.countRules(), k.countHashes(), k.putSettings())...)
}

// nameMaps has the kernel tell who writes to the maps that say what is refused, what is told, and whose links are ours.
func (k *Kernel) nameMaps() error {
	k.ownMaps = map[uint32]string{}
	add := func(name string, m *ebpf.Map) error {
		if m == nil || name == "ring" || strings.HasPrefix(name, ".") {
			return nil
		}
		info, err := m.Info()
		if err != nil {
			return err
		}
		id, ok := info.ID()
		if !ok || k.ownMaps[uint32(id)] != "" {
			return nil
		}
		k.ownMaps[uint32(id)] = name
		return k.self.Maps["own_maps"].Put(uint32(id), uint8(1))
	}
	for name, m := range k.shared {
		if err := add(name, m); err != nil {
			return err
		}
	}
	for _, c := range []*ebpf.Collection{k.rights, k.files, k.deny, k.execution, k.names, k.refuse, k.self} {
		if c == nil {
			continue
		}
		for name, m := range c.Maps {
			if err := add(name, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookAtLinks finds what no alarm told of: what could not be put back before, and what was done by a process that the kernel does
// not tell of. Who did it may still come by an alarm, so it is told at the next look.
func (k *Kernel) lookAtLinks() {
	for id, name := range k.untold {
		delete(k.untold, id)
		k.tell(&recordTamper{Link: uint32(id)}, name, nil)
	}
	kept := k.held[:0]
	for _, h := range k.held {
		id, was := h.id, h.off
		what, err := k.mend(h)
		switch {
		case errors.Is(err, errGone):
			k.letGo(h)
			if k.opt.PinDir != "" && h.outlive {
				_ = os.Remove(k.pinOf(h.name)) // of a link without an end: nothing is lost by it
			}
			delete(k.attached, h.on) // another of its name is another interface
			continue
		case what != "" && err == nil && was == nil:
			if len(k.untold) < maxUntold {
				k.untold[id] = what
			}
		case what != "" && was == nil:
			k.tell(&recordTamper{Link: uint32(id)}, what, err)
		}
		kept = append(kept, h)
	}
	clear(k.held[len(kept):])
	k.held = kept
	k.noteLinks(k.repinMaps())
}

// maxUntold bounds the links whose loss waits for an alarm.
const maxUntold = 256

// errGone says that what a link was attached to is not there any more.
var errGone = errors.New("what it was attached to is gone")

// mend looks at one link and puts it right. what is what was taken away, empty where nothing was; err why it still is.
func (k *Kernel) mend(h *held) (what string, err error) {
	attached, ours, err := h.state()
	switch {
	case errors.Is(err, ebpf.ErrNotSupported): // before Linux 5.7 it is no link, and cannot be asked
		return "", nil
	case err == nil && attached && ours:
		what, err = k.toFirst(h)
		if pin, perr := k.repin(h); pin != "" || perr != nil { // whoever is before it: a block must outlive the agent
			what, err = cmp.Or(what, pin), errors.Join(err, perr)
		}
	case !h.there():
		return h.name, errGone
	case err == nil && attached:
		what, err = h.name, h.link.Update(h.program)
	default:
		what, err = h.name, k.put(h)
	}
	h.off = err
	return what, err
}

// repin puts back a pin that was removed: without it the program, and with it every block, ends with this process.
func (k *Kernel) repin(h *held) (what string, err error) {
	if !h.outlive || k.opt.PinDir == "" {
		return "", nil
	}
	pin := k.pinOf(h.name)
	if _, err := os.Lstat(pin); !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := errors.Join(os.MkdirAll(k.opt.PinDir, 0o700), h.link.Unpin(), h.link.Pin(pin)); err != nil {
		return "pin of " + h.name, fmt.Errorf("pin it again: %w", err)
	}
	return "pin of " + h.name, nil
}

// repinMaps does the same for the maps that hold the blocks.
func (k *Kernel) repinMaps() error {
	if k.opt.PinDir == "" {
		return nil
	}
	var errs []error
	for _, c := range []*ebpf.Collection{k.deny, k.execution, k.refuse, k.names} {
		if c == nil {
			continue
		}
		for _, name := range blockMaps {
			m := c.Maps[name]
			pin := filepath.Join(k.opt.PinDir, name)
			if m == nil || !m.IsPinned() {
				continue
			}
			if _, err := os.Lstat(pin); !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
				continue
			}
			if err := errors.Join(m.Unpin(), m.Pin(pin)); err != nil {
				errs = append(errs, fmt.Errorf("pin %s again: %w", pin, err))
				continue
			}
			k.tell(&recordTamper{}, "pin of "+name, nil)
		}
	}
	return errors.Join(errs...)
}

// noteLinks says in the checks what could not be put back.
func (k *Kernel) noteLinks(pins error) {
	var off []string
	if pins != nil {
		off = append(off, pins.Error())
	}
	for _, h := range k.held {
		if h.off != nil {
			off = append(off, h.name+": "+h.off.Error())
		}
	}
	c := Check{Name: nameSelf + "/off", OK: len(off) == 0}
	if !c.OK {
		c.Detail, c.Lost = fmt.Sprint(off), "another process took programs of ours off, and they could not be put back"
	}
	for i := range k.checks {
		if k.checks[i].Name == c.Name {
			k.checks[i] = c
			return
		}
	}
	if !c.OK {
		k.checks = append(k.checks, c)
	}
}

// tell puts a record of what was done to the link name into the ring, by whom a names.
func (k *Kernel) tell(a *recordTamper, name string, err error) {
	if k.self == nil || k.self.Programs["tell_tamper"] == nil {
		return
	}
	a.Header.Kind, a.Header.Size = recordTampered, uint16(tamperSize)
	if a.Header.Boot == 0 {
		a.Header.Boot = BootTime()
	}
	a.NameLen = uint32(copy(a.Name[:], name))
	var errno unix.Errno
	if a.Result = 0; errors.As(err, &errno) {
		a.Result = int32(errno)
	} else if err != nil {
		a.Result = int32(unix.EIO)
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(a)), tamperSize)
	if _, err := k.self.Programs["tell_tamper"].Run(&ebpf.RunOptions{Context: b}); err != nil {
		k.checks = append(k.checks, Check{Name: nameSelf + "/tell", Detail: err.Error(), Lost: "what takes our programs off is put right and not told"})
	}
}
