package indicator

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
)

// benchSize is how many indicators the budget speaks of.
const benchSize = 5_000_000

// Benchmarks are this package's figures for `omega bench`: memory and look-ups of five million indicators.
func Benchmarks() []event.Benchmark {
	mixed := sync.OnceValues(func() (*Set, float64) { return measured(benchSize, share) })
	digests := func(int) Kind { return SHA256 }
	return []event.Benchmark{
		{Name: "modules/indicators/memory/5000000", Unit: "MiB", Limit: 400, Measure: func() (float64, error) {
			_, mib := mixed()
			return mib, nil
		}},
		{Name: "modules/indicators/memory/5000000-sha256", Unit: "MiB", Limit: 400, Measure: func() (float64, error) {
			_, mib := measured(benchSize, digests)
			return mib, nil
		}},
		{Name: "modules/indicators/lookup/absent", Unit: "ns", Limit: 150, Measure: func() (float64, error) {
			s, _ := mixed()
			return perOperation(lookups(s, benchSize, 1))
		}},
		{Name: "modules/indicators/lookup/present", Unit: "ns", Limit: 150, Measure: func() (float64, error) {
			s, _ := mixed()
			return perOperation(lookups(s, benchSize, 0))
		}},
		{Name: "modules/indicators/event", Unit: "ns", Limit: 1000, Measure: func() (float64, error) {
			s, _ := mixed()
			return perOperation(ordinaryEvents(s))
		}},
	}
}

// perOperation is nanoseconds of this thread's processor time, the best of three runs: a look-up is shorter than what
// others on the same core add to its wall time.
func perOperation(run func(n int) error) (float64, error) {
	const n = 1_000_000
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	best := int64(math.MaxInt64)
	for range 3 {
		before := threadTime()
		if err := run(n); err != nil {
			return 0, err
		}
		best = min(best, threadTime()-before)
	}
	return float64(best) / n, nil
}

func threadTime() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return t.Nano()
}

// share is the mix of a large feed: of ten, four digests, three domains, two addresses, one URL.
func share(i int) Kind {
	return [...]Kind{SHA256, Domain, IPv4, SHA256, Domain, URL, SHA1, Domain, IPv4, MD5}[i%10]
}

// value is the i-th made-up value of a kind, an odd or even one: even ones are in the set.
func value(k Kind, i, odd int) normal {
	x := mix(uint64(2*i + odd))
	v := normal{kind: k}
	switch k {
	case MD5, SHA1, SHA256:
		v.sum = make([]byte, 16+4*int(k)+8*int(k/2))
		for j := 0; j+8 <= len(v.sum); j += 8 {
			binary.BigEndian.PutUint64(v.sum[j:], mix(x+uint64(j)))
		}
	case IPv4:
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(2*i+odd)*2654435761)
		v.prefix = netip.PrefixFrom(netip.AddrFrom4(b), 32)
	case Domain:
		v.text = fmt.Sprintf("%x.host-%d.example", x&0xffffff, 2*i+odd)
	case URL:
		v.text = fmt.Sprintf("http://host-%d.example/%x/payload.bin", 2*i+odd, x)
	}
	return v
}

// mix is SplitMix64's finalizer.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// made is a set of n made-up indicators.
func made(n int, kind func(int) Kind) *Set {
	b := NewBuilder(0, time.Unix(1, 0))
	b.set.origins = []Origin{{Source: "bench"}}
	for i := range n {
		if _, err := b.put(value(kind(i), i, 0), Meta{Confidence: 50}, false); err != nil {
			return b.Set()
		}
	}
	return b.Set()
}

// measured makes a set and says what the heap grew by.
func measured(n int, kind func(int) Kind) (*Set, float64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := made(n, kind)
	runtime.GC()
	runtime.ReadMemStats(&after)
	return s, float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)) / (1 << 20)
}

// lookups looks up values spread over the whole of the set, in no order. They lie one after the other, as the value of an
// event in hand would: what is measured is the way to the set's memory, not to theirs.
func lookups(s *Set, n, odd int) func(int) error {
	type query struct {
		kind  Kind
		value string
		addr  netip.Addr
	}
	const most = 1 << 16
	var all strings.Builder
	queries, ends := make([]query, most), make([]int, most)
	for i := range queries {
		at := int(mix(uint64(i)) % uint64(n))
		v := value(share(at), at, odd)
		queries[i] = query{kind: v.kind, addr: v.prefix.Addr()}
		all.WriteString(v.text)
		all.Write(v.sum)
		ends[i] = all.Len()
	}
	from := 0
	for i := range queries {
		queries[i].value = all.String()[from:ends[i]]
		from = ends[i]
	}
	var sum [32]byte
	value := func(q *query) string {
		switch q.kind {
		case IPv4:
			b := q.addr.As4()
			return view(sum[:copy(sum[:], b[:])])
		case Domain, URL:
			return q.value
		}
		return view(sum[:copy(sum[:], q.value)])
	}
	return func(n int) error {
		for i := range n {
			q := &queries[i&(most-1)]
			_, ok := s.find(q.kind, value(q), 1)
			if q.kind == IPv4 && !ok {
				ok = s.nets.find(q.addr, 1) != nil
			}
			if ok != (odd == 0) {
				return fmt.Errorf("%v %q is found wrongly", q.kind, q.value)
			}
		}
		return nil
	}
}

// ordinaryEvents is the detector over events of a host's ordinary life, none of which match.
func ordinaryEvents(s *Set) func(int) error {
	var current Current
	current.Store(s)
	d := NewDetector(&current, nil)
	events := ordinary()
	return func(n int) (err error) {
		emit := func(f event.Finding) { err = fmt.Errorf("%s was found in ordinary events", f.RuleID) }
		for i := range n {
			if derr := d.Detect(context.Background(), events[i%len(events)], emit); derr != nil {
				return derr
			}
		}
		return err
	}
}

// ordinary is one event of each kind that is looked at, a batch each.
func ordinary() [][]*event.Event {
	exec := &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: 1764000000e9}
	exec.Process.Key = event.ProcessKey{PID: 4711, Start: 1}
	exec.Process.Exe, exec.Process.Args = "/usr/bin/curl", "curl\x00-sS\x00--fail\x00https://deb.Debian.org/debian/dists/stable/InRelease"
	flow := &event.Event{Class: event.ClassNetwork, Activity: event.ActivityConnect, Time: 1764000000e9, Process: exec.Process}
	flow.Network = event.Network{Protocol: 6, Local: netip.MustParseAddrPort("10.0.0.5:40000"), Remote: netip.MustParseAddrPort("151.101.2.132:443"), Name: "deb.debian.org", SNI: "deb.debian.org"}
	question := &event.Event{Class: event.ClassDNS, Activity: event.ActivityDNSAnswer, Time: 1764000000e9, Process: exec.Process}
	question.DNS = event.DNS{Name: "deb.debian.org", Answers: "debian.map.fastlydns.net\x00151.101.2.132\x002a04:4e42::644"}
	file := &event.Event{Class: event.ClassFile, Activity: event.ActivityFileWrite, Time: 1764000000e9, Process: exec.Process}
	file.File = event.File{Path: "/var/lib/apt/lists/partial/deb.debian.org_debian_dists_stable_InRelease", Hash: "0f343b0931126a20f133d67c2b018a3b5f9b3c9ee2f5b4a1a1a0f8ed3e3d3b1c"}
	logon := &event.Event{Class: event.ClassAuthentication, Activity: event.ActivityLogonSuccess, Time: 1764000000e9}
	logon.Logon = event.Logon{User: "root", Service: "sshd", Remote: netip.MustParseAddr("192.0.2.7")}
	return [][]*event.Event{{exec}, {flow}, {question}, {file}, {logon}}
}
