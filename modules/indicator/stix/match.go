package stix

import (
	"math/bits"
	"slices"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Matcher holds one pattern against the events it is shown. Observations of a whole are different events, at most a day
// apart even where the pattern says no WITHIN; what it keeps is bounded, the oldest goes first. It serves one goroutine.
type Matcher struct {
	root *watch
}

// watch is an observation expression with what it has seen. And and FollowedBy have two parts.
type watch struct {
	join       Join
	parts      []*watch
	check      *check
	classes    classSet
	qualifiers []Qualifier
	state      bool // what it saw must be remembered, since a parent or a qualifier asks for it
	kept       []sighting
	repeats    [][]sighting // what each REPEATS has seen of what came before it
	fresh      []sighting
}

// sighting is a set of events that satisfy a part: their first and last time, and their numbers.
type sighting struct {
	first, last int64
	events      []uint64 // ascending
}

// Compile makes a pattern a Matcher, or wraps ErrNotApplicable.
func Compile(n *Node) (*Matcher, error) {
	w, count, err := compile(n)
	if err != nil {
		return nil, err
	}
	if count > MaxObservations {
		return nil, notApplicable("a sighting of %d events, more than %d", count, MaxObservations)
	}
	return &Matcher{root: w}, nil
}

// compile also says how many events a sighting may be made of.
func compile(n *Node) (w *watch, count int, err error) {
	switch n.Join {
	case Leaf:
		c, err := compileTest(n.Test)
		if err != nil {
			return nil, 0, err
		}
		w, count = &watch{check: c, classes: c.classes()}, 1
	case Or:
		w = &watch{join: Or}
		for _, p := range n.Parts {
			k, c, err := compile(p)
			if err != nil {
				return nil, 0, err
			}
			w.parts, w.classes, count = append(w.parts, k), w.classes|k.classes, max(count, c)
			w.state = w.state || k.state
		}
	default:
		for i, p := range n.Parts {
			k, c, err := compile(p)
			if err != nil {
				return nil, 0, err
			}
			if count += c; i == 0 {
				w = k
				continue
			}
			w = &watch{join: n.Join, parts: []*watch{w, k}, classes: w.classes | k.classes, state: true}
		}
	}
	for _, q := range n.Qualifiers {
		if q.Repeats > 1 {
			count *= q.Repeats
			w.state = true
		}
		if count > MaxObservations {
			return nil, 0, notApplicable("a sighting of %d events, more than %d", count, MaxObservations)
		}
	}
	if len(n.Qualifiers) > 0 {
		// A part with qualifiers of its own stands under the one that has these: their order stays.
		w = &watch{join: Or, parts: []*watch{w}, classes: w.classes, qualifiers: n.Qualifiers, state: w.state, repeats: make([][]sighting, len(n.Qualifiers))}
	}
	return w, count, nil
}

// Observe says whether the event that o has taken completes the pattern. What led to it is forgotten then, so that one
// story is told once.
func (m *Matcher) Observe(o *Observer) bool {
	w := m.root
	if w.classes&o.class == 0 {
		return false
	}
	if !w.state {
		return w.once(o)
	}
	if len(w.step(o)) == 0 {
		return false
	}
	w.reset()
	return true
}

// once is for what needs no memory: it allocates nothing.
func (w *watch) once(o *Observer) bool {
	if w.classes&o.class == 0 || !w.during(o.e.Time) {
		return false
	}
	if w.check != nil {
		return w.check.holds(o)
	}
	for _, p := range w.parts {
		if p.once(o) {
			return true
		}
	}
	return false
}

// during is what START … STOP asks.
func (w *watch) during(at int64) bool {
	for _, q := range w.qualifiers {
		if !q.Start.IsZero() && (at < q.Start.UnixNano() || at >= q.Stop.UnixNano()) {
			return false
		}
	}
	return true
}

// step gives the sightings that the event in hand completes.
func (w *watch) step(o *Observer) []sighting {
	fresh := w.fresh[:0]
	if w.classes&o.class != 0 {
		switch {
		case w.check != nil:
			if w.check.holds(o) {
				fresh = append(fresh, sighting{first: o.e.Time, last: o.e.Time, events: []uint64{o.seq}})
			}
		case w.join == Or:
			for _, p := range w.parts {
				fresh = append(fresh, p.step(o)...)
			}
		default:
			left, right := w.parts[0], w.parts[1]
			l, r := left.step(o), right.step(o)
			fresh = w.pairs(fresh, left.kept, r)
			if w.join == And {
				fresh = w.pairs(fresh, right.kept, l)
			}
			left.keep(l, o.e.Time)
			right.keep(r, o.e.Time)
		}
		fresh = w.qualify(fresh, o.e.Time)
	}
	w.fresh = fresh[:min(len(fresh), maxKept)]
	return w.fresh
}

// pairs joins what was kept with what is new; a FollowedBy wants the kept one to be over by then.
func (w *watch) pairs(to, kept, fresh []sighting) []sighting {
	for _, f := range fresh {
		for _, k := range slices.Backward(kept) { // the newest make the shortest
			if len(to) >= maxKept {
				return to
			}
			if w.join == FollowedBy && k.last > f.first {
				continue
			}
			if s, ok := union(k, f); ok {
				to = append(to, s)
			}
		}
	}
	return to
}

// union is both, if they share no event.
func union(a, b sighting) (sighting, bool) {
	events := make([]uint64, 0, len(a.events)+len(b.events))
	events = append(append(events, a.events...), b.events...)
	slices.Sort(events)
	for i := 1; i < len(events); i++ {
		if events[i] == events[i-1] {
			return sighting{}, false
		}
	}
	return sighting{first: min(a.first, b.first), last: max(a.last, b.last), events: events}, true
}

func (w *watch) keep(fresh []sighting, now int64) { w.kept = kept(w.kept, fresh, now) }

// kept forgets what is too old, and the oldest of too many.
func kept(all, fresh []sighting, now int64) []sighting {
	old := 0
	for old < len(all) && all[old].last < now-int64(horizon) {
		old++
	}
	old = max(old, len(all)+len(fresh)-maxKept)
	all = slices.Delete(all, 0, min(max(old, 0), len(all)))
	return append(all, fresh[:min(len(fresh), maxKept)]...)
}

func (w *watch) qualify(fresh []sighting, now int64) []sighting {
	for i, q := range w.qualifiers {
		switch {
		case q.Within > 0:
			fresh = slices.DeleteFunc(fresh, func(s sighting) bool { return s.last-s.first > int64(q.Within) })
		case q.Repeats > 1:
			var out []sighting
			for _, f := range fresh {
				n := 1
				for _, k := range slices.Backward(w.repeats[i]) {
					if u, ok := union(f, k); ok {
						if f, n = u, n+1; n == q.Repeats {
							out = append(out, f)
							break
						}
					}
				}
			}
			w.repeats[i] = kept(w.repeats[i], slices.Clone(fresh), now)
			fresh = out
		case !q.Start.IsZero():
			fresh = slices.DeleteFunc(fresh, func(s sighting) bool {
				return s.first < q.Start.UnixNano() || s.last >= q.Stop.UnixNano()
			})
		}
	}
	return fresh
}

// reset forgets what was seen.
func (w *watch) reset() {
	w.kept, w.fresh = nil, nil
	clear(w.repeats)
	for _, p := range w.parts {
		p.reset()
	}
}

// Fork is a matcher of the same pattern that has seen nothing.
func (m *Matcher) Fork() *Matcher { return &Matcher{root: m.root.fork()} }

func (w *watch) fork() *watch {
	c := *w
	c.kept, c.fresh, c.parts = nil, nil, nil
	c.repeats = make([][]sighting, len(w.repeats))
	for _, p := range w.parts {
		c.parts = append(c.parts, p.fork())
	}
	return &c
}

// Group is matchers by the kinds of events they look at. It serves one goroutine.
type Group struct {
	observer Observer
	by       [classCount][]member
}

type member struct {
	id int
	m  *Matcher
}

// Clear leaves the group without members; events go on being numbered, so that those who come back know them apart.
func (g *Group) Clear() { clear(g.by[:]) }

// Add makes m a member that is known by a number.
func (g *Group) Add(id int, m *Matcher) {
	for i := range g.by {
		if m.root.classes&(1<<i) != 0 {
			g.by[i] = append(g.by[i], member{id, m})
		}
	}
}

// Observe calls f with the number of every member that e completes.
func (g *Group) Observe(e *event.Event, f func(id int)) {
	class := classOf(e)
	if class == 0 {
		return
	}
	members := g.by[bits.TrailingZeros8(uint8(class))]
	if len(members) == 0 {
		return
	}
	g.observer.Take(e)
	for _, m := range members {
		if m.m.Observe(&g.observer) {
			f(m.id)
		}
	}
}

// Expires says after which time a pattern cannot match any more, by its START … STOP; zero if it always may.
func Expires(n *Node) time.Time {
	for _, q := range n.Qualifiers {
		if !q.Stop.IsZero() {
			return q.Stop
		}
	}
	return time.Time{}
}
