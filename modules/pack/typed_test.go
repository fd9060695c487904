package pack

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// typed are recordings of what would be unsafe to do, or needs another host: made of events as the sensors give them. Each
// event is some seconds after the one before.
func typed() map[string]map[string][]*event.Event {
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).UnixNano()
	process := func(exe string, pid uint32, uid uint32) event.Process {
		return event.Process{Key: event.ProcessKey{PID: pid, Start: uint64(pid) * 1e6}, Parent: event.ProcessKey{PID: 800, Start: 8e8}, UID: uid, EUID: uid, Exe: exe,
			Comm: exe[strings.LastIndexByte(exe, '/')+1:], Args: exe, CWD: "/", ParentExe: "/usr/bin/bash", LoginUID: 1<<32 - 1}
	}
	at := func(pause time.Duration, events ...*event.Event) []*event.Event {
		for i, e := range events {
			e.Time, e.Boot, e.Sensor = begin+int64(i)*int64(pause), uint64(time.Hour)+uint64(i)*uint64(pause), "kernel"
		}
		return events
	}
	logon := func(a event.Activity, user, from string) *event.Event {
		return &event.Event{Class: event.ClassAuthentication, Activity: a, Logon: event.Logon{User: user, Service: "sshd", Method: "password", Remote: netip.MustParseAddr(from)},
			Network: event.Network{Protocol: 6, Remote: netip.AddrPortFrom(netip.MustParseAddr(from), 40000)}}
	}
	flow := func(p event.Process, a event.Activity, to string) *event.Event {
		return &event.Event{Class: event.ClassNetwork, Activity: a, Process: p,
			Network: event.Network{Protocol: 6, Local: netip.MustParseAddrPort("192.0.2.10:45000"), Remote: netip.MustParseAddrPort(to)}}
	}
	dns := func(p event.Process, a event.Activity, code uint8, name string) *event.Event {
		return &event.Event{Class: event.ClassDNS, Activity: a, Process: p, DNS: event.DNS{Name: name, Type: 1, Code: code, ID: 7},
			Network: event.Network{Protocol: 17, Local: netip.MustParseAddrPort("192.0.2.10:45000"), Remote: netip.MustParseAddrPort("192.0.2.53:53")}}
	}
	access := func(p event.Process, c event.Class, a event.Activity, x event.Access) *event.Event {
		return &event.Event{Class: c, Activity: a, Process: p, Access: x}
	}
	file := func(p event.Process, a event.Activity, path string) *event.Event {
		return &event.Event{Class: event.ClassFile, Activity: a, Process: p, File: event.File{Path: path, Mode: 0o100600, Flags: 1}}
	}
	with := func(e *event.Event, f func(*event.Event)) *event.Event { f(e); return e }
	query, answer := event.ActivityDNSQuery, event.ActivityDNSAnswer
	shell, curl, odd := process("/usr/bin/bash", 900, 0), process("/usr/bin/curl", 901, 1000), process("/tmp/.x/agent", 902, 1000)
	repeat := func(n int, f func(i int) *event.Event) (out []*event.Event) {
		for i := range n {
			out = append(out, f(i))
		}
		return out
	}
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	encoded := func(i, n int) string { // as base32 has it
		var b strings.Builder
		x := uint32(i)*2654435761 + 12345
		for range n {
			x = x*1664525 + 1013904223
			b.WriteByte(letters[x>>27])
		}
		return b.String()
	}
	names := []string{"qxkzvtrplm", "w8k3z1p0qd", "bvtrkzqpxlm", "zk4j9x2qm7a", "trplkmvbnq", "p0q9z8x7cv", "hgfdskjlmn", "x1y2z3w4v5q", "ckvbqrtzpl", "mnbvcxzlkj", "qwrtpsdfgh", "k9j8h7g6fd"}
	two := func(positive, negative []*event.Event) map[string][]*event.Event {
		return map[string][]*event.Event{"positive": positive, "negative": negative}
	}
	kernel := event.ClassKernel
	return map[string]map[string][]*event.Event{
		"omega.execution.io-uring-writable": two(
			at(time.Second, access(odd, kernel, event.ActivityIOUring, event.Access{Operation: "IORING_OP_CONNECT"})),
			at(time.Second, access(process("/usr/bin/redis-server", 903, 100), kernel, event.ActivityIOUring, event.Access{Operation: "IORING_OP_READ"}))),
		"omega.persistence.module-loader": two(
			at(time.Second, access(process("/opt/agent/agent", 904, 0), kernel, event.ActivityModuleLoad, event.Access{Operation: "netlog"})),
			at(time.Second, access(process("/usr/bin/kmod", 905, 0), kernel, event.ActivityModuleLoad, event.Access{Operation: "dummy"}),
				with(access(process("/opt/agent/agent", 904, 1000), kernel, event.ActivityModuleLoad, event.Access{Operation: "netlog"}), func(e *event.Event) { e.Result = 1 }))),
		"omega.persistence.socket-filter": two(
			at(time.Second, access(process("/opt/agent/agent", 904, 0), kernel, event.ActivityBPF, event.Access{Operation: "BPF_PROG_LOAD", Number: 1})),
			at(time.Second, access(process("/usr/lib/systemd/systemd", 1, 0), kernel, event.ActivityBPF, event.Access{Operation: "BPF_PROG_LOAD", Number: 1}),
				access(process("/opt/agent/agent", 904, 0), kernel, event.ActivityBPF, event.Access{Operation: "BPF_PROG_LOAD", Number: 8}))),
		"omega.initial-access.system-account-logon": two(
			at(time.Second, logon(event.ActivityLogonSuccess, "www-data", "198.51.100.7")),
			at(time.Second, logon(event.ActivityLogonSuccess, "alice", "198.51.100.7"), logon(event.ActivityLogonFailure, "www-data", "198.51.100.7"))),
		"omega.credential-access.password-spraying": two(
			at(5*time.Second, repeat(8, func(i int) *event.Event {
				return logon(event.ActivityLogonFailure, fmt.Sprintf("user%d", i), "198.51.100.7")
			})...),
			at(5*time.Second, append(repeat(12, func(i int) *event.Event {
				return logon(event.ActivityLogonFailure, []string{"alice", "root"}[i%2], "198.51.100.7")
			}), logon(event.ActivityLogonSuccess, "alice", "198.51.100.7"))...)),
		"omega.privilege-escalation.taken-rights": two(
			at(time.Second, access(odd, event.ClassProcess, event.ActivityPrivilegeGain, event.Access{OldUID: 1000, NewUID: 0, Gained: 1<<41 - 1})),
			at(time.Second, access(process("/usr/bin/sudo", 906, 1000), event.ClassProcess, event.ActivityPrivilegeGain, event.Access{OldUID: 1000, NewUID: 0}),
				with(access(odd, event.ClassProcess, event.ActivityPrivilegeGain, event.Access{OldUID: 1000, NewUID: 0}), func(e *event.Event) { e.Process.Flags = event.FlagSetID }))),
		"omega.privilege-escalation.write-into-process": two(
			at(time.Second, access(process("/opt/agent/agent", 904, 0), event.ClassMemory, event.ActivityProcessWrite, event.Access{Operation: "process_vm_writev", TargetExe: "/usr/sbin/sshd", Target: event.ProcessKey{PID: 700}, Length: 64})),
			at(time.Second, access(process("/usr/bin/gdb", 907, 0), event.ClassMemory, event.ActivityProcessWrite, event.Access{Operation: "process_vm_writev", TargetExe: "/usr/sbin/sshd", Length: 64}),
				access(process("/opt/agent/agent", 904, 0), event.ClassMemory, event.ActivityProcessWrite, event.Access{Operation: "process_vm_writev", TargetExe: "/opt/agent/agent", Length: 64}))),
		"omega.command-and-control.shell-connects": two(
			at(time.Second, flow(shell, event.ActivityConnect, "198.51.100.7:4443")),
			at(time.Second, flow(curl, event.ActivityConnect, "198.51.100.7:443"), flow(shell, event.ActivityConnect, "127.0.0.1:5432"))),
		"omega.command-and-control.odd-port": two(
			at(time.Second, flow(odd, event.ActivityConnect, "198.51.100.7:4444")),
			at(time.Second, flow(odd, event.ActivityConnect, "198.51.100.7:443"), flow(curl, event.ActivityConnect, "198.51.100.7:4444"), flow(odd, event.ActivityConnect, "127.0.0.1:4444"))),
		"omega.command-and-control.tor-names": two(
			at(time.Second, dns(curl, query, 0, "expyuzz4wqqyqhjn.onion")),
			at(time.Second, dns(curl, query, 0, "onion.example.org"), dns(curl, query, 0, "torproject.org"))),
		"omega.impact.mining-pool": two(
			at(time.Second, dns(odd, query, 0, "gulf.moneroocean.stream")),
			at(time.Second, dns(curl, query, 0, "pool.ntp.org"), dns(curl, query, 0, "f2pool.com.example.org"))),
		"omega.command-and-control.beacon": two(
			at(30*time.Second, repeat(7, func(int) *event.Event { return flow(odd, event.ActivityConnect, "198.51.100.7:443") })...),
			append(at(30*time.Second, repeat(5, func(int) *event.Event { return flow(odd, event.ActivityConnect, "198.51.100.7:443") })...),
				at(30*time.Second, repeat(9, func(int) *event.Event { return flow(curl, event.ActivityConnect, "198.51.100.7:443") })...)...)),
		"omega.lateral-movement.ssh-fan-out": two(
			at(time.Second, repeat(13, func(i int) *event.Event {
				return flow(process("/usr/bin/ssh", uint32(910+i), 1000), event.ActivityConnect, fmt.Sprintf("192.0.2.%d:22", 20+i))
			})...),
			at(time.Second, repeat(20, func(i int) *event.Event {
				return flow(process("/usr/bin/ssh", uint32(910+i), 1000), event.ActivityConnect, fmt.Sprintf("192.0.2.%d:22", 20+i%4))
			})...)),
		"omega.exfiltration.large-transfer": two(
			at(time.Second, with(flow(odd, event.ActivityClose, "198.51.100.7:443"), func(e *event.Event) { e.Network.BytesOut = 80_000_000 })),
			at(time.Second, with(flow(odd, event.ActivityClose, "198.51.100.7:443"), func(e *event.Event) { e.Network.BytesOut, e.Network.BytesIn = 80_000, 80_000_000 }),
				with(flow(process("/usr/bin/rsync", 930, 0), event.ActivityClose, "198.51.100.7:22"), func(e *event.Event) { e.Network.BytesOut = 80_000_000 }))),
		"omega.impact.restart-forced": two(
			at(time.Second, file(shell, event.ActivityFileWrite, "/proc/sysrq-trigger")),
			at(time.Second, file(process("/usr/lib/systemd/systemd-sysctl", 931, 0), event.ActivityFileWrite, "/proc/sys/kernel/sysrq"), file(shell, event.ActivityFileWrite, "/proc/sys/net/ipv4/ip_forward"))),
		"omega.command-and-control.dns-tunnel": two(
			at(2*time.Second, repeat(14, func(i int) *event.Event { return dns(odd, query, 0, encoded(i, 48)+".t.example.net") })...),
			at(2*time.Second, append(repeat(20, func(int) *event.Event { return dns(curl, query, 0, encoded(1, 48)+".t.example.net") }), repeat(20, func(i int) *event.Event {
				return dns(curl, query, 0, fmt.Sprintf("ec2-198-51-100-%d.eu-central-1.compute.example.net", i))
			})...)...)),
		"omega.command-and-control.generated-names": two(
			at(2*time.Second, repeat(12, func(i int) *event.Event { return dns(odd, answer, 3, names[i]+[]string{".com", ".net", ".biz"}[i%3]) })...),
			at(2*time.Second, append(repeat(12, func(i int) *event.Event { return dns(odd, answer, 0, names[i]+".com") }), repeat(20, func(i int) *event.Event {
				return dns(curl, answer, 3, []string{"printer", "fileserver", "intranet-portal", "updates"}[i%4]+fmt.Sprint(i)+".example.com")
			})...)...)),
	}
}
