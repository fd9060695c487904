package testnet

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"

	"github.com/omega-mesh/omega/node/api/v1/apiv1connect"
)

// Mode says how hosts are kept apart.
type Mode string

const (
	ModeAuto    Mode = "auto"    // netns as root, process otherwise
	ModeNetns   Mode = "netns"   // a network namespace and a cgroup a host; needs root
	ModeProcess Mode = "process" // processes on 127.77.0.0/16, told apart by address only
)

// Bounds of a testnet.
const (
	DefaultNodes = 5
	MaxNodes     = 64 // members; each is a process of some 60 MiB
	MaxHosts     = 96 // members, outsider and hosts added by hand
)

// Errors a caller may decide on.
var (
	ErrNotRoot  = errors.New("network namespaces need root")
	ErrNotFound = errors.New("no such host in the testnet")
	ErrNone     = errors.New("no testnet is running here")
	ErrMany     = errors.New("several testnets are running here")
)

// Options say what Up builds.
type Options struct {
	// Nodes is the number of members, 1 to MaxNodes; 0 is DefaultNodes.
	Nodes int
	// Mode is auto unless set.
	Mode Mode
	// Dir is the folder in which testnets keep state, a folder each; empty is DefaultDir().
	Dir string
	// Binary is the omega to run on the hosts; empty is this very executable.
	Binary string
	// Bare makes the hosts but starts no node on them.
	Bare bool
	// Progress, if set, is told each step in a few words.
	Progress func(string)
}

// Net is a running testnet, held by the process that called Up.
type Net struct{}

// Host is one host of a testnet.
type Host struct {
	Name   string
	Member bool
	Addr   netip.Addr // IPv4
	Addr6  netip.Addr // unique local IPv6; invalid in process mode
	Dir    string     // the node's state folder
	Cgroup string     // its cgroup v2 folder; empty in process mode
	NetNS  string     // path of its network namespace; empty in process mode
	Roles  []string
}

// Up builds the hosts, founds a swarm on n1, lets the others join, and returns when all are synced. When ctx ends
// before that, everything is removed again.
func Up(ctx context.Context, opt Options) (*Net, error) { return nil, errors.ErrUnsupported }

// Mode is netns or process.
func (n *Net) Mode() Mode { return ModeProcess }

// Hosts lists members first, then x1 and others.
func (n *Net) Hosts() []*Host { return nil }

// Host finds one by name.
func (n *Net) Host(name string) (*Host, error) { return nil, ErrNotFound }

// Client speaks to the node of a host.
func (n *Net) Client(h *Host) apiv1connect.NodeClient { return nil }

// Start runs cmd inside the host's network namespace and cgroup; the caller waits for it.
func (n *Net) Start(h *Host, cmd *exec.Cmd) error { return errors.ErrUnsupported }

// Close drains the nodes, removes everything, and returns when it is gone.
func (n *Net) Close() error { return nil }
