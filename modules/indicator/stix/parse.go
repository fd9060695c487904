package stix

import (
	"math"
	"slices"
	"strings"
	"time"
)

// Join is how the parts of a Node or Test hold together.
type Join uint8

// Leaf has no parts; FollowedBy joins observations only.
const (
	Leaf Join = iota
	And
	Or
	FollowedBy
)

// Node is an observation expression.
type Node struct {
	Join       Join
	Parts      []*Node     // of a joined one
	Test       *Test       // of a leaf: what is between the brackets
	Qualifiers []Qualifier // in the order they were written, which is the order they apply in
}

// Qualifier restricts which observations count. One of Within, Repeats and Start is set.
type Qualifier struct {
	Within      time.Duration
	Repeats     int
	Start, Stop time.Time
}

// Compare is the operator of a comparison.
type Compare uint8

// The operators; a != b is Equal negated.
const (
	Equal Compare = iota
	Less
	LessEqual
	Greater
	GreaterEqual
	In
	Like
	Matches
	IsSubset
	IsSuperset
	Exists
)

var compareNames = [...]string{"=", "<", "<=", ">", ">=", "IN", "LIKE", "MATCHES", "ISSUBSET", "ISSUPERSET", "EXISTS"}

// String is the operator as it is written.
func (c Compare) String() string { return compareNames[min(int(c), len(compareNames)-1)] }

// Test is a comparison expression.
type Test struct {
	Join    Join
	Parts   []*Test
	Path    string // "file:hashes.SHA-256", of a leaf: without quotes, a list's index as [n] or [*]
	Compare Compare
	Negated bool
	Values  []Value
}

// Parse reads a pattern. Errors wrap ErrSyntax and say where.
func Parse(text string) (*Node, error) {
	if len(text) > MaxPattern {
		return nil, syntax(MaxPattern, "a pattern of %d bytes is longer than %d", len(text), MaxPattern)
	}
	p := &parser{lexer: lexer{in: text}}
	if err := p.advance(); err != nil {
		return nil, err
	}
	n, err := p.observations(0)
	if err != nil {
		return nil, err
	}
	if p.now.kind != tokenEnd {
		return nil, syntax(p.now.at, "something follows the end of the pattern")
	}
	return n, nil
}

type parser struct {
	lexer lexer
	now   token
	terms int
}

func (p *parser) advance() (err error) {
	p.now, err = p.lexer.next()
	return err
}

func (p *parser) is(punct string) bool { return p.now.kind == tokenPunct && p.now.text == punct }

func (p *parser) word(w string) bool {
	return p.now.kind == tokenWord && strings.EqualFold(p.now.text, w)
}

func (p *parser) take(punct string) error {
	if !p.is(punct) {
		return syntax(p.now.at, "want %q", punct)
	}
	return p.advance()
}

func (p *parser) term() error {
	if p.terms++; p.terms > MaxTerms {
		return syntax(p.now.at, "more than %d terms", MaxTerms)
	}
	return nil
}

// joined reads parts that a word joins; one part alone is itself.
func joined[T any](p *parser, word string, part func() (T, error), join func([]T) T) (T, error) {
	var parts []T
	for {
		x, err := part()
		if err != nil {
			return x, err
		}
		parts = append(parts, x)
		if !p.word(word) {
			break
		}
		if err := p.advance(); err != nil {
			return x, err
		}
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	return join(parts), nil
}

// observations binds FOLLOWEDBY loosest, then OR, then AND, as the standard's grammar has it.
func (p *parser) observations(depth int) (*Node, error) {
	if depth > MaxDepth {
		return nil, syntax(p.now.at, "nested deeper than %d", MaxDepth)
	}
	node := func(j Join) func([]*Node) *Node {
		return func(parts []*Node) *Node { return &Node{Join: j, Parts: parts} }
	}
	return joined(p, "FOLLOWEDBY", func() (*Node, error) {
		return joined(p, "OR", func() (*Node, error) {
			return joined(p, "AND", func() (*Node, error) { return p.observation(depth) }, node(And))
		}, node(Or))
	}, node(FollowedBy))
}

func (p *parser) observation(depth int) (*Node, error) {
	if err := p.term(); err != nil {
		return nil, err
	}
	var n *Node
	switch {
	case p.is("["):
		if err := p.advance(); err != nil {
			return nil, err
		}
		t, err := p.tests(0)
		if err != nil {
			return nil, err
		}
		if err := p.take("]"); err != nil {
			return nil, err
		}
		n = &Node{Test: t}
	case p.is("("):
		if err := p.advance(); err != nil {
			return nil, err
		}
		var err error
		if n, err = p.observations(depth + 1); err != nil {
			return nil, err
		}
		if err := p.take(")"); err != nil {
			return nil, err
		}
	default:
		return nil, syntax(p.now.at, "want an observation in [ ]")
	}
	for {
		q, ok, err := p.qualifier()
		if err != nil || !ok {
			return n, err
		}
		if n.Qualifiers = append(n.Qualifiers, q); len(n.Qualifiers) > MaxDepth {
			return nil, syntax(p.now.at, "more than %d qualifiers", MaxDepth)
		}
	}
}

func (p *parser) qualifier() (q Qualifier, ok bool, err error) {
	number := func(unit string) (float64, error) {
		if err := p.advance(); err != nil {
			return 0, err
		}
		v := p.now
		if v.kind != tokenValue || v.value.Kind != Number || v.value.Number <= 0 {
			return 0, syntax(v.at, "want a number above 0")
		}
		if err := p.advance(); err != nil {
			return 0, err
		}
		if !p.word(unit) {
			return 0, syntax(p.now.at, "want %s", unit)
		}
		return v.value.Number, p.advance()
	}
	instant := func() (time.Time, error) {
		if err := p.advance(); err != nil {
			return time.Time{}, err
		}
		v := p.now
		if v.kind != tokenValue || v.value.Kind != Time && v.value.Kind != String {
			return time.Time{}, syntax(v.at, "want a time")
		}
		t := v.value.Time
		if v.value.Kind == String { // STIX 2.0 wrote it so
			if t, err = time.Parse(time.RFC3339Nano, v.value.Text); err != nil {
				return t, syntax(v.at, "%q is no time", clip(v.value.Text))
			}
		}
		return t, p.advance()
	}
	switch {
	case p.word("WITHIN"):
		n, err := number("SECONDS")
		q.Within = time.Duration(min(n, float64(math.MaxInt64)/1e10) * 1e9)
		return q, err == nil, err
	case p.word("REPEATS"):
		at := p.now.at
		n, err := number("TIMES")
		if err == nil && (n != math.Trunc(n) || n > MaxTerms) {
			return q, false, syntax(at, "%v repeats are not a whole number up to %d", n, MaxTerms)
		}
		q.Repeats = int(n)
		return q, err == nil, err
	case p.word("START"):
		at := p.now.at
		if q.Start, err = instant(); err != nil {
			return q, false, err
		}
		if !p.word("STOP") {
			return q, false, syntax(p.now.at, "want STOP")
		}
		if q.Stop, err = instant(); err == nil && !q.Stop.After(q.Start) {
			err = syntax(at, "it stops before it starts")
		}
		return q, err == nil, err
	}
	return q, false, nil
}

func (p *parser) tests(depth int) (*Test, error) {
	if depth > MaxDepth {
		return nil, syntax(p.now.at, "nested deeper than %d", MaxDepth)
	}
	test := func(j Join) func([]*Test) *Test {
		return func(parts []*Test) *Test { return &Test{Join: j, Parts: parts} }
	}
	return joined(p, "OR", func() (*Test, error) {
		return joined(p, "AND", func() (*Test, error) { return p.test(depth) }, test(And))
	}, test(Or))
}

func (p *parser) test(depth int) (*Test, error) {
	if err := p.term(); err != nil {
		return nil, err
	}
	if p.is("(") {
		if err := p.advance(); err != nil {
			return nil, err
		}
		t, err := p.tests(depth + 1)
		if err != nil {
			return nil, err
		}
		return t, p.take(")")
	}
	t := &Test{}
	negate := func() error {
		if !p.word("NOT") {
			return nil
		}
		t.Negated = true
		return p.advance()
	}
	if err := negate(); err != nil { // NOT EXISTS stands before the path
		return nil, err
	}
	if p.word("EXISTS") {
		t.Compare = Exists
		if err := p.advance(); err != nil {
			return nil, err
		}
		var err error
		t.Path, err = p.path()
		return t, err
	}
	if t.Negated {
		return nil, syntax(p.now.at, "NOT stands after the path, or before EXISTS")
	}
	var err error
	if t.Path, err = p.path(); err != nil {
		return nil, err
	}
	if err := negate(); err != nil {
		return nil, err
	}
	return t, p.comparison(t)
}

// comparison reads the operator and what stands to its right.
func (p *parser) comparison(t *Test) error {
	at := p.now.at
	kinds := []ValueKind{String, Number, Bool, Time, Bytes}
	switch op := strings.ToUpper(p.now.text); {
	case p.now.kind == tokenValue:
		return syntax(at, "want an operator")
	case op == "=" || op == "==":
		t.Compare = Equal
	case op == "!=" || op == "<>":
		t.Compare, t.Negated = Equal, !t.Negated
	case op == "<":
		t.Compare = Less
	case op == "<=":
		t.Compare = LessEqual
	case op == ">":
		t.Compare = Greater
	case op == ">=":
		t.Compare = GreaterEqual
	case op == "IN":
		t.Compare = In
	case op == "LIKE":
		t.Compare, kinds = Like, []ValueKind{String}
	case op == "MATCHES":
		t.Compare, kinds = Matches, []ValueKind{String}
	case op == "ISSUBSET":
		t.Compare, kinds = IsSubset, []ValueKind{String}
	case op == "ISSUPERSET":
		t.Compare, kinds = IsSuperset, []ValueKind{String}
	default:
		return syntax(at, "%q is no operator", clip(p.now.text))
	}
	if t.Compare >= Less && t.Compare <= GreaterEqual {
		kinds = []ValueKind{String, Number, Time, Bytes}
	}
	if err := p.advance(); err != nil {
		return err
	}
	constant := func() error {
		if p.now.kind != tokenValue || !slices.Contains(kinds, p.now.value.Kind) {
			return syntax(p.now.at, "want a constant that %s can be asked of", t.Compare)
		}
		if err := p.term(); err != nil {
			return err
		}
		t.Values = append(t.Values, p.now.value)
		return p.advance()
	}
	if t.Compare != In {
		return constant()
	}
	if err := p.take("("); err != nil {
		return err
	}
	for {
		if err := constant(); err != nil {
			return err
		}
		if p.is(")") {
			return p.advance()
		}
		if err := p.take(","); err != nil {
			return err
		}
	}
}

// path reads type:property.property[n]….
func (p *parser) path() (string, error) {
	at := p.now.at
	if p.now.kind != tokenWord {
		return "", syntax(at, "want an object path such as file:name")
	}
	var b strings.Builder
	b.WriteString(p.now.text)
	if err := p.advance(); err != nil {
		return "", err
	}
	if !p.is(":") {
		return "", syntax(p.now.at, "want : after the type of an object")
	}
	step := func(sep byte) error {
		if err := p.advance(); err != nil {
			return err
		}
		b.WriteByte(sep)
		switch {
		case p.now.kind == tokenWord:
			b.WriteString(p.now.text)
		case p.now.kind == tokenValue && p.now.value.Kind == String:
			b.WriteString(p.now.value.Text)
		default:
			return syntax(p.now.at, "want the name of a property")
		}
		return p.advance()
	}
	if err := step(':'); err != nil {
		return "", err
	}
	for range MaxDepth {
		switch {
		case p.is("."):
			if err := step('.'); err != nil {
				return "", err
			}
		case p.is("["):
			if err := p.advance(); err != nil {
				return "", err
			}
			switch {
			case p.is("*"):
				b.WriteString("[*]")
			case p.now.kind == tokenValue && p.now.value.Kind == Number && p.now.value.Number >= 0:
				b.WriteString("[" + p.now.text + "]")
			default:
				return "", syntax(p.now.at, "want * or the number of a member")
			}
			if err := p.advance(); err != nil {
				return "", err
			}
			if err := p.take("]"); err != nil {
				return "", err
			}
		default:
			return b.String(), nil
		}
	}
	return "", syntax(at, "a path of more than %d steps", MaxDepth)
}
