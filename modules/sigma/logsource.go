package sigma

import (
	"fmt"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/fields"
)

// auditdSpace is put before the names of fields of auditd's rules: `name` and `key` are others there.
const auditdSpace = "auditd\x00"

// space is the name space of a rule's fields.
func space(l LogSource) string {
	if l.Service == "auditd" {
		return auditdSpace
	}
	return ""
}

// covers says whether a rule for l is about an event of source s. What the event does not say of itself is no reason
// against it, but a rule that only names a service is not about an event that says its category and another service.
func (l LogSource) covers(s LogSource) bool {
	if l.Product != "" && s.Product != "" && l.Product != s.Product {
		return false
	}
	if l.Category != "" && s.Category != "" && l.Category != s.Category {
		return false
	}
	if l.Service != "" && l.Service != s.Service && (s.Service != "" || s.Category != "") {
		return false
	}
	return l.Category == "" || s.Category != "" || s.Service == ""
}

// categories that our own events have; those on the last line are named by OCSF classes, where Sigma has no word.
var categories = map[string]bool{"process_creation": true, "process_termination": true, "process_access": true, "network_connection": true,
	"file_event": true, "file_rename": true, "file_delete": true, "file_change": true, "dns_query": true, "dns": true, "driver_load": true,
	"process_activity": true, "network_activity": true, "file_system_activity": true, "kernel_activity": true, "memory_activity": true}

// applicable says why a rule can never match an event of this host's sensors; empty where it can.
func applicable(r *Rule) string {
	l := r.Source
	if l.Product != "" && l.Product != "linux" {
		return fmt.Sprintf("no sensor here sees product %q", l.Product)
	}
	if l.Category != "" && !categories[l.Category] {
		return fmt.Sprintf("no sensor here gives category %q", l.Category)
	}
	if l.Service != "" && l.Service != "auditd" && l.Service != "sshd" && l.Service != "sudo" && l.Service != "cron" && l.Service != "auth" {
		return fmt.Sprintf("no sensor here reads service %q", l.Service)
	}
	var missing string
	if live(r.detection, space(l), &missing) == never {
		if missing == "" {
			return "it asks for words of the raw message, which the sensors do not keep"
		}
		return fmt.Sprintf("no sensor here has field %q", strings.TrimPrefix(missing, auditdSpace))
	}
	return ""
}

// live is e as it is for our own events: what they never have is absent. missing names the last such field.
func live(e *expr, space string, missing *string) *expr {
	switch e.op {
	case opAtom:
		if reader(e.atom.slot) != nil {
			return e
		}
		if e.atom.ask == askNull {
			return always
		}
		*missing = e.atom.slot
		return never
	case opNot:
		return negate(live(e.kids[0], space, missing))
	case opAnd, opOr:
		kids := make([]*expr, len(e.kids))
		for i, k := range e.kids {
			kids[i] = live(k, space, missing)
		}
		return join(e.op, kids...)
	}
	return e
}

// sources are the log sources that one of our own events belongs to.
func sources(e *event.Event) [2]LogSource {
	var out [2]LogSource
	out[0] = LogSource{Category: fields.Category(e), Product: "linux"}
	switch e.Class {
	case event.ClassProcess, event.ClassFile, event.ClassKernel, event.ClassMemory, event.ClassNetwork:
		out[1] = LogSource{Product: "linux", Service: "auditd"}
	case event.ClassDNS:
		out[1] = LogSource{Category: "dns"} // what rules call the log of any resolver
	case event.ClassAuthentication, event.ClassScheduledJob:
		out[0] = LogSource{Product: "linux", Service: e.Logon.Service}
		out[1] = LogSource{Product: "linux", Service: "auditd"}
	}
	return out
}
