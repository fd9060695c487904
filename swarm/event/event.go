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
	ClassMemory         Class = 1004
	ClassScheduledJob   Class = 1006
	ClassProcess        Class = 1007
	ClassAuthentication Class = 3002
	ClassNetwork        Class = 4001
	ClassDNS            Class = 4003

	// ClassFileIntegrity is a watched file that differs from its baseline. OCSF has no class of its own for it: its JSON is
	// a File System Activity (1001) that says so.
	ClassFileIntegrity Class = 1901
)

// String gives the short name used in expressions and on screen.
func (c Class) String() string {
	switch c {
	case ClassFile:
		return "file"
	case ClassKernel:
		return "kernel"
	case ClassMemory:
		return "memory"
	case ClassScheduledJob:
		return "scheduled_job"
	case ClassFileIntegrity:
		return "file_integrity"
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

// Classes lists every class there is.
func Classes() []Class {
	return []Class{ClassFile, ClassKernel, ClassMemory, ClassScheduledJob, ClassProcess, ClassAuthentication, ClassNetwork, ClassDNS, ClassFileIntegrity}
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
	ActivityFileCreate
	ActivityFileRename
	ActivityFileLink // a hard or symbolic link was made: File.Path is the new name, File.Other what it leads to
	ActivityFileUnlink
	ActivityFileChmod
	ActivityFileChown
	ActivityFileSetXattr // File.Other names the attribute
	ActivityMount        // File.Path is the mount point, File.Other the source
	ActivityUnmount
	ActivityPivotRoot
	ActivityBind
	ActivityDNSQuery
	ActivityDNSAnswer
	ActivitySetUID // credentials changed by a setuid call; Process is as it was, Access has what was asked for
	ActivitySetGID
	ActivityCapSet
	ActivityPrivilegeGain // a process holds more than it held: an effective user of 0, or capabilities, that it had not
	ActivityPtrace
	ActivityProcessWrite
	ActivitySignal // a signal was sent to the agent, or to what it protects
	ActivityMemfdCreate
	ActivityMemoryExecutable // anonymous memory was made executable by mmap or mprotect
	ActivityUnshare
	ActivitySetNS
	ActivityKeyctl
	ActivityIOUring // a request was handed to the kernel by io_uring: Access.Operation names it
	ActivityModuleLoad
	ActivityModuleUnload
	ActivityBPF        // a bpf() call that loads, attaches or changes
	ActivityKernelFact // something the kernel says of itself changed: its taint, lockdown, a hook, a program
	ActivitySessionOpen
	ActivitySessionClose
	ActivitySudo   // a command was run by sudo, su, doas or pkexec: Logon.User asked, Logon.As is who it ran as
	ActivityJobRun // cron or a systemd timer ran a job
	ActivityServiceStart
	ActivityServiceStop
	ActivityAccount  // a user or group was made, changed or removed, or a password set
	ActivityBaseline // a baseline of watched files was taken
	// ActivityIntegrity: a watched file is not as it was. File.Other says in what, File.Was how it was, Access.Operation what was
	// done to it, or between when, where nobody saw it.
	ActivityIntegrity
	ActivityLost      // records were lost: Count of them, of the kind Access.Operation names
	ActivityRawSocket // a socket past the kernel's own protocols was asked for: Access.Operation is its family and type, Number the protocol
	// ActivityTamper: something of the agent's own was taken from it. File.Path names what, Access.Operation says how where it was
	// seen, Process is zero where it is not known who; Result is how putting it back ended.
	ActivityTamper
)

var activityNames = [...]string{"unknown", "fork", "exec", "exit", "connect", "accept", "listen", "close", "refuse", "kill", "probe", "write", "logon_failure", "logon_success",
	"create", "rename", "link", "unlink", "chmod", "chown", "setxattr", "mount", "umount", "pivot_root", "bind", "query",
	"answer", "setuid", "setgid", "capset", "privilege_gain", "ptrace", "process_vm_writev", "signal", "memfd_create", "memory_executable", "unshare", "setns",
	"keyctl", "io_uring", "module_load", "module_unload", "bpf", "kernel_fact", "session_open", "session_close", "sudo", "job_run", "service_start", "service_stop",
	"account_change", "baseline", "integrity", "lost", "raw_socket", "tamper"}

// Activities is the number of activities there are; every Activity is below it.
const Activities = len(activityNames)

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
	FlagScript                                 // Script is what an interpreter was given
	FlagSetID                                  // the executable is set-user-id, set-group-id, or has file capabilities
	FlagBeforeAgent                            // it ran before the sentinel did: found by iterators or /proc at the start
	FlagPathTruncated                          // of a file event: a path was longer than the record holds, and is not whole
	FlagWatchedPath                            // of a file event: the path is one that the host watches
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
	Ancestors  string // the executables above the parent, nearest first, joined by NUL, at most 8; empty where unknown
	Script     string // the file an interpreter runs (#!, or its first argument that is a file), empty if none
	TTY        string // "pts/3", "tty1"; empty without one
	Container  string // id of its container, from its cgroup; empty outside of one
	Image      string // of its container, where the runtime tells
	Pod        string // namespace/name, where the runtime tells
	Unit       string // its systemd unit, from its cgroup
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
	Name          string // the remote's name: as this process asked for it by DNS or, where it did not, another of this host; empty where unknown
	SNI           string // the server name of a TLS ClientHello on this flow, empty where none was seen
}

// File is the object of a file event.
type File struct {
	Path   string // as the process's mount namespace sees it
	Other  string // the old name of a rename, the target of a link, the name of an attribute, the source of a mount
	Inode  uint64
	Device uint64
	Mode   uint32 // type and permissions; of a chmod what was asked for
	UID    uint32 // of a chown what was asked for, else the owner's
	GID    uint32
	Flags  uint32 // of open and mount, as the call has them
	Hash   string // BLAKE3, hex, where it was taken
	FS     string // type of file system, of a mount
	Was    string // of a watched file that changed: its digest, mode, owner and link target before, as words; empty where it was not there
}

// DNS is the object of a DNS event: one question, and with ActivityDNSAnswer what came for it.
type DNS struct {
	Name    string // asked for, lower case, without the last dot, at most 253 bytes
	Type    uint16 // RFC 1035 and successors
	Code    uint8  // response code
	ID      uint16
	Answers string // addresses and names, joined by NUL, at most 1024 bytes
}

// Access is the object of what one process does to another, to its own rights, or to the kernel.
type Access struct {
	Operation string     // what exactly: "PTRACE_ATTACH", "BPF_PROG_LOAD", "IORING_OP_OPENAT", a module's or key's name
	Target    ProcessKey // whom it is done to
	TargetExe string
	Number    uint64 // flags, the signal, the kind of program: as the call has it
	OldUID    uint32 // effective, before
	NewUID    uint32 // effective, after; of a call what was asked for
	Gained    uint64 // capabilities that were not there before
	Address   uint64
	Length    uint64
}

// Logon is the object of an authentication event.
type Logon struct {
	User    string
	As      string // whose rights a command ran with (sudo, su), or whose account was changed
	Service string
	Method  string // password, publickey, …
	Command string
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
	Result   int32  // 0, or the error number the call ended with
	Count    uint32 // how many like it this one stands for, itself not counted
	File     File
	Logon    Logon
	DNS      DNS
	Access   Access
}

// Clone copies e so that it outlives the call it was passed to.
func (e *Event) Clone() *Event {
	c := *e
	for _, s := range []*string{&c.Process.Exe, &c.Process.Comm, &c.Process.Args, &c.Process.CWD, &c.Process.ParentExe,
		&c.Process.Ancestors, &c.Process.Script, &c.Process.TTY, &c.Process.Container, &c.Process.Image, &c.Process.Pod, &c.Process.Unit,
		&c.Network.Name, &c.Network.SNI, &c.File.Path, &c.File.Other, &c.File.Hash, &c.File.FS, &c.File.Was,
		&c.Logon.User, &c.Logon.As, &c.Logon.Service, &c.Logon.Method, &c.Logon.Command,
		&c.DNS.Name, &c.DNS.Answers, &c.Access.Operation, &c.Access.TargetExe, &c.Sensor} {
		*s = strings.Clone(*s)
	}
	return &c
}
