package bpf

import (
	"net/netip"
	"strings"
	"structs"
	"time"
	"unsafe"

	"github.com/omega-mesh/omega/bpf/names"
	"github.com/omega-mesh/omega/swarm/event"
)

const (
	recordQuery = iota + 40
	recordAnswer
	recordHello
	recordDatagrams
	recordDatagramsEnd
	recordBind
	recordSocket
	recordSuspect // only counted
)

// recordName is struct record_name of kernel/record.h, past its network.
type recordName struct {
	_      structs.HostLayout
	Length uint32
	Whole  uint32
}

const nameSize = flowSize + int(unsafe.Sizeof(recordName{}))

// decodeNames fills e from a record of names.c. A ClientHello is no event of its own: it has no Activity.
func decodeNames(b []byte, kind uint16, e *event.Event) error {
	if kind > recordBind || len(b) < flowSize {
		return errRecord
	}
	n := (*recordNetwork)(unsafe.Pointer(&b[forkSize]))
	e.Class = event.ClassNetwork
	e.Network = event.Network{
		Protocol: n.Protocol,
		Local:    netip.AddrPortFrom(netip.AddrFrom16(n.Local).Unmap(), n.LocalPort),
		Remote:   netip.AddrPortFrom(netip.AddrFrom16(n.Remote).Unmap(), n.RemotePort),
		BytesIn:  n.BytesIn, BytesOut: n.BytesOut, Duration: time.Duration(n.Duration),
		Inbound: n.Inbound != 0,
	}
	switch kind {
	case recordQuery:
		e.Class, e.Activity = event.ClassDNS, event.ActivityDNSQuery
	case recordAnswer:
		e.Class, e.Activity = event.ClassDNS, event.ActivityDNSAnswer
	case recordDatagrams:
		e.Activity = event.ActivityConnect
		if e.Network.Inbound {
			e.Activity = event.ActivityAccept
		}
	case recordDatagramsEnd:
		e.Activity = event.ActivityClose
	case recordBind:
		e.Activity = event.ActivityBind
	}
	if kind >= recordDatagrams {
		if len(b) != flowSize {
			return errRecord
		}
		return nil
	}
	if _, ok := payload(b); !ok {
		return errRecord
	}
	return nil
}

// payload is what was copied of a packet.
func payload(b []byte) ([]byte, bool) {
	if len(b) < nameSize {
		return nil, false
	}
	n := (*recordName)(unsafe.Pointer(&b[flowSize]))
	if int(n.Length) > len(b)-nameSize {
		return nil, false
	}
	return b[nameSize : nameSize+int(n.Length)], true
}

// Bounds of what is remembered, and of how long a name stands for an address.
const (
	maxRemembered = 8192
	leastNameLife = time.Minute
	mostNameLife  = 24 * time.Hour
)

// flowKey has no local port: the kernel has given it back by the time it tells of a close.
type flowKey struct {
	remote netip.AddrPort
	pid    uint32
}

type nameKeyOf struct {
	addr netip.Addr
	pid  uint32 // 0: of any process of the host
}

type knownName struct {
	name  string
	until uint64 // CLOCK_BOOTTIME, ns
}

// nameCache ties later records of a flow to what earlier ones said: an answer's name to the address, a ClientHello's to
// the flow. Full, it forgets any one entry.
type nameCache struct {
	dns      names.DNS
	text     []byte
	byAddr   map[nameKeyOf]knownName
	byFlow   map[flowKey]string
	badNames uint64
}

func newNameCache() nameCache {
	return nameCache{text: make([]byte, 0, 256), byAddr: map[nameKeyOf]knownName{}, byFlow: map[flowKey]string{}}
}

func remember[K comparable, V any](m map[K]V, k K, v V) {
	if len(m) >= maxRemembered {
		for old := range m {
			delete(m, old)
			break
		}
	}
	m[k] = v
}

// complete reads the payload of a names record into e, and gives flows their names. It says whether e is worth telling.
func (c *nameCache) complete(b []byte, kind uint16, e *event.Event) bool {
	switch kind {
	case recordQuery, recordAnswer:
		message, _ := payload(b)
		if err := c.dns.Parse(message); err != nil || c.dns.Response != (kind == recordAnswer) {
			c.badNames++
			return true // somebody speaks to port 53, if not DNS
		}
		e.DNS = event.DNS{Name: view(c.dns.Name), Type: c.dns.Type, Code: c.dns.Code, ID: c.dns.ID, Answers: view(c.dns.Text)}
		if kind == recordAnswer && len(c.dns.Addresses) > 0 {
			name := strings.Clone(e.DNS.Name)
			for _, a := range c.dns.Addresses {
				life := min(max(time.Duration(a.TTL)*time.Second, leastNameLife), mostNameLife)
				known := knownName{name, e.Boot + uint64(life)}
				remember(c.byAddr, nameKeyOf{a.Addr.Unmap(), e.Process.Key.PID}, known)
				remember(c.byAddr, nameKeyOf{a.Addr.Unmap(), 0}, known)
			}
		}
		return true
	case recordHello:
		hello, _ := payload(b)
		if name, ok := names.ServerName(c.text[:0], hello); ok {
			remember(c.byFlow, flowKey{e.Network.Remote, e.Process.Key.PID}, string(name))
		}
		return false
	}
	if e.Class != event.ClassNetwork {
		return true
	}
	remote := e.Network.Remote.Addr()
	for _, pid := range [2]uint32{e.Process.Key.PID, 0} {
		if known, ok := c.byAddr[nameKeyOf{remote, pid}]; ok && known.until > e.Boot {
			e.Network.Name = known.name
			break
		}
	}
	if e.Activity == event.ActivityClose && e.Network.Protocol == 6 {
		e.Network.SNI = c.byFlow[flowKey{e.Network.Remote, e.Process.Key.PID}]
	}
	return true
}
