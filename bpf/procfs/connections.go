package procfs

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// maxFlows bounds the connections that are remembered.
const maxFlows = 65536

type flowKey struct {
	local, remote netip.AddrPort
}

// TCP states, as the kernel numbers them.
const (
	tcpEstablished = 1
	tcpListen      = 10
)

// connections tells which TCP connections of this network namespace came and went since the last look.
func (s *Sensor) connections(now int64, boot uint64, out func(*event.Event)) {
	listening := map[uint16]bool{}
	here := map[flowKey]bool{}
	var fresh []flowKey
	for _, family := range [...]uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family) // sock_diag(7), which any user may ask
		if err != nil {
			s.lost.unreadable.Add(1)
			continue
		}
		for _, l := range sockets {
			local, ok1 := netip.AddrFromSlice(l.ID.Source)
			remote, ok2 := netip.AddrFromSlice(l.ID.Destination)
			if !ok1 || !ok2 {
				s.lost.unreadable.Add(1)
				continue
			}
			if l.State == tcpListen {
				listening[l.ID.SourcePort] = true
			}
			if l.State != tcpEstablished {
				continue
			}
			key := flowKey{netip.AddrPortFrom(local.Unmap(), l.ID.SourcePort), netip.AddrPortFrom(remote.Unmap(), l.ID.DestinationPort)}
			here[key] = true
			if s.flows[key] {
				continue
			}
			if len(s.flows) >= maxFlows {
				s.lost.tableFull.Add(1)
				continue
			}
			s.flows[key] = true
			fresh = append(fresh, key)
		}
	}
	report := func(key flowKey, activity event.Activity, inbound bool) {
		out(&event.Event{Class: event.ClassNetwork, Activity: activity, Time: now, Boot: boot, Sensor: "procfs",
			Network: event.Network{Protocol: unix.IPPROTO_TCP, Local: key.local, Remote: key.remote, Inbound: inbound}})
	}
	for _, key := range fresh {
		if !s.primed {
			continue
		}
		if listening[key.local.Port()] {
			report(key, event.ActivityAccept, true)
		} else {
			report(key, event.ActivityConnect, false)
		}
	}
	for key := range s.flows {
		if !here[key] {
			delete(s.flows, key)
			report(key, event.ActivityClose, listening[key.local.Port()])
		}
	}
}
