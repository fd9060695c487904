package sentinel

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

const base0 = uint64(time.Hour)

func exec(pid, parent uint32, exe, parentExe string, flags event.ProcessFlag, args ...string) *event.Event {
	return &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Boot: base0, Time: 1e18, Process: event.Process{
		Key: event.ProcessKey{PID: pid, Start: uint64(pid)}, Parent: event.ProcessKey{PID: parent, Start: uint64(parent)},
		Exe: exe, ParentExe: parentExe, Flags: flags, Args: strings.Join(args, "\x00")}}
}

func flowEvent(a event.Activity, pid uint32, local, remote string, inbound bool) *event.Event {
	return &event.Event{Class: event.ClassNetwork, Activity: a, Boot: base0, Time: 1e18,
		Process: event.Process{Key: event.ProcessKey{PID: pid, Start: uint64(pid)}},
		Network: event.Network{Protocol: 6, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), Inbound: inbound}}
}

func later(e *event.Event, d time.Duration) *event.Event {
	e.Boot += uint64(d)
	e.Time += int64(d)
	return e
}

// see gives what the built-in detectors make of events, one batch each.
func see(t testing.TB, events ...*event.Event) (out []event.Finding) {
	t.Helper()
	detectors := Builtin(Own{})
	for _, e := range events {
		for _, d := range detectors {
			if err := d.Detect(context.Background(), []*event.Event{e}, func(f event.Finding) { out = append(out, f) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

const (
	stdio = event.FlagStdinSocket | event.FlagStdoutSocket | event.FlagStderrSocket
	young = event.FlagJustWritten
	world = event.FlagWorldWritable
)

func TestDetects(t *testing.T) {
	ports := func(n int, gap time.Duration) (out []*event.Event) {
		for i := range n {
			out = append(out, later(flowEvent(event.ActivityProbe, 0, fmt.Sprintf("10.0.0.3:%d", 1+i), "203.0.113.9:4000", true), time.Duration(i)*gap))
		}
		return out
	}
	failures := func(n int, gap time.Duration) (out []*event.Event) {
		for i := range n {
			out = append(out, later(&event.Event{Class: event.ClassAuthentication, Activity: event.ActivityLogonFailure, Boot: base0, Logon: event.Logon{User: "root", Remote: netip.MustParseAddr("203.0.113.9")}}, time.Duration(i)*gap))
		}
		return out
	}
	success := later(&event.Event{Class: event.ClassAuthentication, Activity: event.ActivityLogonSuccess, Boot: base0, Logon: event.Logon{User: "root", Remote: netip.MustParseAddr("203.0.113.9")}}, 5*time.Second)
	for _, c := range []struct {
		name     string
		events   []*event.Event
		rule     string
		attack   string
		severity event.Severity
		least    uint8
		most     uint8
	}{
		{"bash over /dev/tcp", []*event.Event{
			flowEvent(event.ActivityConnect, 7, "10.0.0.1:5000", "203.0.113.9:4444", false),
			exec(7, 6, "/usr/bin/bash", "/usr/bin/bash", stdio, "bash", "--norc")}, "omega.shell.socket", "T1059.004", event.SeverityHigh, 90, 100},
		{"a child of the one that connected", []*event.Event{
			flowEvent(event.ActivityConnect, 7, "10.0.0.1:5000", "203.0.113.9:4444", false),
			exec(8, 7, "/usr/bin/dash", "/usr/bin/python3.11", stdio)}, "omega.shell.socket", "T1059.004", event.SeverityHigh, 90, 100},
		{"nc -e", []*event.Event{exec(8, 7, "/usr/bin/dash", "/usr/bin/ncat", stdio)}, "omega.shell.socket", "T1059.004", event.SeverityHigh, 80, 89},
		{"a web server's shell", []*event.Event{exec(8, 7, "/usr/bin/dash", "/usr/sbin/php-fpm8.2", stdio)}, "omega.shell.socket", "T1059.004", event.SeverityHigh, 60, 89},
		{"memfd", []*event.Event{exec(8, 7, "memfd:x", "/usr/bin/python3", event.FlagMemfd)}, "omega.exec.memfd", "T1620", event.SeverityHigh, 80, 89},
		{"/dev/shm", []*event.Event{exec(8, 7, "/dev/shm/x", "/usr/bin/bash", world)}, "omega.exec.writable", "T1059", event.SeverityMedium, 60, 89},
		{"hidden in /tmp", []*event.Event{exec(8, 7, "/tmp/.x/kworker", "/usr/bin/bash", world)}, "omega.exec.writable", "T1059", event.SeverityMedium, 60, 89},
		{"a service runs what was written", []*event.Event{exec(8, 7, "/var/www/up/x", "/usr/sbin/nginx", young)}, "omega.exec.written", "T1105", event.SeverityHigh, 80, 89},
		{"after a download", []*event.Event{exec(8, 7, "/usr/bin/curl", "/usr/bin/bash", 0), later(exec(9, 7, "/root/x", "/usr/bin/bash", young), 5*time.Second)}, "omega.exec.written", "T1105", event.SeverityMedium, 60, 89},
		{"new in /tmp", []*event.Event{exec(8, 7, "/tmp/x", "/usr/bin/bash", young|world)}, "omega.exec.writable", "T1059", event.SeverityLow, 0, 59},
		{"a port scan", ports(scanPorts, time.Second), "omega.net.scan", "T1046", event.SeverityMedium, 60, 60},
		{"password guessing", failures(6, time.Second), "omega.auth.brute", "T1110.001", event.SeverityMedium, 60, 89},
		{"a guess that was right", append(failures(4, time.Second), success), "omega.auth.guessed", "T1078", event.SeverityHigh, 60, 89},
		{"a log that the kernel bears out", logged(6, true), "omega.auth.brute", "T1110.001", event.SeverityMedium, 90, 100},
		{"a log alone", logged(6, false), "omega.auth.brute", "T1110.001", event.SeverityMedium, 0, 59},
		{"a refused shell", []*event.Event{func() *event.Event {
			e := flowEvent(event.ActivityRefuse, 7, "0.0.0.0:0", "203.0.113.9:4444", false)
			e.Process.Exe = "/usr/bin/bash"
			return e
		}()}, "omega.net.refused", "T1059.004", event.SeverityHigh, 0, 59},
		{"a refused connection", []*event.Event{func() *event.Event {
			e := flowEvent(event.ActivityRefuse, 7, "0.0.0.0:0", "203.0.113.9:4444", false)
			e.Process.Exe = "/opt/agent"
			return e
		}()}, "omega.net.refused", "T1071", event.SeverityMedium, 0, 59},
	} {
		got := see(t, c.events...)
		if len(got) != 1 {
			t.Errorf("%s: %d findings: %+v", c.name, len(got), got)
			continue
		}
		f := got[0]
		if f.RuleID != c.rule || !slices.Contains(f.Attack, c.attack) || f.Severity != c.severity || f.Confidence < c.least || f.Confidence > c.most || f.Title == "" || f.Boot == 0 {
			t.Errorf("%s: %+v", c.name, f)
		}
	}
}

// logged are failures that a log tells of, each over a connection that the kernel saw, or none did.
func logged(n int, seen bool) (out []*event.Event) {
	for i := range n {
		from := netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), uint16(4000+i))
		if seen {
			out = append(out, later(flowEvent(event.ActivityAccept, 3, "10.0.0.3:22", from.String(), true), time.Duration(i)*time.Second))
		}
		out = append(out, later(&event.Event{Class: event.ClassAuthentication, Activity: event.ActivityLogonFailure, Sensor: "logs", Boot: base0,
			Logon: event.Logon{User: "root", Remote: from.Addr()}, Network: event.Network{Protocol: 6, Remote: from}}, time.Duration(i)*time.Second))
	}
	return out
}

// TestQuiet: a developer's day is no attack.
func TestQuiet(t *testing.T) {
	refused := flowEvent(event.ActivityRefuse, 0, "10.0.0.1:22", "203.0.113.9:4444", true)
	var day []*event.Event
	for i := range uint32(200) {
		p := 100 + i*10
		day = append(day,
			exec(p, 5, "/usr/local/go/bin/go", "/usr/bin/bash", 0, "go", "test", "./..."),
			exec(p+1, p, "/usr/local/go/pkg/tool/compile", "/usr/local/go/bin/go", 0),
			exec(p+2, p, "/tmp/go-build123/b001/x.test", "/usr/local/go/bin/go", young|world),
			exec(p+3, 5, "/root/src/app", "/usr/bin/bash", young),
			exec(p+4, 5, "/usr/bin/dpkg", "/usr/bin/apt-get", 0),
			exec(p+5, p+4, "/var/lib/dpkg/info/x.postinst", "/usr/bin/dpkg", young),
			exec(p+6, 6, "/usr/bin/bash", "/usr/sbin/sshd-session", stdio, "bash", "-c", "git-upload-pack"),
			exec(p+7, 6, "/usr/bin/bash", "/usr/bin/node", stdio),
			exec(p+8, 1, "/usr/bin/dash", "/usr/lib/systemd/systemd", event.FlagStdoutSocket|event.FlagStderrSocket),
			flowEvent(event.ActivityConnect, p+9, "10.0.0.1:5000", "140.82.112.3:443", false),
			flowEvent(event.ActivityAccept, 4, "10.0.0.1:443", fmt.Sprintf("10.0.9.%d:5000", i%250), true),
		)
	}
	for i := range 14 { // a sweep of a few ports, and a slow client
		day = append(day, flowEvent(event.ActivityProbe, 0, fmt.Sprintf("10.0.0.3:%d", 1+i), "203.0.113.9:4000", true))
	}
	for i := range 100 {
		day = append(day, later(flowEvent(event.ActivityProbe, 0, fmt.Sprintf("10.0.0.3:%d", 1+i), "203.0.113.10:4000", true), time.Duration(i)*10*time.Second))
		day = append(day, flowEvent(event.ActivityProbe, 0, fmt.Sprintf("127.0.0.1:%d", 1+i), "127.0.0.1:4000", true))
	}
	day = append(day, refused)
	if got := see(t, day...); len(got) != 0 {
		t.Fatalf("%d findings, first %+v", len(got), got[0])
	}
}

// TestFindingsOutliveTheirEvents: a finding holds copies, and no secret.
func TestFindingsOutliveTheirEvents(t *testing.T) {
	exe := []byte("/dev/shm/x")
	e := exec(8, 7, string(exe), "/usr/bin/bash", world, "x", "--password=hunter2", "--token", "abc", "https://u:p@h/", "omega1abc")
	f := see(t, e)[0]
	for _, secret := range []string{"hunter2", "abc", "u:p"} {
		if strings.Contains(f.Subject.Process.Args, secret) {
			t.Errorf("args %q", f.Subject.Process.Args)
		}
	}
}

func TestGather(t *testing.T) {
	g := newGatherer()
	f := func(n int) *event.Finding {
		return &event.Finding{RuleID: "r", Severity: event.SeverityMedium, Subject: event.Subject{File: fmt.Sprint("/x/", n)}}
	}
	now := base0
	if g.take(f(0), now) != fresh {
		t.Fatal("the first")
	}
	for range 9 {
		if g.take(f(0), now) != repeated {
			t.Fatal("a repetition")
		}
	}
	again := f(0)
	if g.take(again, now+gatherWindow) != fresh || len(again.Evidence) != 1 || again.Evidence[0].Value != "9" {
		t.Fatalf("after the window: %+v", again.Evidence)
	}
	passed := 0
	for i := range 10_000 {
		if g.take(f(i+1), now+gatherWindow) == fresh {
			passed++
		}
	}
	if passed > findingBurst || passed < findingBurst-2 {
		t.Fatalf("%d of a flood passed", passed)
	}
	if g.seen.len() != gatherKeys {
		t.Fatalf("%d subjects remembered", g.seen.len())
	}
	if g.take(f(20_000), now+gatherWindow+uint64(time.Second)) != fresh {
		t.Fatal("the rate does not refill")
	}
	low := func(n int) *event.Finding { x := f(n); x.Severity = event.SeverityLow; return x }
	g = newGatherer()
	if g.take(low(1), now) != fresh || g.take(low(2), now) != repeated {
		t.Fatal("low findings of one folder are not told once")
	}
}

func TestSlab(t *testing.T) {
	s := newSlab[int, int](3)
	for i := range 4 {
		*s.touch(i) = i * 10
		s.touch(1)
	}
	if s.get(0) != nil || s.get(1) == nil || *s.get(3) != 30 || s.len() != 3 {
		t.Fatalf("%+v", s.index)
	}
	s.touch(2)
	s.touch(9)
	if s.get(3) == nil && s.get(1) == nil || s.get(2) == nil || s.len() != 3 {
		t.Fatalf("%+v", s.index)
	}
}

// TestNoAllocation: an event that matches nothing costs no memory.
func TestNoAllocation(t *testing.T) {
	for name, e := range quiet() {
		detectors := Builtin(Own{})
		emit := func(event.Finding) { t.Errorf("%s: a finding", name) }
		batch := []*event.Event{e}
		if n := testing.AllocsPerRun(1000, func() {
			for _, d := range detectors {
				if err := d.Detect(context.Background(), batch, emit); err != nil {
					t.Fatal(err)
				}
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func quiet() map[string]*event.Event {
	return map[string]*event.Event{
		"exec":    exec(8, 7, "/usr/bin/git", "/usr/bin/bash", 0, "git", "status"),
		"build":   exec(8, 7, "/tmp/go-build1/x.test", "/usr/local/go/bin/go", young|world),
		"shell":   exec(8, 7, "/usr/bin/bash", "/usr/bin/tmux", 0),
		"connect": flowEvent(event.ActivityConnect, 8, "10.0.0.1:5000", "140.82.112.3:443", false),
		"accept":  flowEvent(event.ActivityAccept, 8, "10.0.0.1:443", "10.0.9.9:5000", true),
		"exit":    {Class: event.ClassProcess, Activity: event.ActivityExit, Boot: base0, Process: event.Process{Key: event.ProcessKey{PID: 8}}},
	}
}

// TestStrangersAreBounded: a flood of sources takes no more memory than the slab.
func TestStrangersAreBounded(t *testing.T) {
	d := newScan()
	e := flowEvent(event.ActivityProbe, 0, "10.0.0.3:80", "203.0.113.9:4000", true)
	for i := range 3 * scanSources {
		e.Network.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 4000)
		if err := d.Detect(context.Background(), []*event.Event{e}, func(event.Finding) { t.Fatal("a finding") }); err != nil {
			t.Fatal(err)
		}
	}
	if d.sources.len() != scanSources {
		t.Fatalf("%d sources", d.sources.len())
	}
}

func BenchmarkDetectors(b *testing.B) {
	for name, e := range quiet() {
		b.Run(name, func(b *testing.B) {
			detectors := Builtin(Own{})
			batch := []*event.Event{e}
			emit := func(event.Finding) {}
			b.ReportAllocs()
			for b.Loop() {
				for _, d := range detectors {
					if err := d.Detect(context.Background(), batch, emit); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
