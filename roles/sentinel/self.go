package sentinel

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// self finds what is done to the agent: signals that another sends to one of its two processes, hands laid on their memory,
// and programs of its own taken off the kernel. It leaves this host before the agent is gone, unless both halves are killed in the same moment: then the peers
// miss it (omega.agent.silent). Confidence stays below what lets the policy act: the one who stops an agent is often the
// one who may.
type self struct{ own []int }

// Detect implements Detector.
func (d self) Detect(_ context.Context, batch []*event.Event, emit func(event.Finding)) error {
	for _, e := range batch {
		switch e.Activity {
		case event.ActivitySignal: // told of the agent's processes alone
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
		case event.ActivityTamper:
			title := "a program of the agent's was taken off the kernel, and is back"
			if e.Result != 0 {
				title = "a program of the agent's was taken off the kernel, and could not be put back"
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
		case event.ActivityPtrace, event.ActivityProcessWrite:
			if !slices.Contains(d.own, int(e.Access.Target.PID)) {
				continue
			}
			f := finding(e, "omega.self.trace", "hand on the agent", "a process reads or writes the agent's memory", event.SeverityHigh, 55, "T1055.008", "T1562.001")
			evidence(&f, "call", e.Access.Operation)
			emit(f)
		}
	}
	return nil
}
