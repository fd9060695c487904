package bpf

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
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

// nameServer answers every A question on h's port 53 with address.
func nameServer(t *testing.T, h *host, address [4]byte) {
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
			m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 60},
				Body: &dnsmessage.AResource{A: address}}}
			if out, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
}

// ask sends one question from this thread's namespace.
func ask(server, name string) error {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
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
	a, b := twoHosts(t)
	k := a.load(Options{})
	find := a.watch(k)
	nameServer(t, b, [4]byte{10, 99, 0, 2})
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

// packetsOut is how many packets h has sent by its veth.
func packetsOut(t *testing.T, h *host) (n uint64) {
	t.Helper()
	if err := h.do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		n = l.Attrs().Statistics.TxPackets
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDenyByNameAndPort(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{})
	nameServer(t, b, [4]byte{10, 99, 0, 2})
	port := b.listen(t)
	address := netip.AddrPortFrom(netip.MustParseAddr(b.addr), port).String()
	const evil, ports = "0123456789abcdef0123456789abcde0", "0123456789abcdef0123456789abcde1"
	deny := func(id string, target event.Target) {
		t.Helper()
		if _, err := k.Apply(t.Context(), event.Response{ID: id, Action: event.ActionDeny, Target: target, TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string) {
		t.Helper()
		if err := a.within(func() error {
			if c, err := net.Dial("tcp4", address); err == nil { // the neighbour's address is known from here on
				c.Close()
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		before := packetsOut(t, a)
		if err := a.within(func() error {
			for range 1000 {
				c, err := net.Dial("tcp4", address)
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
			t.Fatalf("%s: %v", what, err)
		}
		if after := packetsOut(t, a); after > before+3 { // an earlier connection's last words may still go
			t.Errorf("%s: %d packets left", what, after-before)
		}
	}
	reached := func(what string) {
		t.Helper()
		if err := a.within(func() error {
			c, err := net.Dial("tcp4", address)
			if err != nil {
				return err
			}
			return c.Close()
		}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	// The address is learned before the name is denied.
	if err := a.within(func() error { return ask(b.addr, "c2.evil.example.") }); err != nil {
		t.Fatal(err)
	}
	reached("before")
	deny(evil, event.Target{Domain: "evil.example"})
	refused("an address given for a denied name")
	if err := a.within(func() error {
		if err := ask(b.addr, "sub.EVIL.example."); !errors.Is(err, syscall.EPERM) {
			return errors.New("a denied name was asked for")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := k.SetSpared([]netip.Prefix{netip.MustParsePrefix(b.addr + "/32")}); err != nil {
		t.Fatal(err)
	}
	reached("a protected address, whatever its name")
	if err := a.within(func() error { return ask(b.addr, "notevil.example.") }); err != nil {
		t.Fatal("another name that ends alike: ", err)
	}
	if err := k.SetSpared(nil); err != nil {
		t.Fatal(err)
	}
	if got := k.Active(); len(got) != 1 || got[0].Target.Domain != "evil.example" || got[0].Hits < 1000 {
		t.Errorf("%+v", got)
	}
	if _, err := k.Release(t.Context(), evil); err != nil {
		t.Fatal(err)
	}
	reached("a released name")
	deny(ports, event.Target{Port: port, Protocol: 6})
	refused("a denied port")
	if _, err := k.Release(t.Context(), ports); err != nil {
		t.Fatal(err)
	}
	reached("a released port")
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
