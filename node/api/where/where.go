// Package where is the small language that picks events: comparisons of fields joined by and, or, not and
// parentheses, such as
//
//	class = process and exe ~ "/tmp/" and not uid = 0
//
// It compiles a bounded text to a tree of closures; evaluating it allocates nothing and cannot fail. It says nothing
// of where events come from.
package where

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of an expression.
const (
	MaxLength = 4096 // bytes
	maxDepth  = 32   // parentheses and nots
)

// ErrSyntax is wrapped by every refusal, which says what stands where.
var ErrSyntax = errors.New("expression")

// Expr is a compiled expression; it is safe for concurrent use.
type Expr func(*event.Event) bool

// Fields lists the names an expression may use, for help and completion.
func Fields() []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.name
	}
	return out
}

type field struct {
	name string
	text func(*event.Event) string
	num  func(*event.Event) uint64
	addr func(*event.Event) netip.Addr
}

// fields is a table, never changed.
var fields = [...]field{
	{name: "class", text: func(e *event.Event) string { return e.Class.String() }},
	{name: "activity", text: func(e *event.Event) string { return e.Activity.String() }},
	{name: "sensor", text: func(e *event.Event) string { return e.Sensor }},
	{name: "pid", num: func(e *event.Event) uint64 { return uint64(e.Process.Key.PID) }},
	{name: "ppid", num: func(e *event.Event) uint64 { return uint64(e.Process.Parent.PID) }},
	{name: "uid", num: func(e *event.Event) uint64 { return uint64(e.Process.UID) }},
	{name: "euid", num: func(e *event.Event) uint64 { return uint64(e.Process.EUID) }},
	{name: "exe", text: func(e *event.Event) string { return e.Process.Exe }},
	{name: "comm", text: func(e *event.Event) string { return e.Process.Comm }},
	{name: "args", text: func(e *event.Event) string { return e.Process.Args }},
	{name: "cwd", text: func(e *event.Event) string { return e.Process.CWD }},
	{name: "parent", text: func(e *event.Event) string { return e.Process.ParentExe }},
	{name: "file", text: func(e *event.Event) string { return e.File.Path }},
	{name: "user", text: func(e *event.Event) string { return e.Logon.User }},
	{name: "local", addr: func(e *event.Event) netip.Addr { return e.Network.Local.Addr().Unmap() }},
	{name: "remote", addr: func(e *event.Event) netip.Addr { return e.Network.Remote.Addr().Unmap() }},
	{name: "local_port", num: func(e *event.Event) uint64 { return uint64(e.Network.Local.Port()) }},
	{name: "remote_port", num: func(e *event.Event) uint64 { return uint64(e.Network.Remote.Port()) }},
	{name: "protocol", num: func(e *event.Event) uint64 { return uint64(e.Network.Protocol) }},
}

// Compile reads an expression; the empty one is true of everything.
func Compile(text string) (Expr, error) {
	if len(text) > MaxLength {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrSyntax, len(text), MaxLength)
	}
	p := &parser{rest: text}
	p.next()
	if p.tok == "" && p.err == nil {
		return func(*event.Event) bool { return true }, nil
	}
	e := p.or(0)
	if p.err == nil && p.tok != "" {
		p.fail("did not expect %q", p.tok)
	}
	if p.err != nil {
		return nil, p.err
	}
	return e, nil
}

type parser struct {
	rest   string
	tok    string
	quoted bool
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
	case strings.IndexByte("()~", c) >= 0:
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
		n := strings.IndexAny(p.rest, " \t\n()~=!<>\"")
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

func (p *parser) or(depth int) Expr {
	left := p.and(depth)
	for p.err == nil && p.is("or", "||") {
		p.next()
		a, b := left, p.and(depth)
		left = func(e *event.Event) bool { return a(e) || b(e) }
	}
	return left
}

func (p *parser) and(depth int) Expr {
	left := p.unary(depth)
	for p.err == nil && p.is("and", "&&") {
		p.next()
		a, b := left, p.unary(depth)
		left = func(e *event.Event) bool { return a(e) && b(e) }
	}
	return left
}

func (p *parser) unary(depth int) Expr {
	if depth > maxDepth {
		return p.fail("nested deeper than %d", maxDepth)
	}
	switch {
	case p.is("not", "!"):
		p.next()
		a := p.unary(depth + 1)
		return func(e *event.Event) bool { return !a(e) }
	case p.is("("):
		p.next()
		a := p.or(depth + 1)
		if p.err == nil && !p.is(")") {
			return p.fail("a parenthesis is never closed")
		}
		p.next()
		return a
	}
	return p.comparison()
}

func (p *parser) comparison() Expr {
	name := p.tok
	var f *field
	for i := range fields {
		if fields[i].name == name && !p.quoted {
			f = &fields[i]
		}
	}
	if f == nil {
		if p.err != nil {
			return nil
		}
		return p.fail("there is no field %.40q; the fields are %s", name, strings.Join(Fields(), ", "))
	}
	p.next()
	op := p.tok
	if !p.is("=", "==", "!=", "~", "!~", "<", ">", "<=", ">=") {
		return p.fail("after %s comes one of = != ~ !~ < > <= >=", name)
	}
	p.next()
	value, ok := p.tok, p.tok != "" || p.quoted
	if !ok || p.err != nil {
		return p.fail("after %s %s a value is missing", name, op)
	}
	p.next()
	negate := strings.HasPrefix(op, "!")
	if negate {
		op = op[1:]
	}
	var e Expr
	switch {
	case f.text != nil:
		e = p.text(f, op, value)
	case f.num != nil:
		e = p.num(f, op, value)
	default:
		e = p.addr(f, op, value)
	}
	if negate && e != nil {
		yes := e
		return func(ev *event.Event) bool { return !yes(ev) }
	}
	return e
}

func (p *parser) text(f *field, op, value string) Expr {
	value, get := strings.Clone(value), f.text
	switch op {
	case "=", "==":
		return func(e *event.Event) bool { return get(e) == value }
	case "~":
		return func(e *event.Event) bool { return strings.Contains(get(e), value) }
	}
	return p.fail("%s is text: = != ~ !~ apply", f.name)
}

func (p *parser) num(f *field, op, value string) Expr {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return p.fail("%s: %.40q is not a whole number", f.name, value)
	}
	get := f.num
	switch op {
	case "=", "==":
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
	return p.fail("%s is a number: = != < > <= >= apply", f.name)
}

func (p *parser) addr(f *field, op, value string) Expr {
	get := f.addr
	if op != "=" && op != "==" {
		return p.fail("%s is an address: = and != apply, to an address or a prefix", f.name)
	}
	if a, err := netip.ParseAddr(value); err == nil {
		a = a.Unmap()
		return func(e *event.Event) bool { return get(e) == a }
	}
	pre, err := netip.ParsePrefix(value)
	if err != nil {
		return p.fail("%s: %.60q is neither an address nor a prefix", f.name, value)
	}
	return func(e *event.Event) bool { return pre.Contains(get(e)) }
}
