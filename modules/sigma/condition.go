package sigma

import (
	"path"
	"slices"
	"strings"
)

// operator joins expressions.
type operator uint8

const (
	opAtom operator = iota
	opAnd
	opOr
	opNot
	opTrue
	opFalse
)

// expr is what a rule asks, as a tree: leaves are atoms, each one question to one field.
type expr struct {
	op   operator
	kids []*expr
	atom *atom
}

var (
	always = &expr{op: opTrue}
	never  = &expr{op: opFalse}
)

// join makes one expression of several; a constant among them is worked in, so that none is left but as the whole.
func join(op operator, kids ...*expr) *expr {
	zero, one := never, always // what decides the whole, and what changes nothing
	if op == opOr {
		zero, one = always, never
	}
	out := &expr{op: op}
	for _, k := range kids {
		switch {
		case k.op == zero.op:
			return zero
		case k.op == one.op:
		case k.op == op:
			out.kids = append(out.kids, k.kids...)
		default:
			out.kids = append(out.kids, k)
		}
	}
	switch len(out.kids) {
	case 0:
		return one
	case 1:
		return out.kids[0]
	}
	return out
}

func negate(e *expr) *expr {
	switch e.op {
	case opTrue:
		return never
	case opFalse:
		return always
	case opNot:
		return e.kids[0]
	}
	return &expr{op: opNot, kids: []*expr{e}}
}

// conditionParser reads a condition: or, and, not, "1 of", "all of", brackets; the first binds least.
type conditionParser struct {
	words []string
	names []string // of the selections, sorted
	named map[string]*expr
	err   error
	steps int
}

// parseCondition compiles a condition over the selections of its rule.
func parseCondition(s string, selections map[string]*expr) (*expr, error) {
	if len(s) > maxText {
		return nil, refuse("a condition of %d bytes", len(s))
	}
	if strings.Contains(s, "|") {
		return nil, refuse("condition %.80q: aggregations by '|' were replaced by correlation rules", s)
	}
	p := &conditionParser{words: strings.Fields(strings.ReplaceAll(strings.ReplaceAll(s, "(", " ( "), ")", " ) ")), named: selections}
	for name := range selections {
		p.names = append(p.names, name)
	}
	slices.Sort(p.names)
	e := p.or(0)
	if p.err == nil && len(p.words) > 0 {
		p.fail("did not expect %q", p.words[0])
	}
	if p.err != nil {
		return nil, p.err
	}
	return e, nil
}

func (p *conditionParser) fail(format string, args ...any) *expr {
	if p.err == nil {
		p.err = refuse("condition: "+format, args...)
	}
	p.words = nil
	return never
}

func (p *conditionParser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return strings.ToLower(p.words[0])
}

func (p *conditionParser) next() string {
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

func (p *conditionParser) or(depth int) *expr {
	kids := []*expr{p.and(depth)}
	for p.peek() == "or" {
		p.next()
		kids = append(kids, p.and(depth))
	}
	return join(opOr, kids...)
}

func (p *conditionParser) and(depth int) *expr {
	kids := []*expr{p.not(depth)}
	for p.peek() == "and" {
		p.next()
		kids = append(kids, p.not(depth))
	}
	return join(opAnd, kids...)
}

func (p *conditionParser) not(depth int) *expr {
	if depth > maxDepth {
		return p.fail("nested more than %d deep", maxDepth)
	}
	if p.peek() == "not" {
		p.next()
		return negate(p.not(depth + 1))
	}
	return p.primary(depth)
}

func (p *conditionParser) primary(depth int) *expr {
	if p.steps++; p.steps > 1000 {
		return p.fail("more than 1,000 parts")
	}
	switch w := p.peek(); w {
	case "":
		return p.fail("it ends where a selection should stand")
	case "and", "or", "of", "them", ")":
		return p.fail("did not expect %q", w)
	case "(":
		p.next()
		e := p.or(depth + 1)
		if p.peek() != ")" {
			return p.fail("a bracket is never closed")
		}
		p.next()
		return e
	case "1", "any", "all":
		if len(p.words) > 1 && strings.EqualFold(p.words[1], "of") {
			return p.of(w)
		}
	}
	name := p.next()
	e, ok := p.named[name]
	if !ok {
		return p.fail("there is no selection %.80q", name)
	}
	return e
}

// of is "1 of PATTERN", "all of PATTERN" or "… of them"; what begins with an underscore is not one of them.
func (p *conditionParser) of(quantity string) *expr {
	p.next()
	p.next()
	if len(p.words) == 0 {
		return p.fail("%q of what?", quantity)
	}
	pattern := p.next()
	them := strings.EqualFold(pattern, "them")
	if !them && strings.ContainsAny(pattern, "?[]\\") {
		return p.fail("pattern %.80q: only * stands for something", pattern)
	}
	var kids []*expr
	for _, name := range p.names {
		if them && !strings.HasPrefix(name, "_") {
			kids = append(kids, p.named[name])
		} else if ok, err := path.Match(pattern, name); !them && err == nil && ok {
			kids = append(kids, p.named[name])
		}
	}
	if len(kids) == 0 {
		return p.fail("no selection is called like %.80q", pattern)
	}
	if quantity == "all" {
		return join(opAnd, kids...)
	}
	return join(opOr, kids...)
}
