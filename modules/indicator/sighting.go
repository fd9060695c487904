package indicator

import (
	"cmp"
	"slices"
	"strings"
	"sync"
)

// MaxSightings bounds the values whose sightings are counted one by one; what is over is counted together.
const MaxSightings = 10_000

// Sighting is how often an indicator was seen on this host.
type Sighting struct {
	Kind   string `json:"kind"`
	Value  string `json:"value"`
	Source string `json:"source"`
	Label  string `json:"label,omitempty"`
	Count  uint64 `json:"count"`
	First  int64  `json:"first"` // Unix nanoseconds
	Last   int64  `json:"last"`
}

// Sightings counts. It is safe for concurrent use; its zero value is ready.
type Sightings struct {
	mu    sync.Mutex
	by    map[sightingKey]*Sighting
	total uint64
	over  uint64
}

type sightingKey struct{ kind, value, source string }

// Record counts one at a time of the event.
func (s *Sightings) Record(m *Match, at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total++
	s.merge(Sighting{Kind: m.Kind.String(), Value: m.Value, Source: m.Origin.Source, Label: m.Origin.Label, Count: 1, First: at, Last: at})
}

func (s *Sightings) merge(x Sighting) {
	k := sightingKey{x.Kind, x.Value, x.Source}
	old := s.by[k]
	switch {
	case old != nil:
		old.Count += x.Count
		old.First, old.Last = min(old.First, x.First), max(old.Last, x.Last)
	case len(s.by) >= MaxSightings:
		s.over += x.Count
	default:
		if s.by == nil {
			s.by = map[sightingKey]*Sighting{}
		}
		s.by[k] = &x
	}
}

// Restore adds what was counted in an earlier life.
func (s *Sightings) Restore(all []Sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range all[:min(len(all), MaxSightings)] {
		x.Kind, x.Value = printable(x.Kind, 64), printable(x.Value, maxText)
		s.total += x.Count
		s.merge(x)
	}
}

// All lists them, the last seen first.
func (s *Sightings) All() []Sighting {
	s.mu.Lock()
	out := make([]Sighting, 0, len(s.by))
	for _, x := range s.by {
		out = append(out, *x)
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b Sighting) int {
		return cmp.Or(cmp.Compare(b.Last, a.Last), strings.Compare(a.Value, b.Value))
	})
	return out
}

// Of gives those of one value, over all sources.
func (s *Sightings) Of(value string) (out []Sighting) {
	for _, x := range s.All() {
		if x.Value == value {
			out = append(out, x)
		}
	}
	return out
}

// Count is how many there were in all, and how many of values that were not counted one by one.
func (s *Sightings) Count() (total, over uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total, s.over
}
