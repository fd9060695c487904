// Package guard holds the rails that no response may cross, whoever asks for it.
//
// It is asked on both sides of a node: by the unprivileged half, to know what to propose to a person instead, and by
// the privileged half, whose word counts, before the kernel is touched. What is protected is told to it (SetProved,
// SetAllowed, Refresh) and it answers; it keeps no history and acts on nothing.
//
// A rail that refuses has a stable name, which goes into the receipt and on screen.
package guard

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/omega-mesh/omega/swarm/event"
)

// Names of the rails.
const (
	RailPeer        = "peer-address"   // an address that a live authenticated connection proved to be a member's
	RailGateway     = "gateway"        // a next hop of this host's routes
	RailResolver    = "resolver"       // a name server of this host
	RailAllow       = "allow-list"     // what operators or this host's configuration said must never be blocked
	RailLoopback    = "loopback"       // 127.0.0.0/8, ::1
	RailLinkLocal   = "link-local"     // 169.254.0.0/16, fe80::/10
	RailMulticast   = "multicast"      // 224.0.0.0/4, ff00::/8, and the broadcast address
	RailUnspecified = "unspecified"    // 0.0.0.0/8, ::
	RailOwn         = "own-address"    // an address of this host
	RailWide        = "prefix-width"   // wider than one host, for a response that no person asked for
	RailTarget      = "invalid-target" // no target, two targets, or one that cannot be checked
	RailAuthority   = "authority"      // an action that needs a person's word
	RailInit        = "init"           // pid 1
	RailKernel      = "kernel-thread"
	RailSSH         = "sshd"
	RailLoader      = "loader" // the dynamic loader and the C library
	RailShell       = "shell"
	RailPackage     = "package-tool"
	RailSelf        = "omega"       // this program, and what it keeps
	RailSystem      = "system-file" // what a host needs to start and to let people in
)

// MaxPerPeer is the most addresses of one peer that are protected, so that none can shield an attacker by claiming its.
const MaxPerPeer = 4

// Bounds of what is told: more is refused, never silently cut, but for proved addresses, whose first count.
const (
	MaxProved  = 4 * 30_000 // MaxPerPeer for the largest swarm
	MaxAllowed = 8192
)

// Proved is an address of a member as a live, authenticated connection proved it.
type Proved struct {
	DID     string
	Address netip.Addr
	Since   uint64 // CLOCK_BOOTTIME of this host, nanoseconds, when the proof was complete
}

// Rails is what is protected on this host. All methods are safe for concurrent use.
type Rails struct {
	host Host

	mu        sync.RWMutex
	proved    map[netip.Addr][]Proved // a shared address has several
	own       map[netip.Addr]bool
	gateways  map[netip.Addr]bool
	resolvers map[netip.Addr]bool
	allowed   []netip.Prefix
	paths     []string
}

// New makes rails that protect what needs no telling: loopback, link-local, multicast and unspecified addresses, pid 1,
// kernel threads, and this host's sshd, loader, shells, package tools and omega itself by path, resolved path and inode.
func New() *Rails { return NewOn(localHost{}) }

// NewOn is New with another view of the host's files and processes.
func NewOn(host Host) *Rails { return &Rails{host: host} }

// neverPorts are the ports without which a host can neither be reached by its people nor hear names: SSH, DNS, DHCP, time.
var neverPorts = [...]uint16{22, 53, 67, 68, 123, 546, 547}

// checkName is of a denial by domain or port. What such a name leads to is not known here: the kernel spares the
// addresses of Spared.
func (g *Rails) checkName(t event.Target, automatic bool) (rail, why string) {
	switch {
	case (t.Domain != "") == (t.Port != 0), t.Address.IsValid(), t.Path != "", t.Inode != 0, t.SHA256 != "", t.PID != 0, t.Peer != "":
		return RailTarget, "a deny needs one target, a domain or a port"
	case t.Protocol != 0 && (t.Port == 0 || t.Protocol != 6 && t.Protocol != 17):
		return RailTarget, "a protocol goes with a port, and is TCP or UDP"
	case t.Port != 0 && slices.Contains(neverPorts[:], t.Port):
		return RailAllow, fmt.Sprintf("port %d is never denied", t.Port)
	case t.Domain != "" && !strings.Contains(strings.Trim(t.Domain, "."), "."):
		return RailWide, fmt.Sprintf("%.80q is a whole top-level domain", t.Domain)
	case automatic:
		return RailAuthority, "a domain or a port is denied by a person's word only"
	}
	return "", ""
}

// Spared lists what a denial by domain or port must not reach: members, gateways, resolvers, own addresses and the
// allow list.
func (g *Rails) Spared() []netip.Prefix {
	g.mu.RLock()
	defer g.mu.RUnlock()
	all := slices.Clone(g.allowed)
	for _, set := range []map[netip.Addr]bool{g.own, g.gateways, g.resolvers} {
		for a := range set {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for a := range g.proved {
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	return all
}

// Check names the rail that r would cross and says why; an empty name lets it pass. heard is CLOCK_BOOTTIME,
// nanoseconds, when this host heard of what r answers: an address proved later protects nobody.
func (g *Rails) Check(r event.Response, heard uint64) (rail, why string) {
	t := r.Target
	file := t.Path != "" || t.Inode != 0 || t.SHA256 != ""
	automatic := r.Authority != event.AuthorityOperator && r.Authority != event.AuthorityLocal
	if t.Write != "" {
		return g.checkWrite(r, automatic)
	}
	switch r.Action {
	case event.ActionRelease:
		return "", ""
	case event.ActionDeny:
		switch {
		case t.Domain != "" || t.Port != 0:
			return g.checkName(t, automatic)
		case t.PID != 0 || t.Address.IsValid() == file:
			return RailTarget, "a deny needs one target, an address or a file"
		case t.Peer != "":
			return RailTarget, "an address or a file is denied on every host in scope, not at a peer"
		case file && automatic:
			return RailAuthority, "a file is denied by a person's word only"
		case file:
			return g.checkFile(t)
		}
		return g.checkAddress(t.Address, automatic, heard)
	case event.ActionContain:
		if t.Peer == "" || t.PID != 0 || file || t.Address.IsValid() {
			return RailTarget, "a containment needs one target, a peer"
		}
		if automatic {
			return RailAuthority, "a peer is contained by a person's word only"
		}
		return "", ""
	case event.ActionKill:
		if t.PID == 0 || file || t.Address.IsValid() {
			return RailTarget, "a kill needs one target, a process"
		}
		if automatic {
			return RailAuthority, "a process is killed by a person's word only"
		}
		return g.checkProcess(t)
	case event.ActionQuarantine:
		if automatic {
			return RailAuthority, "a file is quarantined by a person's word only"
		}
		if t.Path == "" || t.PID != 0 || t.Address.IsValid() {
			return RailTarget, "a quarantine needs one target, the path of a file"
		}
		return g.checkFile(t)
	}
	return RailTarget, fmt.Sprintf("unknown action %.20q", string(r.Action))
}

var (
	mapped        = netip.MustParsePrefix("::ffff:0:0/96")
	allIPv4       = netip.MustParsePrefix("0.0.0.0/0")
	specialRanges = []struct {
		prefix netip.Prefix
		rail   string
	}{
		{netip.MustParsePrefix("127.0.0.0/8"), RailLoopback},
		{netip.MustParsePrefix("::1/128"), RailLoopback},
		{netip.MustParsePrefix("169.254.0.0/16"), RailLinkLocal},
		{netip.MustParsePrefix("fe80::/10"), RailLinkLocal},
		{netip.MustParsePrefix("224.0.0.0/4"), RailMulticast},
		{netip.MustParsePrefix("255.255.255.255/32"), RailMulticast},
		{netip.MustParsePrefix("ff00::/8"), RailMulticast},
		{netip.MustParsePrefix("0.0.0.0/8"), RailUnspecified},
		{netip.MustParsePrefix("::/128"), RailUnspecified},
	}
)

// Plain gives p as the kernel compares it: masked, and an IPv4-mapped prefix as the IPv4 prefix it stands for.
func Plain(p netip.Prefix) (netip.Prefix, bool) {
	if !p.IsValid() || p.Addr().Zone() != "" {
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() && p.Bits() >= mapped.Bits() {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped.Bits()).Masked(), true
	}
	return p.Masked(), true
}

// covers gives the plain prefixes whose addresses p reaches: one, or two where an IPv6 prefix swallows the mapped range.
func covers(p netip.Prefix) ([2]netip.Prefix, int, bool) {
	q, ok := Plain(p)
	if !ok {
		return [2]netip.Prefix{}, 0, false
	}
	if q.Addr().Is6() && q.Bits() < mapped.Bits() && q.Overlaps(mapped) {
		return [2]netip.Prefix{q, allIPv4}, 2, true
	}
	return [2]netip.Prefix{q}, 1, true
}

func (g *Rails) checkAddress(p netip.Prefix, automatic bool, heard uint64) (rail, why string) {
	targets, n, ok := covers(p)
	if !ok {
		return RailTarget, fmt.Sprintf("%s cannot be checked", p)
	}
	if automatic && !targets[0].IsSingleIP() {
		return RailWide, fmt.Sprintf("%s is more than one host, which no response may block by itself", targets[0])
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, t := range targets[:n] {
		for _, s := range specialRanges {
			if t.Overlaps(s.prefix) {
				return s.rail, fmt.Sprintf("%s meets %s", t, s.prefix)
			}
		}
		for _, set := range []struct {
			addrs map[netip.Addr]bool
			rail  string
		}{{g.own, RailOwn}, {g.gateways, RailGateway}, {g.resolvers, RailResolver}} {
			if a, hit := meets(t, set.addrs); hit {
				return set.rail, fmt.Sprintf("%s meets %s", t, a)
			}
		}
		for _, a := range g.allowed {
			if t.Overlaps(a) {
				return RailAllow, fmt.Sprintf("%s meets %s of the allow list", t, a)
			}
		}
		if t.IsSingleIP() {
			for _, m := range g.proved[t.Addr()] {
				if m.Since < heard {
					return RailPeer, fmt.Sprintf("%s is the member %s", t.Addr(), m.DID)
				}
			}
			continue
		}
		for a, members := range g.proved {
			for _, m := range members {
				if t.Contains(a) && m.Since < heard {
					return RailPeer, fmt.Sprintf("%s meets %s, the member %s", t, a, m.DID)
				}
			}
		}
	}
	return "", ""
}

func meets(t netip.Prefix, set map[netip.Addr]bool) (netip.Addr, bool) {
	if t.IsSingleIP() {
		return t.Addr(), set[t.Addr()]
	}
	for a := range set {
		if t.Contains(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// SetProved replaces the addresses proved by live connections. Of each peer the MaxPerPeer proved first count.
func (g *Rails) SetProved(proved []Proved) {
	sorted := slices.Clone(proved[:min(len(proved), MaxProved)])
	slices.SortStableFunc(sorted, func(a, b Proved) int {
		switch {
		case a.Since < b.Since:
			return -1
		case a.Since > b.Since:
			return 1
		}
		return a.Address.Compare(b.Address)
	})
	byAddress := make(map[netip.Addr][]Proved, len(sorted))
	count := map[string]int{}
	for _, p := range sorted {
		p.Address = p.Address.Unmap().WithZone("")
		if !p.Address.IsValid() || p.DID == "" || count[p.DID] >= MaxPerPeer {
			continue
		}
		if slices.ContainsFunc(byAddress[p.Address], func(q Proved) bool { return q.DID == p.DID }) {
			continue
		}
		count[p.DID]++
		byAddress[p.Address] = append(byAddress[p.Address], p)
	}
	g.mu.Lock()
	g.proved = byAddress
	g.mu.Unlock()
}

// MemberAt is the member that an address is proved to be, if it is one alone.
func (g *Rails) MemberAt(a netip.Addr) (did string, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	m := g.proved[a.Unmap()]
	if len(m) != 1 {
		return "", false
	}
	return m[0].DID, true
}

// AddressesOf are the protected addresses of a member, sorted.
func (g *Rails) AddressesOf(did string) []netip.Addr {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var out []netip.Addr
	for a, members := range g.proved {
		if slices.ContainsFunc(members, func(p Proved) bool { return p.DID == did }) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// SetAllowed replaces what must never be blocked: addresses, prefixes, absolute paths (of a file, or of a folder with
// all below it). It is all or nothing: one line that is none of these, and what stood before stands.
func (g *Rails) SetAllowed(lines []string) error {
	if len(lines) > MaxAllowed {
		return fmt.Errorf("guard: %d lines to allow, at most %d", len(lines), MaxAllowed)
	}
	var prefixes []netip.Prefix
	var paths []string
	for _, line := range lines {
		if strings.HasPrefix(line, "/") {
			paths = append(paths, filepath.Clean(line))
			continue
		}
		p, err := netip.ParsePrefix(line)
		if err != nil {
			a, err := netip.ParseAddr(line)
			if err != nil {
				return fmt.Errorf("guard: %.60q to allow is neither an address, a prefix nor an absolute path", line)
			}
			a = a.WithZone("")
			p = netip.PrefixFrom(a, a.BitLen())
		}
		reach, n, ok := covers(p)
		if !ok {
			return fmt.Errorf("guard: prefix %.60q to allow cannot be compared", line)
		}
		prefixes = append(prefixes, reach[:n]...)
	}
	g.mu.Lock()
	g.allowed, g.paths = prefixes, paths
	g.mu.Unlock()
	return nil
}

// SetOwn replaces this host's addresses.
func (g *Rails) SetOwn(addrs []netip.Addr) { g.set(&g.own, addrs) }

// SetGateways replaces the next hops of this host's routes.
func (g *Rails) SetGateways(addrs []netip.Addr) { g.set(&g.gateways, addrs) }

// SetResolvers replaces this host's name servers.
func (g *Rails) SetResolvers(addrs []netip.Addr) { g.set(&g.resolvers, addrs) }

func (g *Rails) set(field *map[netip.Addr]bool, addrs []netip.Addr) {
	m := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		if a.IsValid() {
			m[a.Unmap().WithZone("")] = true
		}
	}
	g.mu.Lock()
	*field = m
	g.mu.Unlock()
}
