package sentinel

import (
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

func TestKernelFacts(t *testing.T) {
	for _, c := range []struct {
		name, before, now, rule string
	}{
		{"kernel.tainted", "0", "12288", "omega.kernel.tainted"},
		{"kernel.tainted", "12288", "12288", ""},
		{"kernel.tainted", "0", "512", ""}, // a warning of the kernel's own
		{"kernel.core_pattern", "core", "|/tmp/x", "omega.kernel.program"},
		{"kernel.modprobe", "/sbin/modprobe", "/tmp/x", "omega.kernel.program"},
		{"kernel.yama.ptrace_scope", "1", "0", "omega.kernel.weakened"},
		{"kernel.yama.ptrace_scope", "0", "1", ""},
		{"kernel.suid_dumpable", "0", "1", "omega.kernel.weakened"},
		{"kernel.kexec_loaded", "0", "1", "omega.kernel.kexec"},
		{"kernel.kptr_restrict", "1", "", ""},
		{"kernel.unheard.of", "1", "0", ""},
		{"kernel.modules.hidden", "", "rootkit", "omega.kernel.hidden"},
	} {
		d := newKernel()
		var got []event.Finding
		tell := func(value string) {
			e := &event.Event{Class: event.ClassKernel, Activity: event.ActivityKernelFact, File: event.File{Other: value}, Access: event.Access{Operation: c.name}}
			if err := d.Detect(t.Context(), []*event.Event{e}, func(f event.Finding) { got = append(got, f) }); err != nil {
				t.Fatal(err)
			}
		}
		tell(c.before)
		if len(got) != 0 {
			t.Errorf("%s: at the start: %+v", c.name, got)
		}
		tell(c.now)
		if (len(got) == 1) != (c.rule != "") || len(got) == 1 && got[0].RuleID != c.rule {
			t.Errorf("%s from %q to %q: %+v", c.name, c.before, c.now, got)
		}
	}
	// A module that hid before the agent came is told at once.
	d, n := newKernel(), 0
	e := &event.Event{Class: event.ClassKernel, Activity: event.ActivityKernelFact, File: event.File{Other: "rootkit"}, Access: event.Access{Operation: "kernel.modules.hidden"}}
	if err := d.Detect(t.Context(), []*event.Event{e}, func(event.Finding) { n++ }); err != nil || n != 1 {
		t.Errorf("%d findings, %v", n, err)
	}
}
