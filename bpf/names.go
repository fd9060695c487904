package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"structs"

	"github.com/cilium/ebpf"

	"github.com/omega-mesh/omega/swarm/event"
)

type cgroupHook struct {
	program string
	attach  ebpf.AttachType
}

// Tables, never changed: where the programs of names.c and refuse.c belong.
var nameHooks = [...]cgroupHook{
	{"names_out", ebpf.AttachCGroupInetEgress},
	{"names_in", ebpf.AttachCGroupInetIngress},
	{"note_connect4", ebpf.AttachCGroupInet4Connect},
	{"note_connect6", ebpf.AttachCGroupInet6Connect},
	{"note_sendmsg4", ebpf.AttachCGroupUDP4Sendmsg},
	{"note_sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
	{"note_recvmsg4", ebpf.AttachCGroupUDP4Recvmsg},
	{"note_recvmsg6", ebpf.AttachCGroupUDP6Recvmsg},
	{"note_bind4", ebpf.AttachCGroupInet4PostBind},
	{"note_bind6", ebpf.AttachCGroupInet6PostBind},
	{"note_release", ebpf.AttachCgroupInetSockRelease},
}

var refuseHooks = [...]cgroupHook{
	{"refuse_connect4", ebpf.AttachCGroupInet4Connect},
	{"refuse_connect6", ebpf.AttachCGroupInet6Connect},
	{"refuse_sendmsg4", ebpf.AttachCGroupUDP4Sendmsg},
	{"refuse_sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
	{"refuse_out", ebpf.AttachCGroupInetEgress},
	{"learn_in", ebpf.AttachCGroupInetIngress},
}

// refuseMeans is what a receipt says of a refused port or domain.
var refuseMeans = [...]string{"cgroup-connect4", "cgroup-connect6", "cgroup-egress", "cgroup-sendmsg4", "cgroup-sendmsg6"}

func (k *Kernel) attachCgroupHooks(c *ebpf.Collection, hooks []cgroupHook, outlive bool) (string, error) {
	for _, h := range hooks {
		if err := k.attachCgroup(h.program, h.attach, c.Programs[h.program], outlive); err != nil {
			return "", err
		}
	}
	return "cgroup", nil
}

// SetSpared says which addresses no port's or domain's denial reaches: this swarm's members, gateways, resolvers, the
// allow list. At most 60,000; the rest is left out. Loopback is always spared.
func (k *Kernel) SetSpared(prefixes []netip.Prefix) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuse == nil {
		return nil
	}
	want := map[string]bool{}
	for _, p := range prefixes[:min(len(prefixes), 60_000)] {
		if !p.IsValid() {
			continue
		}
		bits := p.Bits()
		if p.Addr().Is4() {
			bits += 96
		}
		a := p.Masked().Addr().As16()
		want[string(append(appendUint32(nil, uint32(bits)), a[:]...))] = true
	}
	if err := replaceSet(k.refuse.Maps["spared"], want, 1); err != nil {
		return fmt.Errorf("set what is spared: %w", err)
	}
	return nil
}

// nameSlots are the entries that refuse a port or a domain.
func nameSlots(t event.Target) ([]slot, error) {
	if t.Domain != "" {
		key, err := backwards(t.Domain)
		if err != nil {
			return nil, err
		}
		return []slot{{"deny_domain", key}}, nil
	}
	port := []byte{0, 0, 0, 0}
	port[0], port[1] = byte(t.Port), byte(t.Port>>8)
	var slots []slot
	for _, protocol := range []uint8{6, 17} {
		if t.Protocol == 0 || t.Protocol == protocol {
			port[2] = protocol
			slots = append(slots, slot{"deny_port", string(port)})
		}
	}
	if slots == nil {
		return nil, fmt.Errorf("protocol %d has no ports here: want 6 (TCP), 17 (UDP) or 0 for both", t.Protocol)
	}
	return slots, nil
}

const nameKey = 256 // NAME_MAX of kernel/refuse.c

var errDomain = errors.New("not a domain: want 1 to 253 bytes in labels of 1 to 63")

// backwards is the key of a domain as kernel/refuse.c turns it: ".evil.example" from its end.
func backwards(domain string) (string, error) {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if len(domain) > 253 {
		return "", errDomain
	}
	for label := range strings.SplitSeq(domain, ".") {
		if len(label) == 0 || len(label) > 63 {
			return "", errDomain
		}
	}
	key := appendUint32(nil, uint32(8*(len(domain)+1)))
	for i := len(domain) - 1; i >= 0; i-- {
		key = append(key, domain[i])
	}
	key = append(key, '.')
	return string(append(key, make([]byte, 4+nameKey-len(key))...)), nil
}

// describeName fills in e's target from the key of one of refuse.c's maps.
func describeName(e *enforcement, s slot) {
	key := []byte(s.key)
	switch s.table {
	case "deny_port":
		if e.target.Port != 0 { // the other protocol's entry came first: the port is denied by both
			e.target.Protocol = 0
			return
		}
		e.target.Port, e.target.Protocol = uint16(key[0])|uint16(key[1])<<8, key[2]
	case "deny_domain":
		var b strings.Builder
		for i := 4 + int(nativeUint32(key))/8 - 2; i >= 4 && i < len(key); i-- {
			b.WriteByte(key[i])
		}
		e.target.Domain = b.String()
	}
}

// givenValue is struct given of kernel/refuse.c, whose first bytes are a key of deny_domain.
type givenValue struct {
	_      structs.HostLayout
	Prefix uint32
	Name   [nameKey]byte
	_      uint32
	Until  uint64
}

// namedKey is struct named_key of kernel/refuse.c.
type namedKey struct {
	_       structs.HostLayout
	Address [16]byte
	Slot    uint32
}

// suspectGiven looks through what the host's answers said so far for addresses given for a name that is denied now. The
// kernel does the same for each answer that comes after. Entries past their end make room.
func (k *Kernel) suspectGiven() error {
	if k.refuse == nil {
		return nil
	}
	now := BootTime()
	var denied [][]byte
	for _, e := range k.enforced {
		for _, s := range e.slots {
			if s.table == "deny_domain" && e.expires > now {
				bits := nativeUint32([]byte(s.key))
				denied = append(denied, []byte(s.key)[4:4+bits/8])
			}
		}
	}
	under := func(g *givenValue) bool {
		return slices.ContainsFunc(denied, func(d []byte) bool { return bytes.HasPrefix(g.Name[:], d) })
	}
	suspect := k.refuse.Maps["suspect"]
	standing := map[[16]byte]bool{}
	var errs []error
	if len(denied) > 0 {
		if err := eachEntry(k.refuse.Maps["named"], func(key namedKey, g givenValue) {
			if g.Until >= now && under(&g) {
				standing[key.Address] = true
				errs = append(errs, suspect.Put(key.Address, g))
			}
		}); err != nil {
			return fmt.Errorf("read what addresses were given for: %w", err)
		}
	}
	// What stands there for a name that is denied no more.
	var stale [][16]byte
	if err := eachEntry(suspect, func(address [16]byte, g givenValue) {
		if !standing[address] && (g.Until < now || !under(&g)) {
			stale = append(stale, address)
		}
	}); err != nil {
		return fmt.Errorf("read the addresses of denied names: %w", err)
	}
	for _, address := range stale {
		if err := suspect.Delete(address); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// eachEntry reads a hash bucket by bucket: one that changes meanwhile loses none that was there all the time, as it may
// where each next entry is asked for by the one before it.
func eachEntry[K, V any](m *ebpf.Map, f func(K, V)) error {
	const room = 256
	keys, values := make([]K, room), make([]V, room)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			f(keys[i], values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// countNameRules tells the program whether it need ask anything.
func (k *Kernel) countNameRules() error {
	if k.refuse == nil {
		return nil
	}
	var count [2]uint32
	for _, e := range k.enforced {
		for _, s := range e.slots {
			switch s.table {
			case "deny_domain":
				count[0]++
			case "deny_port":
				count[1]++
			}
		}
	}
	rules := k.refuse.Maps["name_rules"]
	return errors.Join(rules.Put(uint32(0), count[0]), rules.Put(uint32(1), count[1]))
}
