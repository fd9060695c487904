package bpf

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/omega-mesh/omega/swarm/event"
)

// linkOf is the held link of a name, as the test of another process sees it: its id.
func linkOf(t *testing.T, k *Kernel, name string) link.ID {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.held {
		if h.name == name {
			return h.id
		}
	}
	t.Fatalf("no link %s is held", name)
	return 0
}

// keep has the kernel half in step with the host until the test ends.
func (h *host) keep(k *Kernel) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.do(func() error { return k.Run(ctx) }) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
}

func taken(name string) func(*event.Event) bool {
	return func(e *event.Event) bool { return e.Activity == event.ActivityTamper && e.File.Path == name }
}

// Another process detaches the agent's links with bpftool: each is back before the event is read, and says whose doing it was.
func TestDetachedLinksAreBack(t *testing.T) {
	bpftool, err := exec.LookPath("bpftool")
	if err != nil {
		t.Skip("no bpftool here to detach with")
	}
	a, b := twoHosts(t)
	k := a.load(Options{without: []string{"sensor/rights", "sensor/file", "sensor/names", "sensor/before"}})
	if err := k.SetProtected([]uint32{uint32(os.Getpid())}); err != nil {
		t.Fatal(err)
	}
	find := a.watch(k)
	a.keep(k)
	block := event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(b.addr + "/32")}, TTL: time.Hour}
	if r, err := k.Apply(t.Context(), block); err != nil || r.Outcome != event.OutcomeDone {
		t.Fatal(err, r)
	}
	port := b.listen(t)
	for _, name := range []string{"cgroup-connect4", "tcx-ingress-eth0", "refuse_out"} {
		before := linkOf(t, k, name)
		// From outside of the cgroup that is watched: it is done to the agent all the same.
		if out, err := exec.Command(bpftool, "link", "detach", "id", strconv.Itoa(int(before))).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		e := find(name, taken(name))
		if e.Access.Operation != "BPF_LINK_DETACH" || e.Result != 0 || e.Process.Comm != "bpftool" || e.Process.Key.PID == 0 || e.Process.Key.Start == 0 || e.Process.UID != 0 {
			t.Errorf("%s: %+v by %+v", name, e.Access, e.Process)
		}
		if after := linkOf(t, k, name); after == before {
			t.Errorf("%s is the link it was", name)
		}
		if c, err := a.dial(b.addr, port); err == nil {
			c.Close()
			t.Errorf("%s was detached, and the block with it", name)
		}
		t.Logf("%-18s %s by %s", name, e.Access.Operation, e.Process.Comm)
	}
	// The same with the entry that the block is: its key is the prefix's length, and the address.
	info, err := k.deny.Maps["deny4"].Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	args := []string{"map", "delete", "id", strconv.Itoa(int(id)), "key", "32", "0", "0", "0"}
	for _, v := range netip.MustParseAddr(b.addr).AsSlice() {
		args = append(args, strconv.Itoa(int(v)))
	}
	if out, err := exec.Command(bpftool, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if e := find("an entry that was deleted", taken("map deny4")); e.Access.Operation != "BPF_MAP_DELETE_ELEM" || e.Result != 0 || e.Process.Comm != "bpftool" {
		t.Errorf("%+v by %+v: %d", e.Access, e.Process, e.Result)
	}
	if c, err := a.dial(b.addr, port); err == nil {
		c.Close()
		t.Error("the block's entry was deleted, and is not back")
	}
}

// overtake puts a program that lets everything pass before all others of an interface.
func (h *host) overtake(name string) link.Link {
	h.t.Helper()
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		h.t.Fatal(err)
	}
	defer pass.Close()
	var l link.Link
	if err := h.do(func() error {
		i, err := net.InterfaceByName(name)
		if err == nil {
			l, err = link.AttachTCX(link.TCXOptions{Interface: i.Index, Program: pass, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
		}
		return err
	}); err != nil {
		h.t.Fatal(err)
	}
	return l
}

// What no alarm tells of, the look finds; a program that is not ours is replaced; what goes with its interface is no tampering.
func TestLinksAreLookedAt(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{without: []string{"sensor/rights", "sensor/file", "sensor/names"}})
	find := a.watch(k)
	look := func() {
		if err := a.do(func() error { k.mu.Lock(); defer k.mu.Unlock(); k.lookAtLinks(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	harm := func(name string, how func(link.Link) error) {
		l, err := link.NewFromID(linkOf(t, k, name))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := how(l); err != nil {
			t.Fatal(err)
		}
	}
	harm("cgroup-connect4", link.Link.Detach)
	look()
	look()
	if e := find("a detached link", taken("cgroup-connect4")); e.Process.Key.PID != 0 || e.Access.Operation != "" || e.Result != 0 {
		t.Errorf("%+v %+v", e.Process.Key, e.Access)
	}

	idle, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	harm("tcx-ingress-eth0", func(l link.Link) error { return l.Update(idle) })
	look()
	look()
	find("a link with another program", taken("tcx-ingress-eth0"))
	// A program before ours that lets everything pass, so that ours would never see it: ours is the first again, until it is clear
	// that the other is put there again and again.
	for i := range maxOvertaken + 1 {
		l := a.overtake("eth0")
		look()
		if err := a.do(func() error {
			k.mu.Lock()
			defer k.mu.Unlock()
			for _, h := range k.held {
				if other, err := h.ahead(); (other != 0) != (i == maxOvertaken && h.name == "tcx-ingress-eth0") || (other != 0) != (h.off != nil) || err != nil {
					t.Errorf("%d: %s: program %d is before it, said: %v; %v", i, h.name, other, h.off, err)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	look()
	find("a program before ours", taken("place of tcx-ingress-eth0"))
	if slices.ContainsFunc(k.Coverage(), func(c Check) bool { return c.Name == nameSelf+"/off" && !c.OK }) {
		t.Error("the other is gone, and the doctor says it is there")
	}
	k.mu.Lock()
	for _, h := range k.held {
		if attached, ours, err := h.state(); !attached || !ours || err != nil {
			t.Errorf("%s: attached %t, ours %t: %v", h.name, attached, ours, err)
		}
	}
	k.mu.Unlock()

	// Who moves the agent to a cgroup where it starves is told.
	agent := exec.Command("/bin/sleep", "1000")
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { agent.Process.Kill(); agent.Wait() }()
	if err := k.SetProtected([]uint32{uint32(agent.Process.Pid)}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.cgroup, "cgroup.procs"), []byte(strconv.Itoa(agent.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	e := find("a process of the agent's in another cgroup", func(e *event.Event) bool { return e.Access.Operation == "cgroup_attach_task" })
	if e.Activity != event.ActivityTamper || e.Access.Target.PID != uint32(agent.Process.Pid) || filepath.Base(e.File.Path) != filepath.Base(a.cgroup) || e.Process.Key.PID != uint32(os.Getpid()) {
		t.Errorf("%+v %q by %+v", e.Access, e.File.Path, e.Process.Key)
	}

	if err := a.do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	}); err != nil {
		t.Fatal(err)
	}
	look()
	look()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.held {
		if h.on == "eth0" {
			t.Errorf("%s is held, and its interface is gone", h.name)
		}
	}
	if len(k.untold) != 0 || k.attached["eth0"] != nil {
		t.Errorf("of an interface that is gone: %v %v", k.untold, k.attached)
	}
}

func tamperRecord(name string) []byte {
	r := recordTamper{Header: recordHeader{Kind: recordTampered, Size: uint16(tamperSize)}, Link: 7, Command: 34, NameLen: uint32(len(name))}
	copy(r.Name[:], name)
	return aligned(append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&r)), tamperSize)...))
}

func TestTamperLayoutIsTheObjects(t *testing.T) {
	spec, err := loadSelf()
	if err != nil {
		t.Fatal(err)
	}
	var s *btf.Struct
	if err := spec.Types.TypeByName("record_tamper", &s); err != nil {
		t.Fatal(err)
	}
	if int(s.Size) != tamperSize {
		t.Errorf("record_tamper is %d bytes, want %d", s.Size, tamperSize)
	}
	for _, m := range s.Members {
		want, checked := map[string]uintptr{"link": unsafe.Offsetof(recordTamper{}.Link), "result": unsafe.Offsetof(recordTamper{}.Result), "name": unsafe.Offsetof(recordTamper{}.Name)}[m.Name]
		if checked && uintptr(m.Offset.Bytes()) != want {
			t.Errorf("%s lies at %d, want %d", m.Name, m.Offset.Bytes(), want)
		}
	}
}

func FuzzDecodeTamper(f *testing.F) {
	f.Add(tamperRecord("cgroup-connect4"))
	f.Add(tamperRecord("")[:tamperSize-1])
	long := tamperRecord("x")
	(*recordTamper)(unsafe.Pointer(&long[0])).NameLen = 1 << 31
	f.Add(long)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = aligned(b)
		var e event.Event
		if err := decode(b, 0, &e); err != nil {
			return
		}
		if c := e.Clone(); c.Class == 0 || len(c.File.Path) > len(b) {
			t.Errorf("%+v", c)
		}
	})
}

// Pins that were removed are back at the next look, and hold what they held: blocks outlive the agent again.
func TestRemovedPinsAreBack(t *testing.T) {
	a, b := twoHosts(t)
	if err := mountBPF(t); err != nil {
		t.Skip("no BPF file system can be mounted here:", err)
	}
	dir := filepath.Join("/sys/fs/bpf", filepath.Base(a.cgroup))
	t.Cleanup(func() { Cleanup(dir) })
	k := a.load(Options{PinDir: dir, without: []string{"sensor/rights", "sensor/file", "sensor/names", "sensor/before", "sensor/network"}})
	find := a.watch(k)
	if r, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(b.addr + "/32")}, TTL: time.Hour}); err != nil || r.Outcome != event.OutcomeDone {
		t.Fatal(err, r)
	}
	pins := func() (names []string) {
		entries, err := os.ReadDir(k.opt.PinDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	before := pins()
	k.mu.Lock()
	for _, h := range k.held { // another program stays before ours on eth0: its pin is put back all the same
		if h.name == "tcx-ingress-eth0" {
			h.overtaken = maxOvertaken
		}
	}
	k.mu.Unlock()
	pass := a.overtake("eth0")
	defer pass.Close()
	for _, name := range before {
		if err := os.Remove(filepath.Join(k.opt.PinDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := a.do(func() error { k.mu.Lock(); defer k.mu.Unlock(); k.lookAtLinks(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	find("a pin that was removed", taken("pin of cgroup-connect4"))
	find("a map's pin that was removed", taken("pin of deny4"))
	if after := pins(); !slices.Equal(before, after) {
		t.Errorf("pins were %v and are %v", before, after)
	}
	again, err := ebpf.LoadPinnedMap(filepath.Join(k.opt.PinDir, "deny4"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	var key, value []byte
	if all := again.Iterate(); !all.Next(&key, &value) {
		t.Error("what is pinned again holds no block")
	}
}

// The same where there is no TCX: an interface has room for one XDP program, and the pin of the one that was taken off is in its way.
func TestDetachedXDPIsBack(t *testing.T) {
	a, b := twoHosts(t)
	if err := mountBPF(t); err != nil {
		t.Skip("no BPF file system can be mounted here:", err)
	}
	dir := filepath.Join("/sys/fs/bpf", filepath.Base(a.cgroup))
	t.Cleanup(func() { Cleanup(dir) })
	k := a.load(Options{PinDir: dir, withoutTCX: true, without: []string{"sensor/rights", "sensor/file", "sensor/names", "sensor/before", "sensor/network", "actuator/deny-exec", "lsm", "actuator/deny-name"}})
	find := a.watch(k)
	if r, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(b.addr + "/32")}, TTL: time.Hour}); err != nil || r.Outcome != event.OutcomeDone {
		t.Fatal(err, r)
	}
	port := a.listen(t)
	for _, name := range []string{"xdp-eth0", "cgroup-egress"} {
		l, err := link.NewFromID(linkOf(t, k, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Detach(); err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	for range 2 {
		if err := a.do(func() error { k.mu.Lock(); defer k.mu.Unlock(); k.lookAtLinks(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"xdp-eth0", "cgroup-egress"} {
		if e := find(name, taken(name)); e.Result != 0 {
			t.Errorf("%s: error %d", name, e.Result)
		}
	}
	if c, err := b.dial(a.addr, port); err == nil {
		c.Close()
		t.Error("a packet came in from who is denied")
	}
	k.Close()
	if c, err := b.dial(a.addr, port); err == nil {
		c.Close()
		t.Error("what was put back was not pinned: the block ended with its node")
	}
}
