package ocsf

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// maxNesting is the deepest a line may nest; ours nest five deep, other producers' somewhat more.
const maxNesting = 32

// Decode reads one OCSF object of at most MaxLine bytes back: what Encode wrote gives the same event, and of what others
// wrote the attributes that an event has. Unknown attributes are passed over.
func Decode(line []byte) (*event.Event, error) {
	if err := bound(line); err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLine, err)
	}
	e := &event.Event{Class: event.Class(r.ClassUID), Boot: r.Unmapped.Boot, Sensor: Unescape(r.Unmapped.Sensor)}
	if e.Class.String() == "unknown" {
		return nil, fmt.Errorf("%w: class %d is no event's", ErrLine, r.ClassUID)
	}
	if e.Activity = activityOf(&r); e.Activity == event.ActivityUnknown && r.ActivityID != 99 && r.ActivityID != 0 {
		return nil, fmt.Errorf("%w: activity %d of class %d", ErrLine, r.ActivityID, r.ClassUID)
	}
	e.Time = timeOf(r.Metadata.Time, r.Time)
	p := r.Process
	if p == nil && r.Actor != nil {
		p = r.Actor.Process
	}
	if p != nil {
		decodeProcess(&e.Process, p, r.Unmapped.Process)
	}
	if r.ExitCode != nil {
		e.Process.ExitCode = *r.ExitCode
	}
	if r.File != nil {
		e.File = event.File{Path: Unescape(r.File.Path), Mode: r.File.Mode, Inode: r.Unmapped.Inode, Device: r.Unmapped.Device}
	}
	if e.Class == event.ClassAuthentication {
		if r.User != nil {
			e.Logon.User = Unescape(r.User.Name)
		}
		if r.Service != nil {
			e.Logon.Service = Unescape(r.Service.Name)
		}
		if r.Src != nil {
			e.Logon.Remote, _ = netip.ParseAddr(r.Src.IP)
		}
		return e, nil
	}
	src, dst := decodeEndpoint(r.Src), decodeEndpoint(r.Dst)
	e.Network.Local, e.Network.Remote = src, dst
	if c := r.Connection; c != nil {
		e.Network.Protocol = c.Protocol
		if c.Direction == 1 {
			e.Network.Local, e.Network.Remote, e.Network.Inbound = dst, src, true
		}
	}
	if r.Traffic != nil {
		e.Network.BytesIn, e.Network.BytesOut = r.Traffic.In, r.Traffic.Out
	}
	e.Network.Duration = time.Duration(r.Unmapped.Duration)
	return e, nil
}

// bound holds size and nesting before a line is parsed.
func bound(line []byte) error {
	if len(line) > MaxLine {
		return fmt.Errorf("%w: a line of %d bytes, at most %d", ErrLine, len(line), MaxLine)
	}
	depth, quoted, escaped := 0, false, false
	for _, c := range line {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxNesting {
				return fmt.Errorf("%w: nested deeper than %d", ErrLine, maxNesting)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

func timeOf(original string, milli int64) int64 {
	if t, err := time.Parse(time.RFC3339Nano, original); err == nil && t.UnixMilli() == milli && t.Year() > 1678 && t.Year() < 2262 {
		return t.UnixNano()
	}
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return max(-most, min(most, milli)) * int64(time.Millisecond)
}

func activityOf(r *record) event.Activity {
	class := event.Class(r.ClassUID)
	for a := event.ActivityUnknown; a <= event.ActivityLogonSuccess; a++ {
		if a.String() == r.Unmapped.Activity && activityID(class, a) == r.ActivityID {
			return a
		}
	}
	// Another producer's: the schema's number and, where it is not enough, what else it says.
	inbound := r.Connection != nil && r.Connection.Direction == 1
	switch {
	case class == event.ClassProcess && r.ActivityID == 1:
		return event.ActivityExec
	case class == event.ClassProcess && r.ActivityID == 2:
		return event.ActivityExit
	case class == event.ClassNetwork && r.ActivityID == 1 && inbound:
		return event.ActivityAccept
	case class == event.ClassNetwork && r.ActivityID == 1:
		return event.ActivityConnect
	case class == event.ClassNetwork && r.ActivityID == 2:
		return event.ActivityClose
	case class == event.ClassNetwork && r.ActivityID == 4:
		return event.ActivityProbe
	case class == event.ClassNetwork && r.ActivityID == 5:
		return event.ActivityRefuse
	case class == event.ClassNetwork && r.ActivityID == 7:
		return event.ActivityListen
	case class == event.ClassAuthentication && r.ActivityID == 1 && r.StatusID == 1:
		return event.ActivityLogonSuccess
	case class == event.ClassAuthentication && r.ActivityID == 1:
		return event.ActivityLogonFailure
	case class == event.ClassFile && (r.ActivityID == 1 || r.ActivityID == 3):
		return event.ActivityFileWrite
	}
	return event.ActivityUnknown
}

func decodeProcess(out *event.Process, p *process, d *details) {
	out.Key.PID = p.PID
	out.Comm, out.CWD = Unescape(p.Name), Unescape(p.Dir)
	if p.File != nil {
		out.Exe = Unescape(p.File.Path)
	}
	if p.User != nil {
		if n, err := strconv.ParseUint(p.User.UID, 10, 32); err == nil {
			out.UID = uint32(n)
		}
	}
	if p.Parent != nil {
		out.Parent.PID = p.Parent.PID
		if p.Parent.File != nil {
			out.ParentExe = Unescape(p.Parent.File.Path)
		}
	}
	if d == nil {
		out.Args = strings.Join(strings.Fields(Unescape(p.CmdLine)), "\x00")
		return
	}
	args := make([]string, len(d.Args))
	for i, a := range d.Args {
		args[i] = Unescape(a)
	}
	out.Args = strings.Join(args, "\x00")
	out.Key.Start, out.Parent.Start = d.Start, d.ParentStart
	out.GID, out.EUID, out.EGID, out.Inode, out.Device, out.CgroupID = d.GID, d.EUID, d.EGID, d.Inode, d.Device, d.Cgroup
	out.MountNS, out.PIDNS, out.NetNS, out.Session, out.LoginUID = d.MountNS, d.PIDNS, d.NetNS, d.Session, d.LoginUID
	out.Flags, out.ExitCode = event.ProcessFlag(d.Flags), d.ExitCode
	out.Caps, _ = strconv.ParseUint(d.Caps, 16, 64)
}

func decodeEndpoint(e *endpoint) netip.AddrPort {
	if e == nil {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddr(e.IP)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, e.Port)
}
