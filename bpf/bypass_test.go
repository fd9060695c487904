package bpf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

func ethernet(kinds ...uint16) []byte {
	b := make([]byte, 12)
	for i, k := range kinds {
		if i > 0 {
			b = append(b, 0, 1) // the tag's own two bytes
		}
		b = binary.BigEndian.AppendUint16(b, k)
	}
	return b
}

func ipv4(from string, protocol byte, fragment uint16, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], netip.MustParseAddr(from).AsSlice())
	copy(b[16:], netip.MustParseAddr("10.99.0.1").AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	return append(b, payload...)
}

func ipv6(from string, next byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], netip.MustParseAddr(from).AsSlice())
	copy(b[24:], netip.MustParseAddr("fd00::1").AsSlice())
	return append(b, payload...)
}

func tcpSYN(port uint16) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], port)
	b[12], b[13] = 0x50, 0x02
	return b
}

func udp(port uint16) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint16(b[4:], 8)
	return b
}

// What an attacker may send to be overlooked, frame by frame, through the very program that hangs on the interface.
func TestNoFrameGoesRound(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{})
	in := k.deny.Programs["packet_in"]
	pass := func(frame []byte) bool {
		t.Helper()
		// Twice the headers long: shorter ones are the kernel's own affair.
		ret, err := in.Run(&ebpf.RunOptions{Data: append(frame, make([]byte, 300)...)})
		if err != nil {
			t.Fatal(err)
		}
		return int32(ret) == -1
	}
	const bad, bad6, good, good6 = "198.51.100.9", "2001:db8::9", "192.0.2.1", "2001:db8::1"
	for id, p := range map[string]string{id1: bad + "/32", id2: bad6 + "/128"} {
		if _, err := k.Apply(t.Context(), event.Response{ID: id, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(p)}, TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	icmp := func(kind, code byte) []byte { return []byte{kind, code, 0, 0, 0, 0, 0, 0} }
	cat := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	const v4, v6, vlan, qinq = 0x0800, 0x86dd, 0x8100, 0x88a8
	type frame struct {
		name                string
		bytes               []byte
		when, whenContained bool // does it pass?
	}
	frames := []frame{
		{"plain", cat(ethernet(v4), ipv4(good, 6, 0, tcpSYN(80))), true, false},
		{"denied", cat(ethernet(v4), ipv4(bad, 6, 0, tcpSYN(80))), false, false},
		{"denied, tagged", cat(ethernet(vlan, v4), ipv4(bad, 6, 0, tcpSYN(80))), false, false},
		{"denied, tagged twice", cat(ethernet(qinq, vlan, v4), ipv4(bad, 6, 0, tcpSYN(80))), false, false},
		{"denied, a later fragment", cat(ethernet(v4), ipv4(bad, 6, 100, make([]byte, 8))), false, false},
		{"denied, UDP", cat(ethernet(v4), ipv4(bad, 17, 0, udp(53))), false, false},
		{"denied, another protocol", cat(ethernet(v4), ipv4(bad, 47, 0, make([]byte, 8))), false, false},
		{"denied IPv6", cat(ethernet(v6), ipv6(bad6, 6, tcpSYN(80))), false, false},
		{"denied IPv6 behind an extension header", cat(ethernet(v6), ipv6(bad6, 0, cat([]byte{6, 0, 1, 4, 0, 0, 0, 0}, tcpSYN(80)))), false, false},
		{"denied, as an IPv4-mapped source", cat(ethernet(v6), ipv6("::ffff:"+bad, 6, tcpSYN(80))), false, false},
		{"IPv6 behind an extension header", cat(ethernet(v6), ipv6(good6, 0, cat([]byte{6, 0, 1, 4, 0, 0, 0, 0}, tcpSYN(80)))), true, false},
		{"neighbour solicitation", cat(ethernet(v6), ipv6(good6, 58, icmp(135, 0))), true, true},
		{"ICMPv6 echo, a tunnel", cat(ethernet(v6), ipv6(good6, 58, icmp(128, 0))), true, false},
		{"ICMPv6 redirect", cat(ethernet(v6), ipv6(good6, 58, icmp(137, 0))), true, false},
		{"ICMPv6 packet too big", cat(ethernet(v6), ipv6(good6, 58, icmp(2, 0))), true, true},
		{"ICMP echo, a tunnel", cat(ethernet(v4), ipv4(good, 1, 0, icmp(8, 0))), true, false},
		{"ICMP fragmentation needed", cat(ethernet(v4), ipv4(good, 1, 0, icmp(3, 4))), true, true},
		{"a later fragment", cat(ethernet(v4), ipv4(good, 17, 100, make([]byte, 8))), true, false},
		{"ARP", cat(ethernet(0x0806), make([]byte, 28)), true, true},
	}
	for _, f := range frames {
		if got := pass(slices.Clone(f.bytes)); got != f.when {
			t.Errorf("%s: passes %v, want %v", f.name, got, f.when)
		}
	}
	const id3 = "200102030405060708090a0b0c0d0e0f"
	if _, err := k.Apply(t.Context(), event.Response{ID: id3, Action: event.ActionContain, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if got := pass(slices.Clone(f.bytes)); got != f.whenContained {
			t.Errorf("%s, contained: passes %v, want %v", f.name, got, f.whenContained)
		}
	}
}

// What a contained member may still send here, and what is sent to it, frame by frame: only the swarm's own port at this
// side counts, whatever port the contained host chose at its own.
func TestContainedMemberReachesTheSwarmAlone(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{})
	const member, member6, swarm, service, chosen = "10.99.0.7", "fd00::7", 7946, 22, 40000
	if err := k.SetSwarm([]Listener{{unix.IPPROTO_TCP, swarm}}, []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(member), swarm)}); err != nil {
		t.Fatal(err)
	}
	for id, p := range map[string]string{id1: member + "/32", id2: member6 + "/128"} {
		if _, err := k.Apply(t.Context(), event.Response{ID: id, Action: event.ActionContain, Target: event.Target{Address: netip.MustParsePrefix(p)}, TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	ports := func(b []byte, from, to uint16) []byte {
		binary.BigEndian.PutUint16(b, from)
		binary.BigEndian.PutUint16(b[2:], to)
		return b
	}
	tcp := func(from, to uint16) []byte { return ports(tcpSYN(0), from, to) }
	dgram := func(from, to uint16) []byte { return ports(udp(0), from, to) }
	out := func(packet []byte) []byte { // the other way round: to the member
		if packet[0]>>4 == 4 {
			from := slices.Clone(packet[12:16])
			copy(packet[12:], packet[16:20])
			copy(packet[16:], from)
		} else {
			from := slices.Clone(packet[8:24])
			copy(packet[8:], packet[24:40])
			copy(packet[24:], from)
		}
		return packet
	}
	frames := []struct {
		name   string
		out    bool
		packet []byte
		pass   bool
	}{
		{"to the swarm", false, ipv4(member, 6, 0, tcp(chosen, swarm)), true},
		{"to a service", false, ipv4(member, 6, 0, tcp(chosen, service)), false},
		{"to a service, from the swarm's port", false, ipv4(member, 6, 0, tcp(swarm, service)), false},
		{"to the swarm's number by UDP, where only TCP listens", false, ipv4(member, 17, 0, dgram(chosen, swarm)), false},
		{"to a service by UDP, from the swarm's port", false, ipv4(member, 17, 0, dgram(swarm, 53)), false},
		{"a later fragment", false, ipv4(member, 6, 100, tcp(chosen, swarm)), false},
		{"echo", false, ipv4(member, 1, 0, []byte{8, 0, 0, 0, 0, 0, 0, 0}), false},
		{"too big", false, ipv4(member, 1, 0, []byte{3, 4, 0, 0, 0, 0, 0, 0}), true},
		{"another protocol", false, ipv4(member, 47, 0, tcp(chosen, swarm)), false},
		{"IPv6, to the swarm", false, ipv6(member6, 6, tcp(chosen, swarm)), true},
		{"IPv6, to a service", false, ipv6(member6, 6, tcp(swarm, service)), false},
		{"IPv6, neighbour solicitation", false, ipv6(member6, 58, []byte{135, 0, 0, 0, 0, 0, 0, 0}), true},
		{"IPv6, to the swarm behind an extension header", false, ipv6(member6, 0, slices.Concat([]byte{6, 0, 1, 4, 0, 0, 0, 0}, tcp(chosen, swarm))), false},
		{"as an IPv4-mapped source, to a service", false, ipv6("::ffff:"+member, 6, tcp(swarm, service)), false},
		{"from the swarm's port", true, out(ipv4(member, 6, 0, tcp(swarm, chosen))), true},
		{"from a service", true, out(ipv4(member, 6, 0, tcp(service, chosen))), false},
		{"from a port of the kernel's choosing to its swarm", true, out(ipv4(member, 6, 0, tcp(chosen, swarm))), false},
		{"IPv6, from the swarm's port", true, out(ipv6(member6, 6, tcp(swarm, chosen))), true},
		{"IPv6, from a service", true, out(ipv6(member6, 6, tcp(service, swarm))), false},
	}
	check := func(when string, pass func(i int) bool) {
		t.Helper()
		for i, f := range frames {
			kind := uint16(0x0800)
			if f.packet[0]>>4 == 6 {
				kind = 0x86dd
			}
			program := k.deny.Programs["packet_in"]
			if f.out {
				program = k.deny.Programs["packet_out"]
			}
			ret, err := program.Run(&ebpf.RunOptions{Data: slices.Concat(ethernet(kind), f.packet, make([]byte, 300))})
			if err != nil {
				t.Fatal(err)
			}
			if got := int32(ret) == -1; got != pass(i) {
				t.Errorf("%s, %s: passes %v", when, f.name, got)
			}
		}
	}
	check("contained", func(i int) bool { return frames[i].pass })
	// Another response refuses the same addresses outright, for less long: nothing passes while it stands.
	const id3, id4 = "200102030405060708090a0b0c0d0e0f", "300102030405060708090a0b0c0d0e0f"
	for id, p := range map[string]string{id3: member + "/32", id4: member6 + "/128"} {
		if _, err := k.Apply(t.Context(), event.Response{ID: id, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(p)}, TTL: time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	check("denied as well", func(int) bool { return false })
	for _, id := range []string{id3, id4} {
		if _, err := k.Release(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	check("contained alone again", func(i int) bool { return frames[i].pass })
}

// The same with real connections, from the member's side and from this one.
func TestContainedMemberKeepsItsSwarm(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{})
	own, other, theirs := a.listen(t), a.listen(t), b.listen(t)
	if err := k.SetSwarm([]Listener{{unix.IPPROTO_TCP, own}}, []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(b.addr), theirs)}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionContain, Target: event.Target{Address: netip.MustParsePrefix(b.addr + "/32")}, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	from := func(h *host, port uint16, to string, toPort uint16) error {
		return h.do(func() error {
			d := net.Dialer{Timeout: 500 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP(h.addr), Port: int(port)},
				Control: func(_, _ string, c syscall.RawConn) (err error) {
					return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }), err)
				}}
			c, err := d.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(to), toPort).String())
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	if err := from(b, 0, a.addr, own); err != nil {
		t.Error("the member does not reach the swarm:", err)
	}
	if from(b, 0, a.addr, other) == nil || from(b, own, a.addr, other) == nil {
		t.Error("the member reaches another port")
	}
	if from(a, 0, b.addr, theirs) == nil {
		t.Error("a program of this host reaches the contained one")
	}
	if k.Active()[0].Hits == 0 {
		t.Error("nothing was counted as refused")
	}
}

// A datagram socket connected before the block asks no hook when it sends: only what sees packets can stop it. With
// TCX, and as on a kernel that has none.
func TestDenyEndsWhatIsSentOnAConnectedSocket(t *testing.T) {
	for _, without := range []bool{false, true} {
		t.Run(fmt.Sprintf("withoutTCX=%v", without), func(t *testing.T) {
			a, b := twoHosts(t)
			k := a.load(Options{withoutTCX: without})
			var sink net.PacketConn
			if err := b.do(func() (err error) {
				sink, err = net.ListenPacket("udp", b.addr+":0")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer sink.Close()
			port := netip.MustParseAddrPort(sink.LocalAddr().String()).Port()
			marker := filepath.Join(t.TempDir(), "go")
			sent := make(chan error, 1)
			go func() {
				out, err := a.run(t.Context(), "/bin/bash", "-c",
					fmt.Sprintf("exec 3<>/dev/udp/%s/%d; echo one >&3; until [ -e %s ]; do sleep 0.02; done; echo two >&3", b.addr, port, marker))
				if err != nil {
					err = fmt.Errorf("%w: %s", err, out)
				}
				sent <- err
			}()
			line := make([]byte, 16)
			sink.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, _, err := sink.ReadFrom(line); err != nil || string(line[:n]) != "one\n" {
				t.Fatalf("before the block: %q %v", line[:n], err)
			}
			r, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(b.addr + "/32")}, TTL: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"tcx-egress", "tcx-ingress"}
			if without {
				want = []string{"cgroup-egress", "xdp"}
			}
			for _, m := range want {
				if !slices.Contains(r.Means, m) {
					t.Errorf("means %v lack %s", r.Means, m)
				}
			}
			if err := os.WriteFile(marker, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			<-sent // with cgroup egress the write fails, with TCX it is lost on the way
			sink.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if n, _, err := sink.ReadFrom(line); err == nil {
				t.Errorf("through the block came %q", line[:n])
			}
			in := a.listen(t)
			if c, err := b.dial(a.addr, in); err == nil {
				c.Close()
				t.Error("a new connection came in")
			}
		})
	}
}

// A packet on a tunnel has no Ethernet header: read as if it had, it would be nobody's, and pass.
func TestDenyHoldsOnATunnel(t *testing.T) {
	a, _ := twoHosts(t)
	tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI, Queues: 1, NonPersist: true}
	if err := a.do(func() error {
		if err := netlink.LinkAdd(tun); err != nil {
			return err
		}
		l, err := netlink.LinkByName("tun0")
		if err != nil {
			return err
		}
		addr, _ := netlink.ParseAddr("10.98.0.1/24")
		return errors.Join(netlink.AddrAdd(l, addr), netlink.LinkSetUp(l))
	}); err != nil {
		t.Skip("no tunnel can be made here:", err)
	}
	defer tun.Fds[0].Close()
	var k *Kernel
	if err := a.do(func() (err error) {
		k, err = Load(context.Background(), Options{Cgroup: a.cgroup, Interfaces: []string{"eth0", "tun0"}, without: manyTracepoints()})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	find := a.watch(k)
	const source = "10.98.0.9"
	send := func(port uint16) {
		t.Helper()
		if _, err := tun.Fds[0].Write(ipv4(source, 6, 0, tcpSYN(port))); err != nil {
			t.Fatal(err)
		}
	}
	send(1001)
	find("the probe on the tunnel", func(e *event.Event) bool {
		return e.Activity == event.ActivityProbe && e.Network.Remote.Addr().String() == source && e.Network.Local.Port() == 1001
	})
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(source + "/32")}, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	send(1002)
	if active := k.Active(); len(active) != 1 || active[0].Hits == 0 {
		t.Errorf("the packet was not refused: %+v", active)
	}
}

// One interface that cannot be had costs that interface, and says so.
func TestMissingInterfaceIsSaid(t *testing.T) {
	a, b := twoHosts(t)
	var k *Kernel
	if err := a.do(func() (err error) {
		k, err = Load(context.Background(), Options{Cgroup: a.cgroup, Interfaces: []string{"eth0", "eth7"}, without: manyTracepoints()})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	i := slices.IndexFunc(k.Coverage(), func(c Check) bool { return c.Name == "actuator/deny-address" })
	if c := k.Coverage()[i]; c.OK || c.Lost == "" {
		t.Errorf("%+v", c)
	}
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(b.addr + "/32")}, TTL: time.Hour}); err != nil {
		t.Error("eth0 was lost with eth7:", err)
	}
}

// Neither a relative name, nor a link to it, nor a file put in its place runs.
func TestDenyExecKnowsThePathByAnyName(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{})
	dir := t.TempDir()
	tool := filepath.Join(dir, "tool")
	put := func() {
		t.Helper()
		os.Remove(tool)
		if out, err := exec.Command("cp", "/bin/true", tool).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
	put()
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Path: tool}, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	put() // another inode by the same name
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(tool, link); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{tool, link, "cd " + dir + " && exec ./tool", dir + "/../" + filepath.Base(dir) + "/tool"} {
		if out, err := a.run(t.Context(), "/bin/bash", "-c", how); err == nil {
			t.Errorf("%s ran: %s", how, out)
		}
	}
}

// A process that knocks in a loop costs a record a second, not the ring.
func TestRefusalsAreTold(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{RingBytes: 64 << 10})
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(b.addr + "/32")}, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	const tries = 1000 // of 200 bytes each: three times the ring, which nobody reads
	if out, err := a.run(t.Context(), "/bin/bash", "-c", fmt.Sprintf("for ((i=0;i<%d;i++)); do : 3<>/dev/tcp/%s/9; done 2>/dev/null; true", tries, b.addr)); err != nil {
		t.Fatal(err, out)
	}
	drops, err := k.Drops()
	if err != nil {
		t.Fatal(err)
	}
	if active := k.Active(); len(active) != 1 || active[0].Hits < tries {
		t.Errorf("%+v", active)
	}
	if drops["refuse"] != 0 {
		t.Errorf("a loop of refusals filled the ring: %v", drops)
	}
}
