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
		{"put into another cgroup", event.ActivityTamper, by, event.Access{Operation: "cgroup_attach_task", Target: own}, "omega.self.moved", event.SeverityHigh},
		{"put into another cgroup by the service manager", event.ActivityTamper, event.ProcessKey{PID: 1}, event.Access{Operation: "cgroup_attach_task", Target: own}, "", 0},
		{"nobody traced", event.ActivityPtrace, by, event.Access{}, "", 0},
	} {
		e := &event.Event{Class: event.ClassProcess, Activity: c.activity, Access: c.access, Process: event.Process{Key: c.from, Exe: "/usr/bin/kill"}}
		var got []event.Finding
		if err := (self{Own{PIDs: []int{os.Getpid(), os.Getppid()}}}).Detect(t.Context(), []*event.Event{e}, func(f event.Finding) { got = append(got, f) }); err != nil {
			t.Fatal(err)
		}
		if (len(got) == 1) != (c.rule != "") || len(got) == 1 && (got[0].RuleID != c.rule || got[0].Severity != c.severity || got[0].Confidence >= 60) {
			t.Errorf("%s: %+v", c.what, got)
		}
	}
}

func TestWhatIsDoneToTheAgentsFiles(t *testing.T) {
	const exe, state, pins = "/usr/local/bin/omega", "/var/lib/omega", "/sys/fs/bpf/omega-0102"
	d := self{Own{PIDs: []int{10, 11}, Exe: exe, Paths: []string{exe, state, pins}}}
	for _, c := range []struct {
		what     string
		by       event.Process
		activity event.Activity
		file     event.File
		result   int32
		own      string
		severity event.Severity
	}{
		{"the binary removed", event.Process{Exe: "/bin/rm"}, event.ActivityFileUnlink, event.File{Path: exe}, 0, exe, event.SeverityHigh},
		{"a program beside it", event.Process{Exe: "/bin/rm"}, event.ActivityFileUnlink, event.File{Path: exe + "2"}, 0, "", 0},
		{"a key written", event.Process{Exe: "/bin/sh"}, event.ActivityFileWrite, event.File{Path: state + "/identity/key"}, 0, state, event.SeverityHigh},
		{"the same, refused", event.Process{Exe: "/bin/sh"}, event.ActivityFileWrite, event.File{Path: state + "/identity/key"}, int32(unix.EACCES), state, event.SeverityHigh},
		{"the configuration edited", event.Process{Exe: "/usr/bin/vi"}, event.ActivityFileWrite, event.File{Path: state + "/omega.yaml"}, 0, state, event.SeverityMedium},
		{"the folder that holds the state renamed", event.Process{Exe: "/bin/mv"}, event.ActivityFileRename, event.File{Path: "/var/gone", Other: "/var/lib"}, 0, state, event.SeverityHigh},
		{"a key linked elsewhere", event.Process{Exe: "/bin/ln"}, event.ActivityFileLink, event.File{Path: "/tmp/x", Other: state + "/identity/key"}, 0, state, event.SeverityHigh},
		{"something mounted over it", event.Process{Exe: "/bin/mount"}, event.ActivityMount, event.File{Path: "/var/lib"}, 0, state, event.SeverityHigh},
		{"a pin removed", event.Process{Exe: "/bin/rm"}, event.ActivityFileUnlink, event.File{Path: pins + "/deny4"}, 0, pins, event.SeverityHigh},
		{"the binary removed by io_uring", event.Process{Exe: "/tmp/ring"}, event.ActivityIOUring, event.File{Path: exe}, 0, exe, event.SeverityHigh},
		{"a folder above it written to", event.Process{Exe: "/bin/sh"}, event.ActivityFileCreate, event.File{Path: "/var/lib"}, 0, "", 0},
		{"by a package manager", event.Process{Exe: "/usr/bin/dpkg"}, event.ActivityFileRename, event.File{Path: exe, Other: exe + ".dpkg-new"}, 0, exe, event.SeverityLow},
		{"by omega install", event.Process{Exe: exe, Args: "omega\x00install"}, event.ActivityFileRename, event.File{Path: exe, Other: "/usr/local/bin/.omega-1"}, 0, exe, event.SeverityLow},
		{"by the agent", event.Process{Key: event.ProcessKey{PID: 11}, Exe: exe}, event.ActivityFileWrite, event.File{Path: state + "/ledger/1"}, 0, "", 0},
		{"by the half that starts", event.Process{Key: event.ProcessKey{PID: 12}, Exe: exe, Args: "omega: node"}, event.ActivityFileWrite, event.File{Path: state + "/ledger/1"}, 0, "", 0},
		{"by who only takes its name", event.Process{Key: event.ProcessKey{PID: 12}, Exe: "/tmp/x", Args: "omega: node"}, event.ActivityFileWrite, event.File{Path: state + "/ledger/1"}, 0, state, event.SeverityHigh},
	} {
		if c.by.Key.PID == 0 {
			c.by.Key = event.ProcessKey{PID: 4711, Start: 1}
		}
		e := &event.Event{Class: event.ClassFile, Activity: c.activity, File: c.file, Process: c.by, Result: c.result}
		if c.activity == event.ActivityIOUring {
			e.Class, e.Access.Operation = event.ClassKernel, "IORING_OP_UNLINKAT"
		}
		var got []event.Finding
		if err := d.Detect(t.Context(), []*event.Event{e}, func(f event.Finding) { got = append(got, f) }); err != nil {
			t.Fatal(err)
		}
		if (len(got) == 1) != (c.own != "") || len(got) == 1 && (got[0].RuleID != "omega.self.file" || got[0].Subject.File != c.own || got[0].Severity != c.severity || got[0].Confidence >= 60) {
			t.Errorf("%s: %+v", c.what, got)
		}
	}
}
