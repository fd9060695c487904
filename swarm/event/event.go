// Package event is the language the peers and the parts of a peer speak: plain types for what happened on a host
// (Event), what a detector claims of it (Finding), what is to be done (Response) and what was done (Receipt).
//
// It is a leaf: it imports nothing of ours, so that every floor may import it. It holds no behaviour beyond naming,
// copying and static bounds. Conversions to canonical CBOR (what is signed), protobuf (what is asked of a node) and
// OCSF JSON (what people read) live at those edges, not here.
package event

import (
	"net/netip"
	"strings"
	"time"
)

// Class is the kind of thing that happened; its values are OCSF class_uid numbers (schema 1.x).
type Class uint16

const (
	ClassFile           Class = 1001
	ClassKernel         Class = 1003
	ClassProcess        Class = 1007
	ClassAuthentication Class = 3002
	ClassNetwork        Class = 4001
	ClassDNS            Class = 4003
)

// String gives the short name used in expressions and on screen.
func (c Class) String() string {
	switch c {
	case ClassFile:
		return "file"
	case ClassKernel:
		return "kernel"
	case ClassProcess:
		return "process"
	case ClassAuthentication:
		return "authentication"
	case ClassNetwork:
		return "network"
	case ClassDNS:
		return "dns"
	}
	return "unknown"
}

// Activity says what happened within a Class.
type Activity uint8

const (
	ActivityUnknown Activity = iota
	ActivityFork
	ActivityExec
	ActivityExit
	ActivityConnect // an outbound connection was asked for
	ActivityAccept  // an inbound connection was established
	ActivityListen
	ActivityClose
	ActivityRefuse // the kernel refused a connection or packet because of an active response
	ActivityKill   // the kernel killed a process because of an active response
	ActivityProbe  // an inbound TCP SYN to a port nobody listens on, or a reset half-open connection
	ActivityFileWrite
	ActivityLogonFailure
	ActivityLogonSuccess
)

var activityNames = [...]string{"unknown", "fork", "exec", "exit", "connect", "accept", "listen", "close", "refuse", "kill", "probe", "write", "logon_failure", "logon_success"}

// String gives the short name used in expressions and on screen.
func (a Activity) String() string {
	if int(a) < len(activityNames) {
		return activityNames[a]
	}
	return "unknown"
}

// ProcessKey identifies one process for the life of a boot: a pid alone is reused, a pid with its start is not.
type ProcessKey struct {
	PID   uint32 `cbor:"1,keyasint"`
	Start uint64 `cbor:"2,keyasint"` // CLOCK_BOOTTIME at start, nanoseconds
}

// ProcessFlag is a set of facts about a process that detectors ask for often.
type ProcessFlag uint32

const (
	FlagMemfd          ProcessFlag = 1 << iota // the executable is an anonymous memory file
	FlagDeleted                                // the executable has no name left (link count 0)
	FlagJustWritten                            // the executable was changed less than JustWritten before the exec
	FlagStdinSocket                            // descriptor 0 is a socket
	FlagStdoutSocket                           // descriptor 1 is a socket
	FlagStderrSocket                           // descriptor 2 is a socket
	FlagUpperLayer                             // the executable lies in the upper layer of an overlay
	FlagArgsTruncated                          // Args was longer than the record holds
	FlagFromProcfs                             // read from /proc, not seen by the kernel sensor
	FlagWorldWritable                          // the executable, or the folder it lies in, is writable by everyone
	FlagKilledInKernel                         // the kernel half killed it before its first instruction
)

// Process is who did it. Strings of an Event handed to a Detector are valid only during the call: use Event.Clone to keep them.
type Process struct {
	Key        ProcessKey
	Parent     ProcessKey
	UID, GID   uint32
	EUID, EGID uint32
	Exe        string // absolute path as the process's mount namespace sees it
	Comm       string
	Args       string // argv joined by NUL, at most 4096 bytes
	CWD        string
	Inode      uint64
	Device     uint64
	CgroupID   uint64
	MountNS    uint32
	PIDNS      uint32
	NetNS      uint32
	Session    uint32
	LoginUID   uint32
	Caps       uint64 // effective set
	Flags      ProcessFlag
	ExitCode   int32
	ParentExe  string // filled from the process tree, empty where unknown
}

// Argv splits Args.
func (p *Process) Argv() []string {
	if p.Args == "" {
		return nil
	}
	return strings.Split(strings.TrimRight(p.Args, "\x00"), "\x00")
}

// Network is one end of a connection as the host saw it.
type Network struct {
	Protocol      uint8 // IP protocol number
	Local, Remote netip.AddrPort
	BytesIn       uint64
	BytesOut      uint64
	Duration      time.Duration
	Inbound       bool
}

// File is the object of a file event.
type File struct {
	Path   string
	Inode  uint64
	Device uint64
	Mode   uint32
}

// Logon is the object of an authentication event.
type Logon struct {
	User    string
	Service string
	Remote  netip.Addr
}

// Event is one thing that happened on a host. The sentinel reuses one value for many records, so an Event and its
// strings are valid only during the call they are passed to.
type Event struct {
	Class    Class
	Activity Activity
	Time     int64  // wall clock, Unix nanoseconds
	Boot     uint64 // CLOCK_BOOTTIME, nanoseconds
	Sensor   string // which sensor saw it: "kernel", "procfs", "decoy", "recording"
	Process  Process
	Network  Network
	File     File
	Logon    Logon
}

// Clone copies e so that it outlives the call it was passed to.
func (e *Event) Clone() *Event {
	c := *e
	for _, s := range []*string{&c.Process.Exe, &c.Process.Comm, &c.Process.Args, &c.Process.CWD, &c.Process.ParentExe,
		&c.File.Path, &c.Logon.User, &c.Logon.Service, &c.Sensor} {
		*s = strings.Clone(*s)
	}
	return &c
}
