package bpf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attach puts the programs of one domain where they belong and says in a few words how.
func (k *Kernel) attach(name string, c *ebpf.Collection) (string, error) {
	switch name {
	case "sensor/process":
		return k.attachTracing(c, "on_fork", "on_exec", "on_exit")
	case "sensor/before":
		return "iter/task, iter/task_file", nil
	case "sensor/rights":
		return k.attachRights(c)
	case "sensor/network":
		return k.attachNetwork(c)
	case "sensor/file":
		return k.attachFiles(c)
	case "actuator/deny-exec":
		return k.attachTracing(c, "deny_exec")
	case "lsm":
		p := c.Programs["refuse_exec"]
		if err := k.hold(&held{name: "lsm", program: p, outlive: true, attach: func() (link.Link, bool, error) {
			l, err := link.AttachLSM(link.LSMOptions{Program: p})
			return l, false, err
		}}); err != nil {
			return "", fmt.Errorf("attach to bprm_check_security: %w", err)
		}
		return "bprm_check_security", nil
	case "sensor/names":
		return k.attachCgroupHooks(c, nameHooks[:], false)
	case "actuator/deny-name":
		return k.attachCgroupHooks(c, refuseHooks[:], true)
	case nameSelf:
		return k.attachSelf(c)
	case "actuator/deny-address":
		k.deny = c // AttachInterface needs it
		detail, err := k.attachDeny(c)
		if err != nil {
			k.deny = nil
		}
		return detail, err
	}
	return "", fmt.Errorf("no such domain: %s", name)
}

func (k *Kernel) attachTracing(c *ebpf.Collection, programs ...string) (string, error) {
	for _, name := range programs {
		p := c.Programs[name]
		if err := k.hold(&held{name: name, program: p, outlive: name == "deny_exec", attach: func() (link.Link, bool, error) {
			l, err := link.AttachTracing(link.TracingOptions{Program: p})
			return l, false, err
		}}); err != nil {
			return "", fmt.Errorf("attach %s: %w", name, err)
		}
	}
	return "tp_btf", nil
}

var cgroupHooks = [...]struct {
	program string
	attach  ebpf.AttachType
	means   string
}{
	{"connect4", ebpf.AttachCGroupInet4Connect, "cgroup-connect4"},
	{"connect6", ebpf.AttachCGroupInet6Connect, "cgroup-connect6"},
	{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, "cgroup-sendmsg4"},
	{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, "cgroup-sendmsg6"},
}

func (k *Kernel) attachDeny(c *ebpf.Collection) (string, error) {
	var means []string
	for _, h := range cgroupHooks {
		if err := k.attachCgroup(h.means, h.attach, c.Programs[h.program], true); err != nil {
			return "", err
		}
		means = append(means, h.means)
	}
	k.attached["cgroup"] = means
	// One interface that takes no program costs no other, nor the hooks above: it is said in the check.
	k.follow()
	return strings.Join(k.means(), ", "), nil
}

// interfaces are those named in the options, or all but loopback.
func (k *Kernel) interfaces() ([]string, error) {
	if len(k.opt.Interfaces) > 0 {
		return k.opt.Interfaces, nil
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

// attachInterface refuses packets on one interface: TCX both ways; where the kernel has no TCX, XDP for what comes in
// and the cgroup's own egress hook for what goes out.
func (k *Kernel) attachInterface(name string) error {
	if _, done := k.attached[name]; done {
		return nil
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	suffix := ""
	if l3, err := headerless(name); err != nil {
		return err
	} else if l3 {
		suffix = "_l3"
	}
	err = k.attachTCX(name, i.Index, "ingress", ebpf.AttachTCXIngress, "packet_in"+suffix)
	if err != nil {
		if suffix != "" {
			return fmt.Errorf("attach to packets into %s (no Ethernet, so no XDP): %w", name, err)
		}
		if xerr := k.attachXDP(name, i.Index); xerr != nil {
			return fmt.Errorf("attach to packets into %s: tcx: %w; xdp: %w", name, err, xerr)
		}
		k.attached[name] = []string{"xdp"}
		return k.attachCgroupEgress()
	}
	if err := k.attachTCX(name, i.Index, "egress", ebpf.AttachTCXEgress, "packet_out"+suffix); err != nil {
		return fmt.Errorf("attach to packets out of %s: %w", name, err)
	}
	k.attached[name] = []string{"tcx-ingress", "tcx-egress"}
	return nil
}

func (k *Kernel) attachTCX(name string, index int, way string, where ebpf.AttachType, program string) error {
	if k.opt.withoutTCX {
		return ebpf.ErrNotSupported
	}
	p := k.deny.Programs[program]
	return k.hold(&held{name: "tcx-" + way + "-" + name, on: name, index: index, first: where, program: p, outlive: true, attach: func() (link.Link, bool, error) {
		l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: where, Anchor: link.Head()})
		return l, false, err
	}})
}

// attachXDP takes the driver's own mode or the generic one. An interface has room for one XDP program: where an earlier
// life of this node left its own pinned, that one is given the new program.
func (k *Kernel) attachXDP(name string, index int) error {
	program := k.deny.Programs["packet_in_xdp"]
	earlier := k.pinOf("xdp-" + name)
	return k.hold(&held{name: "xdp-" + name, on: name, index: index, program: program, outlive: true, attach: func() (link.Link, bool, error) {
		if k.opt.PinDir != "" {
			if old, err := link.LoadPinnedLink(earlier, nil); err == nil {
				if err := old.Update(program); err == nil {
					return old, true, nil
				}
				old.Close()
			}
		}
		l, err := link.AttachXDP(link.XDPOptions{Interface: index, Program: program})
		if err != nil {
			l, err = link.AttachXDP(link.XDPOptions{Interface: index, Program: program, Flags: link.XDPGenericMode})
		}
		return l, false, err
	}})
}

// attachCgroup puts a program at the cgroup that is watched and acted in.
func (k *Kernel) attachCgroup(name string, where ebpf.AttachType, program *ebpf.Program, outlive bool) error {
	return k.hold(&held{name: name, on: k.cgroup, program: program, outlive: outlive, attach: func() (link.Link, bool, error) {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: k.cgroup, Attach: where, Program: program})
		if err != nil {
			return nil, false, fmt.Errorf("attach %s to %s: %w", name, k.cgroup, err)
		}
		return l, false, nil
	}})
}

const meansCgroupEgress = "cgroup-egress"

func (k *Kernel) attachCgroupEgress() error {
	if slices.Contains(k.attached["cgroup"], meansCgroupEgress) {
		return nil
	}
	if err := k.attachCgroup(meansCgroupEgress, ebpf.AttachCGroupInetEgress, k.deny.Programs["packet_out_cgroup"], true); err != nil {
		return err
	}
	k.attached["cgroup"] = append(k.attached["cgroup"], meansCgroupEgress)
	return nil
}

// headerless says whether packets on an interface begin with their IP header: tun, WireGuard, PPP and the other tunnels.
func headerless(name string) (bool, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return false, fmt.Errorf("interface %s: %w", name, err)
	}
	kind := l.Attrs().EncapType
	return kind != "ether" && kind != "loopback", nil
}

// means lists every hook that refuses an address now.
func (k *Kernel) means() []string {
	var all []string
	for _, m := range k.attached {
		for _, name := range m {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	return all
}

// Run tells of what was there before (TellBefore), then keeps the kernel half in step with the host until ctx ends: it attaches to
// interfaces that come up, puts back what another process took off, and forgets expired blocks (the kernel ignores them
// already; this returns their room).
func (k *Kernel) Run(ctx context.Context) error {
	if err := k.TellBefore(ctx); err != nil {
		k.mu.Lock()
		k.checks = append(k.checks, Check{Name: "sensor/before/run", Detail: err.Error(), Lost: "of what ran before the sensor did only what /proc shows this user is known"})
		k.mu.Unlock()
	}
	hashing, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	defer done.Wait()
	defer stop()
	done.Go(func() { k.hashExecutions(hashing) })
	alarms := make(chan recordTamper)
	done.Go(func() { k.hearAlarms(hashing, alarms) })
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	var again <-chan time.Time // for what was written while the maps had just been put right
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case a := <-alarms:
			k.mu.Lock()
			if wait := k.alarmed(&a); wait > 0 && again == nil {
				again = time.After(wait)
			}
			k.mu.Unlock()
			continue
		case <-again:
			again = nil
			k.mu.Lock()
			_ = k.rightMaps() // what could not be put right is looked at again with each alarm, and told then
			k.mu.Unlock()
			continue
		case <-tick.C:
		}
		k.mu.Lock()
		if n%lookEvery == 0 || !k.alarming() {
			k.lookAtLinks()
		}
		if k.deny != nil {
			k.follow()
		}
		k.expire()
		k.mu.Unlock()
	}
}

// follow attaches to every interface that is there and not attached yet, and says in the check which could not be.
func (k *Kernel) follow() {
	names, err := k.interfaces()
	var errs []error
	for _, name := range names {
		errs = append(errs, k.attachInterface(name))
	}
	err = errors.Join(append(errs, err)...)
	k.unattached = err
	k.noteInterfaces()
	if len(k.opt.Interfaces) > 0 {
		return
	}
	for name := range k.attached {
		if name != "cgroup" && !slices.Contains(names, name) {
			delete(k.attached, name) // the interface went, and its links with it
		}
	}
}

func (k *Kernel) noteInterfaces() {
	for i := range k.checks {
		if k.checks[i].Name != "actuator/deny-address" || k.deny == nil {
			continue
		}
		k.checks[i].OK, k.checks[i].Detail, k.checks[i].Lost = k.unattached == nil, strings.Join(k.means(), ", "), ""
		if k.unattached != nil {
			k.checks[i].Detail, k.checks[i].Lost = k.unattached.Error(), "packets are not refused on that interface; connect() and sendmsg() are"
		}
	}
}

// cgroupRoot is where this host has its cgroup v2 hierarchy.
func cgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("find cgroup v2: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("find cgroup v2: it is not mounted; mount -t cgroup2 none /sys/fs/cgroup")
}

// netNamespace is the inode of this thread's network namespace.
func netNamespace() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("own network namespace: %w", err)
	}
	return uint32(st.Ino), nil
}
