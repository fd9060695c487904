package indicator

import (
	"context"
	"encoding/hex"
	"hash/maphash"
	"net/netip"
	"strings"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/indicator/stix"
	"github.com/omega-mesh/omega/swarm/event"
)

// Detector looks events up in the set that holds now, and raises findings indicator.address, .domain, .url, .hash, .path
// and .pattern. One value serves one goroutine; it allocates nothing where there is no match.
type Detector struct {
	current   *Current
	sightings *Sightings
	prefix    string // of rule ids, for a module's

	set      *Set
	group    stix.Group
	matchers map[string]*stix.Matcher // by the pattern's text: what they have seen outlives a new set

	recent [recentSlots]recent
	next   int
	sum    [32]byte
	lower  [maxDomain]byte
	url    [maxText + 8]byte
	emit   func(event.Finding)
	event  *event.Event
	// completed is d.pattern: made once, since a method value allocates.
	completed func(int)
}

// One thing that happens is often several events: a question and its answer, a connection and its end. The same process
// and indicator within recentFor is one sighting.
const (
	recentSlots = 16
	recentFor   = uint64(2 * time.Second)
)

type recent struct {
	what uint64
	at   uint64
}

// NewDetector looks events up in current, which may be nil inside and may change at any time; sightings may be nil.
func NewDetector(current *Current, sightings *Sightings) *Detector {
	if sightings == nil {
		sightings = &Sightings{}
	}
	d := &Detector{current: current, sightings: sightings, matchers: map[string]*stix.Matcher{}}
	d.completed = d.pattern
	return d
}

// Detect implements modules.Detector.
func (d *Detector) Detect(ctx context.Context, batch []*event.Event, emit func(event.Finding)) error {
	if s := d.current.Load(); s != d.set {
		d.adopt(s)
	}
	if d.set.Len() == 0 {
		return nil
	}
	d.emit = emit
	for _, e := range batch {
		d.event = e
		d.look(e, uint32(uint64(e.Time)/uint64(time.Second)))
	}
	d.emit, d.event = nil, nil
	return ctx.Err()
}

// adopt takes a new set over.
func (d *Detector) adopt(s *Set) {
	d.set = s
	d.group.Clear()
	old := d.matchers
	d.matchers = map[string]*stix.Matcher{}
	if s == nil {
		return
	}
	for i, p := range s.patterns {
		m := old[p.text]
		if m == nil {
			m = p.matcher.Fork()
		}
		if d.matchers[p.text] == nil {
			d.matchers[p.text] = m
			d.group.Add(i, m)
		}
	}
}

func (d *Detector) look(e *event.Event, now uint32) {
	switch e.Class {
	case event.ClassNetwork:
		if e.Activity != event.ActivityListen && e.Activity != event.ActivityBind {
			d.address(e.Network.Remote.Addr(), now)
			d.domain(e.Network.Name, now)
			d.domain(e.Network.SNI, now)
		}
	case event.ClassDNS:
		d.domain(e.DNS.Name, now)
		for rest := e.DNS.Answers; rest != "" && d.set.Len(IPv4, IPv6, Prefix, Domain) > 0; {
			var w string
			w, rest, _ = strings.Cut(rest, "\x00")
			if a, err := parseAddress(w); err {
				d.address(a, now)
			} else {
				d.domain(w, now)
			}
		}
	case event.ClassProcess:
		if e.Activity == event.ActivityExec {
			d.path(e.Process.Exe, now)
			d.path(e.Process.Script, now)
			d.hash(e.File.Hash, now)
			d.words(e.Process.Args, now)
		}
	case event.ClassFile, event.ClassFileIntegrity:
		d.path(e.File.Path, now)
		if e.Activity == event.ActivityFileRename || e.Activity == event.ActivityFileLink {
			d.path(e.File.Other, now)
		}
		d.hash(e.File.Hash, now)
	case event.ClassAuthentication:
		d.address(e.Logon.Remote, now)
	}
	d.group.Observe(e, d.completed)
}

// parseAddress is netip.ParseAddr without its error's allocation for what is plainly a name.
func parseAddress(s string) (netip.Addr, bool) {
	if s == "" || len(s) > 45 || s[0] > '9' && !strings.Contains(s, ":") {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	return a, err == nil
}

func (d *Detector) address(a netip.Addr, now uint32) {
	if m, ok := d.set.Address(a, now); ok {
		d.found(&m, a.Unmap().String())
	}
}

func (d *Detector) domain(name string, now uint32) {
	if name == "" || len(name) > maxDomain {
		return
	}
	for i := range len(name) {
		if c := name[i]; c >= 'A' && c <= 'Z' {
			name = view(appendLower(d.lower[:0], name))
			break
		}
	}
	if m, ok := d.set.Domain(name, now); ok {
		d.found(&m, name)
	}
}

// path looks a path up, and its last element as a name.
func (d *Detector) path(p string, now uint32) {
	if p == "" {
		return
	}
	if m, ok := d.set.Text(Path, p, now); ok {
		d.found(&m, p)
	}
	if m, ok := d.set.Text(Name, p[strings.LastIndexByte(p, '/')+1:], now); ok {
		d.found(&m, p)
	}
}

func (d *Detector) hash(text string, now uint32) {
	if len(text) != 2*len(d.sum) {
		return
	}
	for i := range d.sum {
		hi, lo := nibble(text[2*i]), nibble(text[2*i+1])
		if hi|lo > 15 {
			return
		}
		d.sum[i] = hi<<4 | lo
	}
	if m, ok := d.set.Digest(d.sum[:], now); ok {
		d.found(&m, hex.EncodeToString(d.sum[:]))
	}
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// words looks up the URLs among the words of a command, and their hosts.
func (d *Detector) words(args string, now uint32) {
	for args != "" && d.set.Len(URL, Domain, IPv4, IPv6, Prefix) > 0 {
		var w string
		w, args, _ = strings.Cut(args, "\x00")
		for {
			i := strings.Index(w, "://")
			if i < 0 {
				break
			}
			from := i
			for from > 0 && isScheme(w[from-1]) {
				from--
			}
			end := i + 3
			for end < len(w) && w[end] > ' ' && strings.IndexByte("\"'`<>|;\\)", w[end]) < 0 {
				end++
			}
			d.link(w[from:end], now)
			w = w[end:]
		}
	}
}

func isScheme(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func (d *Detector) link(s string, now uint32) {
	b, ok := appendURL(d.url[:0], s)
	if !ok {
		return
	}
	u := view(b)
	if m, ok := d.set.Text(URL, u, now); ok {
		d.found(&m, u)
		return
	}
	host := u[strings.Index(u, "://")+3:]
	host = host[:strings.IndexByte(host, '/')]
	if strings.HasPrefix(host, "[") {
		host, _, _ = strings.Cut(host[1:], "]")
	} else {
		host, _, _ = strings.Cut(host, ":")
	}
	if a, ok := parseAddress(host); ok {
		d.address(a, now)
	} else {
		d.domain(host, now)
	}
}

func (d *Detector) pattern(i int) {
	p := &d.set.patterns[i]
	if now := uint32(uint64(d.event.Time) / uint64(time.Second)); !p.meta.live(now) {
		return
	}
	m := d.set.match(Pattern, printable(p.text, modules.MaxFindingText), p.meta)
	d.found(&m, "")
}

// found counts a sighting and tells it, unless it was told a moment ago of the same process.
func (d *Detector) found(m *Match, seen string) {
	e := d.event
	var h maphash.Hash
	h.SetSeed(d.set.seed)
	h.WriteString(m.Value)
	h.WriteByte(byte(m.Kind))
	what := h.Sum64() ^ uint64(e.Process.Key.PID)<<32 ^ e.Process.Key.Start
	for _, r := range d.recent {
		if r.what == what && e.Boot-r.at < recentFor {
			return
		}
	}
	d.recent[d.next] = recent{what, e.Boot}
	d.next = (d.next + 1) % recentSlots
	d.sightings.Record(m, e.Time)
	d.emit(d.finding(m, seen))
}

// titles are by the end of the rule's id.
func (m *Match) title() string {
	switch m.Kind.rule() {
	case "hash":
		return "A file that is listed as bad"
	case "address":
		return "An address that is listed as bad"
	case "domain":
		return "A domain that is listed as bad"
	case "url":
		return "A command with a URL that is listed as bad"
	case "path":
		return "A file name or path that is listed as bad"
	}
	return "Events that match a published pattern"
}

func (m *Match) severity() event.Severity {
	switch {
	case m.Confidence >= 75:
		return event.SeverityHigh
	case m.Confidence >= 40:
		return event.SeverityMedium
	}
	return event.SeverityLow
}

func (d *Detector) finding(m *Match, seen string) event.Finding {
	e := d.event
	rule := "indicator." + m.Kind.rule()
	f := event.Finding{
		Time: e.Time, Boot: e.Boot, RuleID: d.prefix + rule, Rule: strings.ReplaceAll(rule, ".", "-"), Title: m.title(),
		Severity: m.severity(), Confidence: m.Confidence,
	}
	if e.Process.Key.PID != 0 {
		f.Subject.Process = modules.Process(&e.Process)
	}
	switch {
	case e.Network.Remote.IsValid():
		f.Subject.Address = e.Network.Remote.Addr().Unmap()
	case e.Logon.Remote.IsValid():
		f.Subject.Address = e.Logon.Remote.Unmap()
	}
	f.Subject.File, f.Subject.User = modules.Printable(e.File.Path), modules.Printable(e.Logon.User)
	if f.Subject.File == "" && m.Kind.rule() == "hash" {
		f.Subject.File = modules.Printable(e.Process.Exe)
	}
	for _, v := range [...]event.Evidence{
		{Name: "indicator", Value: m.Value}, {Name: "indicator_kind", Value: m.Kind.String()}, {Name: "source", Value: m.Origin.Source},
		{Name: "label", Value: m.Origin.Label}, {Name: "seen", Value: seen}, {Name: "event", Value: e.Class.String() + " " + e.Activity.String()},
	} {
		if v.Value != "" {
			v.Value = modules.Printable(v.Value)
			f.Evidence = append(f.Evidence, v)
		}
	}
	return f
}

// Detector looks events up in s alone, under rule ids that begin with prefix: a module's.
func (s *Set) Detector(prefix string) *Detector {
	var current Current
	current.Store(s)
	d := NewDetector(&current, nil)
	d.prefix = prefix
	return d
}
