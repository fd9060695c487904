package sentinel

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

// Own is what of a host is the agent itself.
type Own struct {
	PIDs  []int    // its processes
	Exe   string   // its binary
	Paths []string // its files and folders: binary, state, unit, pins, cgroup; each with all below it
}

// self finds what is done to the agent: signals that another sends to one of its two processes, hands laid on their memory,
// programs of its own taken off the kernel, its files changed, itself moved to another cgroup. It leaves this host before the
// agent is gone, unless both halves are killed in the same moment: then the peers miss it (omega.agent.silent). Confidence
// stays below what lets the policy act: the one who stops an agent is often the one who may.
type self struct{ own Own }

// Detect implements Detector.
func (d self) Detect(_ context.Context, batch []*event.Event, emit func(event.Finding)) error {
	for _, e := range batch {
		switch {
		case e.Class == event.ClassFile, e.Activity == event.ActivityIOUring && (e.Access.Operation == "IORING_OP_UNLINKAT" || e.Access.Operation == "IORING_OP_RENAMEAT"):
			if len(d.own.Paths) > 0 {
				d.file(e, emit)
			}
		case e.Activity == event.ActivitySignal: // told of the agent's processes alone
			if e.Process.Key.PID == 1 {
				continue // the service manager: that is how a service ends
			}
			severity, title := event.SeverityHigh, "the agent was struck by a signal"
			switch unix.Signal(e.Access.Number) {
			case unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT:
				severity, title = event.SeverityMedium, "the agent was told to end"
			case unix.SIGCONT, unix.SIGUSR1, unix.SIGUSR2:
				severity, title = event.SeverityLow, "the agent was sent a signal"
			}
			f := finding(e, "omega.self.signal", "signal to the agent", title, severity, 55, "T1562.001")
			evidence(&f, "signal", e.Access.Operation)
			emit(f)
		case e.Activity == event.ActivityTamper && e.Access.Target.PID != 0:
			if e.Process.Key.PID == 1 {
				continue
			}
			f := finding(e, "omega.self.moved", "agent put into another cgroup", "a process of the agent's was put into another cgroup", event.SeverityHigh, 55, "T1562.001")
			evidence(&f, "cgroup", e.File.Path)
			emit(f)
		case e.Activity == event.ActivityTamper:
			title := "a program or map of the agent's was changed in the kernel, and is put right"
			if e.Result != 0 {
				title = "a program or map of the agent's was changed in the kernel, and could not be put right"
			}
			f := finding(e, "omega.self.detached", "agent taken off the kernel", title, event.SeverityHigh, 55, "T1562.001")
			evidence(&f, "what", e.File.Path)
			if e.Access.Operation != "" {
				evidence(&f, "call", e.Access.Operation)
			}
			if e.Result != 0 {
				evidence(&f, "error", unix.Errno(e.Result).Error())
			}
			emit(f)
		case e.Activity == event.ActivityPtrace, e.Activity == event.ActivityProcessWrite:
			if !slices.Contains(d.own.PIDs, int(e.Access.Target.PID)) {
				continue
			}
			f := finding(e, "omega.self.trace", "hand on the agent", "a process reads or writes the agent's memory", event.SeverityHigh, 55, "T1055.008", "T1562.001")
			evidence(&f, "call", e.Access.Operation)
			emit(f)
		}
	}
	return nil
}

// file tells of what is done to the agent's own files by anybody but itself.
func (d self) file(e *event.Event, emit func(event.Finding)) {
	own := d.reached(e.File.Path, e.Activity == event.ActivityMount)
	if own == "" && (e.Activity == event.ActivityFileRename || e.Activity == event.ActivityFileLink) {
		own = d.reached(e.File.Other, e.Activity == event.ActivityFileRename)
	}
	p := &e.Process
	itself := p.Exe == d.own.Exe && d.own.Exe != ""
	// systemd keeps the unit's cgroup; the halves of the node are named by what they are.
	if own == "" || p.Key.PID == 1 || slices.Contains(d.own.PIDs, int(p.Key.PID)) || itself && strings.HasPrefix(p.Args, "omega: ") {
		return
	}
	severity, confidence, title := event.SeverityHigh, uint8(55), "a file of the agent's was changed"
	switch {
	case e.Result != 0:
		title = "a change of one of the agent's files was tried"
	case e.Activity == event.ActivityFileUnlink, e.Access.Operation == "IORING_OP_UNLINKAT":
		title = "a file of the agent's was removed"
	}
	switch {
	case itself || packageManager(p) != "":
		severity, confidence = event.SeverityLow, 30
	case base(e.File.Path) == "omega.yaml":
		severity = event.SeverityMedium
	}
	f := finding(e, "omega.self.file", "the agent's own files", title, severity, confidence, "T1562.001")
	changing(&f, e, own)
	emit(f)
}

// changing says of a finding about a file, or a folder and all in it, what was done there, and whether it was refused.
func changing(f *event.Finding, e *event.Event, about string) {
	f.Subject.File = redact.Printable(about, maxPath)
	evidence(f, "done", cmp.Or(e.Access.Operation, e.Activity.String()))
	evidence(f, "path", e.File.Path)
	if e.File.Other != "" {
		evidence(f, "other", e.File.Other)
	}
	if e.Result != 0 {
		evidence(f, "refused", unix.Errno(e.Result).Error())
	}
}

// reached is the agent's own path that path is or lies below; above also says of one that lies below path, for what takes
// whole folders away.
func (d self) reached(path string, above bool) string {
	if len(path) < 2 {
		return ""
	}
	for _, own := range d.own.Paths {
		if within(own, path) || above && within(path, own) {
			return own
		}
	}
	return ""
}

// within says whether path is folder or lies below it.
func within(folder, path string) bool {
	return strings.HasPrefix(path, folder) && (len(path) == len(folder) || path[len(folder)] == '/')
}
