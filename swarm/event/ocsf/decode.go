package ocsf

import (
	"encoding/json"
	"fmt"
	"math"
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
	class := classOf(&r)
	if class == 0 {
		return nil, fmt.Errorf("%w: class %d is no event's", ErrLine, r.ClassUID)
	}
	e := &event.Event{Class: class, Boot: r.Unmapped.Boot, Sensor: Unescape(r.Unmapped.Sensor)}
	if e.Activity = activityOf(class, &r); e.Activity == event.ActivityUnknown && r.ActivityID != 99 && r.ActivityID != 0 {
		return nil, fmt.Errorf("%w: activity %d of class %d", ErrLine, r.ActivityID, r.ClassUID)
	}
	e.Time = timeOf(r.Metadata.Time, r.Time)
	if r.Count > 1 {
		e.Count = uint32(min(r.Count-1, math.MaxUint32))
	}
	if n, err := strconv.ParseInt(r.StatusCode, 10, 32); err == nil {
		e.Result = int32(n)
	}
	decodeActor(e, &r)
	decodeObject(e, &r)
	decodeAccess(e, &r)
	if q := r.Query; q != nil {
		e.DNS = event.DNS{Name: Unescape(q.Hostname), Type: dnsNumber(q.Type), ID: q.Packet}
	}
	if r.RCode != nil {
		e.DNS.Code = *r.RCode
	}
	if len(r.Answers) > 0 {
		parts := make([]string, len(r.Answers))
		for i, a := range r.Answers {
			parts[i] = a.Data
		}
		e.DNS.Answers = join(parts)
	}
	decodeLogon(e, &r)
	if class != event.ClassAuthentication || r.Connection != nil {
		decodeNetwork(&e.Network, &r)
	}
	return e, nil
}

func decodeActor(e *event.Event, r *record) {
	p := r.Process
	target := r.Unmapped.Access != nil && aimed(e.Class, r.Unmapped.Access.TargetPID)
	if foreign := r.Unmapped.Activity == "" && e.Class == event.ClassProcess && r.ActivityID == 4; foreign && p != nil {
		target = true
		e.Access.Target.PID = p.PID
		if p.File != nil {
			e.Access.TargetExe = Unescape(p.File.Path)
		}
	}
	if p == nil || target {
		p = nil
		if r.Actor != nil {
			p = r.Actor.Process
		}
	}
	if p != nil {
		decodeProcess(&e.Process, p, r.Unmapped.Process)
	}
	if r.ExitCode != nil {
		e.Process.ExitCode = *r.ExitCode
	}
}

func decodeObject(e *event.Event, r *record) {
	u := &r.Unmapped
	e.File = event.File{Inode: u.Inode, Device: u.Device, Other: Unescape(u.Other), UID: u.OwnerUID, GID: u.OwnerGID, Flags: u.Flags, FS: Unescape(u.FS), Was: Unescape(u.Was)}
	f := r.File
	if f == nil && r.Driver != nil && u.Activity == "" {
		f = r.Driver.File
	}
	if r.FileResult != nil && e.Activity == event.ActivityFileRename {
		if f != nil {
			e.File.Other = Unescape(f.Path)
		}
		f = r.FileResult
	}
	if f == nil {
		return
	}
	e.File.Path, e.File.Mode = Unescape(f.Path), f.Mode
	for _, h := range f.Hashes {
		if h.Name == "BLAKE3" {
			e.File.Hash = Unescape(h.Value)
		}
	}
}

func decodeAccess(e *event.Event, r *record) {
	a := r.Unmapped.Access
	if a == nil {
		return
	}
	e.Access = event.Access{Operation: Unescape(a.Operation), Target: event.ProcessKey{PID: a.TargetPID, Start: a.TargetStart}, TargetExe: Unescape(a.TargetExe),
		Number: unhex(a.Number), OldUID: a.OldUID, NewUID: a.NewUID, Gained: unhex(a.Gained), Address: unhex(a.Address), Length: a.Length}
}

func unhex(s string) uint64 {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0
	}
	return n
}

func decodeLogon(e *event.Event, r *record) {
	l := &e.Logon
	if rest := r.Unmapped.Logon; rest != nil {
		*l = event.Logon{User: Unescape(rest.User), As: Unescape(rest.As), Service: Unescape(rest.Service), Method: Unescape(rest.Method), Command: Unescape(rest.Command)}
		l.Remote, _ = netip.ParseAddr(rest.Remote)
	} else if j := r.Job; j != nil && r.Unmapped.Activity == "" {
		*l = event.Logon{Service: Unescape(j.Name), Command: Unescape(j.CmdLine)}
		if j.User != nil {
			l.User = Unescape(j.User.Name)
		}
	}
	if e.Class != event.ClassAuthentication {
		return
	}
	who := r.User
	if switches(e.Activity) {
		if who != nil {
			l.As = Unescape(who.Name)
		}
		if who = nil; r.Actor != nil {
			who = r.Actor.User
		}
	}
	if who != nil {
		l.User = Unescape(who.Name)
	}
	if r.Service != nil {
		l.Service = Unescape(r.Service.Name)
	}
	if r.Src != nil && !l.Remote.IsValid() && r.Connection == nil {
		l.Remote, _ = netip.ParseAddr(r.Src.IP)
	}
}

func decodeNetwork(n *event.Network, r *record) {
	local, remote := r.Src, r.Dst
	if c := r.Connection; c != nil {
		n.Protocol = c.Protocol
		if n.Inbound = c.Direction == 1; n.Inbound {
			local, remote = r.Dst, r.Src
		}
	}
	n.Local, n.Remote = decodeEndpoint(local), decodeEndpoint(remote)
	if remote != nil {
		n.Name = Unescape(remote.Hostname)
	}
	if r.Traffic != nil {
		n.BytesIn, n.BytesOut = r.Traffic.In, r.Traffic.Out
	}
	if r.TLS != nil {
		n.SNI = Unescape(r.TLS.SNI)
	}
	n.Duration = time.Duration(r.Unmapped.Duration)
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
	if p.Session != nil {
		out.TTY = Unescape(p.Session.Terminal)
	}
	if c := p.Container; c != nil {
		if out.Container = Unescape(c.UID); c.Image != nil {
			out.Image = Unescape(c.Image.Name)
		}
	}
	if d == nil {
		out.Args = strings.Join(strings.Fields(Unescape(p.CmdLine)), "\x00")
		return
	}
	out.Args, out.Ancestors = join(d.Args), join(d.Ancestors)
	out.Script, out.Pod, out.Unit = Unescape(d.Script), Unescape(d.Pod), Unescape(d.Unit)
	out.Key.Start, out.Parent.Start = d.Start, d.ParentStart
	out.GID, out.EUID, out.EGID, out.Inode, out.Device, out.CgroupID = d.GID, d.EUID, d.EGID, d.Inode, d.Device, d.Cgroup
	out.MountNS, out.PIDNS, out.NetNS, out.Session, out.LoginUID = d.MountNS, d.PIDNS, d.NetNS, d.Session, d.LoginUID
	out.Flags, out.ExitCode = event.ProcessFlag(d.Flags), d.ExitCode
	out.Caps = unhex(d.Caps)
}

func decodeEndpoint(e *endpoint) netip.AddrPort {
	if e == nil {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddr(e.IP)
	if err != nil {
		a = netip.Addr{}
	}
	return netip.AddrPortFrom(a, e.Port)
}
