package sentinel

import (
	"context"
	"strconv"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
)

// kernel finds what happens to the kernel itself, by the facts that it tells: what they were at the start is taken as meant,
// but for a module that hides.
type kernel struct{ known map[string]string }

// maxFacts bounds what is remembered; the sensor has fewer.
const maxFacts = 64

func newKernel() *kernel { return &kernel{known: map[string]string{}} }

// Detect implements Detector.
func (d *kernel) Detect(_ context.Context, batch []*event.Event, emit func(event.Finding)) error {
	for _, e := range batch {
		if e.Activity != event.ActivityKernelFact {
			continue
		}
		name, value := e.Access.Operation, e.File.Other
		old, known := d.known[name]
		if !known && len(d.known) >= maxFacts {
			continue
		}
		d.known[strings.Clone(name)] = strings.Clone(value)
		if !known && name != "kernel.modules.hidden" || old == value {
			continue
		}
		f, bad := judgeFact(e, name, old, value)
		if !bad {
			continue
		}
		evidence(&f, "fact", name)
		evidence(&f, "before", old)
		evidence(&f, "now", value)
		emit(f)
	}
	return nil
}

// judgeFact says whether a change is for the worse, and in what.
func judgeFact(e *event.Event, name, old, value string) (event.Finding, bool) {
	was, _ := strconv.ParseUint(old, 10, 64)
	is, err := strconv.ParseUint(value, 10, 64)
	number := err == nil
	switch name {
	case "kernel.modules.hidden":
		return finding(e, "omega.kernel.hidden", "hidden module", "a kernel module is loaded and not in the kernel's list of modules", event.SeverityCritical, 90, "T1014"), value != ""
	case "kernel.tainted":
		const outside = 1<<1 | 1<<12 | 1<<13 // forced, out of tree, unsigned
		return finding(e, "omega.kernel.tainted", "module from outside", "code that was not made with the kernel, or not signed, was put into it", event.SeverityHigh, 60, "T1547.006"), number && is&^was&outside != 0
	case "kernel.core_pattern", "kernel.modprobe", "kernel.poweroff_cmd":
		return finding(e, "omega.kernel.program", "program of the kernel changed", "the program that the kernel starts as root by itself is another", event.SeverityHigh, 70, "T1611"), true
	case "kernel.kexec_loaded":
		return finding(e, "omega.kernel.kexec", "another kernel loaded", "another kernel stands ready to take this one's place", event.SeverityHigh, 60, "T1601.001"), number && is > was
	case "kernel.ftrace_enabled", "kernel.kptr_restrict", "kernel.randomize_va_space", "kernel.unprivileged_bpf_disabled", "kernel.yama.ptrace_scope", "kernel.modules_disabled", "kernel.kexec_load_disabled":
		return finding(e, "omega.kernel.weakened", "kernel weakened", "a protection of the kernel was lowered", event.SeverityMedium, 60, "T1562.001"), number && is < was
	case "kernel.suid_dumpable":
		return finding(e, "omega.kernel.weakened", "kernel weakened", "memory of privileged programs may be written to disk", event.SeverityMedium, 60, "T1562.001"), number && is > was
	}
	return event.Finding{}, false
}
