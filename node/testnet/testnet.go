package testnet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/omega-mesh/omega/node/api/v1/apiv1connect"
	"github.com/omega-mesh/omega/trust"
)

// Mode says how hosts are kept apart.
type Mode string

const (
	ModeAuto    Mode = "auto"    // netns as root, process otherwise
	ModeNetns   Mode = "netns"   // a network namespace and a cgroup a host; needs root
	ModeProcess Mode = "process" // processes on loopback addresses of their own, told apart by these only
)

// Bounds of a testnet.
const (
	DefaultNodes = 5
	MaxNodes     = 64 // members; each is a process of some 60 MiB
	MaxHosts     = 96 // members, outsider and hosts added by hand
)

// Outsider is the name of the host that is no member: the attacker's.
const Outsider = "x1"

// drainTimeout is how long Close lets nodes end by themselves.
const drainTimeout = 3 * time.Second

// Errors a caller may decide on.
var (
	ErrNotRoot  = errors.New("network namespaces need root")
	ErrNotFound = errors.New("no such host in the testnet")
	ErrNone     = errors.New("no testnet is running here")
	ErrMany     = errors.New("several testnets are running here")
	ErrInvalid  = errors.New("invalid option")
)

// Options say what Up builds.
type Options struct {
	// Nodes is the number of members, 1 to MaxNodes; 0 is DefaultNodes.
	Nodes int
	// Mode is auto unless set.
	Mode Mode
	// Suite is the swarm's cryptographic suite by name; empty is the default one.
	Suite string
	// Dir is the folder for the hosts' state folders, new or empty; it is removed in the end. Empty is one in Registry.
	Dir string
	// Binary is the omega to run on the hosts; empty is this very executable.
	Binary string
	// Bare makes the hosts but starts no node on them.
	Bare bool
	// Progress, if set, is told each step in a few words. It may be called from several goroutines at once.
	Progress func(string)
}

// Net is a running testnet, held by the process that called Up.
type Net struct {
	registry string
	reaper   *reaper
	progress func(string)
	suite    string

	mu    sync.Mutex // guards the hosts' PID and Start, and nodes
	state *State
	nodes map[string]*running
	wg    sync.WaitGroup
	once  sync.Once
	err   error
}

// running is a node this process started.
type running struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once it ended
	err  error         // valid then
}

// Up builds the hosts, founds a swarm on n1, lets the others join, and returns when all are synced. When ctx ends
// before that, or anything fails, everything is removed again. What dead testnets left is removed first.
func Up(ctx context.Context, opt Options) (_ *Net, err error) {
	n, err := prepare(&opt)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.state.Mode == ModeNetns {
		n.progress("making network namespaces and cgroups")
		if err := n.build(); err != nil {
			return nil, err
		}
	}
	for _, h := range n.state.Hosts {
		if err := h.writeConfig(n.state.Mode); err != nil {
			return nil, err
		}
	}
	if opt.Bare {
		return n, ctx.Err()
	}
	if err := n.found(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

// prepare checks the options, removes what dead testnets left, writes the testnet down and starts its reaper. From
// then on Close removes everything.
func prepare(opt *Options) (*Net, error) {
	if os.Getenv(inReaper) != "" {
		return nil, errors.New("a testnet's reaper makes no testnets")
	}
	switch {
	case opt.Nodes == 0:
		opt.Nodes = DefaultNodes
	case opt.Nodes < 1 || opt.Nodes > MaxNodes:
		return nil, fmt.Errorf("%w: %d nodes are not within 1 and %d", ErrInvalid, opt.Nodes, MaxNodes)
	}
	switch opt.Mode {
	case ModeAuto, "":
		opt.Mode = ModeProcess
		if os.Geteuid() == 0 {
			opt.Mode = ModeNetns
		}
	case ModeNetns:
		if os.Geteuid() != 0 {
			return nil, fmt.Errorf("%w: run as root, or with --mode process", ErrNotRoot)
		}
	case ModeProcess:
	default:
		return nil, fmt.Errorf("%w: mode %q is not one of auto, netns, process", ErrInvalid, opt.Mode)
	}
	if opt.Suite == "" {
		opt.Suite = trust.SuiteDefault.Name()
	}
	if _, err := trust.ParseSuite(opt.Suite); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if opt.Progress == nil {
		opt.Progress = func(string) {}
	}
	if opt.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		opt.Binary = self
	}
	if _, err := Cleanup(); err != nil {
		opt.Progress("a dead testnet could not be removed: " + err.Error())
	}
	state, registry, err := write(opt)
	if err != nil {
		return nil, err
	}
	n := &Net{registry: registry, progress: opt.Progress, suite: opt.Suite, state: state, nodes: map[string]*running{}}
	if n.reaper, err = startReaper(opt.Binary, state.ID); err != nil {
		return nil, errors.Join(err, remove(state.ID, nil))
	}
	return n, nil
}

// write plans the hosts and writes the testnet down under a new id.
func write(opt *Options) (*State, string, error) {
	registry, err := openRegistry()
	if err != nil {
		return nil, "", err
	}
	self, err := processOf(os.Getpid())
	if err != nil {
		return nil, "", err
	}
	var random [3]byte
	rand.Read(random[:])
	id := hex.EncodeToString(random[:])
	s := &State{ID: id, Mode: opt.Mode, Dir: filepath.Join(registry, id), Keeper: self, Binary: opt.Binary, Created: time.Now()}
	if opt.Dir != "" {
		if s.Dir, err = emptyFolder(opt.Dir); err != nil {
			return nil, "", err
		}
	}
	top := ""
	if s.Mode == ModeNetns {
		if top, err = cgroupRoot(); err != nil {
			return nil, "", err
		}
	} else {
		s.Unforced = []string{
			"no kernel enforces anything: findings and responses are only shown",
			"hosts share one network namespace and are told apart by loopback address only",
			"sensors read /proc and see short-lived processes late or not at all",
		}
	}
	for i := 1; i <= opt.Nodes; i++ {
		roles := []string{"sentinel", "analyst"}
		if i == 2 || i == 4 {
			roles = append(roles, "decoy")
		}
		s.plan(fmt.Sprintf("n%d", i), true, roles, firstMember+i-1, top)
	}
	s.plan(Outsider, false, nil, outsider, top)
	for _, h := range s.Hosts {
		if len(h.Dir)+len("/omega.sock") > 107 {
			return nil, "", fmt.Errorf("%w: %s is too long a path for a Unix socket", ErrInvalid, h.Dir)
		}
	}

	// Made under another name first: whoever sees it as a testnet finds its state in it.
	tmp := filepath.Join(registry, ".new-"+id)
	err = os.Mkdir(tmp, 0o711)
	for try := 0; errors.Is(err, os.ErrNotExist) && try < 100; try++ {
		// The last testnet of another process just went, and took the empty registry with it.
		if _, err = openRegistry(); err == nil {
			err = os.Mkdir(tmp, 0o711)
		}
	}
	if err != nil {
		return nil, "", err
	}
	if err := errors.Join(s.save(tmp), os.Rename(tmp, filepath.Join(registry, id))); err != nil {
		os.RemoveAll(tmp)
		return nil, "", err
	}
	for _, h := range s.Hosts {
		if err := os.MkdirAll(h.Dir, 0o711); err != nil {
			return nil, "", errors.Join(err, remove(id, nil))
		}
	}
	return s, registry, nil
}

func emptyFolder(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	switch entries, err := os.ReadDir(dir); {
	case err == nil && len(entries) > 0:
		return "", fmt.Errorf("%w: %s is not empty, and a testnet removes its folder in the end", ErrInvalid, dir)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o711)
}

// plan adds a host to the state. Its decoy has a port of its own where all hosts share one network.
func (s *State) plan(name string, member bool, roles []string, last int, cgroups string) *Host {
	h := &Host{Name: name, Member: member, Roles: roles, Dir: filepath.Join(s.Dir, name), Port: 7946, Decoy: 2323}
	if h.Roles == nil {
		h.Roles = []string{}
	}
	h.Addr, h.Addr6 = address(s.Mode, s.ID, last)
	h.Log = filepath.Join(s.Dir, name+".log")
	if s.Mode == ModeNetns {
		h.Cgroup = filepath.Join(cgroups, prefix(s.ID), name)
		h.NetNS = netnsPath(s.ID, name)
	} else {
		h.Decoy = uint16(23000 + last)
	}
	s.Hosts = append(s.Hosts, h)
	return h
}

// build makes the bridge's namespace, and every host's namespace, link and cgroup.
func (n *Net) build() error {
	br, err := makeNamespace(netnsPath(n.state.ID, "br"))
	if err != nil {
		return err
	}
	defer br.Close()
	if err := makeBridge(br); err != nil {
		return err
	}
	errs := make([]error, len(n.state.Hosts))
	var wg sync.WaitGroup
	for i, h := range n.state.Hosts {
		wg.Go(func() { errs[i] = h.build(br) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (h *Host) build(br *os.File) error {
	if err := os.MkdirAll(h.Cgroup, 0o755); err != nil {
		return fmt.Errorf("make the cgroup of %s: %w", h.Name, err)
	}
	ns, err := makeNamespace(h.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	return plug(br, ns, h)
}

// State is a copy of what is known of the testnet now.
func (n *Net) State() *State {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := *n.state
	s.Hosts = make([]*Host, len(n.state.Hosts))
	for i, h := range n.state.Hosts {
		c := *h
		c.Roles = slices.Clone(h.Roles)
		s.Hosts[i] = &c
	}
	return &s
}

// Mode is netns or process.
func (n *Net) Mode() Mode { return n.state.Mode }

// Hosts lists members first, then x1.
func (n *Net) Hosts() []*Host { return n.State().Hosts }

// Members are the hosts that are members.
func (n *Net) Members() []*Host { return n.State().Members() }

// Host finds one by name.
func (n *Net) Host(name string) (*Host, error) { return n.State().Host(name) }

// Client speaks to the node of a host.
func (n *Net) Client(h *Host) apiv1connect.NodeClient { return h.Client() }

// Start runs cmd inside the host's network namespace and cgroup; the caller waits for it.
func (n *Net) Start(h *Host, cmd *exec.Cmd) error {
	if err := n.state.start(h, cmd); err != nil {
		return fmt.Errorf("on %s: %w", h.Name, err)
	}
	if n.state.Mode == ModeProcess {
		if p, err := processOf(cmd.Process.Pid); err == nil {
			n.reaper.watch(p)
		}
	}
	return nil
}

// Close drains the nodes, removes everything, and returns when it is gone. It may be called again.
func (n *Net) Close() error {
	n.once.Do(func() {
		n.drain()
		n.err = n.reaper.finish()
		n.wg.Wait()
		if n.err != nil {
			n.err = errors.Join(n.err, remove(n.state.ID, nil))
		}
	})
	return n.err
}

// drain asks every node to end, and gives all of them drainTimeout for it.
func (n *Net) drain() {
	n.mu.Lock()
	nodes := make([]*running, 0, len(n.nodes))
	for _, r := range n.nodes {
		r.cmd.Process.Signal(syscall.SIGTERM)
		nodes = append(nodes, r)
	}
	n.mu.Unlock()
	deadline := time.NewTimer(drainTimeout)
	defer deadline.Stop()
	for _, r := range nodes {
		select {
		case <-r.done:
		case <-deadline.C:
			return
		}
	}
}
