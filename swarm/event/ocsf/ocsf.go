// Package ocsf is the face of events and findings that people and SIEMs read: OCSF JSON, one object a line, and the
// reader of it for recordings.
//
// The mapping follows schema 1.x: classes 1001 to 1004, 1006, 1007, 3001, 3002, 4001 and 4003 for events and 2004 for
// findings, each with the attributes that the schema requires. What the schema has no place for stands under "unmapped",
// so that an event of any class comes back as it was. Every string is what an attacker chose: bytes that are not UTF-8,
// control characters and those that turn text round are escaped, so that a line is a line and a terminal shows what is there.
package ocsf

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Version is the schema version that metadata names.
const Version = "1.4.0"

// MaxLine is the longest line that Decode and DecodeFinding read, in bytes: an event whose every string is as long as it
// may be and has no byte that shows itself still fits.
const MaxLine = 256 << 10

// ErrLine is wrapped by every refusal of a line.
var ErrLine = errors.New("ocsf")

// Encode gives e as one OCSF object without a line's end. host and did name the host it happened on.
func Encode(e *event.Event, host, did string) ([]byte, error) {
	id, class := ActivityID(e.Class, e.Activity), ClassUID(e.Class, e.Activity)
	r := record{
		ClassUID: class, CategoryUID: class / 1000, ClassName: className(class), ActivityID: id, Activity: e.Activity.String(), TypeUID: uint64(class)*100 + uint64(id),
		SeverityID: uint8(event.SeverityInformational), Time: floorMilli(e.Time),
		Metadata: metadata{Version: Version, Product: product{Name: "Omega", Vendor: "Omega", Feature: Escape(e.Sensor)}, Time: stamp(e.Time)},
		Device:   &device{Hostname: Escape(host), UID: Escape(did), Type: 0},
		Unmapped: extra{Activity: e.Activity.String(), Boot: e.Boot, Sensor: Escape(e.Sensor)},
	}
	if class != uint16(e.Class) {
		r.Unmapped.Class = e.Class.String()
	}
	if e.Count != 0 {
		r.Count = uint64(e.Count) + 1
	}
	if e.Result != 0 {
		r.StatusID, r.StatusCode = 2, strconv.Itoa(int(e.Result))
	}
	encodeActor(&r, e)
	if e.File != (event.File{}) || e.Class == event.ClassFile || e.Class == event.ClassFileIntegrity {
		encodeObject(&r, e)
	}
	if e.Network != (event.Network{}) {
		encodeNetwork(&r, &e.Network)
	}
	if e.DNS != (event.DNS{}) || e.Class == event.ClassDNS {
		encodeDNS(&r, e)
	}
	if e.Access != (event.Access{}) || e.Class == event.ClassKernel {
		encodeAccess(&r, e)
	}
	encodeLogon(&r, e)
	if e.Activity == event.ActivityRefuse || e.Activity == event.ActivityKill {
		r.Action = "Denied"
	}
	return json.Marshal(r)
}

// encodeActor says who did it. A started or ended process is the object, and its parent the actor; of what a process does
// to itself it is both; of what it does to another the other is the object.
func encodeActor(r *record, e *event.Event) {
	if e.Process == (event.Process{}) {
		return
	}
	p := encodeProcess(&e.Process)
	r.Unmapped.Process = encodeDetails(&e.Process)
	switch {
	case aimed(e.Class, e.Access.Target.PID):
		r.Actor = &actor{Process: p, User: p.User}
		r.Process = &process{PID: e.Access.Target.PID, UID: processUID(e.Access.Target), File: encodeFile(e.Access.TargetExe)}
	case e.Class == event.ClassProcess:
		r.Process, r.Actor = p, &actor{Process: p.Parent, User: p.User}
		if e.Activity == event.ActivityExit {
			r.ExitCode = &e.Process.ExitCode
		}
	case e.Class == event.ClassMemory:
		r.Process, r.Actor = p, &actor{User: p.User}
	default:
		r.Actor = &actor{Process: p, User: p.User}
	}
}

// aimed tells that an event of this class has another process for its object.
func aimed(c event.Class, target uint32) bool {
	return target != 0 && (c == event.ClassProcess || c == event.ClassMemory)
}

func processUID(k event.ProcessKey) string { return fmt.Sprintf("%d-%d", k.PID, k.Start) }

func encodeProcess(p *event.Process) *process {
	out := &process{PID: p.Key.PID, UID: processUID(p.Key), Name: Escape(p.Comm), Dir: Escape(p.CWD),
		CmdLine: Escape(strings.Join(p.Argv(), " ")), File: encodeFile(p.Exe), User: &user{UID: strconv.FormatUint(uint64(p.UID), 10)}}
	if p.Parent.PID != 0 || p.ParentExe != "" {
		out.Parent = &process{PID: p.Parent.PID, UID: processUID(p.Parent), File: encodeFile(p.ParentExe)}
	}
	if p.TTY != "" {
		out.Session = &session{Escape(p.TTY)}
	}
	if p.Container != "" || p.Image != "" {
		out.Container = &container{UID: Escape(p.Container)}
		if p.Image != "" {
			out.Container.Image = &named{Escape(p.Image)}
		}
	}
	return out
}

func encodeDetails(p *event.Process) *details {
	d := &details{Start: p.Key.Start, ParentStart: p.Parent.Start, GID: p.GID, EUID: p.EUID, EGID: p.EGID, Inode: p.Inode, Device: p.Device, Cgroup: p.CgroupID,
		MountNS: p.MountNS, PIDNS: p.PIDNS, NetNS: p.NetNS, Session: p.Session, LoginUID: p.LoginUID, Flags: uint32(p.Flags), ExitCode: p.ExitCode,
		Args: split(p.Args), Ancestors: split(p.Ancestors), Script: Escape(p.Script), Pod: Escape(p.Pod), Unit: Escape(p.Unit), Caps: hex(p.Caps)}
	return d
}

// split gives the parts of what is joined by NUL; join takes it back.
func split(s string) []string {
	if s == "" {
		return nil
	}
	parts := strings.Split(s, "\x00")
	for i, p := range parts {
		parts[i] = Escape(p)
	}
	return parts
}

func join(parts []string) string {
	plain := make([]string, len(parts))
	for i, p := range parts {
		plain[i] = Unescape(p)
	}
	return strings.Join(plain, "\x00")
}

// hex writes numbers that have more bits than other producers' numbers can hold; 0 is left out.
func hex(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 16)
}

// encodeObject puts the file; of a rename "file" is the old name, and "file_result" the new one.
func encodeObject(r *record, e *event.Event) {
	f := &e.File
	out := encodeFile(f.Path)
	if out == nil {
		out = &file{}
	}
	if t := fileType(f.Mode); t != 0 {
		out.Type = t
	}
	out.Mode = f.Mode
	if f.Hash != "" {
		out.Hashes = []fingerprint{{99, "BLAKE3", Escape(f.Hash)}}
	}
	r.File = out
	if renamed := e.Activity == event.ActivityFileRename && f.Other != ""; renamed {
		r.File, r.FileResult = encodeFile(f.Other), out
	} else {
		r.Unmapped.Other = Escape(f.Other)
	}
	r.Unmapped.Inode, r.Unmapped.Device, r.Unmapped.OwnerUID, r.Unmapped.OwnerGID = f.Inode, f.Device, f.UID, f.GID
	r.Unmapped.Flags, r.Unmapped.FS, r.Unmapped.Was = f.Flags, Escape(f.FS), Escape(f.Was)
}

// fileType is the schema's type_id of a mode with a type in it, 0 if it has none.
func fileType(mode uint32) int {
	switch mode & 0o170000 {
	case 0o100000:
		return 1
	case 0o040000:
		return 2
	case 0o020000:
		return 3
	case 0o060000:
		return 4
	case 0o140000:
		return 5
	case 0o010000:
		return 6
	case 0o120000:
		return 7
	}
	return 0
}

func encodeFile(path string) *file {
	if path == "" {
		return nil
	}
	path = Escape(path)
	return &file{Path: path, Name: path[strings.LastIndexByte(path, '/')+1:], Type: 1}
}

func encodeNetwork(r *record, n *event.Network) {
	local, remote := encodeEndpoint(n.Local), encodeEndpoint(n.Remote)
	if n.Name != "" {
		if remote == nil {
			remote = &endpoint{}
		}
		remote.Hostname = Escape(n.Name)
	}
	r.Connection = &connection{Protocol: n.Protocol, Name: ProtocolName(n.Protocol), Direction: 2}
	if r.Src, r.Dst = local, remote; n.Inbound {
		r.Src, r.Dst, r.Connection.Direction = remote, local, 1
	}
	if n.BytesIn != 0 || n.BytesOut != 0 {
		r.Traffic = &traffic{n.BytesIn, n.BytesOut}
	}
	if n.SNI != "" {
		r.TLS = &transport{"unknown", Escape(n.SNI)}
	}
	r.Unmapped.Duration = int64(n.Duration)
}

// ProtocolName is the name of an IP protocol number that is often seen, "" for others.
func ProtocolName(p uint8) string {
	switch p {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "ipv6-icmp"
	}
	return ""
}

func encodeEndpoint(a netip.AddrPort) *endpoint {
	switch {
	case a.Addr().IsValid():
		return &endpoint{IP: a.Addr().String(), Port: a.Port()}
	case a.Port() != 0:
		return &endpoint{Port: a.Port()}
	}
	return nil
}

func encodeDNS(r *record, e *event.Event) {
	d := &e.DNS
	r.Query = &query{Hostname: Escape(d.Name), Type: DNSType(d.Type), Packet: d.ID}
	for _, a := range split(d.Answers) {
		r.Answers = append(r.Answers, answer{a})
	}
	if d.Code != 0 || e.Activity == event.ActivityDNSAnswer {
		r.RCode = &d.Code
	}
}

func encodeAccess(r *record, e *event.Event) {
	a := &e.Access
	if *a != (event.Access{}) {
		r.Unmapped.Access = &access{Operation: Escape(a.Operation), TargetPID: a.Target.PID, TargetStart: a.Target.Start, TargetExe: Escape(a.TargetExe), Number: hex(a.Number),
			OldUID: a.OldUID, NewUID: a.NewUID, Gained: hex(a.Gained), Address: hex(a.Address), Length: a.Length}
	}
	switch {
	case r.ClassUID == classKernelExtension:
		if r.Driver = (&driver{File: encodeFile(e.File.Path)}); r.Driver.File == nil {
			r.Driver.File = &file{Name: Escape(a.Operation)}
		}
	case e.Class == event.ClassKernel:
		r.Kernel = &kernelObject{Name: Escape(a.Operation)}
		if r.ActivityID == 4 {
			r.Kernel.Type, r.Kernel.Call = 2, e.Activity.String()
		}
	case e.Class == event.ClassMemory:
		r.Size = a.Length
		if a.Address != 0 {
			r.BaseAddress = "0x" + hex(a.Address)
		}
	case e.Class == event.ClassProcess && r.ActivityID == 4:
		r.Injection = Escape(a.Operation)
	}
}

// encodeLogon puts who asked and who answers for it where the class has a place for it, and the rest under unmapped.
func encodeLogon(r *record, e *event.Event) {
	l := &e.Logon
	rest := logon{User: Escape(l.User), As: Escape(l.As), Service: Escape(l.Service), Method: Escape(l.Method), Command: Escape(l.Command)}
	if l.Remote.IsValid() {
		rest.Remote = l.Remote.String()
	}
	switch e.Class {
	case event.ClassAuthentication:
		if switches(e.Activity) {
			r.User = &user{Name: rest.As}
			if r.Actor == nil {
				r.Actor = &actor{}
			}
			who := user{Name: rest.User}
			if r.Actor.User != nil {
				who.UID = r.Actor.User.UID
			}
			r.Actor.User, rest.As = &who, ""
		} else {
			r.User = &user{Name: rest.User}
		}
		rest.User = ""
		if rest.Service != "" {
			r.Service, rest.Service = &named{rest.Service}, ""
		}
		if r.StatusID == 0 {
			r.StatusID = 1
		}
		if e.Activity == event.ActivityLogonFailure {
			r.StatusID = 2
		}
		if rest.Remote != "" && r.Connection == nil {
			r.Src, rest.Remote = &endpoint{IP: rest.Remote}, ""
		}
	case event.ClassScheduledJob:
		r.Job = &job{Name: rest.Service, CmdLine: rest.Command}
		if r.Job.Name == "" {
			r.Job.Name = Escape(e.Process.Unit)
		}
		if rest.User != "" {
			r.Job.User = &user{Name: rest.User}
		}
	}
	if rest != (logon{}) {
		r.Unmapped.Logon = &rest
	}
}

// switches tells that one user acts on or as another: the schema's "user" is the other, and the actor's who asked.
func switches(a event.Activity) bool { return a == event.ActivitySudo || a == event.ActivityAccount }

func stamp(t int64) string { return time.Unix(0, t).UTC().Format(time.RFC3339Nano) }

func floorMilli(t int64) int64 { return time.Unix(0, t).UnixMilli() }
