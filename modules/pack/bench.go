package pack

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are the figures of the pack that `omega bench` shows.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{{
		Name: "modules/pack", Unit: "ns", Limit: 2000, // an event of a mixed stream that nothing is found in, through every rule
		Measure: func() (float64, error) {
			d, err := New(context.Background())
			if err != nil {
				return 0, err
			}
			events, batch := mixed(), make([]*event.Event, 1)
			emit := func(event.Finding) { err = errors.New("an event of ordinary life gave a finding") }
			ns := event.PerOperation(func(b *testing.B) {
				i := 0
				for b.Loop() {
					batch[0] = events[i%len(events)]
					if e := d.Detect(context.Background(), batch, emit); e != nil {
						err = e
					}
					i++
				}
			})
			return ns, err
		},
	}}
}

// mixed are events as a host at work has them: programs, forks and ends, files, connections, names, executable memory.
func mixed() (out []*event.Event) {
	process := func(exe, args string) event.Process {
		return event.Process{Key: event.ProcessKey{PID: uint32(1000 + len(out)), Start: 9}, Parent: event.ProcessKey{PID: 800, Start: 8}, UID: 1000, EUID: 1000, Exe: exe, Comm: "x",
			Args: args, CWD: "/home/dev/project", ParentExe: "/usr/bin/make", Ancestors: "/usr/bin/bash\x00/usr/sbin/sshd\x00/usr/lib/systemd/systemd"}
	}
	add := func(c event.Class, a event.Activity, p event.Process, f func(*event.Event)) {
		e := &event.Event{Class: c, Activity: a, Time: 1e18 + int64(len(out))*1e6, Boot: 1e12 + uint64(len(out))*1e6, Sensor: "kernel", Process: p}
		if f != nil {
			f(e)
		}
		out = append(out, e)
	}
	for _, p := range []event.Process{
		process("/usr/bin/x86_64-linux-gnu-gcc-12", "gcc\x00-O2\x00-g\x00-Wall\x00-I../include\x00-c\x00-o\x00obj/main.o\x00src/main.c"),
		process("/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "/usr/lib/gcc/x86_64-linux-gnu/12/cc1\x00-quiet\x00-I../include\x00src/main.c\x00-dumpbase\x00main.c\x00-o\x00/tmp/ccAbCdEf.s"),
		process("/usr/bin/dash", "/bin/sh\x00-c\x00test -x /usr/sbin/anacron || ( cd / && run-parts --report /etc/cron.daily )"),
		process("/usr/bin/git", "git\x00-c\x00core.quotepath=false\x00status\x00--porcelain=v2\x00--branch"),
		process("/usr/bin/python3.11", "python3\x00-m\x00http.server\x00--directory\x00/srv/www"),
	} {
		add(event.ClassProcess, event.ActivityFork, p, nil)
		add(event.ClassProcess, event.ActivityExec, p, nil)
		for _, path := range []string{"/tmp/ccAbCdEf.s", "/home/dev/project/obj/main.o", "/var/log/app/access-2026-11-23.txt"} {
			add(event.ClassFile, event.ActivityFileCreate, p, func(e *event.Event) { e.File = event.File{Path: path, Mode: 0o100644, Flags: 0x241} })
			add(event.ClassFile, event.ActivityFileWrite, p, func(e *event.Event) { e.File = event.File{Path: path, Mode: 0o100644, Flags: 1} })
		}
		add(event.ClassFile, event.ActivityFileRename, p, func(e *event.Event) {
			e.File = event.File{Path: "/home/dev/project/obj/main.o", Other: "/home/dev/project/obj/.main.o.tmp"}
		})
		add(event.ClassFile, event.ActivityFileUnlink, p, func(e *event.Event) { e.File.Path = "/tmp/ccAbCdEf.s" })
		add(event.ClassMemory, event.ActivityMemoryExecutable, p, func(e *event.Event) { e.Access.Operation = "mprotect" })
		add(event.ClassNetwork, event.ActivityConnect, p, func(e *event.Event) {
			e.Process.Exe = "/usr/bin/curl" // of these not each connects
			e.Network = event.Network{Protocol: 6, Local: netip.MustParseAddrPort("192.0.2.7:41000"), Remote: netip.MustParseAddrPort("198.51.100.3:443"), Name: "mirror.example.org"}
		})
		add(event.ClassDNS, event.ActivityDNSQuery, p, func(e *event.Event) { e.DNS = event.DNS{Name: "mirror.example.org", Type: 1} })
		add(event.ClassProcess, event.ActivityExit, p, nil)
	}
	return out
}
