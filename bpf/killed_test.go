package bpf

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// killedEnv makes this binary a node that blocks an address, says until when and is killed: cgroup, pin folder and address.
const killedEnv = "OMEGA_BPF_TEST_KILLED"

// shortBlock is the life of a block that outlives its node.
const shortBlock = 4 * time.Second

func blockAndWait(args string) int {
	f := strings.Fields(args)
	k, err := Load(context.Background(), Options{Cgroup: f[0], PinDir: f[1], Interfaces: []string{"eth0"}})
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
