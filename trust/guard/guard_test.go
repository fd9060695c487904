package guard

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"pgregory.net/rapid"
)

// ward is a host of fixed files and processes.
type ward struct {
	files map[string]File
	procs map[uint32][]Process
}

func (w ward) File(path string) (File, bool) { f, ok := w.files[path]; return f, ok }
func (w ward) Glob(pattern string) (out []string) {
	for p := range w.files {
		if ok, _ := filepath.Match(pattern, p); ok {
			out = append(out, p)
		}
	}
	return out
}
func (w ward) Hash(path string) (string, bool) {
	if path == "/usr/bin/dash" {
		return strings.Repeat("d", 64), true
	}
	return strings.Repeat("0", 64), true
}
func (w ward) Self() (File, []uint32) {
	return File{Path: "/usr/bin/omega", Inode: 900, Device: 1}, []uint32{500}
}
func (w ward) Process(pid uint32, tree bool) ([]Process, bool) {
	p, ok := w.procs[pid]
	if ok && !tree {
		p = p[:1]
	}
	return p, ok
}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func rails(t interface{ Fatal(...any) }) *Rails {
	dash := File{Path: "/usr/bin/dash", Inode: 10, Device: 1}
	exe := func(pid uint32, path string) Process { return Process{PID: pid, Exe: File{Path: path}} }
	g := NewOn(ward{
		files: map[string]File{
			"/bin/sh": dash, "/usr/bin/sh": dash, "/usr/bin/dash": dash, "/tmp/link": dash,
			"/usr/sbin/sshd":                       {Path: "/usr/sbin/sshd", Inode: 11, Device: 1},
			"/usr/lib/x86_64-linux-gnu/ld-2.36.so": {Path: "/usr/lib/x86_64-linux-gnu/ld-2.36.so", Inode: 12, Device: 1},
			"/tmp/sshd":                            {Path: "/tmp/sshd", Inode: 99, Device: 1},
			"/opt/backup/agent":                    {Path: "/opt/backup/agent", Inode: 77, Device: 0x801},
			"/srv/copy":                            {Path: "/opt/backup/agent", Inode: 77, Device: 0x801},
		},
		procs: map[uint32][]Process{
			2:   {{PID: 2, Kernel: true}},
			100: {exe(100, "/tmp/miner"), exe(101, "/usr/bin/dash")},
			200: {exe(200, "/usr/bin/sudo"), exe(201, "/usr/bin/dpkg")},
			300: {exe(300, "/usr/bin/bash (deleted)")},
			400: {exe(400, "/usr/sbin/sshd")},
			500: {exe(500, "/proc/self/exe")},
			600: {{PID: 600, Exe: File{Path: "/x", Inode: 900, Device: 1}}},
		},
	})
	g.SetProved([]Proved{
		{"did:omega:a", addr("10.0.0.1"), 50},
		{"did:omega:b", addr("::ffff:10.0.0.2"), 50},
		{"did:omega:c", addr("10.0.0.3"), 50}, {"did:omega:d", addr("10.0.0.3"), 60}, // one NAT, two members
		{"did:omega:late", addr("10.0.0.9"), 5000},
	})
	g.SetOwn([]netip.Addr{addr("10.0.0.77"), addr("2001:db8::77")})
	g.SetGateways([]netip.Addr{addr("10.0.0.254")})
	g.SetResolvers([]netip.Addr{addr("10.0.1.53")})
	if err := g.SetAllowed([]string{"192.0.2.0/28", "2001:db8:1::/48", "198.51.100.7", "/opt/backup", "::ffff:203.0.113.64/122"}); err != nil {
		t.Fatal(err)
	}
	return g
}

func deny(p string, a event.AuthorityKind) event.Response {
	return event.Response{Action: event.ActionDeny, Target: event.Target{Address: prefix(p)}, Authority: a, TTL: time.Hour}
}

func TestAddresses(t *testing.T) {
	g := rails(t)
	for _, c := range []struct {
		prefix string
		by     event.AuthorityKind
		want   string
	}{
		{"203.0.113.9/32", event.AuthorityPolicy, ""},
		{"2001:db8:9::1/128", event.AuthorityPolicy, ""},
		{"::ffff:203.0.113.9/128", event.AuthorityPolicy, ""},
		{"203.0.113.0/31", event.AuthorityPolicy, RailWide},
		{"203.0.113.0/31", "", RailWide},
		{"2001:db8:9::/127", event.AuthorityPolicy, RailWide},
		{"::ffff:203.0.113.0/127", event.AuthorityPolicy, RailWide},
		{"203.0.113.0/31", event.AuthorityOperator, ""},
		{"10.0.0.1/32", event.AuthorityPolicy, RailPeer},
		{"10.0.0.2/32", event.AuthorityPolicy, RailPeer},
		{"::ffff:10.0.0.1/128", event.AuthorityPolicy, RailPeer},
		{"10.0.0.0/30", event.AuthorityOperator, RailPeer},
		{"::ffff:10.0.0.0/126", event.AuthorityOperator, RailPeer},
		{"10.0.0.9/32", event.AuthorityPolicy, ""}, // proved after the finding
		{"10.0.0.77/32", event.AuthorityPolicy, RailOwn},
		{"2001:db8::77/128", event.AuthorityPolicy, RailOwn},
		{"2001:db8::/64", event.AuthorityOperator, RailOwn},
		{"10.0.0.254/32", event.AuthorityPolicy, RailGateway},
		{"10.0.1.53/32", event.AuthorityPolicy, RailResolver},
		{"10.0.1.0/24", event.AuthorityOperator, RailResolver},
		{"192.0.2.5/32", event.AuthorityPolicy, RailAllow},
		{"192.0.0.0/16", event.AuthorityOperator, RailAllow},
		{"198.51.100.7/32", event.AuthorityOperator, RailAllow},
		{"203.0.113.65/32", event.AuthorityOperator, RailAllow}, // allowed in its mapped form
		{"2001:db8:1:2::3/128", event.AuthorityOperator, RailAllow},
		{"127.0.0.53/32", event.AuthorityPolicy, RailLoopback},
		{"::1/128", event.AuthorityPolicy, RailLoopback},
		{"::ffff:127.0.0.1/128", event.AuthorityPolicy, RailLoopback},
		{"126.0.0.0/7", event.AuthorityOperator, RailLoopback},
		{"169.254.169.254/32", event.AuthorityPolicy, RailLinkLocal},
		{"fe80::1/128", event.AuthorityPolicy, RailLinkLocal},
		{"224.0.0.251/32", event.AuthorityPolicy, RailMulticast},
		{"255.255.255.255/32", event.AuthorityPolicy, RailMulticast},
		{"ff02::fb/128", event.AuthorityPolicy, RailMulticast},
		{"0.0.0.0/32", event.AuthorityPolicy, RailUnspecified},
		{"::/128", event.AuthorityPolicy, RailUnspecified},
		{"0.0.0.0/0", event.AuthorityOperator, RailLoopback},
		{"::/0", event.AuthorityOperator, RailLoopback},
		{"::ffff:0:0/90", event.AuthorityOperator, RailLoopback}, // swallows all of IPv4
	} {
		if got, why := g.Check(deny(c.prefix, c.by), 1000); got != c.want {
			t.Errorf("deny %s by %q: %q (%s), want %q", c.prefix, c.by, got, why, c.want)
		}
	}
}

func TestContainment(t *testing.T) {
	g := rails(t)
	r := event.Response{Action: event.ActionContain, Target: event.Target{Peer: "did:omega:a"}}
	for by, want := range map[event.AuthorityKind]string{event.AuthorityPolicy: RailAuthority, "": RailAuthority, event.AuthorityOperator: "", event.AuthorityLocal: ""} {
		r.Authority = by
		if got, why := g.Check(r, 1000); got != want {
			t.Errorf("by %q: %q (%s), want %q", by, got, why, want)
		}
	}
	r.Target.Address = prefix("203.0.113.9/32")
	if got, _ := g.Check(r, 1000); got != RailTarget {
		t.Errorf("two targets: %q", got)
	}
	at := deny("10.0.0.1/32", event.AuthorityOperator)
	at.Target.Peer = "did:omega:a"
	if got, _ := g.Check(at, 1000); got != RailTarget {
		t.Errorf("a deny at a peer: %q", got)
	}
}

func TestFilesAndProcesses(t *testing.T) {
	g := rails(t)
	for _, c := range []struct {
		name   string
		action event.Action
		target event.Target
		want   string
	}{
		{"a dropped file", event.ActionDeny, event.Target{Path: "/tmp/miner"}, ""},
		{"a file called sshd", event.ActionDeny, event.Target{Path: "/tmp/sshd"}, ""},
		{"a shell by its path", event.ActionDeny, event.Target{Path: "/usr/bin/dash"}, RailShell},
		{"a shell that is not there", event.ActionDeny, event.Target{Path: "/bin/zsh"}, RailShell},
		{"a shell by an unclean path", event.ActionDeny, event.Target{Path: "/tmp/../bin//sh"}, RailShell},
		{"a shell by a link", event.ActionDeny, event.Target{Path: "/tmp/link"}, RailShell},
		{"a shell by inode", event.ActionDeny, event.Target{Inode: 10, Device: 1}, RailShell},
		{"a shell by inode alone", event.ActionDeny, event.Target{Inode: 10}, RailShell},
		{"another file's inode", event.ActionDeny, event.Target{Inode: 10, Device: 2}, ""},
		{"a shell under another path", event.ActionDeny, event.Target{Path: "/tmp/miner", Inode: 10, Device: 1}, RailShell},
		{"sshd", event.ActionDeny, event.Target{Path: "/usr/sbin/sshd"}, RailSSH},
		{"the loader", event.ActionDeny, event.Target{Path: "/lib64/ld-linux-x86-64.so.2"}, RailLoader},
		{"the loader by inode", event.ActionDeny, event.Target{Inode: 12, Device: 1}, RailLoader},
		{"a package tool", event.ActionQuarantine, event.Target{Path: "/usr/bin/apt-get"}, RailPackage},
		{"omega by path", event.ActionDeny, event.Target{Path: "/usr/bin/omega"}, RailSelf},
		{"omega by inode", event.ActionDeny, event.Target{Inode: 900, Device: 1}, RailSelf},
		{"an allowed folder", event.ActionDeny, event.Target{Path: "/opt/backup/agent"}, RailAllow},
		{"a sibling of an allowed folder", event.ActionDeny, event.Target{Path: "/opt/backups"}, ""},
		{"an allowed file by a link", event.ActionDeny, event.Target{Path: "/srv/copy"}, RailAllow},
		{"a relative path", event.ActionDeny, event.Target{Path: "miner"}, RailTarget},
		{"a NUL", event.ActionDeny, event.Target{Path: "/tmp/a\x00b"}, RailTarget},
		{"the accounts", event.ActionQuarantine, event.Target{Path: "/etc/passwd"}, RailSystem},
		{"a module dropped beside PAM's own", event.ActionQuarantine, event.Target{Path: "/usr/lib/x86_64-linux-gnu/security/pam_evil.so"}, ""},
		{"a hash", event.ActionDeny, event.Target{SHA256: strings.Repeat("a", 64)}, ""},
		{"a shell by its hash", event.ActionDeny, event.Target{SHA256: strings.Repeat("D", 64)}, RailShell},
		{"half a hash", event.ActionDeny, event.Target{SHA256: "aa"}, RailTarget},
		{"a hash and a path", event.ActionDeny, event.Target{SHA256: strings.Repeat("a", 64), Path: "/tmp/x"}, RailTarget},
		{"nothing", event.ActionDeny, event.Target{}, RailTarget},
		{"two targets", event.ActionDeny, event.Target{Address: prefix("203.0.113.9/32"), Path: "/tmp/x"}, RailTarget},
		{"pid 1", event.ActionKill, event.Target{PID: 1}, RailInit},
		{"a kernel thread", event.ActionKill, event.Target{PID: 2}, RailKernel},
		{"sshd's process", event.ActionKill, event.Target{PID: 400}, RailSSH},
		{"a shell whose file was replaced", event.ActionKill, event.Target{PID: 300}, RailShell},
		{"omega's process", event.ActionKill, event.Target{PID: 500}, RailSelf},
		{"omega's other half", event.ActionKill, event.Target{PID: 600}, RailSelf},
		{"a miner", event.ActionKill, event.Target{PID: 100}, ""},
		{"a miner and its shell", event.ActionKill, event.Target{PID: 100, Tree: true}, ""},
		{"what installs a package", event.ActionKill, event.Target{PID: 200, Tree: true}, RailPackage},
		{"a process that is gone", event.ActionKill, event.Target{PID: 4000}, RailTarget},
		{"an unknown action", "explode", event.Target{PID: 100}, RailTarget},
	} {
		r := event.Response{Action: c.action, Target: c.target, Authority: event.AuthorityOperator}
		if got, why := g.Check(r, 1000); got != c.want {
			t.Errorf("%s: %q (%s), want %q", c.name, got, why, c.want)
		}
		if c.want == "" {
			r.Authority = event.AuthorityPolicy
			if got, _ := g.Check(r, 1000); got != RailAuthority {
				t.Errorf("%s, without a person: %q", c.name, got)
			}
		}
	}
}

func TestAFileThatWasOpened(t *testing.T) {
	g := rails(t)
	for name, c := range map[string]struct {
		file File
		want string
	}{
		"a dropped file":           {File{Path: "/tmp/miner", Inode: 5, Device: 1}, ""},
		"a hard link to a shell":   {File{Path: "/tmp/miner", Inode: 10, Device: 1}, RailShell},
		"omega under another name": {File{Path: "/tmp/miner", Inode: 900, Device: 1}, RailSelf},
		"below an allowed folder":  {File{Path: "/opt/backup/x", Inode: 78, Device: 0x801}, RailAllow},
		"the accounts, as written": {File{Path: "/etc/passwd", Inode: 6, Device: 1}, RailSystem},
		"no inode":                 {File{Path: "/tmp/miner"}, RailTarget},
	} {
		if got, why := g.CheckOpened(c.file); got != c.want {
			t.Errorf("%s: %q (%s), want %q", name, got, why, c.want)
		}
	}
}

// TestNoShield: a member that claims more addresses than MaxPerPeer shields none but the first it was seen at.
func TestNoShield(t *testing.T) {
	g := NewOn(ward{})
	var proved []Proved
	for i := range 40 {
		proved = append(proved, Proved{"did:omega:m", netip.AddrFrom4([4]byte{203, 0, 113, byte(40 - i)}), uint64(40 - i)})
	}
	g.SetProved(proved)
	if got := g.AddressesOf("did:omega:m"); len(got) != MaxPerPeer || got[0] != addr("203.0.113.1") || got[3] != addr("203.0.113.4") {
		t.Fatalf("protected: %v", got)
	}
	if did, ok := g.MemberAt(addr("::ffff:203.0.113.2")); !ok || did != "did:omega:m" {
		t.Fatalf("member at: %q %v", did, ok)
	}
}

func TestSetAllowedIsAllOrNothing(t *testing.T) {
	g := rails(t)
	if err := g.SetAllowed([]string{"203.0.113.9", "not an address"}); err == nil {
		t.Fatal("took a line that is neither address nor path")
	}
	if got, _ := g.Check(deny("192.0.2.5/32", event.AuthorityOperator), 1000); got != RailAllow {
		t.Fatalf("what stood is gone: %q", got)
	}
	if err := g.SetAllowed(slices.Repeat([]string{"203.0.113.9"}, MaxAllowed+1)); err == nil {
		t.Fatal("no bound")
	}
}

// TestOverlapAgrees: a prefix is refused for an address exactly when it contains it, in either spelling.
func TestOverlapAgrees(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(rt, "protected")
		b[0] = 11 + b[0]%100 // outside the special ranges
		protected := netip.AddrFrom4([4]byte(b))
		c := slices.Clone(b)
		if rapid.Bool().Draw(rt, "other") {
			c = rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(rt, "target")
			c[0] = 11 + c[0]%100
		}
		bits := rapid.IntRange(8, 32).Draw(rt, "bits")
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte(c)), bits)
		g := NewOn(ward{})
		g.SetProved([]Proved{{"did:omega:m", protected, 1}})
		want := p.Masked().Contains(protected)
		if rapid.Bool().Draw(rt, "mapped") {
			p = netip.PrefixFrom(netip.AddrFrom16(netip.AddrFrom4([4]byte(c)).As16()), bits+96)
		}
		rail, _ := g.Check(event.Response{Action: event.ActionDeny, Target: event.Target{Address: p}, Authority: event.AuthorityOperator}, 2)
		if rail != RailPeer && rail != "" {
			return // 127/8 and the like, by a wide prefix
		}
		if (rail == RailPeer) != want {
			rt.Fatalf("%s against %s: %q, want refused %v", p, protected, rail, want)
		}
	})
}

func FuzzCheck(f *testing.F) {
	f.Add("203.0.113.9/32", "", uint32(0), uint64(0), "policy", "deny")
	f.Add("::ffff:10.0.0.1/128", "", uint32(0), uint64(0), "operator", "deny")
	f.Add("", "/usr/bin/../bin/sh", uint32(0), uint64(10), "operator", "quarantine")
	f.Add("", "", uint32(1), uint64(0), "local", "kill")
	g := rails(f)
	f.Fuzz(func(t *testing.T, p, path string, pid uint32, inode uint64, by, action string) {
		target := event.Target{Path: path, PID: pid, Inode: inode}
		if q, err := netip.ParsePrefix(p); err == nil {
			target.Address = q
		}
		r := event.Response{Action: event.Action(action), Target: target, Authority: event.AuthorityKind(by)}
		rail, _ := g.Check(r, 1000)
		if rail != "" || r.Action != event.ActionDeny {
			return
		}
		// What passed protects nobody's address and, without a person, is one host.
		q, ok := Plain(target.Address)
		if target.Address.IsValid() && (!ok || q.Contains(addr("10.0.0.1")) || q.Contains(addr("127.0.0.1")) || q.Contains(addr("::1"))) {
			t.Fatalf("passed %s", target.Address)
		}
		if by != "operator" && by != "local" && !q.IsSingleIP() {
			t.Fatalf("passed %s without a person", target.Address)
		}
	})
}

// TestThisHost: what the rails say of the machine the test runs on.
func TestThisHost(t *testing.T) {
	g := New()
	if err := g.Refresh(); err != nil {
		t.Fatal(err)
	}
	if rail, why := g.Check(event.Response{Action: event.ActionKill, Target: event.Target{PID: uint32(os.Getpid())}, Authority: event.AuthorityOperator}, 1); rail != RailSelf {
		t.Errorf("this process: %q (%s)", rail, why)
	}
	link := filepath.Join(t.TempDir(), "harmless")
	if err := os.Symlink("/bin/sh", link); err != nil {
		t.Fatal(err)
	}
	if rail, why := g.Check(event.Response{Action: event.ActionDeny, Target: event.Target{Path: link}, Authority: event.AuthorityOperator}, 1); rail != RailShell {
		t.Errorf("a link to the shell: %q (%s)", rail, why)
	}
	own, err := ownAddresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if rail, _ := g.Check(deny(netip.PrefixFrom(a.WithZone(""), a.BitLen()).String(), event.AuthorityPolicy), 1); rail == "" {
			t.Errorf("own address %s passes", a)
		}
	}
}

func TestParseNetwork(t *testing.T) {
	route := "Iface\tDestination\tGateway \tFlags\teth0\neth0\t00000000\tFE00000A\t0003\t0\t0\neth0\t0000000A\t00000000\t0001\n"
	if got := parseRoute4([]byte(route)); !slices.Equal(got, []netip.Addr{addr("10.0.0.254")}) {
		t.Errorf("routes: %v", got)
	}
	r6 := "00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8000000000000000000000001 00000400 1 0 3 eth0\n"
	if got := parseRoute6([]byte(r6)); !slices.Equal(got, []netip.Addr{addr("2001:db8::1")}) {
		t.Errorf("routes: %v", got)
	}
	if got := parseResolv([]byte("# x\nsearch a\nnameserver 10.0.1.53\nnameserver fe80::1%eth0\nnameserver\nnameserver x\n")); !slices.Equal(got, []netip.Addr{addr("10.0.1.53"), addr("fe80::1")}) {
		t.Errorf("resolvers: %v", got)
	}
	if parent, flags, ok := parseStat([]byte("7 (a) b) S 3 7 7 0 -1 2129984 0")); !ok || parent != 3 || flags != 2129984 {
		t.Errorf("stat: %d %d %v", parent, flags, ok)
	}
}

func FuzzHostFiles(f *testing.F) {
	f.Add([]byte("nameserver 10.0.1.53\n"))
	f.Add([]byte("eth0\t00000000\tFE00000A\t0003\n"))
	f.Add([]byte("7 (a) b) S 3 7 7 0 -1 2129984 0"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, a := range slices.Concat(parseRoute4(raw), parseRoute6(raw), parseResolv(raw)) {
			if !a.IsValid() || a.Zone() != "" {
				t.Fatalf("%q gave %v", raw, a)
			}
		}
		parseStat(raw)
	})
}

func BenchmarkCheckAddress(b *testing.B) {
	g := rails(b)
	r := deny("203.0.113.9/32", event.AuthorityPolicy)
	b.ReportAllocs()
	for b.Loop() {
		if rail, _ := g.Check(r, 1000); rail != "" {
			b.Fatal(rail)
		}
	}
}
