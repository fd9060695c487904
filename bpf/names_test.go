package bpf

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// within runs f on a thread in the host's namespace while this whole process is in the host's cgroup.
func (h *host) within(f func() error) error {
	old, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	root, err := cgroupRoot()
	if err != nil {
		return err
	}
	var home string
	for _, line := range strings.Split(string(old), "\n") {
		if len(line) > 3 && line[:3] == "0::" {
			home = filepath.Join(root, line[3:])
		}
	}
	if err := os.WriteFile(filepath.Join(h.cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	err = h.do(f)
	return errors.Join(err, os.WriteFile(filepath.Join(home, "cgroup.procs"), []byte("0"), 0))
}

// nameServer answers every question on h's port 53: for a name among aliases with where that leads (a CNAME each), and at
// the end with address, or for AAAA with address6.
func nameServer(t *testing.T, h *host, address [4]byte, aliases map[string]string) {
	t.Helper()
	var conn net.PacketConn
	if err := h.do(func() (err error) {
		conn, err = net.ListenPacket("udp4", h.addr+":53")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil {
				continue
			}
			m.Response = true
			name := m.Questions[0].Name
			for to, ok := aliases[name.String()]; ok; to, ok = aliases[name.String()] {
				next := dnsmessage.MustNewName(to)
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeCNAME, Class: dnsmessage.ClassINET, TTL: 60},
					Body: &dnsmessage.CNAMEResource{CNAME: next}})
				name = next
			}
			last := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name, Type: m.Questions[0].Type, Class: dnsmessage.ClassINET, TTL: 60}, Body: &dnsmessage.AResource{A: address}}
			if m.Questions[0].Type == dnsmessage.TypeAAAA {
				last.Body = &dnsmessage.AAAAResource{AAAA: address6}
			}
			m.Answers = append(m.Answers, last)
			if out, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
}

// address6 is b's, where haveIPv6 was asked for.
var address6 = netip.MustParseAddr("fd00:99::2").As16()

// haveIPv6 gives both hosts an address.
func haveIPv6(t *testing.T, hosts ...*host) {
	t.Helper()
	for i, h := range hosts {
		if err := h.do(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			addr, err := netlink.ParseAddr(fmt.Sprintf("fd00:99::%d/64", i+1))
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			return netlink.AddrAdd(l, addr)
		}); err != nil {
			t.Skip("no IPv6 here: ", err)
		}
	}
}

// ask sends one question from this thread's namespace.
func ask(server, name string) error { return askFor(server, name, dnsmessage.TypeA) }

func askFor(server, name string, kind dnsmessage.Type) error {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	out, err := m.Pack()
	if err != nil {
		return err
	}
	c, err := net.Dial("udp4", server+":53")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(out); err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	_, err = c.Read(make([]byte, 512))
	return err
}

func TestSensorNamesFlows(t *testing.T) {
	a, b := twoHostsAlways(t)
	k := a.load(Options{})
	find := a.watch(k)
	nameServer(t, b, [4]byte{10, 99, 0, 2}, nil)
	port := b.listen(t)
	address := netip.AddrPortFrom(netip.MustParseAddr(b.addr), port)
	if err := a.within(func() error {
		if err := ask(b.addr, "WWW.Evil.Example."); err != nil {
			return err
		}
		c, err := net.Dial("tcp4", address.String())
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_ = tls.Client(c, &tls.Config{ServerName: "sni.evil.example"}).HandshakeContext(ctx) // the other side only echoes
		c.Close()
		refused, err := net.Dial("tcp4", b.addr+":9")
		if !errors.Is(err, syscall.ECONNREFUSED) {
			refused.Close()
			return errors.New("port 9 answers")
		}
		bound, err := net.ListenPacket("udp4", "127.0.0.1:5999")
		if err != nil {
			return err
		}
		return bound.Close()
	}); err != nil {
		t.Fatal(err)
	}
	self := uint32(os.Getpid())
	find("the question", func(e *event.Event) bool {
		return e.Activity == event.ActivityDNSQuery && e.DNS.Name == "www.evil.example" && e.DNS.ID == 7 && e.Process.Key.PID == self
	})
	find("the answer", func(e *event.Event) bool {
		return e.Activity == event.ActivityDNSAnswer && e.DNS.Answers == b.addr && e.Process.Key.PID == self
	})
	find("a connect with its name", func(e *event.Event) bool {
		return e.Activity == event.ActivityConnect && e.Network.Remote == address && e.Network.Name == "www.evil.example"
	})
	find("one flow record with name, server name and bytes", func(e *event.Event) bool {
		return e.Activity == event.ActivityClose && e.Network.Remote == address && e.Network.SNI == "sni.evil.example" &&
			e.Network.Name == "www.evil.example" && e.Network.BytesOut > 0 && e.Process.Key.PID == self
	})
	find("why a connect failed", func(e *event.Event) bool {
		return e.Activity == event.ActivityClose && e.Network.Remote.Port() == 9 && e.Result == int32(unix.ECONNREFUSED)
	})
	find("the first datagram", func(e *event.Event) bool {
		return e.Activity == event.ActivityConnect && e.Network.Protocol == 17 && e.Network.Remote.Port() == 53 && e.Process.Key.PID == self
	})
	find("the end of a UDP flow with bytes", func(e *event.Event) bool {
		return e.Activity == event.ActivityClose && e.Network.Protocol == 17 && e.Network.Remote.Port() == 53 && e.Network.BytesOut > 20 && e.Network.BytesIn > 20
	})
	find("a bind", func(e *event.Event) bool {
		return e.Activity == event.ActivityBind && e.Network.Local.Port() == 5999 && e.Process.Key.PID == self
	})
}

// A socket that is used again for another server has that server's name, or none; and one whose process is long gone still
// says whose it was.
func TestFlowsKeepToTheirOwn(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{})
	find := a.watch(k)
	port := b.listen(t)
	address := netip.AddrPortFrom(netip.MustParseAddr(b.addr), port)
	var locals [3]uint16
	if err := a.within(func() error {
		for i, name := range []string{"first.example", "", "third.example"} {
			c, err := net.Dial("tcp4", address.String())
			if err != nil {
				return err
			}
			locals[i] = c.LocalAddr().(*net.TCPAddr).AddrPort().Port()
			if name != "" {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				_ = tls.Client(c, &tls.Config{ServerName: name}).HandshakeContext(ctx)
				cancel()
			}
			c.Close()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"first.example", "", "third.example"} {
		e := find("close "+want, func(e *event.Event) bool {
			return e.Activity == event.ActivityClose && e.Network.Local.Port() == locals[i] && e.Network.Remote == address
		})
		if e.Network.SNI != want {
			t.Errorf("flow %d has %q, want %q", i, e.Network.SNI, want)
		}
	}
	// A ClientHello in small pieces, as any sender may cut it, its handshake over two TLS records.
	if err := a.within(func() error {
		c, err := net.Dial("tcp4", address.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.(*net.TCPConn).SetNoDelay(true)
		locals[0] = c.LocalAddr().(*net.TCPAddr).AddrPort().Port()
		whole := captureHello(t, "cut.example")
		records := slices.Concat([]byte{22, 3, 1, 0, 60}, whole[5:65], []byte{22, 3, 1, byte((len(whole) - 65) >> 8), byte(len(whole) - 65)}, whole[65:])
		echo := make([]byte, len(records))
		for at := 0; at < len(records); {
			n := min(len(records)-at, max(3, len(records)/10))
			if at == 0 {
				n = 1
			}
			if _, err := c.Write(records[at : at+n]); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, echo[:n]); err != nil { // so that each piece is a segment of its own
				return err
			}
			at += n
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	find("the name of a ClientHello in pieces", func(e *event.Event) bool {
		return e.Activity == event.ActivityClose && e.Network.Local.Port() == locals[0] && e.Network.SNI == "cut.example"
	})
	if out, err := a.run(t.Context(), "/bin/bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d; echo x >&3; read -t 1 -u 3 line; exit 0", b.addr, port)); err != nil {
		t.Fatal(err, out)
	}
	e := find("the close after its process's end", func(e *event.Event) bool {
		return e.Activity == event.ActivityClose && e.Network.Remote == address && e.Process.Comm == "bash"
	})
	if filepath.Base(e.Process.Exe) != "bash" || e.Process.Parent.PID == 0 || e.Process.CgroupID == 0 || e.Network.BytesOut != 2 || e.Network.BytesIn != 2 || e.Network.Local.Port() == 0 {
		t.Errorf("%+v %+v", e.Process, e.Network)
	}
}

// captureHello is what the standard library's client sends first.
func captureHello(t *testing.T, name string) []byte {
	client, server := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, &tls.Config{ServerName: name}).HandshakeContext(ctx)
	}()
	b := make([]byte, 4096)
	n, err := server.Read(b)
	cancel()
	client.Close()
	server.Close()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// listenAndShare is a program that listens and has a child accept: the connection is the child's.
const listenAndShare = `import os, socket, sys
s = socket.create_server((sys.argv[1], 0))
child = os.fork()
if child == 0:
    c, _ = s.accept()
    c.recv(1)
    os._exit(0)
print(s.getsockname()[1], os.getpid(), child, flush=True)
os.waitpid(child, 0)
`

func TestAcceptIsTheirsWhoAccepted(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	a, b := twoHostsAlways(t)
	k := a.load(Options{})
	find := a.watch(k)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ended := make(chan error, 1)
	go func() {
		defer w.Close()
		ended <- a.do(func() error {
			dir, err := os.Open(a.cgroup)
			if err != nil {
				return err
			}
			defer dir.Close()
			cmd := exec.CommandContext(t.Context(), python, "-c", listenAndShare, a.addr)
			cmd.Stdout = w
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
			return cmd.Run()
		})
	}()
	var port uint16
	var parent, child uint32
	if _, err := fmt.Fscan(r, &port, &parent, &child); err != nil {
		t.Fatal(err)
	}
	c, err := b.dial(a.addr, port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	c.Close()
	for _, what := range []event.Activity{event.ActivityAccept, event.ActivityClose} {
		e := find(what.String(), func(e *event.Event) bool { return e.Activity == what && e.Network.Local.Port() == port })
		if e.Process.Key.PID != child || e.Process.Parent.PID != parent || !strings.Contains(e.Process.Exe, "python3") || !e.Network.Inbound {
			t.Errorf("%s: %+v, want process %d of %d", what, e.Process, child, parent)
		}
	}
	// Nobody takes this one: the listener's, a moment later.
	var l net.Listener
	if err := a.within(func() (err error) {
		l, err = net.Listen("tcp4", a.addr+":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port = uint16(l.Addr().(*net.TCPAddr).Port)
	if c, err = b.dial(a.addr, port); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	find("one that nobody accepts", func(e *event.Event) bool {
		return e.Activity == event.ActivityAccept && e.Network.Local.Port() == port && e.Process.Key.PID == uint32(os.Getpid())
	})
}

func TestRawSocketsAreSeen(t *testing.T) {
	a, _ := twoHosts(t)
	k := a.load(Options{})
	find := a.watch(k)
	if err := a.within(func() error {
		for _, s := range [][3]int{{unix.AF_PACKET, unix.SOCK_RAW, 0x0300}, {unix.AF_INET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP}, {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6}, {unix.AF_NETLINK, unix.SOCK_RAW, 0}} {
			fd, err := unix.Socket(s[0], s[1], s[2])
			if err != nil {
				return err
			}
			unix.Close(fd)
		}
		if _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, 0); !errors.Is(err, unix.EPROTONOSUPPORT) {
			return fmt.Errorf("a raw socket of no protocol: %v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	self := uint32(os.Getpid())
	for _, want := range []struct {
		operation string
		number    uint64
		result    int32
	}{{"AF_PACKET SOCK_RAW", 0x0300, 0}, {"AF_INET SOCK_RAW", unix.IPPROTO_ICMP, 0}, {"AF_INET6 SOCK_RAW", unix.IPPROTO_ICMPV6, 0}, {"AF_INET SOCK_RAW", 0, int32(unix.EPROTONOSUPPORT)}} {
		find(want.operation, func(e *event.Event) bool {
			return e.Activity == event.ActivityRawSocket && e.Access.Operation == want.operation && e.Access.Number == want.number && e.Result == want.result && e.Process.Key.PID == self
		})
	}
}

func TestPortsAreMuted(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{})
	find := a.watch(k)
	nameServer(t, b, [4]byte{10, 99, 0, 2}, nil)
	quiet, loud := b.listen(t), b.listen(t)
	if err := k.SetFilters(Filters{Ports: []uint16{quiet, 53}}); err != nil {
		t.Fatal(err)
	}
	if err := a.within(func() error {
		if err := ask(b.addr, "muted.example."); err != nil {
			return err
		}
		for _, port := range []uint16{quiet, loud} {
			c, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr(b.addr), port).String())
			if err != nil {
				return err
			}
			c.Close()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	told := false
	find("the port that is not muted", func(e *event.Event) bool { // reads all that came before
		if p := e.Network.Remote.Port(); p == quiet || p == 53 || e.Class == event.ClassDNS {
			told = true
		}
		return e.Activity == event.ActivityClose && e.Network.Remote.Port() == loud
	})
	if told {
		t.Error("a muted port was told of")
	}
}

// What is no DNS is told and counted.
func TestMalformedNamesAreCounted(t *testing.T) {
	c := newNameCache()
	b := make([]byte, nameSize+16)
	binary.NativeEndian.PutUint16(b, recordQuery)
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	binary.NativeEndian.PutUint32(b[flowSize:], 16)
	b = aligned(b)
	s := RingSensor{tree: NewProcessTree(), listeners: map[uint16]event.ProcessKey{}, names: newNameCache()}
	var e event.Event
	if err := decode(b, 0, &e); err != nil {
		t.Fatal(err)
	}
	told := 0
	s.hand(b, &e, func(*event.Event) { told++ })
	if told != 1 || s.Drops()["dns_malformed"] != 1 {
		t.Errorf("told %d, %v", told, s.Drops())
	}
	if n := testing.AllocsPerRun(100, func() { _ = decode(b, 0, &e); c.complete(b, recordQuery, &e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// callsTo counts the connections that are begun to h's port, on h's own wire: what left the other host. It is asked after a
// connection that was let through, so that none is still on its way.
func callsTo(t *testing.T, h *host, port uint16) func() int {
	t.Helper()
	var fd int
	if err := h.do(func() (err error) {
		all := uint16(unix.ETH_P_ALL)
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all<<8|all>>8))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	b := make([]byte, 2048)
	return func() (calls int) {
		for {
			n, from, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				if !errors.Is(err, unix.EAGAIN) {
					t.Fatal(err)
				}
				return calls
			}
			if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			tcp := b[:0]
			switch {
			case n >= 40 && b[0] == 0x45 && b[9] == 6:
				tcp = b[20:n]
			case n >= 60 && b[0]>>4 == 6 && b[6] == 6:
				tcp = b[40:n]
			}
			if len(tcp) >= 20 && binary.BigEndian.Uint16(tcp[2:]) == port && tcp[13]&0x12 == 2 {
				calls++
			}
		}
	}
}

// refusing is a host whose connections to one address are refused or not, and counted where they would arrive.
type refusing struct {
	t       *testing.T
	from    *host
	k       *Kernel
	address string
	calls   func() int
}

func (r *refusing) deny(id string, target event.Target) {
	r.t.Helper()
	if _, err := r.k.Apply(r.t.Context(), event.Response{ID: id, Action: event.ActionDeny, Target: target, TTL: time.Hour}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *refusing) ask(server, name string) {
	r.t.Helper()
	if err := r.from.within(func() error { return ask(server, name) }); err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
}

// refused tries times connections, of which none may be made; ended must end the block. Not one SYN may have left before
// that of the connection which then comes through.
func (r *refusing) refused(what string, times int, ended func()) {
	r.t.Helper()
	r.calls()
	if err := r.from.within(func() error {
		for range times {
			c, err := net.Dial("tcp", r.address)
			if err == nil {
				c.Close()
				return errors.New("a connection was made")
			}
			if !errors.Is(err, syscall.EPERM) {
				return err
			}
		}
		return nil
	}); err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
	ended()
	r.reached("after the end of: " + what)
	if n := r.calls(); n != 1 {
		r.t.Errorf("%s: %d calls left in spite of it", what, n-1)
	}
}

func (r *refusing) reached(what string) {
	r.t.Helper()
	if err := r.from.within(func() error {
		c, err := net.Dial("tcp", r.address)
		if err != nil {
			return err
		}
		return c.Close()
	}); err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
}

func (r *refusing) release(ids ...string) func() {
	return func() {
		r.t.Helper()
		for _, id := range ids {
			if _, err := r.k.Release(r.t.Context(), id); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

const evil, other = "0123456789abcdef0123456789abcde0", "0123456789abcdef0123456789abcde1"

func TestDenyByNamePortAndAddress(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{})
	nameServer(t, b, [4]byte{10, 99, 0, 2}, nil)
	port := b.listen(t)
	r := &refusing{t, a, k, netip.AddrPortFrom(netip.MustParseAddr(b.addr), port).String(), callsTo(t, b, port)}
	// The address is learned before the name is denied.
	r.ask(b.addr, "c2.evil.example.")
	r.reached("before")
	r.deny(evil, event.Target{Domain: "evil.example"})
	r.refused("an address given for a denied name", 1000, func() {
		if err := a.within(func() error {
			if err := ask(b.addr, "sub.EVIL.example."); !errors.Is(err, syscall.EPERM) {
				return errors.New("a denied name was asked for")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if got := k.Active(); len(got) != 1 || got[0].Target.Domain != "evil.example" || got[0].Hits < 1000 {
			t.Errorf("%+v", got)
		}
		if err := k.SetSpared([]netip.Prefix{netip.MustParsePrefix(b.addr + "/32")}); err != nil {
			t.Fatal(err)
		}
	})
	if err := a.within(func() error { return ask(b.addr, "notevil.example.") }); err != nil {
		t.Fatal("another name that ends alike: ", err)
	}
	if err := k.SetSpared(nil); err != nil {
		t.Fatal(err)
	}
	r.refused("an address spared no more", 10, r.release(evil))
	r.deny(other, event.Target{Port: port, Protocol: 6})
	r.refused("a denied port", 1000, r.release(other))
	r.deny(evil, event.Target{Address: netip.PrefixFrom(netip.MustParseAddr(b.addr), 32)})
	r.refused("a denied address", 1000, r.release(evil))
	r.deny(other, event.Target{Address: netip.MustParsePrefix("10.99.0.0/24")})
	r.refused("a denied prefix", 1000, r.release(other))
}

// An alias, a second name, and the other way round in time: what counts is that the address was given for a denied name.
func TestDenyFollowsAnswers(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{})
	nameServer(t, b, [4]byte{10, 99, 0, 2}, map[string]string{"cdn.innocent.example.": "Edge.Middle.example.", "Edge.Middle.example.": "x.evil.example.", "x.evil.example.": "last.example."})
	port := b.listen(t)
	r := &refusing{t, a, k, netip.AddrPortFrom(netip.MustParseAddr(b.addr), port).String(), callsTo(t, b, port)}

	r.deny(evil, event.Target{Domain: "evil.example"})
	r.reached("nothing was asked yet")
	r.ask(b.addr, "cdn.innocent.example.") // the question is nobody's business
	r.refused("an address behind an alias that is denied", 10, r.release(evil))

	r.deny(evil, event.Target{Domain: "middle.example"})
	r.refused("an alias denied after the answer", 10, r.release(evil))

	r.ask(b.addr, "first.evil.example.")
	r.ask(b.addr, "www.innocent.example.")
	r.deny(evil, event.Target{Domain: "first.evil.example"})
	r.refused("an address given for an innocent name meanwhile", 10, r.release(evil))

	r.deny(evil, event.Target{Domain: "evil.example"})
	r.deny(other, event.Target{Domain: "innocent.example"})
	r.release(evil)()
	r.refused("an address of two denied names, of which one was released", 10, r.release(other))
}

func TestDenyByNameAndPortIPv6(t *testing.T) {
	a, b := twoHosts(t)
	haveIPv6(t, a, b)
	k := a.load(Options{})
	nameServer(t, b, [4]byte{10, 99, 0, 2}, nil)
	var l net.Listener
	if err := b.do(func() (err error) {
		l, err = net.Listen("tcp6", "[::]:0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	r := &refusing{t, a, k, netip.AddrPortFrom(netip.AddrFrom16(address6), port).String(), callsTo(t, b, port)}
	if err := a.within(func() error { return askFor(b.addr, "six.evil.example.", dnsmessage.TypeAAAA) }); err != nil {
		t.Fatal(err)
	}
	r.reached("before")
	r.deny(evil, event.Target{Domain: "evil.example"})
	r.refused("an IPv6 address given for a denied name", 10, r.release(evil))
	r.deny(other, event.Target{Port: port})
	r.refused("a denied port over IPv6", 10, r.release(other))
}

// With no room left for another address of a denied name, the answer that brings one does not arrive, and is counted.
func TestDeniedNamesFull(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{})
	nameServer(t, b, [4]byte{10, 99, 0, 2}, map[string]string{"cdn.innocent.example.": "x.evil.example."})
	port := b.listen(t)
	r := &refusing{t, a, k, netip.AddrPortFrom(netip.MustParseAddr(b.addr), port).String(), callsTo(t, b, port)}
	r.deny(evil, event.Target{Domain: "evil.example"})
	suspect := k.refuse.Maps["suspect"]
	for i := range suspect.MaxEntries() {
		key := [16]byte{0: 0x20, 12: byte(i >> 24), 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}
		if err := suspect.Put(key, givenValue{Until: ^uint64(0)}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := a.within(func() error {
		m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("cdn.innocent.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		out, err := m.Pack()
		if err != nil {
			return err
		}
		c, err := net.Dial("udp4", b.addr+":53")
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write(out); err != nil {
			return err
		}
		for {
			drops, err := k.Drops()
			if err != nil {
				return err
			}
			if drops["denied_names_full"] > 0 {
				break
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		_ = c.SetReadDeadline(time.Now())
		if n, err := c.Read(make([]byte, 512)); err == nil {
			return fmt.Errorf("the answer arrived, %d bytes", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// The next look makes room: those entries are of no name that is denied.
	r.deny(other, event.Target{Domain: "other.example"})
	r.ask(b.addr, "cdn.innocent.example.")
	r.refused("an address behind an alias, when there is room again", 10, r.release(evil, other))
}

func TestDomainKey(t *testing.T) {
	for _, bad := range []string{"", ".", "a..b", string(make([]byte, 64)), string(make([]byte, 300))} {
		if _, err := backwards(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	key, err := backwards("Evil.Example.")
	if err != nil {
		t.Fatal(err)
	}
	var e enforcement
	describeName(&e, slot{"deny_domain", key})
	if e.target.Domain != "evil.example" {
		t.Errorf("%q", e.target.Domain)
	}
	slots, _ := nameSlots(event.Target{Port: 4444})
	e = enforcement{}
	for _, s := range slots {
		describeName(&e, s)
	}
	if len(slots) != 2 || e.target.Port != 4444 || e.target.Protocol != 0 {
		t.Errorf("%+v of %d entries", e.target, len(slots))
	}
}
