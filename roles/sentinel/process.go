package sentinel

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Times and sizes of the detectors of processes.
const (
	// flowMemory is how long a process's last connection explains the sockets that it, or its child, hands to a shell.
	flowMemory = uint64(2 * time.Minute)
	maxFlows   = 4096
	// fetchMemory is how long after a download a new program started by the same parent is taken for what came.
	fetchMemory = uint64(time.Minute)
	maxFetched  = 1024
)

// flow is the last connection of a process.
type flow struct {
	start  uint64
	at     uint64
	remote netip.AddrPort
}

// flows remembers who is connected to whom. It finds nothing by itself.
type flows struct{ last *slab[uint32, flow] }

func newFlows() *flows { return &flows{newSlab[uint32, flow](maxFlows)} }

// Detect implements Detector.
func (f *flows) Detect(_ context.Context, batch []*event.Event, _ func(event.Finding)) error {
	for _, e := range batch {
		if e.Class != event.ClassNetwork || e.Process.Key.PID == 0 || e.Network.Protocol != 6 && e.Network.Protocol != 0 {
			continue
		}
		if e.Activity != event.ActivityConnect && e.Activity != event.ActivityAccept || e.Network.Remote.Addr().IsLoopback() {
			continue
		}
		*f.last.touch(e.Process.Key.PID) = flow{e.Process.Key.Start, e.Boot, e.Network.Remote}
	}
	return nil
}

// of is the recent connection of a process.
func (f *flows) of(k event.ProcessKey, now uint64) (netip.AddrPort, bool) {
	if k.PID == 0 {
		return netip.AddrPort{}, false
	}
	l := f.last.get(k.PID)
	if l == nil || k.Start != 0 && l.start != 0 && k.Start != l.start || now-l.at > flowMemory {
		return netip.AddrPort{}, false
	}
	return l.remote, true
}

// shell finds an interpreter whose standard input and output are a socket: the shape of a reverse or a bind shell.
type shell struct{ flows *flows }

// Detect implements Detector.
func (d *shell) Detect(_ context.Context, batch []*event.Event, emit func(event.Finding)) error {
	const sockets = event.FlagStdinSocket | event.FlagStdoutSocket
	for _, e := range batch {
		p := &e.Process
		if e.Class != event.ClassProcess || e.Activity != event.ActivityExec || p.Flags&sockets != sockets || !isShell(p.Exe) && !isInterpreter(p.Exe) {
			continue
		}
		remote, connected := d.flows.of(p.Key, e.Boot)
		if !connected {
			remote, connected = d.flows.of(p.Parent, e.Boot)
		}
		parent := base(p.ParentExe)
		switch {
		case connected && !strings.HasPrefix(parent, "sshd"):
			f := finding(e, "omega.shell.socket", "shell on a socket", "A shell talks to "+remote.Addr().Unmap().String()+" over its standard input and output", event.SeverityHigh, 95, "T1059.004")
			f.Subject.Address = remote.Addr().Unmap()
			evidence(&f, "remote", remote.String())
			emit(f)
		case isShell(p.Exe) && isService(p.ParentExe):
			emit(finding(e, "omega.shell.socket", "shell on a socket", "A network service started a shell on a socket", event.SeverityHigh, 80, "T1059.004"))
		case isShell(p.Exe) && isFetcher(p.ParentExe):
			emit(finding(e, "omega.shell.socket", "shell on a socket", "A network tool started a shell on a socket", event.SeverityHigh, 85, "T1059.004"))
		}
		// What is left are socket pairs between local programs: sshd without a terminal, editors, language runtimes.
	}
	return nil
}

// fetched remembers which parents started a download.
type fetched struct{ at *slab[uint32, uint64] }

func newFetched() *fetched { return &fetched{newSlab[uint32, uint64](maxFetched)} }

// execution finds programs started from where programs do not belong: memory, folders that everyone may write, or a
// file that has just come in. A file that is merely new, or merely in /tmp, is a developer's daily work: it takes a
// context (who started it, what came before) to be more than a low note.
type execution struct{ fetched *fetched }

// Detect implements Detector.
func (d *execution) Detect(_ context.Context, batch []*event.Event, emit func(event.Finding)) error {
	for _, e := range batch {
		if e.Class != event.ClassProcess || e.Activity != event.ActivityExec {
			continue
		}
		p := &e.Process
		if isFetcher(p.Exe) && p.Parent.PID != 0 {
			*d.fetched.at.touch(p.Parent.PID) = e.Boot
			continue
		}
		const odd = event.FlagMemfd | event.FlagJustWritten | event.FlagWorldWritable
		folder := worldFolder(p.Exe)
		if p.Flags&odd == 0 && folder == "" {
			continue
		}
		if p.Flags&event.FlagMemfd != 0 {
			emit(memoryExec(e))
			continue
		}
		if isBuilder(p.ParentExe) || isBuilder(p.Exe) {
			continue
		}
		service := isService(p.ParentExe)
		download := false
		if at := d.fetched.at.get(p.Parent.PID); at != nil && p.Parent.PID != 0 && e.Boot-*at <= fetchMemory {
			download = true
		}
		written := p.Flags&event.FlagJustWritten != 0
		switch {
		case written && service:
			f := finding(e, "omega.exec.written", "just-written program", "A network service started a program that had just been written", event.SeverityHigh, 85, "T1105", "T1204.002")
			f.Subject.File = clean(p.Exe)
			emit(f)
		case written && download:
			f := finding(e, "omega.exec.written", "just-written program", "A program was started right after a download", event.SeverityMedium, 75, "T1105", "T1204.002")
			f.Subject.File = clean(p.Exe)
			emit(f)
		case folder == "" && p.Flags&event.FlagWorldWritable == 0:
			// New, and no more: what every build does.
		case service:
			emit(writableExec(e, "A network service started a program from a folder that everyone may write", event.SeverityHigh, 85))
		case folder == "/dev/shm" || folder == "/dev/mqueue" || folder == "/run/lock":
			emit(writableExec(e, "A program was started from shared memory", event.SeverityMedium, 75))
		case hidden(p.Exe):
			emit(writableExec(e, "A hidden program was started from a folder that everyone may write", event.SeverityMedium, 70))
		case written:
			emit(writableExec(e, "A program was written to a folder that everyone may write, and started", event.SeverityLow, 45))
		}
	}
	return nil
}

func memoryExec(e *event.Event) event.Finding {
	severity, confidence := event.SeverityHigh, uint8(85)
	// runc and crun run a sealed copy of themselves from memory for every container (CVE-2019-5736).
	switch base(e.Process.ParentExe) {
	case "runc", "crun", "containerd-shim-runc-v2", "containerd-shim", "conmon", "dockerd", "podman", "buildkitd":
		severity, confidence = event.SeverityInformational, 20
	}
	return finding(e, "omega.exec.memfd", "program from memory", "A program was started that has no file", severity, confidence, "T1620")
}

func writableExec(e *event.Event, title string, severity event.Severity, confidence uint8) event.Finding {
	f := finding(e, "omega.exec.writable", "program from a writable folder", title, severity, confidence, "T1059")
	f.Subject.File = clean(e.Process.Exe)
	return f
}

// refused finds a local program that reaches for an address which the swarm refuses: what it talks to is an attacker.
// Its confidence stays below what a second witness needs: it follows from a block and is no independent sight.
type refused struct{}

// Detect implements Detector.
func (refused) Detect(_ context.Context, batch []*event.Event, emit func(event.Finding)) error {
	for _, e := range batch {
		if e.Activity != event.ActivityRefuse || e.Class != event.ClassNetwork || e.Network.Inbound || e.Process.Key.PID == 0 || int(e.Process.Key.PID) == os.Getpid() {
			continue
		}
		attack := []string{"T1071"}
		severity := event.SeverityMedium
		if isShell(e.Process.Exe) || isShell(e.Process.ParentExe) || isInterpreter(e.Process.Exe) || e.Process.Exe == "" && isShell(e.Process.Comm) {
			attack, severity = []string{"T1059.004", "T1071"}, event.SeverityHigh
		}
		remote := e.Network.Remote
		f := finding(e, "omega.net.refused", "refused connection", "A program reached for "+remote.Addr().Unmap().String()+", which is refused", severity, 55, attack...)
		f.Subject.Address = remote.Addr().Unmap()
		evidence(&f, "remote", remote.String())
		emit(f)
	}
	return nil
}
