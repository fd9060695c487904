// Package where is the small language that picks events: comparisons of fields joined by and, or, not and
// parentheses, such as
//
//	class = process and exe startswith "/tmp/" and not uid in (0, 1000)
//
// A field is named as in the field reference, by its OCSF path or by a name that Sigma has for it. It compiles a bounded text to a tree of closures; evaluating it allocates nothing and cannot fail. It says nothing
// of where events come from.
package where

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/fields"
)

// Bounds of an expression.
const (
	MaxLength = 4096 // bytes
	maxDepth  = 32   // parentheses and nots
	maxSet    = 256  // values after in
)

// ErrSyntax is wrapped by every refusal, which says what stands where.
var ErrSyntax = errors.New("expression")

// Expr is a compiled expression; it is safe for concurrent use.
type Expr func(*event.Event) bool

// Fields lists the names an expression may use, for help and completion.
func Fields() []string {
	all := fields.All()
	out := make([]string, len(all))
	for i := range all {
		out[i] = all[i].Name
	}
	return out
}

// Compile reads an expression; the empty one is true of everything.
func Compile(text string) (Expr, error) {
	e, _, err := Plan(text)
	return e, err
}

// Plan reads an expression, and gives also what must hold of every event that it is true of, for a store to search by.
func Plan(text string) (Expr, fields.Needs, error) {
	if len(text) > MaxLength {
		return nil, nil, fmt.Errorf("%w: %d bytes, more than %d", ErrSyntax, len(text), MaxLength)
	}
	p := &parser{rest: text}
	p.next()
	if p.tok == "" && p.err == nil {
		return func(*event.Event) bool { return true }, nil, nil
	}
	t := p.or(0)
	if p.err == nil && p.tok != "" {
		p.fail("did not expect %q", p.tok)
	}
	if p.err != nil {
		return nil, nil, p.err
	}
	return t.expr, t.needs, nil
}

// term is a part of an expression: what it tells, and what it implies.
type term struct {
	expr  Expr
	needs fields.Needs
}

type parser struct {
	rest   string
	tok    string
	quoted bool
	commas bool // a comma ends a word: within the parentheses of in
	err    error
}

func (p *parser) fail(format string, args ...any) Expr {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %s", ErrSyntax, fmt.Sprintf(format, args...))
	}
	p.tok, p.rest = "", ""
	return nil
}

// next reads one token: an operator, a word, or a quoted text with \" and \\.
func (p *parser) next() {
	p.rest = strings.TrimLeft(p.rest, " \t\n")
	p.tok, p.quoted = "", false
	if p.rest == "" {
		return
	}
	switch c := p.rest[0]; {
	case strings.IndexByte("()~", c) >= 0, p.commas && c == ',':
		p.tok, p.rest = p.rest[:1], p.rest[1:]
	case strings.IndexByte("=!<>", c) >= 0:
		n := 1
		if len(p.rest) > 1 && (p.rest[1] == '=' || p.rest[1] == '~') {
			n = 2
		}
		p.tok, p.rest = p.rest[:n], p.rest[n:]
	case c == '"':
		var b strings.Builder
		for i := 1; i < len(p.rest); i++ {
			switch p.rest[i] {
			case '\\':
				if i++; i < len(p.rest) {
					b.WriteByte(p.rest[i])
				}
			case '"':
				p.tok, p.quoted, p.rest = b.String(), true, p.rest[i+1:]
				return
			default:
				b.WriteByte(p.rest[i])
			}
		}
		p.fail("a quote is never closed")
	default:
		end := " \t\n()~=!<>\""
		if p.commas {
			end += ","
		}
		n := strings.IndexAny(p.rest, end)
		if n < 0 {
			n = len(p.rest)
		}
		p.tok, p.rest = p.rest[:n], p.rest[n:]
	}
}

func (p *parser) is(words ...string) bool {
	for _, w := range words {
		if !p.quoted && p.tok == w {
			return true
		}
	}
	return false
}

func (p *parser) or(depth int) term {
	left := p.and(depth)
	for p.err == nil && p.is("or", "||") {
		p.next()
		right := p.and(depth)
		a, b := left.expr, right.expr
		left = term{func(e *event.Event) bool { return a(e) || b(e) }, left.needs.Or(right.needs)}
	}
	return left
}

func (p *parser) and(depth int) term {
	left := p.unary(depth)
	for p.err == nil && p.is("and", "&&") {
		p.next()
		right := p.unary(depth)
		a, b := left.expr, right.expr
		left = term{func(e *event.Event) bool { return a(e) && b(e) }, left.needs.And(right.needs)}
	}
	return left
}

func (p *parser) unary(depth int) term {
	if depth > maxDepth {
		return term{expr: p.fail("nested deeper than %d", maxDepth)}
	}
	switch {
	case p.is("not", "!"):
		p.next()
		a := p.unary(depth + 1).expr
		return term{expr: func(e *event.Event) bool { return !a(e) }}
	case p.is("("):
		p.next()
		a := p.or(depth + 1)
		if p.err == nil && !p.is(")") {
			return term{expr: p.fail("a parenthesis is never closed")}
		}
		p.next()
		return a
	}
	return p.comparison()
}

func (p *parser) comparison() term {
	name := p.tok
	f, ok := fields.Find(name)
	if !ok || p.quoted {
		if p.err != nil {
			return term{}
		}
		return term{expr: p.fail("there is no field %.40q; the fields are %s", name, strings.Join(Fields(), ", "))}
	}
	p.next()
	op := p.tok
	if !p.is("=", "==", "!=", "~", "!~", "<", ">", "<=", ">=", "in", "contains", "startswith", "endswith") {
		return term{expr: p.fail("after %s comes one of = != ~ !~ < > <= >= in contains startswith endswith", name)}
	}
	if op == "in" {
		return p.set(f)
	}
	p.next()
	value, ok := p.tok, p.tok != "" || p.quoted
	if !ok || p.err != nil {
		return term{expr: p.fail("after %s %s a value is missing", name, op)}
	}
	p.next()
	if yes, negate := strings.CutPrefix(op, "!"); negate {
		e := p.compare(f, yes, value).expr
		return term{expr: func(ev *event.Event) bool { return !e(ev) }}
	}
	return p.compare(f, op, value)
}

// set reads the values of in, of which one must be equal.
func (p *parser) set(f *fields.Field) term {
	p.commas = true
	if p.next(); !p.is("(") {
		return term{expr: p.fail("after %s in comes a parenthesis with values, such as %s in (a, b)", f.Name, f.Name)}
	}
	var ones []Expr
	var clause []fields.Need
	prunes := true
	for {
		p.next()
		if p.tok == "" && !p.quoted || p.is("(", ")", ",") {
			return term{expr: p.fail("in the values of %s one is missing", f.Name)}
		}
		if len(ones) == maxSet {
			return term{expr: p.fail("%s in has more than %d values", f.Name, maxSet)}
		}
		one := p.compare(f, "=", p.tok)
		ones = append(ones, one.expr)
		if prunes = prunes && len(one.needs) == 1; prunes {
			clause = append(clause, one.needs[0]...)
		}
		if p.next(); !p.is(",") {
			break
		}
	}
	if p.err == nil && !p.is(")") {
		return term{expr: p.fail("the values of %s are never closed", f.Name)}
	}
	p.commas = false
	p.next()
	t := term{expr: func(e *event.Event) bool {
		for _, one := range ones {
			if one(e) {
				return true
			}
		}
		return false
	}}
	if prunes {
		t.needs = fields.Needs{clause}
	}
	return t
}

func (p *parser) compare(f *fields.Field, op, value string) term {
	if op == "==" {
		op = "="
	}
	var t term
	n := fields.Need{Field: f, Text: strings.Clone(value)}
	switch {
	case f.Number != nil:
		t.expr = p.num(f, op, value)
		var err error
		if n.Number, err = strconv.ParseUint(value, 0, 64); err != nil || op != "=" {
			return t
		}
	case f.Address != nil:
		t.expr = p.addr(f, op, value)
		var err error
		if n.Address, err = netip.ParseAddr(value); err != nil {
			return t
		}
	case f.Bits != nil:
		t.expr = p.bits(f, op, value)
		return t
	case f.List:
		t.expr = p.list(f, op, value)
	default:
		t.expr = p.text(f, op, value)
	}
	switch op {
	case "~", "contains":
		n.Op = fields.Contains
	case "startswith":
		n.Op = fields.Prefix
	case "endswith":
		n.Op = fields.Suffix
	}
	t.needs = fields.Needs{{n}}
	return t
}

func (p *parser) text(f *fields.Field, op, value string) Expr {
	value, get := strings.Clone(value), f.Text
	switch op {
	case "=":
		return func(e *event.Event) bool { return get(e) == value }
	case "~", "contains":
		return func(e *event.Event) bool { return strings.Contains(get(e), value) }
	case "startswith":
		return func(e *event.Event) bool { return strings.HasPrefix(get(e), value) }
	case "endswith":
		return func(e *event.Event) bool { return strings.HasSuffix(get(e), value) }
	}
	return p.fail("%s is text: = != ~ !~ in contains startswith endswith apply", f.Name)
}

func (p *parser) num(f *fields.Field, op, value string) Expr {
	n, err := strconv.ParseUint(value, 0, 64)
	if err != nil {
		return p.fail("%s: %.40q is not a whole number", f.Name, value)
	}
	get := f.Number
	switch op {
	case "=":
		return func(e *event.Event) bool { return get(e) == n }
	case "<":
		return func(e *event.Event) bool { return get(e) < n }
	case ">":
		return func(e *event.Event) bool { return get(e) > n }
	case "<=":
		return func(e *event.Event) bool { return get(e) <= n }
	case ">=":
		return func(e *event.Event) bool { return get(e) >= n }
	}
	return p.fail("%s is a number: = != < > <= >= in apply", f.Name)
}

func (p *parser) addr(f *fields.Field, op, value string) Expr {
	get := f.Address
	if op != "=" {
		return p.fail("%s is an address: = != in apply, to an address or a prefix", f.Name)
	}
	if a, err := netip.ParseAddr(value); err == nil {
		a = a.Unmap()
		return func(e *event.Event) bool { return get(e) == a }
	}
	pre, err := netip.ParsePrefix(value)
	if err != nil {
		return p.fail("%s: %.60q is neither an address nor a prefix", f.Name, value)
	}
	return func(e *event.Event) bool { return pre.Contains(get(e)) }
}

// bits asks whether one named bit is set; of two values there is no order.
func (p *parser) bits(f *fields.Field, op, value string) Expr {
	at := slices.Index(f.Names, value)
	if at < 0 {
		return p.fail("%s: there is no %.40q; there are %s", f.Name, value, strings.Join(f.Names, ", "))
	}
	if op != "=" && op != "~" && op != "contains" {
		return p.fail("%s is a set: = != contains in apply, to one of its names", f.Name)
	}
	get, bit := f.Bits, uint64(1)<<at
	return func(e *event.Event) bool { return get(e)&bit != 0 }
}
