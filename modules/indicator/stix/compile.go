package stix

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/omega-mesh/omega/modules/pattern"
)

// ErrNotApplicable is wrapped by the errors about patterns that are sound and that this host cannot see.
var ErrNotApplicable = errors.New("not applicable here")

// Bounds of what is evaluated event by event.
const (
	MaxObservations = 64      // that one sighting may be made of: brackets times repeats
	maxWildcard     = 1 << 10 // bytes of LIKE and MATCHES
	maxKept         = 64      // partial sightings an observation keeps, the newest
	horizon         = 24 * time.Hour
)

func notApplicable(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNotApplicable, fmt.Sprintf(format, args...))
}

// check is a compiled Test.
type check struct {
	join     Join
	parts    []*check
	field    field
	compare  Compare
	negated  bool
	fold     bool     // names and digests: case says nothing
	texts    []string // sorted, for = and IN
	like     string
	pieces   []string // of a LIKE between its %, where it has no _: found by searching, not character by character
	pattern  *regexp.Regexp
	prefixes []netip.Prefix
	super    bool // ISSUPERSET: the event's is the wider one
	numbers  []float64
	exists   bool
}

func compileTest(t *Test) (*check, error) {
	if t.Join != Leaf {
		c := &check{join: t.Join}
		for _, p := range t.Parts {
			k, err := compileTest(p)
			if err != nil {
				return nil, err
			}
			c.parts = append(c.parts, k)
		}
		slices.SortStableFunc(c.parts, func(a, b *check) int { return a.cost() - b.cost() })
		return c, nil
	}
	c := &check{compare: t.Compare, negated: t.Negated, field: fields[anyIndex(t.Path)]}
	if c.field == fieldNone {
		return nil, notApplicable("no event of this host has %s", clip(t.Path))
	}
	c.fold = c.field == fieldDomain || c.field == fieldFileHash
	if t.Compare == Exists {
		c.exists = true
		return c, nil
	}
	if c.field.number() {
		return c, c.compileNumbers(t)
	}
	address := c.field == fieldAddress || c.field == fieldSource || c.field == fieldDestination
	for _, v := range t.Values {
		if v.Kind != String {
			return nil, notApplicable("%s is text, and is compared with something else", clip(t.Path))
		}
		if address && (t.Compare == Equal || t.Compare == In || t.Compare == IsSubset || t.Compare == IsSuperset) {
			p, err := ParsePrefix(v.Text)
			if err != nil {
				return nil, notApplicable("%q is neither an address nor a prefix", clip(v.Text))
			}
			c.prefixes = append(c.prefixes, p)
			c.super = t.Compare == IsSuperset
			continue
		}
		s := v.Text
		if c.fold {
			s = strings.ToLower(s)
		}
		c.texts = append(c.texts, s)
	}
	if address && c.prefixes == nil {
		return nil, notApplicable("%s of an address", t.Compare)
	}
	switch t.Compare {
	case Equal, In:
		slices.Sort(c.texts)
	case IsSubset, IsSuperset:
		if !address {
			return nil, notApplicable("%s of what is no address", t.Compare)
		}
	case Like:
		if c.like = c.texts[0]; len(c.like) > maxWildcard {
			return nil, notApplicable("a LIKE of more than %d bytes", maxWildcard)
		}
		if !c.fold && !strings.Contains(c.like, "_") {
			c.pieces = strings.Split(c.like, "%")
		}
	case Matches:
		expr := t.Values[0].Text
		if len(expr) > maxWildcard {
			return nil, notApplicable("a MATCHES of more than %d bytes", maxWildcard)
		}
		if c.fold {
			expr = "(?i)" + expr
		}
		var err error
		if c.pattern, _, err = pattern.Compile(expr); err != nil {
			return nil, notApplicable("the expression is not one of RE2's: %v", err)
		}
	}
	return c, nil
}

func (c *check) compileNumbers(t *Test) error {
	if t.Compare > In {
		return notApplicable("%s of a number", t.Compare)
	}
	for _, v := range t.Values {
		if v.Kind != Number {
			return notApplicable("%s is a number, and is compared with something else", clip(t.Path))
		}
		c.numbers = append(c.numbers, v.Number)
	}
	return nil
}

// ParsePrefix reads an address or prefix; an address is a prefix of its whole length, IPv4 in IPv6 is IPv4.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, err
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// classes are the events that can satisfy c: those of the things it names, and of executions where it names but processes.
func (c *check) classes() classSet {
	if c.join == Leaf {
		return c.field.classes()
	}
	var all classSet
	for _, p := range c.parts {
		all |= p.classes()
	}
	if c.join == And && all != classExec {
		// A process beside a flow: the flow is the event, and the process is whose it is.
		all = 0
		for _, p := range c.parts {
			if k := p.classes(); k != classExec || p.join != Leaf {
				all |= k
			}
		}
		if all == 0 {
			all = classExec
		}
	}
	return all
}

func (c *check) holds(o *Observer) bool {
	switch c.join {
	case And:
		for _, p := range c.parts {
			if !p.holds(o) {
				return false
			}
		}
		return true
	case Or:
		for _, p := range c.parts {
			if p.holds(o) {
				return true
			}
		}
		return false
	}
	switch {
	case c.field.number():
		n, ok := o.number(c.field)
		if c.exists {
			return ok != c.negated
		}
		return ok && c.number(n) != c.negated
	case c.field == fieldAddress || c.field == fieldSource || c.field == fieldDestination:
		var room [16]netip.Addr
		all := o.addresses(c.field, room[:0])
		if c.exists {
			return len(all) > 0 != c.negated
		}
		for _, a := range all {
			if c.address(a) != c.negated {
				return true
			}
		}
		return false
	}
	all := o.strings(c.field)
	if c.exists {
		return len(all) > 0 != c.negated
	}
	for _, s := range all {
		if c.text(s) != c.negated {
			return true
		}
	}
	return false
}

func (c *check) number(n float64) bool {
	for _, v := range c.numbers {
		switch c.compare {
		case Equal, In:
			if n == v {
				return true
			}
		case Less:
			return n < v
		case LessEqual:
			return n <= v
		case Greater:
			return n > v
		case GreaterEqual:
			return n >= v
		}
	}
	return false
}

func (c *check) address(a netip.Addr) bool {
	for _, p := range c.prefixes {
		if c.super && p.IsSingleIP() && p.Addr() == a || !c.super && p.Contains(a) {
			return true
		}
	}
	return false
}

func (c *check) text(s string) bool {
	switch c.compare {
	case Equal, In:
		if c.fold {
			for _, v := range c.texts {
				if strings.EqualFold(v, s) {
					return true
				}
			}
			return false
		}
		_, ok := slices.BinarySearch(c.texts, s)
		return ok
	case Like:
		if c.pieces != nil {
			return inOrder(c.pieces, s)
		}
		return wildcard(c.like, s, c.fold)
	case Matches:
		return c.pattern.MatchString(s)
	case Less:
		return s < c.texts[0]
	case LessEqual:
		return s <= c.texts[0]
	case Greater:
		return s > c.texts[0]
	case GreaterEqual:
		return s >= c.texts[0]
	}
	return false
}

// cost ranks checks, so that the cheap ones of several decide first.
func (c *check) cost() int {
	switch {
	case c.join != Leaf:
		return 4
	case c.compare == Matches:
		return 3
	case c.field == fieldCommandLine || c.field == fieldArguments || c.field == fieldURL:
		return 2
	case c.compare == Like:
		return 1
	}
	return 0
}

// inOrder says whether s begins with the first piece, ends with the last, and has the others between them in order.
func inOrder(pieces []string, s string) bool {
	first, last := pieces[0], pieces[len(pieces)-1]
	if len(pieces) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, p := range pieces[1 : len(pieces)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}

// wildcard matches LIKE: % is any number of characters, _ one. It goes back to the last % only.
func wildcard(like, s string, fold bool) bool {
	var i, j int
	star, mark := -1, 0
	for j < len(s) {
		switch {
		case i < len(like) && like[i] == '%':
			star, mark = i, j
			i++
		case i < len(like) && (like[i] == '_' || same(like[i], s[j], fold)):
			if like[i] == '_' { // a character, not a byte
				for j++; j < len(s) && s[j]&0xc0 == 0x80; j++ {
				}
			} else {
				j++
			}
			i++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(like[i:], "%") == ""
}

func same(a, b byte, fold bool) bool {
	if fold && b >= 'A' && b <= 'Z' {
		b += 'a' - 'A'
	}
	return a == b
}
