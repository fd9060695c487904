package testnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// netnsDir is where `ip netns` looks for named namespaces.
	netnsDir = "/run/netns"
	// hostLink is the name of a host's only interface beside lo.
	hostLink = "eth0"
	bridge   = "br0"
	bits4    = 24
	bits6    = 64
)

// Last bytes of addresses: n1 is 10.77.0.11, x1 10.77.0.250; hosts added by hand lie between.
const (
	firstMember = 11
	firstAdded  = 111
	outsider    = 250
)

// address gives a host's addresses. The IPv6 one spells the same digits: 10.77.0.11 is fd77::11. Without namespaces each
// testnet has a loopback network of its own, 127.64.0.0 to 127.127.255.0, taken from its random id.
func address(mode Mode, id string, last int) (v4, v6 netip.Addr) {
	if mode == ModeProcess {
		n, err := strconv.ParseUint(id, 16, 24)
		if err != nil {
			n = 0 // an id is six hex digits
		}
		return netip.AddrFrom4([4]byte{127, 64 + byte(n>>8)%64, byte(n), byte(last)}), netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{10, 77, 0, byte(last)}), netip.MustParseAddr(fmt.Sprintf("fd77::%d", last))
}

func prefix(id string) string          { return "omega-" + id }
func netnsPath(id, name string) string { return filepath.Join(netnsDir, prefix(id)+"-"+name) }

// inside runs f on an OS thread that is in the network namespace ns, and puts the thread back.
func inside(ns *os.File, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", ns.Name(), err)
		}
		return f()
	})
}

// onThread runs f on a thread of its own whose network namespace f may change. A thread that cannot be put back ends
// with its goroutine.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// makeNamespace makes a named network namespace with lo up, as `ip netns add` does, and returns it opened.
func makeNamespace(path string) (*os.File, error) {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		// Duplicate address detection would keep IPv6 unusable for a second. Where /proc/sys is read-only, the
		// addresses are marked NODAD all the same.
		for _, conf := range []string{"default", "all"} {
			for _, key := range []string{"accept_dad", "accept_ra"} {
				os.WriteFile("/proc/sys/net/ipv6/conf/"+conf+"/"+key, []byte("0"), 0)
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			return fmt.Errorf("bring lo up: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("name the namespace %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		os.Remove(path)
		return nil, err
	}
	return os.Open(path)
}

// makeBridge makes the bridge in its namespace.
func makeBridge(ns *os.File) error {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()))
	if err != nil {
		return fmt.Errorf("speak to the bridge's namespace: %w", err)
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridge
	snooping := false // mDNS between hosts needs no querier then
	br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := h.LinkAdd(br); err != nil {
		return fmt.Errorf("make the bridge: %w", err)
	}
	return h.LinkSetUp(br)
}

// plug joins a host's namespace to the bridge. Both ends of the link are born in the testnet's own namespaces: the
// machine's never sees them.
func plug(br, host *os.File, h *Host) error {
	inBridge, err := netlink.NewHandleAt(netns.NsHandle(br.Fd()))
	if err != nil {
		return err
	}
	defer inBridge.Close()
	inHost, err := netlink.NewHandleAt(netns.NsHandle(host.Fd()))
	if err != nil {
		return err
	}
	defer inHost.Close()

	master, err := inBridge.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find the bridge: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = h.Name, master.Attrs().Index
	port := &netlink.Veth{LinkAttrs: attrs, PeerName: hostLink, PeerNamespace: netlink.NsFd(host.Fd())}
	if err := inBridge.LinkAdd(port); err != nil {
		return fmt.Errorf("make the link of %s: %w", h.Name, err)
	}
	eth, err := inHost.LinkByName(hostLink)
	if err != nil {
		return err
	}
	for _, a := range []struct {
		addr netip.Addr
		bits int
	}{{h.Addr, bits4}, {h.Addr6, bits6}} {
		ip := &netlink.Addr{IPNet: &net.IPNet{IP: a.addr.AsSlice(), Mask: net.CIDRMask(a.bits, a.addr.BitLen())}}
		if a.addr.Is6() {
			ip.Flags = unix.IFA_F_NODAD
		}
		if err := inHost.AddrAdd(eth, ip); err != nil {
			if a.addr.Is6() && errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) {
				continue // this kernel has IPv6 off
			}
			return fmt.Errorf("give %s the address %s: %w", h.Name, a.addr, err)
		}
	}
	return errors.Join(inHost.LinkSetUp(eth), inBridge.LinkSetUp(port))
}

// removeNamespaces unmounts and removes every named namespace of a testnet; with their last process their links go too.
func removeNamespaces(id string) error {
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix(id)+"-") {
			continue
		}
		path := filepath.Join(netnsDir, e.Name())
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", path, err))
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, err)...)
}
