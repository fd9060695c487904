package event

import (
	"net/netip"
	"strings"
	"time"
)

// Action is what a response does; the names are OpenC2's where it has one.
type Action string

const (
	ActionDeny       Action = "deny"       // an address, the execution of a file, or writing to one
	ActionContain    Action = "contain"    // a peer: only swarm traffic passes
	ActionKill       Action = "kill"       // a process, or its tree
	ActionQuarantine Action = "quarantine" // a file
	ActionRelease    Action = "release"    // ends another response
)

// Target is what a response acts on: exactly one of its fields, or PID with Peer, is set.
type Target struct {
	Address netip.Prefix `cbor:"1,keyasint,omitzero"`
	Path    string       `cbor:"2,keyasint,omitempty"` // of an executable
	Inode   uint64       `cbor:"3,keyasint,omitempty"`
	Device  uint64       `cbor:"4,keyasint,omitempty"`
	SHA256  string       `cbor:"5,keyasint,omitempty"` // hex
	PID     uint32       `cbor:"6,keyasint,omitempty"`
	Start   uint64       `cbor:"7,keyasint,omitempty"` // with PID: guards against reuse; 0 means any
	Tree    bool         `cbor:"8,keyasint,omitempty"`
	Peer    string       `cbor:"9,keyasint,omitempty"`  // DID; with PID the host it runs on, alone the host to contain
	Domain  string       `cbor:"10,keyasint,omitempty"` // lower case, without the last dot: it and all names below it
	Port    uint16       `cbor:"11,keyasint,omitempty"` // of the other side
	// Protocol, with Port: 6 for TCP, 17 for UDP, 0 for both.
	Protocol uint8 `cbor:"12,keyasint,omitempty"`
	// Generation, with Inode, tells the files apart that have the inode's number one after the other; 0 is any of them.
	Generation uint32 `cbor:"13,keyasint,omitempty"`
	// Write is the path of a file, or of a folder with all in it, that is not to be written.
	Write string `cbor:"14,keyasint,omitempty"`
}

// AuthorityKind says by whose word a response stands.
type AuthorityKind string

const (
	AuthorityPolicy   AuthorityKind = "policy"   // the response policy, on findings every peer can check
	AuthorityOperator AuthorityKind = "operator" // an operator's signature
	// AuthorityDelegated: a member's, whose credential lets it.
	AuthorityDelegated AuthorityKind = "delegated"
	AuthorityLocal     AuthorityKind = "local" // this host's own socket: acts on this host alone
)

// Response is an action on a target, always with an end. Those of the policy are derived by every peer alike from the
// same findings, so their ID is a hash of what they do and why; those of an operator are authority entries.
type Response struct {
	ID        string        `cbor:"-"` // of the entry, or derived: hex, 32 digits
	Action    Action        `cbor:"1,keyasint"`
	Target    Target        `cbor:"2,keyasint"`
	Scope     []string      `cbor:"3,keyasint,omitempty"` // DIDs that act; empty means all
	Reason    string        `cbor:"4,keyasint"`
	Authority AuthorityKind `cbor:"5,keyasint"`
	By        string        `cbor:"6,keyasint,omitempty"` // DID of operator or author of the triggering finding
	Findings  []string      `cbor:"7,keyasint,omitempty"`
	Issued    int64         `cbor:"8,keyasint"` // Unix nanoseconds
	TTL       time.Duration `cbor:"9,keyasint"` // counted from receipt on CLOCK_BOOTTIME, less the age; never zero
	Releases  string        `cbor:"10,keyasint,omitempty"`
}

// Outcome is what became of a response on one host.
type Outcome string

const (
	OutcomeDone     Outcome = "done"     // the kernel enforces it
	OutcomeObserved Outcome = "observed" // observe mode: what would have been done
	OutcomeRefused  Outcome = "refused"  // a guard rail forbids it; Detail names which
	OutcomePending  Outcome = "pending"  // waits for a person
	OutcomeFailed   Outcome = "failed"   // Detail says why
	OutcomeReleased Outcome = "released"
	OutcomeExpired  Outcome = "expired"
	OutcomeAdopted  Outcome = "adopted" // found still enforced in the kernel after a restart
)

// Receipt is a peer's signed word on what it did for a response.
type Receipt struct {
	ID       string  `cbor:"-"`
	Peer     string  `cbor:"-"`
	Host     string  `cbor:"-"`
	Response string  `cbor:"1,keyasint"`
	Outcome  Outcome `cbor:"2,keyasint"`
	Guard    string  `cbor:"3,keyasint,omitempty"` // the guard rail that refused
	Detail   string  `cbor:"4,keyasint,omitempty"`
	Time     int64   `cbor:"5,keyasint"` // Unix nanoseconds when the outcome stood
	// Heard is CLOCK_BOOTTIME when the triggering entry reached this host, Acted when the kernel map was written: nanoseconds.
	Heard uint64 `cbor:"6,keyasint"`
	Acted uint64 `cbor:"7,keyasint"`
	// Means names each hook that enforces it, e.g. "xdp", "tcx-egress", "cgroup-connect4".
	Means []string `cbor:"8,keyasint,omitempty"`
	// BeforeFirstInstruction, for a denied execution: whether the process died before it ran anything.
	BeforeFirstInstruction bool `cbor:"9,keyasint,omitempty"`
}

// ValidResponseID says whether id has the form of all responses' ids: 32 lower-case hex digits.
func ValidResponseID(id string) bool {
	return len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}
