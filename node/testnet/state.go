package testnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stateFile is what other processes find a testnet by.
const (
	stateFile    = "testnet.json"
	maxStateFile = 1 << 20
)

var validName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,11}$`)

// Host is one host of a testnet. Its JSON form is a line of `omega testnet status`.
type Host struct {
	Name   string     `json:"name"`
	Member bool       `json:"member"`
	Addr   netip.Addr `json:"addr"`           // IPv4
	Dir    string     `json:"dir"`            // the node's state folder
	PID    int        `json:"pid"`            // of its node; 0 where none runs
	Roles  []string   `json:"roles"`          // those the testnet asked for
	Addr6  netip.Addr `json:"addr6,omitzero"` // unique local IPv6; invalid in process mode
	Cgroup string     `json:"cgroup"`         // its cgroup v2 folder; empty in process mode
	NetNS  string     `json:"netns"`          // path of its network namespace; empty in process mode
	Log    string     `json:"log"`            // what its node writes
	Port   uint16     `json:"port"`           // the swarm's, TCP and UDP
	Decoy  uint16     `json:"decoy"`          // of its decoy, where it has the role

	Start uint64 `json:"start"` // of PID, in clock ticks since boot
}

// State is what is written down of a testnet, and what `omega testnet status --json` prints.
type State struct {
	ID       string    `json:"id"`
	Mode     Mode      `json:"mode"`
	Hosts    []*Host   `json:"hosts"`
	Dir      string    `json:"dir"` // the testnet's folder; each host has one in it
	Keeper   Process   `json:"keeper"`
	Binary   string    `json:"binary"`
	Created  time.Time `json:"created"`
	Unforced []string  `json:"unforced,omitempty"` // what this mode cannot enforce
}

// Process names one process for the life of a boot.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot
}

// processOf reads a process's start from /proc.
func processOf(pid int) (Process, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, err
	}
	// The name in parentheses may hold anything; the fields after the last one are safe to split.
	_, rest, ok := strings.Cut(string(raw[max(0, strings.LastIndexByte(string(raw), ')')):]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return Process{}, fmt.Errorf("/proc/%d/stat: unexpected form", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return Process{}, os.ErrProcessDone
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return Process{PID: pid, Start: start}, err
}

// Alive says whether this very process still runs.
func (p Process) Alive() bool {
	now, err := processOf(p.PID)
	return err == nil && p.PID > 0 && now == p
}

// Alive says whether the process that holds the testnet still runs.
func (s *State) Alive() bool { return s.Keeper.Alive() }

// Host finds one by name.
func (s *State) Host(name string) (*Host, error) {
	for _, h := range s.Hosts {
		if h.Name == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNotFound, name)
}

// Members are the hosts that were made members.
func (s *State) Members() []*Host {
	return slices.DeleteFunc(slices.Clone(s.Hosts), func(h *Host) bool { return !h.Member })
}

// Registry is the folder in which the testnets of this user are written down, one folder each.
func Registry() string {
	if os.Geteuid() == 0 {
		return "/run/omega-testnet"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "omega-testnet")
	}
	return filepath.Join(os.TempDir(), "omega-testnet-"+strconv.Itoa(os.Geteuid()))
}

// openRegistry makes the folder if need be, and refuses one that another user could have put there.
func openRegistry() (string, error) {
	dir := Registry()
	mode := os.FileMode(0o711) // a node's unprivileged half must reach its folder
	if err := os.MkdirAll(dir, mode); err != nil {
		return "", fmt.Errorf("testnet folder: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return "", fmt.Errorf("testnet folder %s is not a folder of this user's alone", dir)
	}
	return dir, nil
}

// save writes the state so that a reader sees the old one or the new one.
func (s *State) save(dir string) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+stateFile)
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, stateFile))
}

func load(dir string) (*State, error) {
	f, err := os.Open(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxStateFile+1))
	if err != nil {
		return nil, err
	}
	s, err := decodeState(raw, filepath.Base(dir))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return s, nil
}

// decodeState reads a state of the testnet id, and refuses one that another program could not have meant.
func decodeState(raw []byte, id string) (*State, error) {
	if len(raw) > maxStateFile {
		return nil, fmt.Errorf("larger than %d bytes", maxStateFile)
	}
	s := new(State)
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, err
	}
	if s.ID != id || len(s.Hosts) > MaxHosts || !filepath.IsAbs(s.Dir) {
		return nil, errors.New("not the state of this testnet")
	}
	for _, h := range s.Hosts {
		if h == nil || !validName.MatchString(h.Name) || !h.Addr.Is4() {
			return nil, errors.New("a host has no name or no address")
		}
	}
	return s, nil
}

// locked changes a testnet's state file under its lock, so that `testnet add` in one terminal and `chaos` in another
// do not undo one another.
func locked(registry, id string, change func(*State) error) error {
	dir := filepath.Join(registry, id)
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	s, err := load(dir)
	if err != nil {
		return err
	}
	if err := change(s); err != nil {
		return err
	}
	return s.save(dir)
}

// List reads the state of every testnet of this user, live or dead, oldest first.
func List() ([]*State, error) {
	entries, err := os.ReadDir(Registry())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []*State
	for _, e := range entries {
		if s, err := load(filepath.Join(Registry(), e.Name())); err == nil {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *State) int { return a.Created.Compare(b.Created) })
	return out, nil
}

// Find returns the running testnet of that id, or the only one when id is empty.
func Find(id string) (*State, error) {
	all, err := List()
	if err != nil {
		return nil, err
	}
	live := slices.DeleteFunc(all, func(s *State) bool { return !s.Alive() || id != "" && s.ID != id })
	switch len(live) {
	case 0:
		return nil, ErrNone
	case 1:
		return live[0], nil
	}
	ids := make([]string, len(live))
	for i, s := range live {
		ids[i] = s.ID
	}
	return nil, fmt.Errorf("%w: choose one of %s", ErrMany, strings.Join(ids, ", "))
}
