package bpf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// ErrRefused is returned by Load where this process may not use eBPF at all; use the procfs sensor instead.
var ErrRefused = errors.New("eBPF is refused to this process")

// Options say what the kernel half watches and where it acts.
type Options struct {
	Cgroup     string   // a cgroup v2 folder: see and act only within; empty means the whole host
	Interfaces []string // where packets are refused; empty means every interface but lo, and new ones as they come
	PinDir     string   // a folder on a BPF file system: blocks outlive a crash of the node, and still expire; empty means they end with it
	RingBytes  int      // power of two, 64 KiB to 64 MiB; 0 means 4 MiB
	Watch      bool     // see alone: no program that refuses or kills anything is loaded

	withoutTCX bool     // as on a kernel before 6.6: for tests
	without    []string // domains that a test does not need, by the name of their check
}

// Kernel is the loaded kernel half of one node.
type Kernel struct {
	opt    Options
	cgroup string // where cgroup hooks are attached

	ring, drops, scope *ebpf.Map
	shared             map[string]*ebpf.Map // with the three above, what all objects have in common
	process, network   *ebpf.Collection
	rights, before     *ebpf.Collection
	files              *ebpf.Collection
	deny, execution    *ebpf.Collection
	lsm                *ebpf.Collection
	names, refuse      *ebpf.Collection
	self               *ebpf.Collection

	mu         sync.Mutex
	settings   filterSettings
	links      []link.Link         // that no other process can take off
	held       []*held             // that others can, or whose pins they can remove
	untold     map[link.ID]string  // put back, and not told yet
	ownMaps    map[uint32]string   // by id, those that another process is not to write to
	righted    time.Time           // when the maps were put right last
	attached   map[string][]string // interface → means
	unattached error               // why some interface's packets pass unasked; nil when none does
	checks     []Check
	enforced   map[string]*enforcement // by response id
	hunts      uint32                  // trees being ended now
	unread     atomic.Uint64           // executions that could not be hashed while a hash was denied
}

// domain is one object: one line says what it is, where it attaches, and what the host loses without it.
type domain struct {
	name string // of its check
	spec func() (*ebpf.CollectionSpec, error)
	keep func(*Kernel) **ebpf.Collection
	lost string
	// severable says that each program stands for itself: one that the kernel does not take is left out, with a check of
	// its own, and the others are loaded.
	severable bool
}

var domains = [...]domain{
	{"sensor/process", loadProcess, func(k *Kernel) **ebpf.Collection { return &k.process }, "processes are seen only by polling /proc", false},
	{"sensor/before", loadBefore, func(k *Kernel) **ebpf.Collection { return &k.before }, "of what ran before the sensor did only what /proc shows this user is known", true},
	{"sensor/network", loadNetwork, func(k *Kernel) **ebpf.Collection { return &k.network }, "connections are seen only by polling /proc/net", false},
	{"sensor/rights", loadRights, func(k *Kernel) **ebpf.Collection { return &k.rights }, "what processes do to their rights, to each other's memory and to the kernel is not seen", true},
	{"sensor/file", loadFiles, func(k *Kernel) **ebpf.Collection { return &k.files }, "what changes in the file systems is not seen; programs just written are known by inotify alone", false},
	{"actuator/deny-address", loadDeny, func(k *Kernel) **ebpf.Collection { return &k.deny }, "no address can be refused and no host contained", false},
	{"actuator/deny-exec", loadExecution, func(k *Kernel) **ebpf.Collection { return &k.execution }, "no execution can be denied; trees are killed from user space alone", false},
	{"sensor/names", loadNames, func(k *Kernel) **ebpf.Collection { return &k.names }, "no name is known of an address, and UDP is not seen", false},
	{"actuator/deny-name", loadRefuse, func(k *Kernel) **ebpf.Collection { return &k.refuse }, "no port and no domain can be refused", false},
	{"lsm", loadExecutionLSM, func(k *Kernel) **ebpf.Collection { return &k.lsm }, "a denied execution is killed before its first instruction instead of refused with EPERM", false},
	{nameSelf, loadSelf, func(k *Kernel) **ebpf.Collection { return &k.self }, "what takes our programs off is put right within seconds instead of at once, and not told", true},
}

// acts says whether the domain refuses or kills.
func (d *domain) acts() bool { return strings.HasPrefix(d.name, "actuator/") || d.name == "lsm" }

// Load puts the programs into the kernel, each domain by itself: what this kernel does not take is a failed Check, not
// an error. It returns ErrRefused only when nothing at all could be loaded.
func Load(ctx context.Context, opt Options) (*Kernel, error) {
	if opt.RingBytes == 0 {
		opt.RingBytes = 4 << 20
	}
	if opt.RingBytes < 64<<10 || opt.RingBytes > 64<<20 || opt.RingBytes&(opt.RingBytes-1) != 0 {
		return nil, fmt.Errorf("ring of %d bytes: want a power of two from 64 KiB to 64 MiB", opt.RingBytes)
	}
	k := &Kernel{opt: opt, attached: map[string][]string{}, enforced: map[string]*enforcement{}, untold: map[link.ID]string{}}
	if err := rlimit.RemoveMemlock(); err != nil && !errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	if err := k.open(); err != nil {
		k.Close()
		return nil, err
	}
	loaded, types := 0, btf.NewCache() // the kernel's types are read once for all domains
	for i := range domains {
		if err := ctx.Err(); err != nil {
			k.Close()
			return nil, err
		}
		d := &domains[i]
		if slices.Contains(opt.without, d.name) {
			continue
		}
		if opt.Watch && d.acts() {
			k.checks = append(k.checks, Check{Name: d.name, Detail: "not asked for: this host only watches", Lost: d.lost})
			continue
		}
		detail, err := k.load(d, types)
		check := Check{Name: d.name, OK: err == nil, Detail: detail}
		if err != nil {
			check.Detail, check.Lost = err.Error(), d.lost
		} else {
			loaded++
		}
		k.checks = append(k.checks, check)
	}
	k.noteInterfaces()
	if loaded == 0 {
		err := fmt.Errorf("%w: %s", ErrRefused, k.checks[0].Detail)
		k.Close()
		return nil, err
	}
	if err := k.adopt(); err != nil {
		k.Close()
		return nil, fmt.Errorf("adopt earlier blocks: %w", err)
	}
	return k, nil
}

// open makes what all domains share: the ring, the drop counters, the scope.
func (k *Kernel) open() error {
	k.cgroup = k.opt.Cgroup
	if k.cgroup == "" {
		root, err := cgroupRoot()
		if err != nil {
			return err
		}
		k.cgroup = root
	}
	spec, err := loadProcess()
	if err != nil {
		return fmt.Errorf("read the process object: %w", err)
	}
	spec.Maps["ring"].MaxEntries = uint32(k.opt.RingBytes)
	k.shared = map[string]*ebpf.Map{}
	for _, name := range sharedMaps {
		made, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			if errors.Is(err, os.ErrPermission) {
				return fmt.Errorf("%w: %w", ErrRefused, err)
			}
			return fmt.Errorf("make map %s: %w", name, err)
		}
		k.shared[name] = made
	}
	k.ring, k.drops, k.scope = k.shared["ring"], k.shared["drops"], k.shared["scope_cgroup"]
	if k.opt.Cgroup != "" {
		dir, err := os.Open(k.opt.Cgroup)
		if err != nil {
			return fmt.Errorf("open the cgroup to watch: %w", err)
		}
		defer dir.Close()
		if err := k.scope.Put(uint32(0), uint32(dir.Fd())); err != nil {
			return fmt.Errorf("scope to %s (is it on cgroup v2?): %w", k.opt.Cgroup, err)
		}
	}
	return nil
}

func (k *Kernel) load(d *domain, types *btf.Cache) (string, error) {
	spec, err := d.spec()
	if err != nil {
		return "", fmt.Errorf("read the object: %w", err)
	}
	spec.Maps["ring"].MaxEntries = uint32(k.opt.RingBytes)
	if k.opt.Cgroup != "" {
		if v := spec.Variables["scoped"]; v != nil {
			if err := v.Set(uint32(1)); err != nil {
				return "", err
			}
		}
		if v := spec.Variables["scope_cgroup_id"]; v != nil {
			id, err := cgroupID(k.opt.Cgroup)
			if err != nil {
				return "", err
			}
			if err := v.Set(id); err != nil {
				return "", err
			}
		}
		if v := spec.Variables["scope_net"]; v != nil {
			inode, err := netNamespace()
			if err != nil {
				return "", err
			}
			if err := v.Set(inode); err != nil {
				return "", err
			}
		}
	}
	replace := map[string]*ebpf.Map{}
	for name, m := range k.shared {
		if spec.Maps[name] != nil {
			replace[name] = m
		}
	}
	if d.name == "lsm" {
		if k.execution == nil {
			return "", errors.New("the execution object it shares its maps with is not loaded")
		}
		replace["deny_inode"] = k.execution.Maps["deny_inode"]
	} else if err := k.pinMaps(spec); err != nil {
		return "", err
	}
	options := ebpf.CollectionOptions{MapReplacements: replace, Cache: types}
	if k.opt.PinDir != "" {
		options.Maps.PinPath = k.opt.PinDir
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, options)
	if errors.Is(err, ebpf.ErrMapIncompatible) && k.opt.PinDir != "" {
		// Pinned by a version of ours with another layout: what stood there cannot be adopted, and must not keep this
		// node from refusing anything at all.
		for _, name := range blockMaps {
			if rerr := os.Remove(filepath.Join(k.opt.PinDir, name)); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
				return "", fmt.Errorf("put away an earlier version's blocks: %w", rerr)
			}
		}
		collection, err = ebpf.NewCollectionWithOptions(spec, options)
	}
	if err != nil && d.severable {
		collection, err = k.loadApart(d, spec, options)
	}
	if err != nil {
		return "", shorten(err)
	}
	detail, err := k.attach(d.name, collection)
	if err != nil {
		collection.Close()
		return "", err
	}
	*d.keep(k) = collection
	return detail, nil
}

// sharedMaps are one and the same in every object: the loader makes them and puts them in.
var sharedMaps = [...]string{"ring", "drops", "scope_cgroup", "filters", "protected", "filter_cgroup", "filter_uid", "filter_port", "filter_path", "cgroup_paces", "suppressed"}

// loadApart loads what the kernel takes of an object whose programs stand for themselves, and notes what it does not.
func (k *Kernel) loadApart(d *domain, spec *ebpf.CollectionSpec, options ebpf.CollectionOptions) (*ebpf.Collection, error) {
	maps := spec.Copy()
	clear(maps.Programs)
	whole, err := ebpf.NewCollectionWithOptions(maps, options)
	if err != nil {
		return nil, err
	}
	options.MapReplacements = whole.Maps
	var errs []error
	for name, program := range spec.Programs {
		one := spec.Copy()
		one.Programs = map[string]*ebpf.ProgramSpec{name: program}
		c, err := ebpf.NewCollectionWithOptions(one, options)
		if err != nil {
			errs = append(errs, err)
			k.checks = append(k.checks, Check{Name: d.name + "/" + name, Detail: shorten(err).Error(), Lost: programLost[name]})
			continue
		}
		whole.Programs[name] = c.DetachProgram(name)
		c.Close()
	}
	if len(whole.Programs) == 0 {
		whole.Close()
		return nil, errors.Join(errs...)
	}
	return whole, nil
}

// Maps whose entries are blocks: pinned, so that a restarted node finds its own.
var blockMaps = [...]string{"deny4", "deny6", "contain", "swarm_peers", "swarm_ports", "deny_hash", "deny_inode", "deny_path", "rules",
	"deny_port", "deny_domain", "name_rules", "spared", "named", "suspect"}

func (k *Kernel) pinMaps(spec *ebpf.CollectionSpec) error {
	if k.opt.PinDir == "" {
		return nil
	}
	if err := os.MkdirAll(k.opt.PinDir, 0o700); err != nil {
		return fmt.Errorf("make the pin folder: %w", err)
	}
	for name, m := range spec.Maps {
		if slices.Contains(blockMaps[:], name) {
			m.Pinning = ebpf.PinByName
		}
	}
	return nil
}

// pinOf is where a link that outlives the node is pinned.
func (k *Kernel) pinOf(name string) string { return filepath.Join(k.opt.PinDir, "link-"+name) }

// pinLink puts l's pin in the place of an earlier life's, which goes only now that l is in force: no packet passes between the two.
func pinLink(l link.Link, pin string) error {
	if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace an earlier pin: %w", err)
	}
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin link %s: %w", filepath.Base(pin), err)
	}
	return nil
}

// Coverage says what this host can see and stop, and by which means.
func (k *Kernel) Coverage() []Check {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.checks)
}

// Drops counts the records that found the ring full, by kind.
func (k *Kernel) Drops() (map[string]uint64, error) {
	drops, err := readDrops(k.drops)
	if lost := k.unhashed(); lost > 0 && drops != nil {
		drops["exec-hash"] = lost
	}
	return drops, err
}

// Close ends the node's hold on the kernel. Pinned blocks stay, until they expire; all else is gone.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.detach()
	for _, c := range []*ebpf.Collection{k.process, k.network, k.rights, k.before, k.files, k.deny, k.execution, k.lsm, k.names, k.refuse, k.self} {
		if c != nil {
			c.Close()
		}
	}
	for _, m := range k.shared {
		m.Close()
	}
	return err
}

// detach takes every program off that is not pinned.
func (k *Kernel) detach() error {
	// The kernel waits for every program that may still run, 50 ms a tracepoint: better for all of them together.
	all := k.links
	for _, h := range k.held {
		all = append(all, h.link)
	}
	errs := make([]error, len(all))
	var closing sync.WaitGroup
	for i, l := range all {
		closing.Go(func() { errs[i] = l.Close() })
	}
	closing.Wait()
	k.links, k.held = nil, nil
	return errors.Join(errs...)
}

// Cleanup removes every pin below dir, and with them each block and program an earlier node left in the kernel.
// It returns how many pins there were.
func Cleanup(dir string) (int, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the pin folder: %w", err)
	}
	var errs []error
	removed := 0
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	errs = append(errs, os.Remove(dir))
	return removed, errors.Join(errs...)
}

// shorten takes the verifier's many lines out of an error meant for a person.
func shorten(err error) error {
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		return fmt.Errorf("the kernel does not take the program: %w", verifier.Cause)
	}
	return err
}
