package sigma

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are this package's performance figures for `omega bench`.
func Benchmarks() []event.Benchmark {
	return append([]event.Benchmark{
		{Name: "modules/sigma-3000", Unit: "events/s", Limit: 250_000, HigherIsBetter: true, Measure: func() (float64, error) { return 1e9 / perEvent(3000), nil }},
		{Name: "modules/sigma-growth", Unit: "ratio", Limit: 2, Measure: func() (float64, error) { return perEvent(3000) / perEvent(300), nil }},
	}, peerBenchmarks()...)
}

// perEvent is the nanoseconds that one of a stream of mixed events costs with n rules.
func perEvent(n int) float64 {
	set := Parse("bench", []byte(syntheticRules(n)), Options{})
	d := NewDetector(set)
	batch := syntheticEvents(1024)
	return event.PerOperation(func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			d.Event(batch[i%len(batch)], func(*Rule) {})
			i++
		}
	})
}

// Words that synthetic rules and events are made of: what is met on hosts, and what is not.
var (
	benchTools = strings.Fields("curl wget nc ncat socat python3 perl ruby base64 openssl tar gzip dd chmod chown chattr crontab systemctl useradd usermod passwd iptables nft ip ss netstat nmap tcpdump strace gdb insmod modprobe kmod docker kubectl ssh scp rsync git make gcc ld find xargs awk sed grep cat head tail cut sort uniq tee mount umount losetup mkfs fdisk")
	benchBad   = strings.Fields("/dev/tcp /dev/udp -enc --no-preserve-root authorized_keys ld.so.preload shadow sudoers nopasswd miner stratum xmrig kinsing reverse bindshell mkfifo setuid cap_setuid nsenter unshare memfd payload dropper webshell eval( base64_decode .onion pastebin transfer.sh ngrok serveo chisel ligolo meterpreter beacon empire sliver mythic rootkit diamorphine reptile")
	benchDirs  = strings.Fields("/usr/bin /usr/sbin /bin /sbin /usr/local/bin /opt/app/bin /home/user/bin /tmp /var/tmp /dev/shm")
)

// syntheticRules gives n rules of the shapes that public ones have: an image by its end, words of a command line, lists,
// exclusions; for the kinds of events a host has.
func syntheticRules(n int) string {
	r := rand.New(rand.NewPCG(7, uint64(n)))
	var b strings.Builder
	pick := func(words []string) string { return words[r.IntN(len(words))] }
	rare := func() string {
		return fmt.Sprintf("%s%c%c%d", pick(benchBad), 'a'+r.IntN(26), 'a'+r.IntN(26), r.IntN(100))
	}
	for i := range n {
		fmt.Fprintf(&b, "---\ntitle: Rule %d\nid: bench-%d\nlevel: medium\nlogsource: ", i, i)
		switch i % 10 {
		case 0, 1, 2:
			fmt.Fprintf(&b, "{product: linux, category: process_creation}\ndetection:\n  s:\n    Image|endswith: '/%s'\n    CommandLine|contains|all: ['%s', '%s']\n  condition: s\n", pick(benchTools), rare(), pick(benchBad))
		case 3, 4:
			fmt.Fprintf(&b, "{product: linux, category: process_creation}\ndetection:\n  s:\n    CommandLine|contains: ['%s', '%s', '%s']\n  f:\n    ParentImage|startswith: '%s'\n  condition: s and not f\n", rare(), rare(), rare(), pick(benchDirs))
		case 5:
			fmt.Fprintf(&b, "{product: linux, category: process_creation}\ndetection:\n  s:\n    CommandLine|re: '%s.{1,20}%d[a-z]+'\n  condition: s\n", pick(benchTools), r.IntN(1_000_000))
		case 6:
			fmt.Fprintf(&b, "{product: linux, category: file_event}\ndetection:\n  s:\n    TargetFilename|startswith: '/etc/%s'\n    TargetFilename|endswith: '.%s'\n  condition: s\n", rare(), pick(benchTools))
		case 7:
			fmt.Fprintf(&b, "{product: linux, category: network_connection}\ndetection:\n  s:\n    DestinationHostname|endswith: '.%s.example'\n  t:\n    Image|endswith: '/%s%d'\n    DestinationPort: %d\n  condition: 1 of *\n", rare(), pick(benchTools), r.IntN(100), r.IntN(65536))
		case 8:
			fmt.Fprintf(&b, "{product: linux, service: auditd}\ndetection:\n  s:\n    type: EXECVE\n    a0: '%s'\n    a1|contains: '%s'\n  condition: s\n", pick(benchTools), rare())
		case 9:
			fmt.Fprintf(&b, "{category: dns_query}\ndetection:\n  s:\n    QueryName|contains: '%s'\n  condition: s\n", rare())
		}
	}
	return b.String()
}

// syntheticEvents are mixed as on a busy host: programs that start, files, connections and names, and what no rule is about.
func syntheticEvents(n int) []*event.Event {
	r := rand.New(rand.NewPCG(11, 13))
	pick := func(words []string) string { return words[r.IntN(len(words))] }
	out := make([]*event.Event, n)
	for i := range out {
		tool := pick(benchTools)
		e := &event.Event{Time: int64(i) * 1e6, Boot: uint64(i) * 1e6, Sensor: "kernel", Process: event.Process{Key: event.ProcessKey{PID: uint32(i + 2), Start: 9}, UID: uint32(r.IntN(2)) * 1000,
			Exe: pick(benchDirs) + "/" + tool, Comm: tool, CWD: "/home/user/work", ParentExe: pick(benchDirs) + "/" + pick(benchTools)}}
		args := []string{tool}
		for range 2 + r.IntN(6) {
			args = append(args, []string{"--" + pick(benchTools), pick(benchDirs) + "/" + fmt.Sprint(r.IntN(100_000)), "https://mirror.example/" + pick(benchTools), pick(benchBad)[:3]}[r.IntN(4)])
		}
		e.Process.Args = strings.Join(args, "\x00")
		switch i % 8 {
		case 0, 1, 2:
			e.Class, e.Activity = event.ClassProcess, event.ActivityExec
		case 3:
			e.Class, e.Activity = event.ClassProcess, event.ActivityExit
		case 4, 5:
			e.Class, e.Activity, e.File.Path = event.ClassFile, event.ActivityFileCreate, pick(benchDirs)+"/"+fmt.Sprint(r.IntN(1e6))+".conf"
		case 6:
			e.Class, e.Activity = event.ClassNetwork, event.ActivityConnect
			e.Network = event.Network{Protocol: 6, Local: netip.MustParseAddrPort("192.0.2.7:41000"), Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 443), Name: "mirror" + fmt.Sprint(i%50) + ".example"}
		case 7:
			e.Class, e.Activity, e.DNS.Name, e.DNS.Type = event.ClassDNS, event.ActivityDNSQuery, "api"+fmt.Sprint(i%90)+".service.example", 1
		}
		out[i] = e
	}
	return out
}
