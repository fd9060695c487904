package bpf

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"structs"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Bounds of Filters.
const (
	maxFilterValues = 256
	maxFilterPath   = 247
	maxFilterRate   = 10_000_000
	maxProtected    = 64
)

// ErrFilter is wrapped by every error about a filter that cannot be set.
var ErrFilter = errors.New("invalid filter")

// Filters say what the kernel half does not tell. Life of processes is read all the same, so that lineage stays right,
// but is handed to no detector; credentials likewise. Refusals, and what is done to the agent, no filter mutes.
type Filters struct {
	Cgroups []string // cgroup v2 folders; what runs below one of them is muted only where it is named as well
	UIDs    []uint32
	Ports   []uint16 // local or remote, of connections: of those objects that ask muted_port
	Paths   []string // absolute folders: what happens to files below
	// CgroupRate is how many records a second one cgroup may have told; 0 is no limit. What is over it is counted, by class
	// and cgroup: see Kernel.Suppressed.
	CgroupRate uint32
}

// filter bits and maps of kernel/filter.h.
const (
	filterOwn = 1 << iota
	filterCgroup
	filterUID
	filterPort
	filterPath
	filterRate
)

type filterSettings struct {
	_      structs.HostLayout
	Active uint32
	Rate   uint32
}

type pathPrefix struct {
	_    structs.HostLayout
	Bits uint32
	Path [248]byte
}

// Validate checks the bounds; its errors wrap ErrFilter.
func (f *Filters) Validate() error {
	if max(len(f.Cgroups), len(f.UIDs), len(f.Ports), len(f.Paths)) > maxFilterValues {
		return fmt.Errorf("%w: more than %d values of a kind", ErrFilter, maxFilterValues)
	}
	if f.CgroupRate > maxFilterRate {
		return fmt.Errorf("%w: more than %d records a second are no limit", ErrFilter, maxFilterRate)
	}
	for _, p := range append(append([]string{}, f.Paths...), f.Cgroups...) {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || len(p) > maxFilterPath-1 || strings.ContainsRune(p, 0) {
			return fmt.Errorf("%w: %q is not a clean absolute path of at most %d bytes", ErrFilter, p, maxFilterPath-1)
		}
	}
	return nil
}

// SetFilters puts f in force at once, in place of what was. A cgroup that is not there is an error, and then nothing changes.
func (k *Kernel) SetFilters(f Filters) error {
	if err := f.Validate(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	cgroups := map[uint64]uint8{}
	for _, dir := range f.Cgroups {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return fmt.Errorf("%w: cgroup %s: %w", ErrFilter, dir, err)
		}
		cgroups[st.Ino] = 1 // a cgroup's id is its folder's inode
	}
	uids, ports, paths := map[uint32]uint8{}, map[uint32]uint8{}, map[pathPrefix]uint8{}
	for _, uid := range f.UIDs {
		uids[uid] = 1
	}
	for _, port := range f.Ports {
		ports[uint32(port)] = 1
	}
	for _, path := range f.Paths {
		var key pathPrefix
		n := copy(key.Path[:], strings.TrimSuffix(path, "/")+"/")
		key.Bits = uint32(n) * 8
		paths[key] = 1
	}
	if err := errors.Join(replaceAll(k.shared["filter_cgroup"], cgroups), replaceAll(k.shared["filter_uid"], uids),
		replaceAll(k.shared["filter_port"], ports), replaceAll(k.shared["filter_path"], paths)); err != nil {
		return fmt.Errorf("set the filters: %w", err)
	}
	k.settings.Active &= filterOwn
	for bit, on := range map[uint32]bool{filterCgroup: len(cgroups) > 0, filterUID: len(uids) > 0, filterPort: len(ports) > 0, filterPath: len(paths) > 0, filterRate: f.CgroupRate > 0} {
		if on {
			k.settings.Active |= bit
		}
	}
	k.settings.Rate = f.CgroupRate
	return k.putSettings()
}

// SetProtected names the agent's own processes: what they do is not told, and every signal another process sends them is.
func (k *Kernel) SetProtected(pids []uint32) error {
	if len(pids) > maxProtected {
		return fmt.Errorf("%w: more than %d own processes", ErrFilter, maxProtected)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	own := map[uint32]uint64{}
	for _, pid := range pids {
		start, err := ProcessStart(pid)
		if err != nil {
			return fmt.Errorf("%w: own process %d: %w", ErrFilter, pid, err)
		}
		own[pid] = start
	}
	if err := replaceAll(k.shared["protected"], own); err != nil {
		return fmt.Errorf("name the own processes: %w", err)
	}
	k.settings.Active &^= filterOwn
	if len(own) > 0 {
		k.settings.Active |= filterOwn
	}
	return k.putSettings()
}

func (k *Kernel) putSettings() error {
	if err := k.shared["filters"].Put(uint32(0), k.settings); err != nil {
		return fmt.Errorf("set the filters: %w", err)
	}
	return nil
}

// replaceAll makes m hold what want holds: what is new first, so that nothing that stays is missing for a moment.
func replaceAll[K comparable, V any](m *ebpf.Map, want map[K]V) error {
	for key, value := range want {
		if err := m.Put(key, value); err != nil {
			return err
		}
	}
	var key K
	var value V
	var gone []K
	for all := m.Iterate(); all.Next(&key, &value); {
		if _, keep := want[key]; !keep {
			gone = append(gone, key)
		}
	}
	for _, key := range gone {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// Suppressed counts what a cgroup did beyond its share, by class of event (event.Class; of the life of processes the
// records were read for lineage alone).
type Suppressed struct {
	_        structs.HostLayout
	CgroupID uint64
	Class    uint64
}

// Suppressed is what Filters.CgroupRate kept back so far. At most 4,096 are kept, the ones heard of last.
func (k *Kernel) Suppressed() (map[Suppressed]uint64, error) {
	all := map[Suppressed]uint64{}
	var key Suppressed
	var n uint64
	entries := k.shared["suppressed"].Iterate()
	for entries.Next(&key, &n) {
		all[key] = n
	}
	if err := entries.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read what was suppressed: %w", err)
	}
	return all, nil
}
