// Package guard holds the rails that no response may cross, whoever asks for it.
//
// It is asked on both sides of a node: the unprivileged half to know what to propose instead, the privileged half,
// whose word counts, before the kernel is touched. It is pure: what is protected is told to it, and it answers.
package guard

import (
	"github.com/omega-mesh/omega/swarm/event"
	"net/netip"
)

// Names of the rails: stable, in receipts and on screen.
const (
	RailPeer        = "peer-address"   // an address that a live authenticated connection proved to be a member's
	RailGateway     = "gateway"        // a next hop of this host's routes
	RailResolver    = "resolver"       // a name server of this host
	RailAllow       = "allow-list"     // what operators or this host's configuration said must never be blocked
	RailLoopback    = "loopback"       //
	RailLinkLocal   = "link-local"     //
	RailMulticast   = "multicast"      // and broadcast
	RailUnspecified = "unspecified"    //
	RailOwn         = "own-address"    // an address of this host
	RailWide        = "prefix-width"   // wider than one host, for a response that no operator signed
	RailTarget      = "invalid-target" // no target, two targets, or one that cannot be checked
	RailInit        = "init"           // pid 1
	RailKernel      = "kernel-thread"  //
	RailSSH         = "sshd"           //
	RailLoader      = "loader"         // the dynamic loader and the C library
	RailShell       = "shell"          //
	RailPackage     = "package-tool"   //
	RailSelf        = "omega"          // this program
)

// MaxPerPeer is the most addresses of one peer that are protected, so that none can shield an attacker by claiming its.
const MaxPerPeer = 4

// Proved is an address of a member as a live, authenticated connection proved it.
type Proved struct {
	DID     string
	Address netip.Addr
	Since   uint64 // CLOCK_BOOTTIME of this host, nanoseconds, when the proof was complete
}

// Rails is what is protected on this host. All methods are safe for concurrent use.
type Rails struct{}

// New makes rails that protect what needs no telling: loopback, link-local, multicast and unspecified addresses, pid 1,
// kernel threads, and this host's sshd, loader, shells, package tools and omega itself by path, resolved path and inode.
func New() *Rails { return &Rails{} }

// Check names the rail that r would cross and says why; an empty name lets it pass. heard is CLOCK_BOOTTIME,
// nanoseconds, when this host heard of what r answers: an address proved later protects nobody.
func (g *Rails) Check(r event.Response, heard uint64) (rail, why string) { return "", "" }

// SetProved replaces the addresses proved by live connections.
func (g *Rails) SetProved(proved []Proved) {}

// SetAllowed replaces what must never be blocked: addresses, prefixes, absolute paths. It is all or nothing.
func (g *Rails) SetAllowed(lines []string) error { return nil }

// SetOwn, SetGateways and SetResolvers replace what this host's network configuration says.
func (g *Rails) SetOwn(addrs []netip.Addr)       {}
func (g *Rails) SetGateways(addrs []netip.Addr)  {}
func (g *Rails) SetResolvers(addrs []netip.Addr) {}

// MemberAt is the member that an address is proved to be, if one alone.
func (g *Rails) MemberAt(a netip.Addr) (did string, ok bool) { return "", false }
