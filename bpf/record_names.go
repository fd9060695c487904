package bpf

import (
	"net/netip"
	"strings"
	"structs"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

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
	Offset uint32
	_      uint32
}

const nameSize = flowSize + int(unsafe.Sizeof(recordName{}))

// decodeNames fills e from a record of names.c. A ClientHello is no event of its own: it has no Activity.
func decodeNames(b []byte, kind uint16, e *event.Event) error {
	if kind > recordSocket || len(b) < flowSize {
		return errRecord
	}
	n := networkOf(b)
	e.Class = event.ClassNetwork
	if kind == recordSocket {
		if len(b) != flowSize {
			return errRecord
		}
		e.Activity, e.Result, e.Process.ExitCode = event.ActivityRawSocket, e.Process.ExitCode, 0
		e.Access.Operation, e.Access.Number = socketName(n.LocalPort, n.RemotePort), n.BytesOut
		return nil
	}
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

// networkOf is the network part of a record that is at least flowSize long.
func networkOf(b []byte) *recordNetwork { return (*recordNetwork)(unsafe.Pointer(&b[forkSize])) }

// socketName is what kernel/network.c tells of, by its family and type.
func socketName(family, kind uint16) string {
	switch {
	case family == unix.AF_PACKET && kind == unix.SOCK_DGRAM:
		return "AF_PACKET SOCK_DGRAM"
	case family == unix.AF_PACKET:
		return "AF_PACKET SOCK_RAW"
	case family == unix.AF_INET6:
		return "AF_INET6 SOCK_RAW"
	}
	return "AF_INET SOCK_RAW"
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

type nameKeyOf struct {
	addr netip.Addr
	by   event.ProcessKey // who asked; zero: any process of the host
}

type knownName struct {
	name  string
	until uint64 // CLOCK_BOOTTIME, ns
}

// nameCache ties later records of a flow to what earlier ones said: an answer's name to the address, a ClientHello's to
// the flow, by its socket's cookie, until that is closed. Full, it forgets any one entry.
type nameCache struct {
	dns       names.DNS
	text      []byte
	byAddr    map[nameKeyOf]knownName
	byFlow    map[uint64]string
	parts     []partialHello
	next      int // of parts, the one to go where there is no room
	malformed atomic.Uint64
}

// partialHello is a ClientHello whose later segments are still to come.
type partialHello struct {
	cookie uint64
	hello  names.Hello
}

const maxPartialHellos = 16 // of 4 KiB, made when there is a first one

func newNameCache() nameCache {
	return nameCache{text: make([]byte, 0, 256), byAddr: map[nameKeyOf]knownName{}, byFlow: map[uint64]string{}}
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
			c.malformed.Add(1)
			return true // somebody speaks to port 53, if not DNS
		}
		e.DNS = event.DNS{Name: view(c.dns.Name), Type: c.dns.Type, Code: c.dns.Code, ID: c.dns.ID, Answers: view(c.dns.Text)}
		if kind == recordAnswer && len(c.dns.Addresses) > 0 {
			name := strings.Clone(e.DNS.Name)
			for _, a := range c.dns.Addresses {
				life := min(max(time.Duration(a.TTL)*time.Second, leastNameLife), mostNameLife)
				known := knownName{name, e.Boot + uint64(life)}
				remember(c.byAddr, nameKeyOf{a.Addr.Unmap(), e.Process.Key}, known)
				remember(c.byAddr, nameKeyOf{addr: a.Addr.Unmap()}, known)
			}
		}
		return true
	case recordHello:
		c.hello(b)
		return false
	}
	if e.Class != event.ClassNetwork {
		return true
	}
	c.nameOf(e)
	if e.Activity == event.ActivityClose && e.Network.Protocol == 6 {
		cookie := networkOf(b).Cookie
		if sni, ok := c.byFlow[cookie]; ok {
			e.Network.SNI = sni
			delete(c.byFlow, cookie)
		}
	}
	return true
}

// nameOf gives the remote address of e the name it was asked for by.
func (c *nameCache) nameOf(e *event.Event) {
	remote := e.Network.Remote.Addr()
	for _, by := range [2]event.ProcessKey{e.Process.Key, {}} {
		if known, ok := c.byAddr[nameKeyOf{remote, by}]; ok && known.until > e.Boot {
			e.Network.Name = known.name
			break
		}
	}
}

// hello reads one segment of a ClientHello. Most are whole in their first.
func (c *nameCache) hello(b []byte) {
	part, _ := payload(b)
	cookie, offset := networkOf(b).Cookie, (*recordName)(unsafe.Pointer(&b[flowSize])).Offset
	if offset == 0 {
		if name, ok := names.ServerName(c.text[:0], part); ok {
			remember(c.byFlow, cookie, string(name))
			return
		}
	}
	p := c.partOf(cookie, offset == 0)
	if p == nil {
		return
	}
	p.hello.Add(int(offset), part)
	if name, ok := p.hello.ServerName(c.text[:0]); ok {
		remember(c.byFlow, cookie, string(name))
		p.cookie = 0
	}
}

// partOf is what came of a ClientHello so far; where it begins, room for it.
func (c *nameCache) partOf(cookie uint64, begins bool) *partialHello {
	for i := range c.parts {
		if c.parts[i].cookie == cookie {
			return &c.parts[i]
		}
	}
	if !begins || cookie == 0 {
		return nil
	}
	if len(c.parts) < maxPartialHellos {
		c.parts = append(c.parts, partialHello{})
		c.next = len(c.parts) - 1
	}
	p := &c.parts[c.next]
	c.next = (c.next + 1) % maxPartialHellos
	p.cookie = cookie
	p.hello.Reset()
	return p
}
