package stix

import (
	"net/netip"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
)

// field is a property of an object that our events have.
type field uint8

const (
	fieldNone field = iota
	fieldAddress
	fieldSource
	fieldDestination
	fieldDomain
	fieldURL
	fieldFileName
	fieldFilePath
	fieldFolder
	fieldFileHash
	fieldProcessName
	fieldProcessFolder
	fieldCommandLine
	fieldArguments
	fieldCWD
	fieldPID
	fieldParentPID
	fieldParentName
	fieldProcessUser
	fieldSourcePort
	fieldDestinationPort
	fieldProtocol
	fieldBytesOut
	fieldBytesIn
	fieldUser
)

// fields maps object paths, with [n] written as [*], to what our events have. STIX 2.0's names of 2.1's properties are taken.
var fields = map[string]field{
	"ipv4-addr:value": fieldAddress, "ipv6-addr:value": fieldAddress, "domain-name:value": fieldDomain, "url:value": fieldURL,
	"domain-name:resolves_to_refs[*].value": fieldAddress,
	"file:name":                             fieldFileName, "file:path": fieldFilePath, "directory:path": fieldFolder, "file:parent_directory_ref.path": fieldFolder,
	"file:hashes.BLAKE3": fieldFileHash,
	"process:name":       fieldProcessName, "process:image_ref.name": fieldProcessName, "process:binary_ref.name": fieldProcessName,
	"process:image_ref.parent_directory_ref.path": fieldProcessFolder, "process:binary_ref.parent_directory_ref.path": fieldProcessFolder,
	"process:command_line": fieldCommandLine, "process:arguments[*]": fieldArguments, "process:cwd": fieldCWD, "process:pid": fieldPID,
	"process:parent_ref.pid": fieldParentPID, "process:parent_ref.name": fieldParentName, "process:parent_ref.image_ref.name": fieldParentName,
	"process:parent_ref.binary_ref.name": fieldParentName, "process:creator_user_ref.user_id": fieldProcessUser,
	"network-traffic:src_ref.value": fieldSource, "network-traffic:dst_ref.value": fieldDestination,
	"network-traffic:src_port": fieldSourcePort, "network-traffic:dst_port": fieldDestinationPort, "network-traffic:protocols[*]": fieldProtocol,
	"network-traffic:src_byte_count": fieldBytesOut, "network-traffic:dst_byte_count": fieldBytesIn,
	"user-account:user_id": fieldUser, "user-account:account_login": fieldUser,
}

// number says whether a field's values are numbers.
func (f field) number() bool {
	switch f {
	case fieldPID, fieldParentPID, fieldSourcePort, fieldDestinationPort, fieldBytesIn, fieldBytesOut:
		return true
	}
	return false
}

// classes are the events a pattern about a field is about.
func (f field) classes() classSet {
	switch f {
	case fieldAddress:
		return classNetwork | classDNS | classLogon
	case fieldSource, fieldDestination, fieldSourcePort, fieldDestinationPort, fieldProtocol, fieldBytesIn, fieldBytesOut:
		return classNetwork
	case fieldDomain:
		return classNetwork | classDNS
	case fieldFileName, fieldFilePath, fieldFolder, fieldFileHash:
		return classFile | classExec
	case fieldUser:
		return classLogon
	}
	return classExec
}

// classSet is a set of the kinds of events that patterns tell apart.
type classSet uint8

const (
	classExec classSet = 1 << iota
	classFile
	classNetwork
	classDNS
	classLogon

	classCount = 5
)

func classOf(e *event.Event) classSet {
	switch e.Class {
	case event.ClassProcess:
		if e.Activity == event.ActivityExec {
			return classExec
		}
	case event.ClassFile, event.ClassFileIntegrity:
		return classFile
	case event.ClassNetwork:
		return classNetwork
	case event.ClassDNS:
		return classDNS
	case event.ClassAuthentication:
		return classLogon
	}
	return 0
}

// Observer reads the properties of one event after the other. What it gives is valid until the next; it serves one
// goroutine.
type Observer struct {
	e     *event.Event
	class classSet
	seq   uint64
	texts []string
	line  []byte
}

// Take makes e the event that matchers look at.
func (o *Observer) Take(e *event.Event) {
	o.e, o.class = e, classOf(e)
	o.seq++
	o.line = o.line[:0]
}

// ends are the addresses of a flow by who began it.
func ends(n *event.Network) (src, dst netip.AddrPort) {
	if n.Inbound {
		return n.Remote, n.Local
	}
	return n.Local, n.Remote
}

// addresses appends those of a field.
func (o *Observer) addresses(f field, to []netip.Addr) []netip.Addr {
	e := o.e
	src, dst := ends(&e.Network)
	add := func(a netip.Addr) {
		if a.IsValid() {
			to = append(to, a.Unmap())
		}
	}
	switch f {
	case fieldSource:
		add(src.Addr())
	case fieldDestination:
		add(dst.Addr())
	case fieldAddress:
		switch o.class {
		case classNetwork:
			add(e.Network.Remote.Addr())
		case classLogon:
			add(e.Logon.Remote)
		case classDNS:
			for rest := e.DNS.Answers; rest != ""; {
				var w string
				w, rest, _ = strings.Cut(rest, "\x00")
				if a, err := netip.ParseAddr(w); err == nil {
					add(a)
				}
			}
		}
	}
	return to
}

// strings gives the texts of a field; none if the event has no such thing.
func (o *Observer) strings(f field) []string {
	e, p := o.e, &o.e.Process
	out := o.texts[:0]
	add := func(s string) {
		if s != "" {
			out = append(out, s)
		}
	}
	switch f {
	case fieldDomain:
		add(e.DNS.Name)
		add(e.Network.Name)
		add(e.Network.SNI)
	case fieldURL:
		for rest := p.Args; rest != ""; {
			var w string
			w, rest, _ = strings.Cut(rest, "\x00")
			if i := strings.Index(w, "://"); i > 0 {
				out = append(out, w)
			}
		}
	case fieldFileName:
		if o.class == classFile {
			add(base(e.File.Path))
			add(base(e.File.Other))
		} else {
			add(base(p.Exe))
			add(base(p.Script))
		}
	case fieldFilePath:
		if o.class == classFile {
			add(e.File.Path)
			add(e.File.Other)
		} else {
			add(p.Exe)
			add(p.Script)
		}
	case fieldFolder:
		if o.class == classFile {
			add(folder(e.File.Path))
			add(folder(e.File.Other))
		} else {
			add(folder(p.Exe))
			add(folder(p.Script))
		}
	case fieldFileHash:
		add(e.File.Hash)
	case fieldProcessName:
		add(base(p.Exe))
	case fieldProcessFolder:
		add(folder(p.Exe))
	case fieldCommandLine:
		add(o.commandLine())
	case fieldArguments:
		for rest := p.Args; rest != ""; {
			var w string
			w, rest, _ = strings.Cut(rest, "\x00")
			add(w)
		}
	case fieldCWD:
		add(p.CWD)
	case fieldParentName:
		add(base(p.ParentExe))
	case fieldProcessUser:
		if p.UID == 0 && p.Key.PID != 0 {
			add("0")
		} else if p.Key.PID != 0 {
			add(decimal(uint64(p.UID)))
		}
	case fieldProtocol:
		switch e.Network.Protocol {
		case 6:
			add("tcp")
		case 17:
			add("udp")
		case 1, 58:
			add("icmp")
		}
		if a := e.Network.Remote.Addr(); a.Is4() || a.Is4In6() {
			add("ipv4")
		} else if a.IsValid() {
			add("ipv6")
		}
	case fieldUser:
		add(e.Logon.User)
		add(e.Logon.As)
	}
	o.texts = out
	return out
}

// number gives the number of a field.
func (o *Observer) number(f field) (float64, bool) {
	e := o.e
	src, dst := ends(&e.Network)
	switch f {
	case fieldPID:
		return float64(e.Process.Key.PID), e.Process.Key.PID != 0
	case fieldParentPID:
		return float64(e.Process.Parent.PID), e.Process.Parent.PID != 0
	case fieldSourcePort:
		return float64(src.Port()), src.IsValid()
	case fieldDestinationPort:
		return float64(dst.Port()), dst.IsValid()
	case fieldBytesOut, fieldBytesIn:
		out, in := e.Network.BytesOut, e.Network.BytesIn
		if (f == fieldBytesIn) != e.Network.Inbound { // counted by who began
			out = in
		}
		return float64(out), e.Activity == event.ActivityClose
	}
	return 0, false
}

// commandLine joins the words by spaces, once an event.
func (o *Observer) commandLine() string {
	if len(o.line) == 0 {
		o.line = append(o.line, strings.TrimRight(o.e.Process.Args, "\x00")...)
		for i, c := range o.line {
			if c == 0 {
				o.line[i] = ' '
			}
		}
	}
	return view(o.line)
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func folder(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i == 0 {
		return "/"
	}
	return path[:max(i, 0)]
}

// anyIndex writes every index in a path as [*]: of a list here, any member will do.
func anyIndex(path string) string {
	for {
		i := strings.IndexByte(path, '[')
		for i >= 0 && strings.HasPrefix(path[i:], "[*]") {
			j := strings.IndexByte(path[i+1:], '[')
			if j < 0 {
				return path
			}
			i += 1 + j
		}
		if i < 0 {
			return path
		}
		j := strings.IndexByte(path[i:], ']')
		if j < 0 {
			return path
		}
		path = path[:i] + "[*]" + path[i+j+1:]
	}
}
