package sigma

import (
	"context"
	"fmt"
	"strings"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
)

// maxPlans bounds the kinds of events that are told apart; what comes after is looked at with all rules.
const maxPlans = 512

// maxChain is how many correlations may stand on one another.
const maxChain = 16

// Detector runs a set of rules over events. One value serves one goroutine; correlations are its own.
type Detector struct {
	set    *Set
	m      *matcher
	scan   *scan
	plans  map[planKey]*plan
	own    map[uint32]*plan // of our own events whose log source follows from class and activity
	feeds  map[*Rule][]*correlator
	prefix string // of rule ids, for a module's rules
	chain  int
}

type planKey struct{ first, second LogSource }

// NewDetector makes the rules of a set one matcher.
func NewDetector(set *Set) *Detector {
	var rules []*Rule
	d := &Detector{set: set, plans: map[planKey]*plan{}, own: map[uint32]*plan{}, feeds: map[*Rule][]*correlator{}}
	byName := map[string]*Rule{}
	for _, r := range set.Rules {
		byName[r.ID], byName[r.Name] = r, r
		if r.correlation == nil {
			rules = append(rules, r)
			continue
		}
		members := map[*Rule]int{}
		k := newCorrelator(r, members)
		for i, name := range r.correlation.rules {
			of := byName[name]
			members[of] = i
			d.feeds[of] = append(d.feeds[of], k)
		}
	}
	d.m = newMatcher(rules)
	d.scan = newScan(d.m)
	return d
}

// Release lets go of what the rules were compiled from. Their set makes no further detector after it.
func (d *Detector) Release() {
	for _, r := range d.m.rules {
		r.detection = nil
	}
}

// Detect implements modules.Detector.
func (d *Detector) Detect(ctx context.Context, batch []*event.Event, emit func(event.Finding)) error {
	for _, e := range batch {
		d.Event(e, func(r *Rule) { emit(d.Finding(r, e)) })
	}
	return ctx.Err()
}

// Event calls f with every rule and correlation that e completes. It allocates nothing where there is none.
func (d *Detector) Event(e *event.Event, f func(*Rule)) {
	kind := uint32(e.Class)<<8 | uint32(e.Activity)
	p, ok := d.own[kind]
	if !ok {
		s := sources(e)
		p = d.plan(planKey{s[0], s[1]}, true)
		if e.Class != event.ClassAuthentication && e.Class != event.ClassScheduledJob { // there the service is named in the event
			d.own[kind] = p
		}
	}
	d.look(p, e, nil, e.Time, f)
}

// Record does the same for an event of another source; at is its time in Unix nanoseconds.
func (d *Detector) Record(r *Record, at int64, f func(*Rule)) {
	d.look(d.plan(planKey{r.Source, LogSource{}}, false), nil, r, at, f)
}

func (d *Detector) look(p *plan, e *event.Event, rec *Record, at int64, f func(*Rule)) {
	if p.rules == 0 {
		return
	}
	for _, i := range d.scan.match(p, e, rec) {
		d.matched(d.m.rules[i], e, rec, at, f)
	}
}

// plan is how events of some log sources are looked at.
func (d *Detector) plan(key planKey, own bool) *plan {
	if p, ok := d.plans[key]; ok {
		return p
	}
	if len(d.plans) >= maxPlans {
		clear(d.plans) // names of services are the senders': they cannot fill memory
	}
	for _, s := range []*LogSource{&key.first, &key.second} {
		s.Category, s.Product, s.Service = strings.Clone(s.Category), strings.Clone(s.Product), strings.Clone(s.Service)
	}
	p := d.m.plan(func(r *Rule) bool {
		return own && key.second != (LogSource{}) && r.Source.covers(key.second) && r.Source.Service == key.second.Service ||
			(!own || key.first.Category != "" || key.first.Service != "") && r.Source.covers(key.first)
	})
	d.plans[key] = p
	return p
}

func (d *Detector) matched(r *Rule, e *event.Event, rec *Record, at int64, f func(*Rule)) {
	if !r.quiet {
		f(r)
	}
	if d.chain >= maxChain {
		return
	}
	d.chain++
	for _, k := range d.feeds[r] {
		if k.matched(r, at, func(name string) string { return fieldText(d.m, e, rec, name) }) {
			d.matched(k.rule, e, rec, at, f)
		}
	}
	d.chain--
}

// Dropped is how many groups and matches correlations had to forget before their time.
func (d *Detector) Dropped() uint64 {
	var n uint64
	seen := map[*correlator]bool{}
	for _, ks := range d.feeds {
		for _, k := range ks {
			if !seen[k] {
				seen[k] = true
				n += k.dropped
			}
		}
	}
	return n
}

// Finding is what a match of r on e says. It takes nothing of e but copies.
func (d *Detector) Finding(r *Rule, e *event.Event) event.Finding {
	f := Finding(r, e.Time)
	f.RuleID = d.prefix + f.RuleID
	f.Boot = e.Boot
	if e.Process.Key.PID != 0 {
		f.Subject.Process = modules.Process(&e.Process)
	}
	if e.Network.Remote.IsValid() {
		f.Subject.Address = e.Network.Remote.Addr().Unmap()
	} else if e.Logon.Remote.IsValid() {
		f.Subject.Address = e.Logon.Remote.Unmap()
	}
	f.Subject.File, f.Subject.User = modules.Printable(e.File.Path), modules.Printable(e.Logon.User)
	return f
}

// Finding is what a match of r says, but for its subject.
func Finding(r *Rule, at int64) event.Finding {
	id := r.ID
	if id == "" {
		id = slug(r.Title)
	}
	name := r.Name
	if name == "" {
		name = slug(r.Title)
	}
	return event.Finding{Time: at, RuleID: id, Rule: name, Title: modules.Printable(r.Title), Attack: r.Attack, Severity: r.Severity(), Confidence: r.confidence()}
}

// slug makes a title a name.
func slug(title string) string {
	s := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			return c
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		}
		return '-'
	}, title)
	return strings.Trim(s[:min(len(s), 63)], "-")
}

// Engine runs modules whose payload is Sigma rules, one YAML document each.
type Engine struct{ Placeholders map[string][]string }

// Kind implements modules.Engine.
func (Engine) Kind() modules.Kind { return modules.KindSigma }

// Compile implements modules.Engine: a module with a rejected rule, or none that applies here, is refused.
func (e Engine) Compile(ctx context.Context, m *modules.Manifest, payload []byte) (modules.Program, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	set := Parse(m.Name, payload, Options{Placeholders: e.Placeholders})
	if len(set.Rejected) > 0 {
		return nil, fmt.Errorf("%w: %s: %s", modules.ErrRefused, m.Name, set.Rejected[0].Why)
	}
	if len(set.Rules) == 0 {
		why := "it has no rules"
		if len(set.NotApplicable) > 0 {
			why = set.NotApplicable[0].Why
		}
		return nil, fmt.Errorf("%w: %s: %s", modules.ErrRefused, m.Name, why)
	}
	return &program{set: set, prefix: modules.RuleID(m.Name, "")}, nil
}

// Close implements modules.Engine.
func (Engine) Close(context.Context) error { return nil }

type program struct {
	set    *Set
	prefix string
}

func (p *program) Detector(context.Context, modules.Host) (modules.Detector, error) {
	d := NewDetector(p.set)
	d.prefix = p.prefix
	return d, nil
}

func (*program) Close(context.Context) error { return nil }
