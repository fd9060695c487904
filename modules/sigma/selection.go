package sigma

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// errPlaceholder is wrapped where a rule needs a value that only this place can give.
var errPlaceholder = errors.New("placeholder without values here")

// compiler turns the selections of one rule into expressions.
type compiler struct {
	space        string // name space of its fields
	placeholders map[string][]string
	atoms        int
	budget       *budget // of the whole set; nil where nothing is kept of what is compiled
}

// budget is what all rules of a set may come to together: a filter is compiled for each rule that it concerns, so that a short
// file could be a large set.
type budget struct {
	values int
	steps  int // of regular expressions, see package pattern
}

// What a set may come to: the public rules have some 30,000 values.
const (
	maxValuesInSet = 1_000_000
	maxStepsInSet  = 1 << 20 // some 50 MB
)

// selection compiles what stands under a selection's name.
func (c *compiler) selection(n *yaml.Node) (*expr, error) {
	switch n.Kind {
	case yaml.MappingNode:
		return c.mapping(n)
	case yaml.SequenceNode:
		var kids []*expr
		for _, item := range n.Content {
			var e *expr
			var err error
			if item.Kind == yaml.MappingNode {
				e, err = c.mapping(item)
			} else {
				e, err = c.item("", []*yaml.Node{item}, false)
			}
			if err != nil {
				return nil, err
			}
			kids = append(kids, e)
		}
		if len(kids) == 0 {
			return nil, refuse("line %d: an empty selection", n.Line)
		}
		return join(opOr, kids...), nil
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return nil, refuse("line %d: an empty selection", n.Line)
		}
		return c.item("", []*yaml.Node{n}, false)
	}
	return nil, refuse("line %d: a selection is a map or a list", n.Line)
}

func (c *compiler) mapping(n *yaml.Node) (*expr, error) {
	var kids []*expr
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, v := n.Content[i], n.Content[i+1]
		values, listed := []*yaml.Node{v}, false
		switch v.Kind {
		case yaml.SequenceNode:
			values, listed = v.Content, true
		case yaml.MappingNode:
			return nil, refuse("line %d: field %.80q has a map for its value", v.Line, key.Value)
		}
		e, err := c.item(key.Value, values, listed)
		if err != nil {
			return nil, err
		}
		kids = append(kids, e)
	}
	if len(kids) == 0 {
		return nil, refuse("line %d: an empty selection", n.Line)
	}
	return join(opAnd, kids...), nil
}

// modifiers of a field, sorted by what they do. Order matters only among those that change values.
type modifiers struct {
	all, neq, cased, re, cidr, exists, fieldref, expand bool

	before, after bool // contains, startswith, endswith
	affix         string
	flags         string // of a regular expression
	compare       question
	compared      bool
	part          string
	change        []string // transformations, in their order
}

func parseModifiers(names []string) (m modifiers, err error) {
	for _, name := range names {
		switch name {
		case "all":
			m.all = true
		case "neq":
			m.neq = true
		case "cased":
			m.cased = true
		case "re":
			m.re = true
		case "i", "m", "s":
			if !m.re {
				return m, refuse("modifier %q belongs behind \"re\"", name)
			}
			m.flags += name
		case "cidr":
			m.cidr = true
		case "exists":
			m.exists = true
		case "fieldref":
			m.fieldref = true
		case "expand":
			m.expand = true
		case "contains", "startswith", "endswith":
			m.affix = name
			m.before, m.after = name != "startswith", name != "endswith"
		case "lt", "lte", "gt", "gte":
			m.compared = true
			m.compare = map[string]question{"lt": askLess, "lte": askLessEqual, "gt": askGreater, "gte": askGreaterEqual}[name]
		case "minute", "hour", "day", "week", "month", "year":
			m.part = name
		case "windash", "base64", "base64offset", "utf16le", "wide", "utf16be", "utf16":
			m.change = append(m.change, name)
		default:
			return m, refuse("there is no modifier %.40q", name)
		}
	}
	if m.re && (m.affix != "" || m.cidr || m.compared || len(m.change) > 0) || m.cidr && (m.affix != "" || m.compared) {
		return m, refuse("modifiers %s do not go together", strings.Join(names, "|"))
	}
	return m, nil
}

// item compiles one field with its values: one of them must be so, or each with "all".
func (c *compiler) item(key string, values []*yaml.Node, listed bool) (*expr, error) {
	names := strings.Split(key, "|")
	field := names[0]
	m, err := parseModifiers(names[1:])
	if err != nil {
		return nil, err
	}
	if m.all && len(values) < 2 && !listed {
		return nil, refuse("%.80q: \"all\" of a single value", key)
	}
	if len(values) == 0 {
		return nil, refuse("%.80q has no values", key)
	}
	slot := ""
	if field != "" {
		slot = c.space + field
	}
	var kids []*expr
	for _, v := range values {
		if v.Kind != yaml.ScalarNode {
			return nil, refuse("line %d: a value of %.80q is no plain value", v.Line, key)
		}
		e, err := c.value(slot, m, v)
		if err != nil {
			return nil, err
		}
		kids = append(kids, e)
	}
	op := opOr
	if m.all {
		op = opAnd
	}
	e := join(op, kids...)
	if m.neq {
		e = negate(e)
	}
	return e, nil
}

func (c *compiler) leaf(a *atom) (*expr, error) {
	if c.atoms++; c.atoms > maxAtoms {
		return nil, refuse("more than %d values", maxAtoms)
	}
	if b := c.budget; b != nil {
		if b.values++; b.values > maxValuesInSet {
			return nil, refuse("all rules together have more than %d values", maxValuesInSet)
		}
		if b.steps += a.steps; b.steps > maxStepsInSet {
			return nil, refuse("the regular expressions of all rules together have more than %d steps", maxStepsInSet)
		}
	}
	return &expr{op: opAtom, atom: a}, nil
}

// value compiles one value.
func (c *compiler) value(slot string, m modifiers, n *yaml.Node) (*expr, error) {
	if len(n.Value) > maxText {
		return nil, refuse("line %d: a value of %d bytes", n.Line, len(n.Value))
	}
	switch {
	case m.exists:
		var want bool
		if err := n.Decode(&want); err != nil {
			return nil, refuse("line %d: \"exists\" takes true or false", n.Line)
		}
		e, err := c.leaf(&atom{slot: slot, ask: askExists})
		if err == nil && !want {
			e = negate(e)
		}
		return e, err
	case n.Tag == "!!null":
		return c.leaf(&atom{slot: slot, ask: askNull})
	case m.fieldref:
		ask := map[string]question{"": askFieldEquals, "contains": askFieldContains, "startswith": askFieldPrefix, "endswith": askFieldSuffix}[m.affix]
		return c.leaf(&atom{slot: slot, ask: ask, text: c.space + n.Value, cased: m.cased})
	case m.re:
		a, err := newRegexp(slot, n.Value, m.flags)
		if err != nil {
			return nil, err
		}
		return c.leaf(a)
	case m.cidr:
		p, err := parsePrefix(n.Value)
		if err != nil {
			return nil, refuse("line %d: %.80q is no network", n.Line, n.Value)
		}
		return c.leaf(&atom{slot: slot, ask: askCIDR, cidr: p})
	case m.compared || m.part != "":
		num, err := strconv.ParseFloat(n.Value, 64)
		if err != nil {
			return nil, refuse("line %d: %.80q is no number", n.Line, n.Value)
		}
		if m.compared {
			return c.leaf(&atom{slot: slot, ask: m.compare, num: num, part: m.part})
		}
		least, err := c.leaf(&atom{slot: slot, ask: askGreaterEqual, num: num, part: m.part})
		if err != nil {
			return nil, err
		}
		most, err := c.leaf(&atom{slot: slot, ask: askLessEqual, num: num, part: m.part})
		return join(opAnd, least, most), err
	}
	vs, err := c.expand(m, n.Value)
	if err != nil {
		return nil, err
	}
	if vs, err = transform(vs, m.change); err != nil {
		return nil, err
	}
	var kids []*expr
	for _, v := range vs {
		v = v.open(m.before || slot == "", m.after || slot == "") // keywords stand anywhere in the message
		e, err := c.leaf(newText(slot, v, m.cased))
		if err != nil {
			return nil, err
		}
		kids = append(kids, e)
	}
	return join(opOr, kids...), nil
}

// expand puts the values of placeholders in their places.
func (c *compiler) expand(m modifiers, s string) ([]value, error) {
	if !m.expand {
		return []value{parseValue(s)}, nil
	}
	texts := []string{""}
	for s != "" {
		i := strings.IndexByte(s, '%')
		if i > 0 && s[i-1] == '\\' {
			for n := range texts {
				texts[n] += s[:i-1] + "%"
			}
			s = s[i+1:]
			continue
		}
		j := -1
		if i >= 0 {
			j = strings.IndexByte(s[i+1:], '%')
		}
		if j < 0 {
			for n := range texts {
				texts[n] += s
			}
			break
		}
		name := s[i+1 : i+1+j]
		values := c.placeholders[name]
		if len(values) == 0 {
			return nil, errors.Join(refuse("%%%.80s%% has no values", name), errPlaceholder)
		}
		if len(texts)*len(values) > 1000 {
			return nil, refuse("its placeholders give more than 1,000 values")
		}
		var next []string
		for _, t := range texts {
			for _, v := range values {
				next = append(next, t+s[:i]+v)
			}
		}
		texts, s = next, s[i+1+j+1:]
	}
	out := make([]value, len(texts))
	for i, t := range texts {
		out[i] = parseValue(t)
	}
	return out, nil
}

// transform applies the modifiers that change values.
func transform(vs []value, change []string) ([]value, error) {
	for _, name := range change {
		var next []value
		for _, v := range vs {
			if name == "windash" {
				next = append(next, windash(v)...)
				continue
			}
			s, ok := v.plain()
			if !ok {
				return nil, refuse("modifier %q takes no wildcards", name)
			}
			switch name {
			case "base64":
				next = append(next, literal(base64.StdEncoding.EncodeToString([]byte(s))))
			case "base64offset":
				next = append(next, base64Offsets(s)...)
			case "utf16le", "wide":
				next = append(next, literal(utf16Bytes(s, false, false)))
			case "utf16be":
				next = append(next, literal(utf16Bytes(s, true, false)))
			case "utf16":
				next = append(next, literal(utf16Bytes(s, false, true)))
			}
		}
		if len(next) > 1000 {
			return nil, refuse("its modifiers give more than 1,000 values")
		}
		vs = next
	}
	return slices.Clone(vs), nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}
