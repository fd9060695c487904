// Package ocsf is the face of events and findings that people and SIEMs read: OCSF JSON, one object a line, and the
// reader of it for recordings.
//
// The mapping follows schema 1.x: classes 1001, 1003, 1007, 3002, 4001 and 4003 for events and 2004 for findings, each
// with the attributes that the schema requires. What the schema has no place for stands under "unmapped". Every string
// is what an attacker chose: bytes that are not UTF-8, control characters and those that turn text round are escaped, so
// that a line is a line and a terminal shows what is there.
package ocsf

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/omega-mesh/omega/swarm/event"
)

// Version is the schema version that metadata names.
const Version = "1.4.0"

// MaxLine is the longest line that Decode and DecodeFinding read, in bytes.
const MaxLine = 64 << 10

// ErrLine is wrapped by every refusal of a line.
var ErrLine = errors.New("ocsf")

type product struct {
	Name    string `json:"name"`
	Vendor  string `json:"vendor_name"`
	Feature string `json:"feature,omitempty"` // the sensor
}

type metadata struct {
	Version string  `json:"version"`
	Product product `json:"product"`
	UID     string  `json:"uid,omitempty"`
	Time    string  `json:"original_time,omitempty"` // RFC 3339 with nanoseconds: "time" has milliseconds only
}

type user struct {
	UID  string `json:"uid,omitempty"`
	Name string `json:"name,omitempty"`
}

type file struct {
	Path string `json:"path,omitempty"`
	Name string `json:"name,omitempty"`
	Type int    `json:"type_id"`
	Mode uint32 `json:"mode,omitempty"`
}

type process struct {
	PID     uint32   `json:"pid"`
	UID     string   `json:"uid,omitempty"` // pid and start: unique for a boot
	Name    string   `json:"name,omitempty"`
	CmdLine string   `json:"cmd_line,omitempty"`
	Dir     string   `json:"working_directory,omitempty"`
	File    *file    `json:"file,omitempty"`
	User    *user    `json:"user,omitempty"`
	Parent  *process `json:"parent_process,omitempty"`
}

type actor struct {
	Process *process `json:"process,omitempty"`
	User    *user    `json:"user,omitempty"`
}

type device struct {
	Hostname string `json:"hostname,omitempty"`
	UID      string `json:"uid,omitempty"`
	Type     int    `json:"type_id"`
}

type endpoint struct {
	IP   string `json:"ip,omitempty"`
	Port uint16 `json:"port,omitempty"`
}

type connection struct {
	Protocol  uint8  `json:"protocol_num,omitempty"`
	Name      string `json:"protocol_name,omitempty"`
	Direction int    `json:"direction_id"` // 1 inbound, 2 outbound
}

type traffic struct {
	In  uint64 `json:"bytes_in,omitempty"`
	Out uint64 `json:"bytes_out,omitempty"`
}

// extra is what the schema has no place for; with it a recording reads back as it was.
type extra struct {
	Activity string   `json:"activity"`
	Boot     uint64   `json:"boot_ns,omitempty"`
	Sensor   string   `json:"sensor,omitempty"`
	Process  *details `json:"process,omitempty"`
	Duration int64    `json:"duration_ns,omitempty"`
	Inode    uint64   `json:"file_inode,omitempty"`
	Device   uint64   `json:"file_device,omitempty"`
}

type details struct {
	Start       uint64   `json:"start_ns,omitempty"`
	ParentStart uint64   `json:"parent_start_ns,omitempty"`
	GID         uint32   `json:"gid,omitempty"`
	EUID        uint32   `json:"euid,omitempty"`
	EGID        uint32   `json:"egid,omitempty"`
	Args        []string `json:"args,omitempty"`
	Inode       uint64   `json:"inode,omitempty"`
	Device      uint64   `json:"device,omitempty"`
	Cgroup      uint64   `json:"cgroup,omitempty"`
	MountNS     uint32   `json:"mount_ns,omitempty"`
	PIDNS       uint32   `json:"pid_ns,omitempty"`
	NetNS       uint32   `json:"net_ns,omitempty"`
	Session     uint32   `json:"session,omitempty"`
	LoginUID    uint32   `json:"login_uid,omitempty"`
	Caps        string   `json:"caps,omitempty"` // hex
	Flags       uint32   `json:"flags,omitempty"`
	ExitCode    int32    `json:"exit_code,omitempty"`
}

type record struct {
	ClassUID    uint16      `json:"class_uid"`
	CategoryUID uint16      `json:"category_uid"`
	ClassName   string      `json:"class_name,omitempty"`
	ActivityID  uint32      `json:"activity_id"`
	Activity    string      `json:"activity_name,omitempty"`
	TypeUID     uint64      `json:"type_uid"`
	SeverityID  uint8       `json:"severity_id"`
	Time        int64       `json:"time"` // milliseconds
	Metadata    metadata    `json:"metadata"`
	Device      *device     `json:"device,omitempty"`
	Actor       *actor      `json:"actor,omitempty"`
	Process     *process    `json:"process,omitempty"`
	File        *file       `json:"file,omitempty"`
	Src         *endpoint   `json:"src_endpoint,omitempty"`
	Dst         *endpoint   `json:"dst_endpoint,omitempty"`
	Connection  *connection `json:"connection_info,omitempty"`
	Traffic     *traffic    `json:"traffic,omitempty"`
	User        *user       `json:"user,omitempty"`
	Service     *named      `json:"service,omitempty"`
	StatusID    int         `json:"status_id,omitempty"`
	ExitCode    *int32      `json:"exit_code,omitempty"`
	Action      string      `json:"action,omitempty"`
	Unmapped    extra       `json:"unmapped"`
}

type named struct {
	Name string `json:"name"`
}

// activityID maps to the schema's numbers; 99 is "other", which the activity in unmapped names.
func activityID(c event.Class, a event.Activity) uint32 {
	switch c {
	case event.ClassProcess:
		switch a {
		case event.ActivityExec, event.ActivityFork:
			return 1
		case event.ActivityExit, event.ActivityKill:
			return 2
		}
	case event.ClassNetwork:
		switch a {
		case event.ActivityConnect, event.ActivityAccept:
			return 1
		case event.ActivityClose:
			return 2
		case event.ActivityProbe:
			return 4
		case event.ActivityRefuse:
			return 5
		case event.ActivityListen:
			return 7
		}
	case event.ClassAuthentication:
		if a == event.ActivityLogonFailure || a == event.ActivityLogonSuccess {
			return 1
		}
	case event.ClassFile:
		if a == event.ActivityFileWrite {
			return 3
		}
	}
	return 99
}

// className is the schema's caption of a class.
func className(c event.Class) string {
	switch c {
	case event.ClassFile:
		return "File System Activity"
	case event.ClassKernel:
		return "Kernel Activity"
	case event.ClassProcess:
		return "Process Activity"
	case event.ClassAuthentication:
		return "Authentication"
	case event.ClassNetwork:
		return "Network Activity"
	case event.ClassDNS:
		return "DNS Activity"
	}
	return ""
}

// Encode gives e as one OCSF object without a line's end. host and did name the host it happened on.
func Encode(e *event.Event, host, did string) ([]byte, error) {
	id := activityID(e.Class, e.Activity)
	r := record{
		ClassUID: uint16(e.Class), CategoryUID: uint16(e.Class) / 1000, ClassName: className(e.Class), ActivityID: id, Activity: e.Activity.String(), TypeUID: uint64(e.Class)*100 + uint64(id),
		SeverityID: uint8(event.SeverityInformational), Time: floorMilli(e.Time),
		Metadata: metadata{Version: Version, Product: product{Name: "Omega", Vendor: "Omega", Feature: Escape(e.Sensor)}, Time: stamp(e.Time)},
		Device:   &device{Hostname: Escape(host), UID: Escape(did), Type: 0},
		Unmapped: extra{Activity: e.Activity.String(), Boot: e.Boot, Sensor: Escape(e.Sensor)},
	}
	p := encodeProcess(&e.Process)
	if p != nil {
		r.Unmapped.Process = encodeDetails(&e.Process)
	}
	switch e.Class {
	case event.ClassProcess:
		r.Process = p
		if r.Process != nil {
			r.Actor = &actor{Process: p.Parent, User: p.User}
		}
		if e.Activity == event.ActivityExit {
			r.ExitCode = &e.Process.ExitCode
		}
	default:
		if p != nil {
			r.Actor = &actor{Process: p, User: p.User}
		}
	}
	if e.Class == event.ClassFile || e.File.Path != "" {
		r.File = encodeFile(e.File.Path)
		if r.File != nil {
			r.File.Mode = e.File.Mode
		}
		r.Unmapped.Inode, r.Unmapped.Device = e.File.Inode, e.File.Device
	}
	n := &e.Network
	if n.Local.IsValid() || n.Remote.IsValid() {
		local, remote := encodeEndpoint(n.Local), encodeEndpoint(n.Remote)
		r.Connection = &connection{Protocol: n.Protocol, Name: map[uint8]string{6: "tcp", 17: "udp", 1: "icmp"}[n.Protocol], Direction: 2}
		if r.Src, r.Dst = local, remote; n.Inbound {
			r.Src, r.Dst, r.Connection.Direction = remote, local, 1
		}
		if n.BytesIn != 0 || n.BytesOut != 0 {
			r.Traffic = &traffic{n.BytesIn, n.BytesOut}
		}
		r.Unmapped.Duration = int64(n.Duration)
	}
	if e.Activity == event.ActivityRefuse || e.Activity == event.ActivityKill {
		r.Action = "Denied"
	}
	if e.Class == event.ClassAuthentication {
		r.User = &user{Name: Escape(e.Logon.User)}
		r.StatusID = 2
		if e.Activity == event.ActivityLogonSuccess {
			r.StatusID = 1
		}
		if e.Logon.Service != "" {
			r.Service = &named{Escape(e.Logon.Service)}
		}
		if e.Logon.Remote.IsValid() {
			r.Src = &endpoint{IP: e.Logon.Remote.String()}
		}
	}
	return json.Marshal(r)
}

func encodeProcess(p *event.Process) *process {
	if p.Key.PID == 0 {
		return nil
	}
	out := &process{PID: p.Key.PID, UID: fmt.Sprintf("%d-%d", p.Key.PID, p.Key.Start), Name: Escape(p.Comm), Dir: Escape(p.CWD),
		CmdLine: Escape(strings.Join(p.Argv(), " ")), File: encodeFile(p.Exe), User: &user{UID: strconv.FormatUint(uint64(p.UID), 10)}}
	if p.Parent.PID != 0 {
		out.Parent = &process{PID: p.Parent.PID, UID: fmt.Sprintf("%d-%d", p.Parent.PID, p.Parent.Start), File: encodeFile(p.ParentExe)}
	}
	return out
}

func encodeDetails(p *event.Process) *details {
	d := &details{Start: p.Key.Start, ParentStart: p.Parent.Start, GID: p.GID, EUID: p.EUID, EGID: p.EGID, Inode: p.Inode, Device: p.Device, Cgroup: p.CgroupID,
		MountNS: p.MountNS, PIDNS: p.PIDNS, NetNS: p.NetNS, Session: p.Session, LoginUID: p.LoginUID, Flags: uint32(p.Flags), ExitCode: p.ExitCode}
	for _, a := range p.Argv() {
		d.Args = append(d.Args, Escape(a))
	}
	if p.Caps != 0 {
		d.Caps = strconv.FormatUint(p.Caps, 16)
	}
	return d
}

func encodeFile(path string) *file {
	if path == "" {
		return nil
	}
	path = Escape(path)
	return &file{Path: path, Name: path[strings.LastIndexByte(path, '/')+1:], Type: 1}
}

func encodeEndpoint(a netip.AddrPort) *endpoint {
	if !a.IsValid() {
		return nil
	}
	return &endpoint{IP: a.Addr().String(), Port: a.Port()}
}

func stamp(t int64) string { return time.Unix(0, t).UTC().Format(time.RFC3339Nano) }

func floorMilli(t int64) int64 { return time.Unix(0, t).UnixMilli() }

// Escape makes s a text that shows itself: control characters, those that turn text round or are not seen, and bytes
// that are not UTF-8 become \xNN or \u{NNNN}, and a backslash \\. Unescape takes it back.
func Escape(s string) string {
	plain := true
	for _, r := range s {
		if hide(r) || r == '\\' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == utf8.RuneError && size <= 1, r < 0x80 && hide(r):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case hide(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

func hide(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff
}

// Unescape undoes Escape; what Escape would not have written stays as it is.
func Unescape(s string) string {
	if !strings.ContainsRune(s, '\\') {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		i := strings.IndexByte(s, '\\')
		if i < 0 || i+1 >= len(s) {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		switch {
		case s[1] == '\\':
			b.WriteByte('\\')
			s = s[2:]
			continue
		case s[1] == 'x' && len(s) >= 4:
			if n, err := strconv.ParseUint(s[2:4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				s = s[4:]
				continue
			}
		case strings.HasPrefix(s, `\u{`):
			if end := strings.IndexByte(s[:min(len(s), 11)], '}'); end > 3 {
				if n, err := strconv.ParseUint(s[3:end], 16, 32); err == nil && n <= utf8.MaxRune {
					b.WriteRune(rune(n))
					s = s[end+1:]
					continue
				}
			}
		}
		b.WriteByte('\\')
		s = s[1:]
	}
	return b.String()
}
