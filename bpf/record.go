package bpf

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"structs"
	"time"
	"unsafe"

	"github.com/omega-mesh/omega/swarm/event"
)

// The layout of kernel/record.h; a test holds these against the object's own type information.
const (
	recordFork = iota + 1
	recordExec
	recordExit
	recordConnect
	recordAccept
	recordListen
	recordClose
	recordRefuse
	recordProbe
	recordKill
	recordKinds = 56
)

// recordNames says what a lost record of each kind is counted under; a table, never changed.
var recordNames = [recordKinds]string{recordFork: "fork", recordExec: "exec", recordExit: "exit", recordConnect: "connect",
	recordAccept: "accept", recordListen: "listen", recordClose: "close", recordRefuse: "refuse", recordProbe: "probe", recordKill: "kill",
	recordRights: "rights", recordTrace: "trace", recordSignal: "signal", recordMemory: "memory", recordNamespace: "namespace", recordKey: "key", recordUring: "io_uring", recordKernel: "kernel",
	recordFileWrite: "file_write", recordFileCreate: "file_create", recordFileRename: "file_rename", recordFileLink: "file_link", recordFileUnlink: "file_unlink",
	recordFileChmod: "file_chmod", recordFileChown: "file_chown", recordFileXattr: "file_setxattr", recordFileTruncate: "file_truncate",
	recordFileMount: "mount", recordFileUnmount: "umount", recordFilePivot: "pivot_root",
	recordQuery: "query", recordAnswer: "answer", recordHello: "hello", recordDatagrams: "datagrams", recordDatagramsEnd: "datagrams_end", recordBind: "bind",
	recordSocket: "socket", recordSuspect: "denied_names_full", recordTampered: "tamper", recordMoved: "moved", recordMapWrite: "map_write"}

type recordHeader struct {
	_     structs.HostLayout
	Kind  uint16
	Size  uint16
	Flags uint32
	Boot  uint64
}

// Flags of a header that no event has.
const (
	flagThread = 1 << 29 // not the first thread of its process
	flagUserNS = 1 << 30 // the process is in a user namespace of its own
	flagMuted  = 1 << 31 // told for lineage alone
)

type recordProcess struct {
	_           structs.HostLayout
	Start       uint64
	ParentStart uint64
	Cgroup      uint64
	Inode       uint64
	Caps        uint64
	Changed     int64
	PID         uint32
	ParentPID   uint32
	UID         uint32
	GID         uint32
	EUID        uint32
	EGID        uint32
	Device      uint32
	MountNS     uint32
	PIDNS       uint32
	NetNS       uint32
	LoginUID    uint32
	ExitCode    int32
	Session     uint32
	TTY         [12]byte
	Comm        [16]byte
}

type recordNetwork struct {
	_          structs.HostLayout
	Local      [16]byte
	Remote     [16]byte
	BytesIn    uint64
	BytesOut   uint64
	Duration   uint64
	Cookie     uint64
	LocalPort  uint16
	RemotePort uint16
	Protocol   uint8
	Inbound    uint8
	Repeats    uint16
}

type recordStrings struct {
	_         structs.HostLayout
	ExeLen    uint16
	ArgsLen   uint16
	CwdLen    uint16
	ScriptLen uint16
}

const (
	headerSize  = int(unsafe.Sizeof(recordHeader{}))
	processSize = int(unsafe.Sizeof(recordProcess{}))
	networkSize = int(unsafe.Sizeof(recordNetwork{}))
	stringsSize = int(unsafe.Sizeof(recordStrings{}))
	forkSize    = headerSize + processSize
	flowSize    = forkSize + networkSize
	execSize    = forkSize + stringsSize
)

// JustWritten is how young an executable's last change must be for event.FlagJustWritten.
const JustWritten = 10 * time.Second

// errRecord is what decode says of bytes that no program of ours wrote.
var errRecord = errors.New("not a record of this version")

// decode fills e from one record of the ring. It copies nothing and allocates nothing: the strings of e lie in b.
// wallMinusBoot turns the record's clock into the wall's. Bytes that do not fit are refused, whoever wrote them.
func decode(b []byte, wallMinusBoot int64, e *event.Event) error {
	if len(b) < forkSize || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%8 != 0 {
		return errRecord
	}
	h := (*recordHeader)(unsafe.Pointer(unsafe.SliceData(b)))
	if int(h.Size) != len(b) || h.Kind == 0 || h.Kind >= recordKinds {
		return errRecord
	}
	*e = event.Event{Sensor: "kernel", Boot: h.Boot, Time: int64(h.Boot) + wallMinusBoot}
	p := (*recordProcess)(unsafe.Pointer(&b[headerSize]))
	e.Process = event.Process{
		Key:    event.ProcessKey{PID: p.PID, Start: p.Start},
		Parent: event.ProcessKey{PID: p.ParentPID, Start: p.ParentStart},
		UID:    p.UID, GID: p.GID, EUID: p.EUID, EGID: p.EGID,
		Inode: p.Inode, Device: uint64(p.Device), CgroupID: p.Cgroup,
		MountNS: p.MountNS, PIDNS: p.PIDNS, NetNS: p.NetNS,
		LoginUID: p.LoginUID, Caps: p.Caps, ExitCode: p.ExitCode,
		Flags:   event.ProcessFlag(h.Flags),
		Session: p.Session,
		Comm:    cString(p.Comm[:]), TTY: cString(p.TTY[:]),
	}
	if h.Kind >= recordRights && h.Kind <= recordKernel {
		return decodeAccess(b, h.Kind, e)
	}
	if h.Kind >= recordFileWrite && h.Kind <= recordFilePivot {
		return decodeFile(b, h.Kind, e)
	}
	if h.Kind >= recordQuery && h.Kind <= recordSocket {
		return decodeNames(b, h.Kind, e)
	}
	if h.Kind == recordTampered || h.Kind == recordMoved {
		return decodeTamper(b, h.Kind, e)
	}
	switch h.Kind {
	case recordFork, recordExit, recordKill:
		if len(b) != forkSize {
			return errRecord
		}
		e.Class = event.ClassProcess
		e.Activity = [...]event.Activity{recordFork: event.ActivityFork, recordExit: event.ActivityExit, recordKill: event.ActivityKill}[h.Kind]
		if h.Kind == recordExit { // the kernel keeps the signal in the low byte, the code in the next
			if signal := p.ExitCode & 0x7f; signal != 0 {
				e.Process.ExitCode = 128 + signal
			} else {
				e.Process.ExitCode = p.ExitCode >> 8 & 0xff
			}
		}
		return nil
	case recordExec:
		if len(b) < execSize {
			return errRecord
		}
		s := (*recordStrings)(unsafe.Pointer(&b[forkSize]))
		data := b[execSize:]
		exe, args, cwd, script := int(s.ExeLen), int(s.ArgsLen), int(s.CwdLen), int(s.ScriptLen)
		if exe+args+cwd+script != len(data) {
			return errRecord
		}
		e.Class, e.Activity = event.ClassProcess, event.ActivityExec
		e.Process.Exe = view(data[:exe])
		e.Process.Args = view(trimZeros(data[exe : exe+args]))
		e.Process.CWD = view(data[exe+args : exe+args+cwd])
		e.Process.Script = cString(data[exe+args+cwd:])
		if age := e.Time/int64(time.Second) - p.Changed; h.Flags&uint32(event.FlagBeforeAgent) == 0 && age >= 0 && age < int64(JustWritten/time.Second) {
			e.Process.Flags |= event.FlagJustWritten
		}
		return nil
	}
	if h.Kind > recordProbe || len(b) != flowSize {
		return errRecord
	}
	n := networkOf(b)
	e.Class = event.ClassNetwork
	e.Activity = [...]event.Activity{recordConnect: event.ActivityConnect, recordAccept: event.ActivityAccept, recordListen: event.ActivityListen,
		recordClose: event.ActivityClose, recordRefuse: event.ActivityRefuse, recordProbe: event.ActivityProbe}[h.Kind]
	e.Network = event.Network{
		Protocol: n.Protocol,
		Local:    netip.AddrPortFrom(netip.AddrFrom16(n.Local).Unmap(), n.LocalPort),
		Remote:   netip.AddrPortFrom(netip.AddrFrom16(n.Remote).Unmap(), n.RemotePort),
		BytesIn:  n.BytesIn, BytesOut: n.BytesOut, Duration: time.Duration(n.Duration),
		Inbound: n.Inbound != 0,
	}
	if h.Kind == recordClose { // of a flow the kernel keeps there why it ended
		e.Result, e.Process.ExitCode = p.ExitCode, 0
	}
	return nil
}

// view is b as a string without a copy: valid as long as b is.
func view(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return view(b[:i])
		}
	}
	return view(b)
}

func trimZeros(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}

func nativeUint32(b []byte) uint32           { return binary.NativeEndian.Uint32(b) }
func nativeUint64(b []byte) uint64           { return binary.NativeEndian.Uint64(b) }
func appendUint32(b []byte, v uint32) []byte { return binary.NativeEndian.AppendUint32(b, v) }
func appendUint64(b []byte, v uint64) []byte { return binary.NativeEndian.AppendUint64(b, v) }
