package sentinel

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

func TestWhatIsDoneToTheAgent(t *testing.T) {
	by := event.ProcessKey{PID: 4711, Start: 1}
	own := event.ProcessKey{PID: uint32(os.Getpid()), Start: 1}
	for _, c := range []struct {
		what     string
		activity event.Activity
		from     event.ProcessKey
		access   event.Access
		rule     string
		severity event.Severity
	}{
		{"killed", event.ActivitySignal, by, event.Access{Number: uint64(unix.SIGKILL), Target: own}, "omega.self.signal", event.SeverityHigh},
		{"stopped", event.ActivitySignal, by, event.Access{Number: uint64(unix.SIGSTOP), Target: own}, "omega.self.signal", event.SeverityHigh},
		{"told to end", event.ActivitySignal, by, event.Access{Number: uint64(unix.SIGTERM), Target: own}, "omega.self.signal", event.SeverityMedium},
		{"told to end by the service manager", event.ActivitySignal, event.ProcessKey{PID: 1}, event.Access{Number: uint64(unix.SIGTERM), Target: own}, "", 0},
		{"traced", event.ActivityPtrace, by, event.Access{Target: own}, "omega.self.trace", event.SeverityHigh},
		{"its parent written to", event.ActivityProcessWrite, by, event.Access{Target: event.ProcessKey{PID: uint32(os.Getppid())}}, "omega.self.trace", event.SeverityHigh},
		{"another traced", event.ActivityPtrace, by, event.Access{Target: by}, "", 0},
		{"taken off the kernel", event.ActivityTamper, by, event.Access{Operation: "BPF_LINK_DETACH"}, "omega.self.detached", event.SeverityHigh},
		{"taken off the kernel by nobody knows whom", event.ActivityTamper, event.ProcessKey{}, event.Access{}, "omega.self.detached", event.SeverityHigh},
		{"nobody traced", event.ActivityPtrace, by, event.Access{}, "", 0},
	} {
		e := &event.Event{Class: event.ClassProcess, Activity: c.activity, Access: c.access, Process: event.Process{Key: c.from, Exe: "/usr/bin/kill"}}
		var got []event.Finding
		if err := (self{[]int{os.Getpid(), os.Getppid()}}).Detect(t.Context(), []*event.Event{e}, func(f event.Finding) { got = append(got, f) }); err != nil {
			t.Fatal(err)
		}
		if (len(got) == 1) != (c.rule != "") || len(got) == 1 && (got[0].RuleID != c.rule || got[0].Severity != c.severity || got[0].Confidence >= 60) {
			t.Errorf("%s: %+v", c.what, got)
		}
	}
}
