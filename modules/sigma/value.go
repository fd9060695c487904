package sigma

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
)

// value is one value of a rule: literals with wildcards between them.
type value []token

// token is a literal, or a wildcard.
type token struct {
	wild byte // '*', '?', or 0
	lit  string
}

// parseValue reads wildcards and their escapes: \* and \? are plain, \\ before a wildcard or another backslash is one
// backslash, any other backslash is itself.
func parseValue(s string) value {
	var v value
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			v = append(v, token{lit: lit.String()})
			lit.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`*?\`, s[i+1]) >= 0:
			i++
			lit.WriteByte(s[i])
		case c == '*' || c == '?':
			flush()
			if n := len(v); c == '*' && n > 0 && v[n-1].wild == '*' {
				continue
			}
			v = append(v, token{wild: c})
		default:
			lit.WriteByte(c)
		}
	}
	flush()
	return v
}

// plain is a value without wildcards.
func (v value) plain() (string, bool) {
	switch {
	case len(v) == 0:
		return "", true
	case len(v) == 1 && v[0].wild == 0:
		return v[0].lit, true
	}
	return "", false
}

func literal(s string) value {
	if s == "" {
		return nil
	}
	return value{{lit: s}}
}

// open adds a wildcard before and after.
func (v value) open(before, after bool) value {
	out := make(value, 0, len(v)+2)
	if before && (len(v) == 0 || v[0].wild != '*') {
		out = append(out, token{wild: '*'})
	}
	out = append(out, v...)
	if after && (len(out) == 0 || out[len(out)-1].wild != '*') {
		out = append(out, token{wild: '*'})
	}
	return out
}

// mapLiterals gives v with each literal changed.
func (v value) mapLiterals(f func(string) string) value {
	out := make(value, len(v))
	for i, t := range v {
		if out[i] = t; t.wild == 0 {
			out[i].lit = f(t.lit)
		}
	}
	return out
}

// dashes are what a dash before an option may be replaced by.
var dashes = [...]string{"-", "/", "–", "—", "―"}

// windash gives every form of v in which the dashes that begin a word are one of the five. All in one value change
// together, and the first of them alone: the forms that are met, without 5 to the power of their number.
func windash(v value) []value {
	out := []value{v}
	for _, from := range dashes {
		found := false
		for _, t := range v {
			found = found || t.wild == 0 && leadingDash(t.lit, from) >= 0
		}
		if !found {
			continue
		}
		for _, to := range dashes {
			if to != from {
				out = append(out, v.mapLiterals(func(s string) string { return replaceDashes(s, from, to) }))
			}
		}
	}
	return out
}

// leadingDash is where a dash begins a word of s; -1 where none does.
func leadingDash(s, dash string) int {
	for i := 0; i+len(dash) <= len(s); i++ {
		if s[i:i+len(dash)] == dash && (i == 0 || s[i-1] == ' ' || s[i-1] == '"' || s[i-1] == '\'') {
			return i
		}
	}
	return -1
}

func replaceDashes(s, from, to string) string {
	var b strings.Builder
	for {
		i := leadingDash(s, from)
		if i < 0 || b.Len() > 0 && i == 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		b.WriteString(to)
		s = s[i+len(from):]
	}
}

func utf16Bytes(s string, big, mark bool) string {
	var b strings.Builder
	put := func(u uint16) {
		if big {
			b.WriteByte(byte(u >> 8))
			b.WriteByte(byte(u))
		} else {
			b.WriteByte(byte(u))
			b.WriteByte(byte(u >> 8))
		}
	}
	if mark {
		put(0xfeff)
	}
	for _, u := range utf16.Encode([]rune(s)) {
		put(u)
	}
	return b.String()
}

// base64Offsets are the three forms s can have within a longer base64 text, without the characters that depend on what
// stands before and after.
func base64Offsets(s string) []value {
	start := [...]int{0, 2, 3}
	end := [...]int{0, 3, 2} // by length modulo 3, characters that depend on what follows
	var out []value
	for i := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, i), s...))
		to := len(encoded) - end[(len(s)+i)%3]
		if start[i] < to {
			out = append(out, literal(encoded[start[i]:to]))
		}
	}
	return out
}
