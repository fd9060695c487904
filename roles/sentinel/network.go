package sentinel

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

// Times and sizes of the detectors of strangers.
const (
	// A source that reaches for scanPorts different local ports within scanWindow scans: no service needs so many, and a
	// sweep that tries a handful on every host does not reach it here.
	scanPorts   = 15
	scanWindow  = uint64(time.Minute)
	scanSources = 4096
	// A source that fails to log on more than bruteBurst times, one forgotten every bruteLeak, guesses passwords (the
	// leaky bucket of CrowdSec's ssh-bf).
	bruteBurst   = 5
	bruteLeak    = uint64(10 * time.Second)
	bruteSources = 4096
	// After bruteSuccess failures at once, a success of the same source is told.
	bruteSuccess = 3
	// A connection that the kernel saw bears out, for this long, what a log says came over it.
	bruteMet    = uint64(10 * time.Minute)
	bruteMetMax = 8192
)

// scan finds a source that tries the ports of this host.
type scan struct{ sources *slab[netip.Addr, touched] }

// touched are the newest different ports that a source reached for.
type touched struct {
	n     int
	ports [scanPorts]struct {
		port uint16
		at   uint64
	}
}

func newScan() *scan { return &scan{newSlab[netip.Addr, touched](scanSources)} }

// Detect implements Detector.
func (d *scan) Detect(_ context.Context, batch []*event.Event, emit func(event.Finding)) error {
	for _, e := range batch {
		if e.Class != event.ClassNetwork || e.Activity != event.ActivityProbe && (e.Activity != event.ActivityAccept || !e.Network.Inbound) {
			continue
		}
		source := e.Network.Remote.Addr().Unmap()
		if !source.IsValid() || source.IsLoopback() || source == e.Network.Local.Addr().Unmap() {
			continue
		}
		t := d.sources.touch(source)
		if t.add(e.Network.Local.Port(), e.Boot) < scanPorts {
			continue
		}
		f := finding(e, "omega.net.scan", "port scan", fmt.Sprintf("%s tries the ports of this host", source), event.SeverityMedium, 60, "T1046")
		f.Subject = event.Subject{Address: source} // whose process accepted the last one says nothing
		f.Boot, f.Evidence = t.oldest(), []event.Evidence{{Name: "ports", Value: t.String()}}
		f.Time = e.Time - int64(e.Boot-f.Boot)
		t.n = 0
		emit(f)
	}
	return nil
}

// add counts port and gives how many different ones lie within the window.
func (t *touched) add(port uint16, at uint64) int {
	k := 0
	for i := range t.n {
		p := t.ports[i]
		if p.port != port && at-p.at <= scanWindow {
			t.ports[k] = p
			k++
		}
	}
	t.n = k
	if t.n < scanPorts {
		t.ports[t.n].port, t.ports[t.n].at = port, at
		t.n++
	}
	return t.n
}

func (t *touched) oldest() uint64 {
	at := t.ports[0].at
	for _, p := range t.ports[1:t.n] {
		at = min(at, p.at)
	}
	return at
}

// String lists the ports.
func (t *touched) String() string {
	var b strings.Builder
	for i, p := range t.ports[:t.n] {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprint(&b, p.port)
	}
	return b.String()
}

// brute finds a source that guesses passwords, and one whose guess was right. What a log says is a claim: anyone on the
// host may write a line that names another's address. It is believed when the kernel itself saw that very connection, and
// else is a low note that no policy acts on.
type brute struct {
	sources *slab[netip.Addr, bucket]
	met     *slab[netip.AddrPort, uint64] // inbound connections: when they were accepted
}

type bucket struct {
	level uint64 // in units of bruteLeak: nanoseconds
	at    uint64
	first uint64
	unmet bool // some failure came over a connection that nobody saw
}

func newBrute() *brute {
	return &brute{newSlab[netip.Addr, bucket](bruteSources), newSlab[netip.AddrPort, uint64](bruteMetMax)}
}

// Detect implements Detector.
func (d *brute) Detect(_ context.Context, batch []*event.Event, emit func(event.Finding)) error {
	for _, e := range batch {
		if e.Class == event.ClassNetwork && e.Activity == event.ActivityAccept && e.Network.Remote.IsValid() {
			*d.met.touch(unmapped(e.Network.Remote)) = e.Boot
			continue
		}
		if e.Class != event.ClassAuthentication {
			continue
		}
		source := e.Logon.Remote.Unmap()
		if !source.IsValid() || source.IsLoopback() {
			continue
		}
		switch e.Activity {
		case event.ActivityLogonFailure:
			b := d.sources.touch(source)
			if leaked := e.Boot - min(e.Boot, b.at); b.at == 0 || leaked >= b.level {
				*b = bucket{first: e.Boot}
			} else {
				b.level -= leaked
			}
			b.at = max(e.Boot, b.at)
			b.unmet = b.unmet || !d.seen(e)
			if b.level += bruteLeak; b.level <= bruteBurst*bruteLeak {
				continue
			}
			f := logon(e, source, "omega.auth.brute", "password guessing", fmt.Sprintf("%s guesses passwords", source), event.SeverityMedium, 70, "T1110.001")
			f.Boot = b.first
			corroborate(&f, e, b.unmet)
			b.level = 0
			emit(f)
		case event.ActivityLogonSuccess:
			b := d.sources.get(source)
			if b == nil || b.at == 0 || e.Boot < b.at || e.Boot-b.at >= b.level || b.level-(e.Boot-b.at) <= (bruteSuccess-1)*bruteLeak {
				continue
			}
			f := logon(e, source, "omega.auth.guessed", "password guessed", fmt.Sprintf("%s logged on after failures", source), event.SeverityHigh, 75, "T1110.001", "T1078")
			corroborate(&f, e, b.unmet || !d.seen(e))
			b.level = 0
			emit(f)
		}
	}
	return nil
}

// seen says whether the kernel saw the connection that a log-on came over: the same address and port, not long ago. A
// sensor that sees the log-on itself, as a decoy does, needs no other.
func (d *brute) seen(e *event.Event) bool {
	if e.Sensor != logsSensor {
		return true
	}
	at := d.met.get(unmapped(e.Network.Remote))
	return at != nil && e.Boot+bruteLeak >= *at && e.Boot-min(e.Boot, *at) <= bruteMet
}

// corroborate weighs a finding that rests on a log: borne out by the kernel it is sure enough to act on at home (90), and
// alone it stays below what two witnesses need (60), and says why.
func corroborate(f *event.Finding, e *event.Event, unmet bool) {
	switch {
	case e.Sensor != logsSensor:
	case unmet:
		f.Confidence = 40
		evidence(f, "uncorroborated", "a log names this address, but no connection from there was seen")
	default:
		f.Confidence = 92
	}
}

// logsSensor is the name of the sensor whose events are lines that somebody wrote.
const logsSensor = "logs"

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func logon(e *event.Event, source netip.Addr, rule, name, title string, s event.Severity, confidence uint8, attack ...string) event.Finding {
	f := finding(e, rule, name, title, s, confidence, attack...)
	f.Subject.Address = source
	f.Subject.User = redact.Printable(strings.Clone(e.Logon.User), maxPath)
	if e.Logon.Service != "" {
		evidence(&f, "service", e.Logon.Service)
	}
	return f
}
