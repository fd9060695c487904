package world

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// network is a scenario as flat tables, which do not change while a world runs and are shared by its clones.
type network struct {
	s        *Scenario
	zone     []int32 // of each host
	zones    []string
	from     [][]route    // by target zone: the zones that reach it
	address  []netip.Addr // of each source: the hosts, then the attackers' own machines
	origin   []int32      // the zone of each attacker's own machine
	opens    [][]door     // what each credential opens: those of the scenario, then those of users' accounts
	lies     [][]int32    // credentials that lie on each host
	leaves   [][]trail    // credentials that users leave on each host once they have logged on there
	trails   int          // how many of those there are
	weak     [][]port     // what an attacker takes for a way in, on each host
	escalate []float64    // chance that an attempt to become root works, of each host
	userHost []int32
	userTo   [][]int32
	trail    []int32 // number of each user's first trail; the next is that of the next of its userTo
}

// door is a host that a credential opens.
type door struct {
	host int32
	root bool
}

// trail is what a user's logon leaves on a host.
type trail struct{ number, credential int32 }

// route says that a zone reaches another.
type route struct {
	zone  int32
	ports []uint16 // nil: all
}

func (r route) open(p uint16) bool { return r.ports == nil || slices.Contains(r.ports, p) }

// port is a way in, or a decoy that looks like one.
type port struct {
	number  uint16
	decoy   bool
	root    bool
	exploit float64
}

func compile(s *Scenario) *network {
	n := &network{s: s}
	zones, hosts := map[string]int32{}, map[string]int32{}
	zone := func(name string) int32 {
		i, ok := zones[name]
		if !ok {
			i = int32(len(n.zones))
			zones[name] = i
			n.zones = append(n.zones, name)
		}
		return i
	}
	taken := map[netip.Addr]bool{}
	note := func(text string) {
		if a, err := netip.ParseAddr(text); err == nil {
			taken[a] = true
		}
	}
	for i := range s.Hosts {
		note(s.Hosts[i].Address)
	}
	for i := range s.Attackers {
		note(s.Attackers[i].Address)
	}
	give := func(text string, next *uint32) netip.Addr {
		if a, err := netip.ParseAddr(text); err == nil {
			return a
		}
		for {
			*next++
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], *next)
			if a := netip.AddrFrom4(b); !taken[a] {
				taken[a] = true
				return a
			}
		}
	}
	inside, outside := uint32(10<<24), uint32(198<<24|51<<16|100<<8)
	for i := range s.Hosts {
		h := &s.Hosts[i]
		hosts[h.Name] = int32(i)
		n.zone = append(n.zone, zone(h.Zone))
		n.address = append(n.address, give(h.Address, &inside))
		n.weak = append(n.weak, h.weak())
		n.escalate = append(n.escalate, h.escalation())
	}
	for i := range s.Attackers {
		n.origin = append(n.origin, zone(s.Attackers[i].Zone))
		n.address = append(n.address, give(s.Attackers[i].Address, &outside))
	}
	n.from = make([][]route, len(n.zones))
	for z := range n.zones {
		n.from[z] = append(n.from[z], route{zone: int32(z)})
	}
	for _, l := range s.Links {
		to := zones[l.To]
		n.from[to] = append(n.from[to], route{zone: zones[l.From], ports: l.Ports})
	}
	indices := func(names []string) []int32 {
		list := make([]int32, len(names))
		for i, name := range names {
			list[i] = hosts[name]
		}
		return list
	}
	n.lies, n.leaves = make([][]int32, len(s.Hosts)), make([][]trail, len(s.Hosts))
	holders := map[string][]door{}
	for i := range s.Hosts {
		for _, a := range s.Hosts[i].Accounts {
			holders[a.Name] = append(holders[a.Name], door{int32(i), a.Root})
		}
	}
	for i, c := range s.Credentials {
		var doors []door
		for _, h := range indices(c.Opens) {
			doors = append(doors, door{h, c.Root})
		}
		n.opens = append(n.opens, append(doors, holders[c.Account]...))
		for _, h := range indices(c.On) {
			n.lies[h] = append(n.lies[h], int32(i))
		}
	}
	secrets := map[string]int32{} // of users' accounts
	for _, u := range s.Users {
		from, to := hosts[u.Host], indices(u.To)
		n.userHost, n.userTo, n.trail = append(n.userHost, from), append(n.userTo, to), append(n.trail, int32(n.trails))
		if u.Account == "" {
			continue
		}
		c, ok := secrets[u.Account]
		if !ok {
			c = int32(len(n.opens))
			secrets[u.Account] = c
			n.opens = append(n.opens, holders[u.Account])
		}
		n.lies[from] = append(n.lies[from], c)
		for k, h := range to {
			n.leaves[h] = append(n.leaves[h], trail{int32(n.trails + k), c})
		}
		n.trails += len(to)
	}
	return n
}

// weak are the ports that an attacker takes for a way in. Of the holes behind a port it uses the surest.
func (h *Host) weak() []port {
	var weak []port
	for _, v := range h.Services {
		p := port{number: v.Port, root: v.Gives == "root", exploit: v.Exploit}
		for _, x := range h.Vulnerabilities {
			if x.Port == v.Port && (x.Exploit > p.exploit || x.Exploit == p.exploit && x.Gives == "root") {
				p.exploit, p.root = x.Exploit, x.Gives == "root"
			}
		}
		if p.exploit > 0 {
			weak = append(weak, p)
		}
	}
	for _, d := range h.Decoys {
		weak = append(weak, port{number: d, decoy: true})
	}
	return weak
}

// escalation is the chance that an attempt to become root works: that of the surest way.
func (h *Host) escalation() float64 {
	p := h.Escalate
	for _, x := range h.Vulnerabilities {
		if x.Port == 0 {
			p = max(p, x.Exploit)
		}
	}
	return p
}
