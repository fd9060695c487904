package bpf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// killedEnv makes this binary a node that blocks an address, says until when and is killed: cgroup, pin folder and address.
const killedEnv = "BPF_TEST_KILLED"

// shortBlock is the life of a block that outlives its node.
const shortBlock = 4 * time.Second

func blockAndWait(args string) int {
	f := strings.Fields(args)
	if len(f) == 5 {
		return nameAndWait(f)
	}
	k, err := Load(context.Background(), Options{Cgroup: f[0], PinDir: f[1], Interfaces: []string{"eth0"}, without: manyTracepoints()})
	if err == nil {
		_, err = k.Apply(context.Background(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(f[2])}, TTL: shortBlock})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(k.Active()[0].Expires)
	select {} // until it is killed
}

// nameAndWait denies a domain for an hour and a port for a moment: cgroup, pin folder, server to ask, domain, port.
func nameAndWait(f []string) int {
	port, err := strconv.ParseUint(f[4], 10, 16)
	var k *Kernel
	if err == nil {
		k, err = Load(context.Background(), Options{Cgroup: f[0], PinDir: f[1], Interfaces: []string{"eth0"}, without: manyTracepoints()})
	}
	for id, r := range map[string]event.Response{evil: {Target: event.Target{Domain: f[3]}, TTL: time.Hour}, other: {Target: event.Target{Port: uint16(port)}, TTL: shortPort}} {
		if r.ID, r.Action = id, event.ActionDeny; err == nil {
			_, err = k.Apply(context.Background(), r)
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, e := range k.Active() {
		if e.Target.Port != 0 {
			fmt.Println(e.Expires)
		}
	}
	select {} // until it is killed
}

const shortPort = 1500 * time.Millisecond

// Names are learned, and refused, while nobody lives; a port's end comes all the same; the next node knows what stands.
func TestNamesOfAKilledNodeStayDenied(t *testing.T) {
	a, b := twoHosts(t)
	if err := mountBPF(t); err != nil {
		t.Skip("no BPF file system can be mounted here:", err)
	}
	pins := filepath.Join("/sys/fs/bpf", filepath.Base(a.cgroup))
	t.Cleanup(func() { Cleanup(pins) })
	nameServer(t, b, [4]byte{10, 99, 0, 2}, map[string]string{"cdn.innocent.example.": "x.evil.example."})
	port := b.listen(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killedEnv+"="+strings.Join([]string{a.cgroup, pins, b.addr, "evil.example", fmt.Sprint(port)}, " "))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var expires uint64
	if line := bufio.NewScanner(out); !line.Scan() {
		t.Fatal("the node says nothing")
	} else if _, err := fmt.Sscan(line.Text(), &expires); err != nil {
		t.Fatalf("the node says %q", line.Text())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	r := &refusing{t: t, from: a, address: netip.AddrPortFrom(netip.MustParseAddr(b.addr), port).String(), calls: callsTo(t, b, port)}
	if err := a.within(func() error {
		for ctx := t.Context(); ctx.Err() == nil; {
			c, err := net.Dial("tcp4", r.address)
			if err == nil {
				return c.Close()
			}
			if !errors.Is(err, syscall.EPERM) || BootTime() > expires+uint64(10*time.Second) {
				return err
			}
		}
		return t.Context().Err()
	}); err != nil {
		t.Fatal(err)
	}
	if now := BootTime(); now < expires {
		t.Errorf("the port was open %s before the end of its block", time.Duration(expires-now))
	}
	r.ask(b.addr, "cdn.innocent.example.") // with no node to hear the answer
	r.refused("a name denied by a node that was killed", 100, func() {
		r.k = a.load(Options{PinDir: pins})
		if got := r.k.Active(); len(got) != 1 || got[0].ID != evil || got[0].Target.Domain != "evil.example" || got[0].Hits < 100 {
			t.Errorf("adopted %+v", got)
		}
		r.release(evil)()
	})
}

// A network namespace is gone with its last process: what was open there is told closed, and those after it work.
func TestNamespacesComeAndGo(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{})
	find := a.watch(k)
	nameServer(t, b, [4]byte{10, 99, 0, 2}, nil)
	port := b.listen(t)
	if _, err := k.Apply(t.Context(), event.Response{ID: evil, Action: event.ActionDeny, Target: event.Target{Port: 6667}, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		script := "ip link set lo up; ip addr add 10.5.0.1/24 dev lo; exec 3<>/dev/udp/10.5.0.1/53; echo x >&3; (exec 4<>/dev/tcp/10.5.0.1/1) 2>/dev/null; " +
			"(exec 4<>/dev/tcp/10.5.0.1/6667) 2>&1 | grep -q 'not permitted'"
		if out, err := a.run(t.Context(), "unshare", "--net", "/bin/bash", "-c", script); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := a.within(func() error {
		if err := ask(b.addr, "after.example."); err != nil {
			return err
		}
		c, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr(b.addr), port).String())
		if err != nil {
			return err
		}
		return c.Close()
	}); err != nil {
		t.Fatal(err)
	}
	refused := map[event.ProcessKey]bool{}
	find("a close after all of them", func(e *event.Event) bool {
		if e.Activity == event.ActivityRefuse && e.Network.Remote.Port() == 6667 {
			refused[e.Process.Key] = true
		}
		return e.Activity == event.ActivityClose && e.Network.Remote.Port() == port && e.Network.Name == "after.example"
	})
	if len(refused) != 20 {
		t.Errorf("%d of 20 refusals were told", len(refused))
	}
	if n, err := countFlows(k); err != nil || n != 0 {
		t.Errorf("%d flows are left over, %v", n, err)
	}
}

// countFlows counts the connections that the network sensor believes to be open.
func countFlows(k *Kernel) (n int, err error) {
	err = errors.Join(eachEntry(k.network.Maps["flows"], func(uint64, networkFlow) { n++ }),
		eachEntry(k.network.Maps["slots"], func(_ uint32, f networkFlow) {
			if f.Cookie != 0 {
				n++
			}
		}))
	return n, err
}

// Where no slot is free a connection has an entry in the table instead; with no room there either it is made all the same,
// told, and its close counted as lost.
func TestFlowsFullAreCounted(t *testing.T) {
	a, b := twoHosts(t)
	k := a.load(Options{})
	find := a.watch(k)
	connect := func() (port uint16) {
		port = b.listen(t)
		if c, err := b.dial(a.addr, a.listen(t)); err == nil {
			c.Close()
		}
		if err := a.within(func() error {
			c, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr(b.addr), port).String())
			if err != nil {
				return err
			}
			return c.Close()
		}); err != nil {
			t.Fatal(err)
		}
		find("the connect", func(e *event.Event) bool {
			return e.Activity == event.ActivityConnect && e.Network.Remote.Port() == port
		})
		return port
	}
	flows, slots := k.network.Maps["flows"], k.network.Maps["slots"]
	keys, values := make([]uint64, flows.MaxEntries()), make([]networkFlow, flows.MaxEntries())
	for i := range keys {
		keys[i], values[i].Cookie = 1<<60+uint64(i), 1<<60+uint64(i) // no socket has that number
	}
	for i := range slots.MaxEntries() {
		if err := slots.Put(i, values[i]); err != nil {
			t.Fatal(err)
		}
	}
	port := connect()
	find("the close of a connection without a slot", func(e *event.Event) bool {
		return e.Activity == event.ActivityClose && e.Network.Remote.Port() == port && e.Process.Key.PID == uint32(os.Getpid()) && e.Network.Duration > 0
	})
	if _, err := flows.BatchUpdate(keys, values, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := countFlows(k); err != nil || n != len(keys)+int(slots.MaxEntries()) {
		t.Errorf("%d flows of %d and %d, %v: the closed one is left over", n, len(keys), slots.MaxEntries(), err)
	}
	connect()
	drops, err := k.Drops()
	if err != nil || drops["close"] < 2 {
		t.Errorf("%v %v", drops, err)
	}
}

// With nobody left to lift it, a pinned block stands until its end and no longer.
func TestBlockOfAKilledNodeEndsOnTime(t *testing.T) {
	a, b := twoHosts(t)
	if err := mountBPF(t); err != nil {
		t.Skip("no BPF file system can be mounted here:", err)
	}
	pins := filepath.Join("/sys/fs/bpf", filepath.Base(a.cgroup))
	t.Cleanup(func() { Cleanup(pins) })
	port := a.listen(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killedEnv+"="+strings.Join([]string{a.cgroup, pins, b.addr + "/32"}, " "))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.do(cmd.Start); err != nil { // in a's network namespace
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var expires uint64
	if line := bufio.NewScanner(out); !line.Scan() {
		t.Fatal("the node says nothing")
	} else if _, err := fmt.Sscan(line.Text(), &expires); err != nil {
		t.Fatalf("the node says %q", line.Text())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	refused := 0
	for deadline := time.Now().Add(30 * time.Second); ; refused++ {
		c, err := b.dial(a.addr, port)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the block outlived its time, and its node")
		}
	}
	if now := BootTime(); now < expires {
		t.Errorf("the block died with its node, %s before its end", time.Duration(expires-now))
	}
	t.Logf("%d connections were refused after the node was killed", refused)
	// The next start has nothing to adopt, and blocks anew.
	k := a.load(Options{PinDir: pins})
	if active := k.Active(); len(active) != 0 {
		t.Errorf("adopted after its end: %+v", active)
	}
	if _, err := k.Apply(t.Context(), event.Response{ID: id1, Action: event.ActionDeny, Target: event.Target{Address: netip.MustParsePrefix(b.addr + "/32")}, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if c, err := b.dial(a.addr, port); err == nil {
		c.Close()
		t.Error("not refused after the restart")
	}
	k.Close()
}
