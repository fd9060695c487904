package fields

import (
	"net/netip"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
)

// Field is one thing that can be asked of an event. Exactly one of Text, Number, Address and Bits reads it.
type Field struct {
	Name    string
	Meaning string
	OCSF    string   // path in OCSF JSON, empty where it is no attribute of its own; "process." stands for "actor.process." where the process acts on something else
	Sigma   []string // names in Sigma rules
	Source  string   // where the sentinel has it from

	Text    func(*event.Event) string
	List    bool // Text is parts joined by NUL
	Number  func(*event.Event) uint64
	Address func(*event.Event) netip.Addr
	Bits    func(*event.Event) uint64
	Names   []string // of the bits, lowest first
}

// All is every field there is, in the order of the reference.
func All() []Field { return append([]Field(nil), table[:]...) }

// Find gives a field by its name, its OCSF path, or a name that Sigma has for it.
func Find(name string) (*Field, bool) {
	for i := range table {
		if table[i].Name == name {
			return &table[i], true
		}
	}
	path := name
	if rest, ok := strings.CutPrefix(name, "actor."); ok && strings.HasPrefix(rest, "process.") {
		path = rest
	}
	for i := range table {
		if table[i].OCSF == path && path != "" {
			return &table[i], true
		}
	}
	for i := range table {
		for _, s := range table[i].Sigma {
			if s == name {
				return &table[i], true
			}
		}
	}
	return nil, false
}

// Category is the Sigma log source category that an event belongs to. What the taxonomy has no word for is named by the
// event's OCSF class; "" is only what is told by the service that logged it.
func Category(e *event.Event) string {
	switch e.Class {
	case event.ClassProcess:
		switch e.Activity {
		case event.ActivityExec:
			return "process_creation"
		case event.ActivityExit:
			return "process_termination"
		case event.ActivityPtrace, event.ActivityProcessWrite:
			return "process_access"
		}
		return "process_activity"
	case event.ClassNetwork:
		switch e.Activity {
		case event.ActivityConnect, event.ActivityAccept, event.ActivityRefuse:
			return "network_connection"
		}
		return "network_activity"
	case event.ClassFile, event.ClassFileIntegrity:
		switch e.Activity {
		case event.ActivityFileCreate, event.ActivityFileWrite, event.ActivityFileLink:
			return "file_event"
		case event.ActivityFileRename:
			return "file_rename"
		case event.ActivityFileUnlink:
			return "file_delete"
		case event.ActivityFileChmod, event.ActivityFileChown, event.ActivityFileSetXattr:
			return "file_change"
		}
		return "file_system_activity"
	case event.ClassDNS:
		return "dns_query"
	case event.ClassKernel:
		if e.Activity == event.ActivityModuleLoad {
			return "driver_load"
		}
		return "kernel_activity"
	case event.ClassMemory:
		if e.Activity == event.ActivityPtrace || e.Activity == event.ActivityProcessWrite {
			return "process_access"
		}
		return "memory_activity"
	}
	return ""
}

// Value gives a field as text, for print and comparison; a list's parts are joined by a space. It allocates.
func (f *Field) Value(e *event.Event) string {
	switch {
	case f.Text != nil:
		if f.List {
			return strings.ReplaceAll(strings.TrimRight(f.Text(e), "\x00"), "\x00", " ")
		}
		return f.Text(e)
	case f.Number != nil:
		return number(f.Number(e))
	case f.Address != nil:
		if a := f.Address(e); a.IsValid() {
			return a.String()
		}
		return ""
	}
	var names []string
	for bits, i := f.Bits(e), 0; bits != 0; bits, i = bits>>1, i+1 {
		if bits&1 != 0 {
			if i < len(f.Names) {
				names = append(names, f.Names[i])
			} else {
				names = append(names, "bit"+number(uint64(i)))
			}
		}
	}
	return strings.Join(names, " ")
}
