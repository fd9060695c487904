package bpf

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// MaxTTL is the longest a block may stand in the kernel, whatever is asked: 30 days.
const MaxTTL = 30 * 24 * time.Hour

// maxEnforced bounds the responses that stand at once on one host.
const maxEnforced = 65536

// ErrFull is returned by Apply when as many responses stand as a host may have.
var ErrFull = fmt.Errorf("%d responses stand already", maxEnforced)

// ErrUnknownResponse is returned by Release for an id that nothing here stands under.
var ErrUnknownResponse = errors.New("no such response is enforced here")

// untilValue is struct until of kernel/scope.h.
type untilValue struct {
	Expires uint64
	Hits    uint64
	ID      [16]byte
	Flags   uint64
}

const flagSwarmPasses = 1 // UNTIL_SWARM_PASSES

// Listener is a port that the swarm of this host listens on: Protocol is 6 for TCP or 17 for UDP.
type Listener struct {
	Protocol uint8  `cbor:"1,keyasint"`
	Port     uint16 `cbor:"2,keyasint"`
}

// slot is one map entry that enforces something. Two responses may want the same slot: the entry then carries the later end.
type slot struct {
	table string // name of the map
	key   string // its key's bytes
}

// enforcement is one response as it stands in the kernel.
type enforcement struct {
	target  event.Target
	action  event.Action
	expires uint64
	slots   []slot
	passes  bool // a contained member's address: its talk to our swarm listeners passes
}

// Enforced is one response as it stands in the kernel now.
type Enforced struct {
	ID      string
	Action  event.Action
	Target  event.Target
	Expires uint64 // CLOCK_BOOTTIME, ns
	Hits    uint64 // packets and calls refused so far
	Adopted bool   // found in the kernel after a restart
}

// Apply makes the kernel enforce r until its TTL is over, counted from now: the caller takes off the response's age.
// The receipt says by which means; a response that cannot be enforced here has OutcomeFailed and the reason.
//
// A containment with an address is of another member that has it: the address is denied, but for what is said between it
// and this host's own swarm listeners (SetSwarm), so that the member hears of its release. One without is of this host.
func (k *Kernel) Apply(ctx context.Context, r event.Response) (event.Receipt, error) {
	receipt := event.Receipt{Response: r.ID}
	fail := func(err error) (event.Receipt, error) {
		receipt.Outcome, receipt.Detail, receipt.Time, receipt.Acted = event.OutcomeFailed, err.Error(), time.Now().UnixNano(), BootTime()
		return receipt, err
	}
	if r.Action != event.ActionKill && (r.TTL <= 0 || r.TTL > MaxTTL) {
		return fail(fmt.Errorf("a lifetime of %s: want more than 0 and at most %s", r.TTL, MaxTTL))
	}
	if _, err := idBytes(r.ID); err != nil {
		return fail(err)
	}
	if r.Action == event.ActionKill { // without the lock: a hunt of seconds must not hold up a block
		means, killed, err := k.kill(ctx, r.Target)
		if err != nil {
			return fail(err)
		}
		receipt.Means = means
		if r.Target.Tree {
			receipt.Detail = fmt.Sprintf("%d processes ended", killed)
		}
		receipt.Outcome, receipt.Time, receipt.Acted = event.OutcomeDone, time.Now().UnixNano(), BootTime()
		return receipt, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.enforced[r.ID]
	if old == nil && len(k.enforced) >= maxEnforced {
		return fail(ErrFull)
	}
	expires := BootTime() + uint64(r.TTL)
	var slots []slot
	switch {
	case (r.Action == event.ActionDeny || r.Action == event.ActionContain) && r.Target.Address.IsValid():
		if k.deny == nil {
			return fail(errors.New("this host cannot refuse addresses: see omega doctor"))
		}
		slots, receipt.Means = []slot{addressSlot(r.Target.Address)}, k.means()
	case r.Action == event.ActionDeny && (r.Target.Path != "" || r.Target.Inode != 0):
		if k.execution == nil {
			return fail(errors.New("this host cannot deny executions: see omega doctor"))
		}
		var err error
		if slots, err = executionSlots(r.Target); err != nil {
			return fail(err)
		}
		receipt.Means, receipt.BeforeFirstInstruction = []string{"sigkill-at-exec"}, true
		if k.lsm != nil {
			receipt.Means = []string{"lsm-bprm", "sigkill-at-exec"}
		}
	case r.Action == event.ActionDeny && r.Target.SHA256 != "":
		if k.execution == nil {
			return fail(errors.New("this host cannot deny executions: see omega doctor"))
		}
		sum, err := hex.DecodeString(r.Target.SHA256)
		if err != nil || len(sum) != 32 {
			return fail(fmt.Errorf("hash %.80q: want 64 hex digits", r.Target.SHA256))
		}
		r.Target.SHA256 = hex.EncodeToString(sum)
		// Which files these are is found when they are started: the first is killed after it was hashed, and from then on
		// its inode is denied.
		slots = []slot{{"deny_hash", string(sum)}}
		if old != nil && old.target.SHA256 == r.Target.SHA256 { // said again: the files that were found to have it stay denied
			slots = slices.Clone(old.slots)
		}
		receipt.Means, receipt.Detail = []string{"sigkill-after-hash", "sigkill-at-exec"}, "the first start of each file with that hash is killed once it is hashed, each later one before its first instruction"
	case r.Action == event.ActionDeny && (r.Target.Domain != "" || r.Target.Port != 0):
		if k.refuse == nil {
			return fail(errors.New("this host cannot refuse ports or domains: see omega doctor"))
		}
		var err error
		if slots, err = nameSlots(r.Target); err != nil {
			return fail(err)
		}
		receipt.Means = refuseMeans[:]
	case r.Action == event.ActionContain:
		if k.deny == nil {
			return fail(errors.New("this host cannot be contained: see omega doctor"))
		}
		slots, receipt.Means = []slot{{"contain", string(make([]byte, 4))}}, k.means()
	default:
		return fail(fmt.Errorf("this host has no way to %s that target", r.Action))
	}
	k.enforced[r.ID] = &enforcement{target: r.Target, action: r.Action, expires: expires, slots: slots,
		passes: r.Action == event.ActionContain && r.Target.Address.IsValid()}
	err := errors.Join(k.countRules(), k.countHashes()) // before the rule: the program must ask for it
	for _, s := range slots {
		if err = errors.Join(err, k.settle(s)); err != nil {
			if delete(k.enforced, r.ID); old != nil {
				k.enforced[r.ID] = old
			}
			for _, undo := range slots {
				_ = k.settle(undo) // what could not be written cannot be wrong
			}
			_ = k.countRules() // too many only costs time
			return fail(fmt.Errorf("write the kernel's map %s: %w", s.table, err))
		}
	}
	if r.Target.Domain != "" {
		if err := k.suspectGiven(); err != nil {
			receipt.Detail = err.Error() // it stands for all that is asked from now on
		}
	}
	receipt.Acted = BootTime()
	if old != nil { // said again with another target: the former one is let go
		for _, s := range old.slots {
			if !slices.Contains(slots, s) {
				_ = k.settle(s) // it ends by itself otherwise
			}
		}
	}
	receipt.Outcome, receipt.Time = event.OutcomeDone, time.Now().UnixNano()
	return receipt, nil
}

// Release ends what stands under id. Another response on the same target goes on.
func (k *Kernel) Release(_ context.Context, id string) (event.Receipt, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	receipt := event.Receipt{Response: id, Time: time.Now().UnixNano()}
	e, ok := k.enforced[id]
	if !ok {
		receipt.Outcome, receipt.Detail = event.OutcomeFailed, ErrUnknownResponse.Error()
		return receipt, ErrUnknownResponse
	}
	delete(k.enforced, id)
	for _, s := range e.slots {
		if err := k.settle(s); err != nil {
			receipt.Outcome, receipt.Detail = event.OutcomeFailed, err.Error()
			return receipt, err
		}
	}
	_, _ = k.countRules(), k.countHashes() // too many only costs time
	if e.target.Domain != "" {
		if err := k.suspectGiven(); err != nil {
			receipt.Detail = err.Error()
		}
	}
	receipt.Outcome, receipt.Acted = event.OutcomeReleased, BootTime()
	return receipt, nil
}

// ReleaseAll ends everything at once and returns how many responses stood.
func (k *Kernel) ReleaseAll() (int, error) {
	k.mu.Lock()
	ids := make([]string, 0, len(k.enforced))
	for id := range k.enforced {
		ids = append(ids, id)
	}
	k.mu.Unlock()
	var errs []error
	for _, id := range ids {
		if _, err := k.Release(context.Background(), id); err != nil {
			errs = append(errs, err)
		}
	}
	return len(ids), errors.Join(errs...)
}

// Active lists what the kernel enforces now, by id.
func (k *Kernel) Active() []Enforced {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := BootTime()
	var all []Enforced
	for id, e := range k.enforced {
		if e.expires <= now {
			continue
		}
		one := Enforced{ID: id, Action: e.action, Target: e.target, Expires: e.expires}
		for _, s := range e.slots {
			if v, err := k.look(s); err == nil {
				one.Hits += v.Hits
			}
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Enforced) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return all
}

// SetSwarm says what passes while this host, or another member, is contained: its own swarm listeners, and the other
// peers' addresses with theirs. At most 32 listeners and 2,000 endpoints; the rest is left out.
func (k *Kernel) SetSwarm(listeners []Listener, peers []netip.AddrPort) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.deny == nil {
		return nil
	}
	one := uint8(1)
	want := map[string]bool{}
	for _, l := range listeners[:min(len(listeners), 32)] {
		want[string([]byte{byte(l.Port), byte(l.Port >> 8), l.Protocol, 0})] = true
	}
	if err := replaceSet(k.deny.Maps["swarm_ports"], want, one); err != nil {
		return fmt.Errorf("set the swarm's own ports: %w", err)
	}
	want = map[string]bool{}
	for _, p := range peers[:min(len(peers), 2000)] {
		a := p.Addr().As16()
		want[string(append(a[:], byte(p.Port()), byte(p.Port()>>8), 0, 0))] = true
		want[string(append(a[:], 0, 0, 0, 0))] = true
	}
	if err := replaceSet(k.deny.Maps["swarm_peers"], want, one); err != nil {
		return fmt.Errorf("set the swarm's peers: %w", err)
	}
	return nil
}

// replaceSet makes the keys of m those of want: new ones first, so that nothing wanted is ever missing.
func replaceSet(m *ebpf.Map, want map[string]bool, value uint8) error {
	for key := range want {
		if err := m.Put([]byte(key), value); err != nil {
			return err
		}
	}
	var stale [][]byte
	var key []byte
	var v uint8
	entries := m.Iterate()
	for entries.Next(&key, &v) {
		if !want[string(key)] {
			stale = append(stale, slices.Clone(key))
		}
	}
	if err := entries.Err(); err != nil {
		return err
	}
	for _, key := range stale {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

func (k *Kernel) table(name string) *ebpf.Map {
	for _, c := range []*ebpf.Collection{k.deny, k.execution, k.refuse} {
		if c != nil && c.Maps[name] != nil {
			return c.Maps[name]
		}
	}
	return nil
}

func (k *Kernel) look(s slot) (untilValue, error) {
	var v untilValue
	m := k.table(s.table)
	if m == nil {
		return v, ErrUnknownResponse
	}
	err := m.Lookup([]byte(s.key), &v)
	return v, err
}

// settle sets an entry to what the responses that stand ask of it (the latest end, and the least that passes), or removes it.
func (k *Kernel) settle(s slot) error {
	m := k.table(s.table)
	if m == nil {
		return nil
	}
	var keep *enforcement
	var keepID string
	flags := uint64(flagSwarmPasses)
	for id, e := range k.enforced {
		if !slices.Contains(e.slots, s) {
			continue
		}
		if !e.passes {
			flags = 0 // one that lets nothing pass is not softened by another
		}
		if keep == nil || e.expires > keep.expires {
			keep, keepID = e, id
		}
	}
	if keep != nil {
		id, err := idBytes(keepID)
		if err != nil {
			return err
		}
		was, err := k.look(s)
		if err == nil && was.Expires == keep.expires && was.ID == id && was.Flags == flags {
			return nil
		}
		return m.Put([]byte(s.key), untilValue{Expires: keep.expires, Hits: was.Hits, ID: id, Flags: flags})
	}
	if s.table == "contain" { // an array's entry cannot be deleted
		return m.Put([]byte(s.key), untilValue{})
	}
	if err := m.Delete([]byte(s.key)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// expire forgets what is past its end.
func (k *Kernel) expire() {
	now := BootTime()
	for id, e := range k.enforced {
		if e.expires > now {
			continue
		}
		delete(k.enforced, id)
		for _, s := range e.slots {
			// The entry is void already; one that cannot be removed now costs only its room, and Cleanup takes it.
			_ = k.settle(s)
		}
	}
	_, _ = k.countRules(), k.countHashes() // too many only costs time
}

// countRules tells the program whether it need ask anything at all, and whether it need read paths.
func (k *Kernel) countRules() error {
	if err := k.countNameRules(); err != nil || k.execution == nil {
		return err
	}
	var paths uint32
	all := k.hunts
	for _, e := range k.enforced {
		if e.target.SHA256 != "" {
			all++
		}
		for _, s := range e.slots {
			switch s.table {
			case "deny_path":
				paths++
				all++
			case "deny_inode":
				all++
			}
		}
	}
	rules := k.execution.Maps["rules"]
	return errors.Join(rules.Put(uint32(0), paths), rules.Put(uint32(1), all))
}

// adopt takes over what an earlier life of this node left in pinned maps.
func (k *Kernel) adopt() error {
	now := BootTime()
	for _, name := range []string{"deny4", "deny6", "contain", "deny_hash", "deny_inode", "deny_path", "deny_port", "deny_domain"} {
		m := k.table(name)
		if m == nil {
			continue
		}
		var key []byte
		var v untilValue
		entries := m.Iterate()
		for entries.Next(&key, &v) {
			if v.Expires <= now {
				continue
			}
			id := hex.EncodeToString(v.ID[:])
			e := k.enforced[id]
			if e == nil {
				e = &enforcement{action: event.ActionDeny, expires: v.Expires, passes: v.Flags&flagSwarmPasses != 0}
				if e.passes {
					e.action = event.ActionContain
				}
				k.enforced[id] = e
			}
			s := slot{name, string(key)}
			e.slots = append(e.slots, s)
			describe(e, s)
		}
	}
	return errors.Join(k.countRules(), k.countHashes(), k.suspectGiven())
}

// describe fills in e's target from the key of a map.
func describe(e *enforcement, s slot) {
	key := []byte(s.key)
	switch s.table {
	case "contain":
		e.action = event.ActionContain
	case "deny4":
		e.target.Address = netip.PrefixFrom(netip.AddrFrom4([4]byte(key[4:8])), int(nativeUint32(key)))
	case "deny6":
		e.target.Address = netip.PrefixFrom(netip.AddrFrom16([16]byte(key[4:20])), int(nativeUint32(key)))
	case "deny_path":
		n := slices.Index(key, 0)
		if n < 0 {
			n = len(key)
		}
		e.target.Path = string(key[:n])
	case "deny_port", "deny_domain":
		describeName(e, s)
	case "deny_hash":
		e.target.SHA256 = hex.EncodeToString(key)
	case "deny_inode":
		if e.target.SHA256 != "" {
			return // a file that was found to have it
		}
		e.target.Inode, e.target.Device, e.target.Generation = nativeUint64(key), uint64(nativeUint32(key[8:])), nativeUint32(key[12:])
	}
}

// addressSlot is the trie entry of an address: an IPv4-mapped one is the IPv4 one.
func addressSlot(p netip.Prefix) slot {
	p = p.Masked() // the kernel takes two prefixes that differ only past their length for one: so must we
	addr, bits := p.Addr(), p.Bits()
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	if addr.Is4() {
		a := addr.As4()
		return slot{"deny4", string(append(appendUint32(nil, uint32(bits)), a[:]...))}
	}
	a := addr.As16()
	return slot{"deny6", string(append(appendUint32(nil, uint32(bits)), a[:]...))}
}

const pathKey = 256 // PATH_KEY of kernel/execution.c, its closing zero included

// executionSlots denies a path by its name, in case the file is replaced, and by its inode, in case it is renamed.
func executionSlots(t event.Target) ([]slot, error) {
	var slots []slot
	inode, device, generation := t.Inode, t.Device, t.Generation
	if t.Path != "" {
		if len(t.Path) >= pathKey || t.Path[0] != '/' {
			return nil, fmt.Errorf("path %q: want an absolute one of less than %d bytes", t.Path, pathKey)
		}
		slots = append(slots, slot{"deny_path", t.Path + string(make([]byte, pathKey-len(t.Path)))})
		var st unix.Stat_t
		if err := unix.Stat(t.Path, &st); err == nil {
			inode, device, generation = st.Ino, uint64(unix.Major(st.Dev))<<20|uint64(unix.Minor(st.Dev)), 0
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("look at %s: %w", t.Path, err)
		}
	}
	if inode != 0 {
		key := appendUint64(nil, inode)
		key = appendUint32(key, uint32(device))
		slots = append(slots, slot{"deny_inode", string(appendUint32(key, generation))})
	}
	return slots, nil
}

func idBytes(id string) (b [16]byte, err error) {
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) != len(b) {
		return b, fmt.Errorf("response id %.40q: want 32 hex digits", id)
	}
	copy(b[:], raw)
	return b, nil
}
