package indicator

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/omega-mesh/omega/modules/indicator/stix"
)

// Bounds of a set, beside the bytes that NewBuilder is given.
const (
	// MaxPatterns is how many patterns may be held against each event; what they cost is in the README.
	MaxPatterns = 1000
	maxOrigins  = 1<<16 - 1
	maxLabel    = 120
	patternCost = 2 << 10 // bytes charged for a pattern beside its text
)

// ErrFull says that a set has no room for more.
var ErrFull = errors.New("no room: the set is as large as it may be")

// Builder makes a Set. It serves one goroutine.
type Builder struct {
	set     *Set
	budget  int64
	origins map[Origin]uint16
	now     uint32
	adds    int
	bytes   int64
	// measured is what of bytes was the table of values.
	measured int64
}

// NewBuilder begins a set of at most budget bytes; 0 is a GiB. What has ended at now is not taken.
func NewBuilder(budget int64, now time.Time) *Builder {
	if budget <= 0 {
		budget = 1 << 30
	}
	return &Builder{set: newSet(), budget: budget, origins: map[Origin]uint16{}, now: Unix(now)}
}

// Unix is a time as sets have it: seconds, within what 32 bits hold.
func Unix(t time.Time) uint32 { return uint32(min(max(t.Unix(), 1), 1<<32-1)) }

// Item is an indicator that a source gives, but for its value.
type Item struct {
	Source     string
	Label      string
	Confidence uint8     // 0 to 100
	Expires    time.Time // zero never
	// Exact says that a domain is itself alone, not what lies beneath it.
	Exact bool
}

// Add takes a value of a kind. The report counts it, and why if it is not taken; the error is ErrFull, or nil.
func (b *Builder) Add(r *Report, k Kind, value string, it Item) error {
	v, err := normalise(k, value)
	return b.add(r, v, value, it, err)
}

// Guess takes a value whose kind is what it looks like.
func (b *Builder) Guess(r *Report, value string, it Item) error {
	v, err := guess(value)
	return b.add(r, v, value, it, err)
}

func (b *Builder) add(r *Report, v normal, value string, it Item, err error) error {
	r.Read++
	if err != nil {
		r.reject(err.Error(), value)
		return nil
	}
	m, live, err := b.meta(it)
	if err != nil {
		return err
	}
	if !live {
		r.Expired++
		return nil
	}
	fresh, err := b.put(v, m, it.Exact)
	if err != nil {
		return err
	}
	if fresh {
		r.Taken++
	} else {
		r.Duplicate++
	}
	return nil
}

// meta makes an item's; live is false if it has ended.
func (b *Builder) meta(it Item) (m Meta, live bool, err error) {
	if !it.Expires.IsZero() {
		if m.Expires = Unix(it.Expires); m.Expires <= b.now {
			return m, false, nil
		}
	}
	if b.adds++; b.adds&4095 == 0 { // measuring walks the patterns
		b.bytes, b.measured = b.set.Bytes(), b.set.values.bytes()
	}
	if b.bytes >= b.budget {
		return m, true, fmt.Errorf("%w: %d MiB", ErrFull, b.budget>>20)
	}
	m.Confidence = min(it.Confidence, 100)
	o := Origin{Source: it.Source, Label: printable(it.Label, maxLabel)}
	n, ok := b.origins[o]
	if !ok && len(b.origins) >= maxOrigins-64 { // names are given up first, and the last 64 places are for sources
		o.Label = ""
		n, ok = b.origins[o]
	}
	if !ok {
		if len(b.origins) >= maxOrigins {
			return m, true, fmt.Errorf("%w: %d sources", ErrFull, maxOrigins)
		}
		n = uint16(len(b.origins))
		b.origins[o] = n
		b.set.origins = append(b.set.origins, o)
	}
	m.Origin = n
	return m, true, nil
}

func (b *Builder) put(v normal, m Meta, exact bool) (fresh bool, err error) {
	s := b.set
	var value string
	switch v.kind {
	case MD5, SHA1, SHA256:
		value = view(v.sum)
	case IPv4:
		a := v.prefix.Addr().As4()
		value = string(a[:])
	case IPv6:
		a := v.prefix.Addr().As16()
		value = string(a[:])
	case Prefix:
		if !s.nets.add(v.prefix, m) {
			return false, fmt.Errorf("%w: %d prefixes", ErrFull, maxEntries)
		}
		s.count[Prefix]++ // Set takes equal ones together
		return true, nil
	case Domain:
		switch {
		case v.under:
			m.flags = flagSubdomains
		case exact:
			m.flags = flagExact
		default:
			m.flags = flagExact | flagSubdomains
		}
		fallthrough
	default:
		value = v.text
	}
	// A tenth is for the filter, which is made at the end, and for what is told of as full before it is.
	rest := b.bytes - b.measured
	l, i, fresh := s.values.add(v.kind, value, b.budget/10*9-rest)
	if l == nil {
		return false, fmt.Errorf("%w: %d MiB", ErrFull, b.budget>>20)
	}
	if fresh {
		s.count[v.kind]++
	} else {
		m = merge(l.at(i), m)
	}
	l.put(i, m)
	return fresh, nil
}

// Pattern takes a STIX pattern: to the sets as far as it is alternatives of what they have, else to be held against each
// event.
func (b *Builder) Pattern(r *Report, text string, it Item) error {
	r.Read++
	tree, err := stix.Parse(text)
	if err != nil {
		r.reject(reason(err), text)
		return nil
	}
	m, live, err := b.meta(it)
	if err != nil {
		return err
	}
	if end := stix.Expires(tree); !end.IsZero() && Unix(end) <= b.now {
		live = false
	}
	if !live {
		r.Expired++
		return nil
	}
	if values, ok := alternatives(tree); ok {
		if len(values) == 0 {
			r.reject("none of its values can be looked for", text)
			return nil
		}
		some := false
		for _, v := range values {
			fresh, err := b.put(v.normal, m, v.exact)
			if err != nil {
				return err
			}
			some = some || fresh
		}
		if some {
			r.Taken++
		} else {
			r.Duplicate++
		}
		return nil
	}
	matcher, err := stix.Compile(tree)
	if err != nil {
		r.notApplicable(reason(err), text)
		return nil
	}
	if len(b.set.patterns) >= MaxPatterns {
		r.notApplicable(fmt.Sprintf("more than %d patterns that no set can answer", MaxPatterns), text)
		return nil
	}
	b.set.patterns = append(b.set.patterns, pattern{text: strings.Clone(text), matcher: matcher, meta: m})
	b.set.count[Pattern]++
	r.Taken++
	return nil
}

// reason is an error without the words that wrap every one of its kind.
func reason(err error) string {
	s := err.Error()
	s = strings.TrimPrefix(s, stix.ErrNotApplicable.Error()+": ")
	return s
}

// Set ends the building.
func (b *Builder) Set() *Set {
	s := b.set
	b.set = nil
	s.nets.settle()
	s.values.settle()
	s.count[Prefix] = uint64(len(s.nets.v4) + len(s.nets.v6))
	return s
}
