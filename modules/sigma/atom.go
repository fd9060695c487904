package sigma

import (
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/omega-mesh/omega/modules/pattern"
)

// question is what an atom asks of its field.
type question uint8

const (
	askEquals question = iota
	askContains
	askPrefix
	askSuffix
	askGlob
	askRegexp
	askCIDR
	askLess
	askLessEqual
	askGreater
	askGreaterEqual
	askExists
	askNull
	askFieldEquals
	askFieldContains
	askFieldPrefix
	askFieldSuffix
)

// atom is one question to one field. Those that are the same, in whatever rules, are one.
type atom struct {
	slot  string // the field's name, in the name space of its log source; "" is the whole message
	ask   question
	cased bool
	text  string // compared with: in lower case unless cased; of a reference the other field
	glob  value
	re    *regexp.Regexp
	steps int // of re
	cidr  netip.Prefix
	num   float64
	part  string // of a date: minute, hour, …
	// must is a text, in lower case, that a value has to contain for the answer to be yes; empty where there is none.
	must string
	// also are further such texts, of a regular expression: looking for them is cheap beside running it.
	also []string
}

// key tells atoms apart.
func (a *atom) key() string {
	re := ""
	if a.re != nil {
		re = a.re.String()
	}
	return fmt.Sprintf("%q %d %t %q %q %q %v %v %q", a.slot, a.ask, a.cased, a.text, a.glob, re, a.cidr, a.num, a.part)
}

// newText makes the atom for a value: by its wildcards one of equals, contains, prefix, suffix, or a glob.
func newText(slot string, v value, cased bool) *atom {
	if !cased {
		v = v.mapLiterals(lower)
	}
	a := &atom{slot: slot, cased: cased}
	n := len(v)
	first, last := n > 0 && v[0].wild == '*', n > 0 && v[n-1].wild == '*'
	middle := v
	if first {
		middle = middle[1:]
	}
	if last && len(middle) > 0 {
		middle = middle[:len(middle)-1]
	}
	s, simple := middle.plain()
	switch {
	case !simple:
		a.ask, a.glob = askGlob, v
		for _, t := range v {
			if len(t.lit) > len(a.must) {
				a.must = t.lit
			}
		}
	case first && last || first && n == 1:
		a.ask, a.text = askContains, s
	case first:
		a.ask, a.text = askSuffix, s
	case last:
		a.ask, a.text = askPrefix, s
	default:
		a.ask, a.text = askEquals, s
	}
	if simple {
		a.must = a.text
	}
	if cased {
		a.must = lower(a.must)
	}
	return a
}

// newRegexp compiles a pattern as RE2 does, with the longest text that every match has to contain.
func newRegexp(slot, expr, flags string) (*atom, error) {
	if len(expr) > maxText {
		return nil, refuse("a regular expression of %d bytes", len(expr))
	}
	if flags != "" {
		expr = "(?" + flags + ")" + expr
	}
	re, steps, err := pattern.Compile(expr)
	if err != nil {
		return nil, refuse("regular expression %.80q: %s", expr, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	a := &atom{slot: slot, ask: askRegexp, re: re, steps: steps, cased: true}
	if tree, err := syntax.Parse(expr, syntax.Perl); err == nil {
		for _, lit := range required(tree.Simplify(), nil) {
			if len(lit) > len(a.must) {
				a.must = lit
			}
			a.also = append(a.also, lit)
		}
	}
	return a, nil
}

// required appends the texts, in lower case, that every match of a pattern contains.
func required(t *syntax.Regexp, all []string) []string {
	switch t.Op {
	case syntax.OpLiteral:
		return append(all, lower(string(t.Rune)))
	case syntax.OpCapture, syntax.OpPlus:
		return required(t.Sub[0], all)
	case syntax.OpRepeat:
		if t.Min > 0 {
			return required(t.Sub[0], all)
		}
	case syntax.OpConcat:
		for _, sub := range t.Sub {
			all = required(sub, all)
		}
	}
	return all
}

// lower is how texts are compared where case does not matter.
func lower(s string) string { return string(appendLower(nil, s)) }

// appendLower appends s in lower case. It allocates only where b has no room.
func appendLower(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= utf8.RuneSelf {
			return appendLowerRunes(b, s[i:])
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

func appendLowerRunes(b []byte, s string) []byte {
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			b = append(b, s[0])
		} else {
			b = utf8.AppendRune(b, unicode.ToLower(r))
		}
		s = s[n:]
	}
	return b
}

// matchText answers a question about one text, given as it is and in lower case.
func (a *atom) matchText(s, low string) bool {
	if !a.cased && a.ask <= askGlob {
		s = low
	}
	switch a.ask {
	case askEquals:
		return s == a.text
	case askContains:
		return strings.Contains(s, a.text)
	case askPrefix:
		return strings.HasPrefix(s, a.text)
	case askSuffix:
		return strings.HasSuffix(s, a.text)
	case askGlob:
		return (a.must == "" || strings.Contains(low, a.must)) && glob(a.glob, s)
	case askRegexp:
		for _, lit := range a.also {
			if !strings.Contains(low, lit) {
				return false
			}
		}
		return a.re.MatchString(s)
	case askCIDR:
		if s == "" || !strings.ContainsAny(s[:1], "0123456789abcdefABCDEF:") {
			return false
		}
		ip, err := netip.ParseAddr(s)
		return err == nil && a.cidr.Contains(ip.Unmap())
	case askLess, askLessEqual, askGreater, askGreaterEqual:
		n, ok := a.number(s)
		if !ok {
			return false
		}
		switch a.ask {
		case askLess:
			return n < a.num
		case askLessEqual:
			return n <= a.num
		case askGreater:
			return n > a.num
		}
		return n >= a.num
	}
	return false
}

// number reads a text as a number, or takes the part of a date.
func (a *atom) number(s string) (float64, bool) {
	if a.part != "" {
		return datePart(s, a.part)
	}
	if s == "" || len(s) > 40 {
		return 0, false
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return n, true
	}
	n, err := strconv.ParseUint(s, 0, 64) // hexadecimal
	return float64(n), err == nil
}

// dateLayouts are the forms of a date that logs have.
var dateLayouts = [...]string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006-01-02", "Jan _2 15:04:05"}

func datePart(s, part string) (float64, bool) {
	for _, layout := range dateLayouts {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		switch part {
		case "minute":
			return float64(t.Minute()), true
		case "hour":
			return float64(t.Hour()), true
		case "day":
			return float64(t.Day()), true
		case "week":
			_, w := t.ISOWeek()
			return float64(w), true
		case "month":
			return float64(t.Month()), true
		default:
			return float64(t.Year()), true
		}
	}
	return 0, false
}

// glob matches literals, * and ?, in time proportional to the product of both lengths at worst, without recursion.
func glob(pattern value, s string) bool {
	p, star, mark := 0, -1, 0
	at := 0
	for {
		if p < len(pattern) {
			switch t := pattern[p]; {
			case t.wild == '*':
				star, mark = p, at
				p++
				continue
			case t.wild == '?':
				if at < len(s) {
					_, n := utf8.DecodeRuneInString(s[at:])
					at += n
					p++
					continue
				}
			case strings.HasPrefix(s[at:], t.lit):
				at += len(t.lit)
				p++
				continue
			}
		} else if at == len(s) {
			return true
		}
		if star < 0 || mark >= len(s) {
			return false
		}
		mark++ // the last * takes one more byte; or goes on to where the literal after it stands
		if star+1 < len(pattern) && pattern[star+1].wild == 0 {
			i := strings.Index(s[mark:], pattern[star+1].lit)
			if i < 0 {
				return false
			}
			mark += i
		}
		p, at = star+1, mark
	}
}
