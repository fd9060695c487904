package discovery

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/omega-mesh/omega/trust"
)

const somebody = "12D3KooWDTDd5uYVF97ovHXwYSSkF3xmKTScwGLsKsfZ4iy2Z4iw"

func TestBook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.txt")
	now := time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)
	b, err := OpenBook(path, now)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.Decode(somebody)
	if err != nil {
		t.Fatal(err)
	}
	for k, a := range []string{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1", "/ip4/10.0.0.3/tcp/1", "/ip4/10.0.0.4/tcp/1", "/ip4/10.0.0.5/tcp/1"} {
		b.Worked(id, ma.StringCast(a), now.Add(time.Duration(k)*time.Minute))
	}
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(text)), "\n"); len(lines) != maxPerPeer || lines[0] != "/ip4/10.0.0.2/tcp/1/p2p/"+somebody+" 2026-11-23T01:03:03Z" {
		t.Errorf("the book reads:\n%s", text)
	}
	b, err = OpenBook(path, now.Add(5*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	all := b.All()
	if len(all) != 1 || len(all[0].Addrs) != maxPerPeer || all[0].Addrs[0].String() != "/ip4/10.0.0.5/tcp/1" {
		t.Errorf("read back %v", all)
	}
	if again, err := OpenBook(path, now.Add(2*forgetAfter)); err != nil || len(again.All()) != 0 {
		t.Errorf("addresses of two months ago are still there: %v", err)
	}
	b.Forget(id)
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || len(text) != 0 {
		t.Errorf("%q, %v", text, err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A damaged book costs the damaged lines and nothing else.
func TestDamagedBook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.txt")
	text := "garbage\n\x00\xff\n/ip4/10.0.0.1/tcp/1\n/ip4/1/p2p/x now\n/ip4/10.0.0.9/tcp/9/p2p/" + somebody + "\n/ip4/10.0.0.8/tcp/9/p2p/" + somebody + " 2999-01-01T00:00:00Z\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := OpenBook(path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if all := b.All(); len(all) != 1 || len(all[0].Addrs) != 1 || all[0].Addrs[0].String() != "/ip4/10.0.0.9/tcp/9" {
		t.Errorf("read %v", all)
	}
}

func TestServiceName(t *testing.T) {
	id := trust.SwarmID{1, 2, 3}
	name := ServiceName(id)
	if strings.Contains(name, id.Short()) || strings.Contains(name, "omega") || name == ServiceName(trust.SwarmID{1, 2, 4}) || len(name) != 1+16+5 {
		t.Errorf("service name %s", name)
	}
}

func FuzzBookLine(f *testing.F) {
	f.Add("/ip4/10.0.0.9/tcp/9/p2p/" + somebody + " 2026-01-01T00:00:00Z")
	f.Add("/ip6/::1/udp/9/quic-v1/p2p/" + somebody)
	f.Fuzz(func(t *testing.T, line string) {
		p, addr, _, ok := parseLine(line, time.Unix(1_800_000_000, 0))
		if !ok {
			return
		}
		if _, err := ma.NewMultiaddr(addr); err != nil || p == "" {
			t.Errorf("accepted %q as %q, %v", line, addr, err)
		}
	})
}
