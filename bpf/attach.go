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
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// attach puts the programs of one domain where they belong and says in a few words how.
func (k *Kernel) attach(name string, c *ebpf.Collection) (string, error) {
	switch name {
	case "sensor/process":
		return k.attachTracing(c, "on_fork", "on_exec", "on_exit")
	case "sensor/network":
		return k.attachTracing(c, "on_state")
	case "actuator/deny-exec":
		return k.attachTracing(c, "deny_exec", "doom_child")
	case "lsm":
		l, err := link.AttachLSM(link.LSMOptions{Program: c.Programs["refuse_exec"]})
		if err != nil {
			return "", fmt.Errorf("attach to bprm_check_security: %w", err)
		}
		return "bprm_check_security", k.keepLink(l, "lsm", true)
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
		l, err := link.AttachTracing(link.TracingOptions{Program: c.Programs[name]})
		if err != nil {
			return "", fmt.Errorf("attach %s: %w", name, err)
		}
		if err := k.keepLink(l, name, name == "deny_exec"); err != nil {
			return "", err
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
		l, err := link.AttachCgroup(link.CgroupOptions{Path: k.cgroup, Attach: h.attach, Program: c.Programs[h.program]})
		if err != nil {
			return "", fmt.Errorf("attach %s to %s: %w", h.means, k.cgroup, err)
		}
		if err := k.keepLink(l, h.means, true); err != nil {
			return "", err
		}
		means = append(means, h.means)
	}
	k.attached["cgroup"] = means
	names, err := k.interfaces()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if err := k.attachInterface(name); err != nil {
			return "", err
		}
	}
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

// attachInterface refuses packets on one interface: TCX both ways, XDP for what comes in where the kernel has no TCX.
func (k *Kernel) attachInterface(name string) error {
	if _, done := k.attached[name]; done {
		return nil
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	var means []string
	in, err := link.AttachTCX(link.TCXOptions{Interface: i.Index, Program: k.deny.Programs["packet_in"], Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
	if err == nil {
		if err := k.keepLink(in, "tcx-ingress-"+name, true); err != nil {
			return err
		}
		means = append(means, "tcx-ingress")
		out, err := link.AttachTCX(link.TCXOptions{Interface: i.Index, Program: k.deny.Programs["packet_out"], Attach: ebpf.AttachTCXEgress, Anchor: link.Head()})
		if err != nil {
			return fmt.Errorf("attach to packets out of %s: %w", name, err)
		}
		if err := k.keepLink(out, "tcx-egress-"+name, true); err != nil {
			return err
		}
		means = append(means, "tcx-egress")
	} else {
		xdp, xerr := link.AttachXDP(link.XDPOptions{Interface: i.Index, Program: k.deny.Programs["packet_in_xdp"]})
		if xerr != nil {
			xdp, xerr = link.AttachXDP(link.XDPOptions{Interface: i.Index, Program: k.deny.Programs["packet_in_xdp"], Flags: link.XDPGenericMode})
		}
		if xerr != nil {
			return fmt.Errorf("attach to packets into %s: tcx: %w; xdp: %w", name, err, xerr)
		}
		if err := k.keepLink(xdp, "xdp-"+name, true); err != nil {
			return err
		}
		means = append(means, "xdp")
	}
	k.attached[name] = means
	return nil
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

// Run keeps the kernel half in step with the host until ctx ends: it attaches to interfaces that come up, and forgets
// expired blocks (the kernel ignores them already; this returns their room).
func (k *Kernel) Run(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		k.mu.Lock()
		if k.deny != nil && len(k.opt.Interfaces) == 0 {
			k.follow()
		}
		k.expire()
		k.mu.Unlock()
	}
}

func (k *Kernel) follow() {
	names, err := k.interfaces()
	for _, name := range names {
		if err == nil {
			err = k.attachInterface(name)
		}
	}
	for i := range k.checks {
		if k.checks[i].Name != "actuator/deny-address" {
			continue
		}
		k.checks[i].OK, k.checks[i].Detail, k.checks[i].Lost = err == nil, strings.Join(k.means(), ", "), ""
		if err != nil {
			k.checks[i].Detail, k.checks[i].Lost = err.Error(), "addresses are not refused on that interface"
		}
	}
	for name := range k.attached {
		if name != "cgroup" && !slices.Contains(names, name) {
			delete(k.attached, name) // the interface went, and its links with it
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
