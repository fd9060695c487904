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
	opens    [][]int32    // hosts each credential opens
	lies     [][]int32    // credentials that lie on each host
	weak     [][]port     // what an attacker takes for a way in, on each host
	userHost []int32
	userTo   [][]int32
}

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
		var weak []port
		for _, v := range h.Services {
			if v.Exploit > 0 {
				weak = append(weak, port{number: v.Port, root: v.Gives == "root", exploit: v.Exploit})
			}
		}
		for _, d := range h.Decoys {
			weak = append(weak, port{number: d, decoy: true})
		}
		n.weak = append(n.weak, weak)
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
	n.lies = make([][]int32, len(s.Hosts))
	for i, c := range s.Credentials {
		n.opens = append(n.opens, indices(c.Opens))
		for _, h := range indices(c.On) {
			n.lies[h] = append(n.lies[h], int32(i))
		}
	}
	for _, u := range s.Users {
		n.userHost = append(n.userHost, hosts[u.Host])
		n.userTo = append(n.userTo, indices(u.To))
	}
	return n
}
