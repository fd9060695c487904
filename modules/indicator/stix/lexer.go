package stix

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrSyntax is wrapped by every error about the text of a pattern.
var ErrSyntax = errors.New("not a STIX pattern")

// Bounds of one pattern.
const (
	MaxPattern = 64 << 10 // bytes
	MaxDepth   = 32       // of parentheses and qualifiers
	MaxTerms   = 10_000   // comparisons and constants
)

// ValueKind is the type of a constant.
type ValueKind uint8

// The constants of a pattern.
const (
	String ValueKind = iota
	Number           // integers and floats; integers are exact up to 2^53
	Bool
	Time
	Bytes // of a hexadecimal or base64 constant
)

// Value is a constant. Text is what a string says, and of the others the text they were written as.
type Value struct {
	Kind   ValueKind
	Text   string
	Number float64
	Bool   bool
	Time   time.Time
}

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenWord
	tokenPunct
	tokenValue
)

type token struct {
	kind  tokenKind
	text  string
	value Value
	at    int
}

type lexer struct {
	in string
	at int
}

func syntax(at int, format string, args ...any) error {
	return fmt.Errorf("%w: at byte %d: %s", ErrSyntax, at+1, fmt.Sprintf(format, args...))
}

func isLetter(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// next gives one token; white space and comments lie between them.
func (l *lexer) next() (token, error) {
	if err := l.skip(); err != nil {
		return token{}, err
	}
	start := l.at
	if start == len(l.in) {
		return token{at: start}, nil
	}
	c := l.in[start]
	if c == '\'' {
		text, err := l.quoted()
		return token{kind: tokenValue, at: start, value: Value{Kind: String, Text: text}}, err
	}
	if (c == 'h' || c == 'b' || c == 't') && start+1 < len(l.in) && l.in[start+1] == '\'' {
		l.at++
		text, err := l.quoted()
		if err != nil {
			return token{}, err
		}
		v, err := prefixed(c, text)
		if err != nil {
			return token{}, syntax(start, "%v", err)
		}
		return token{kind: tokenValue, at: start, value: v}, nil
	}
	if isLetter(c) {
		for l.at < len(l.in) && (isLetter(l.in[l.at]) || isDigit(l.in[l.at]) || l.in[l.at] == '-') {
			l.at++
		}
		text := l.in[start:l.at]
		if text == "true" || text == "false" {
			return token{kind: tokenValue, at: start, value: Value{Kind: Bool, Text: text, Bool: text == "true"}, text: text}, nil
		}
		return token{kind: tokenWord, text: text, at: start}, nil
	}
	if isDigit(c) || (c == '-' || c == '+') && start+1 < len(l.in) && (isDigit(l.in[start+1]) || l.in[start+1] == '.') {
		l.at++
		for l.at < len(l.in) && (isDigit(l.in[l.at]) || l.in[l.at] == '.') {
			l.at++
		}
		text := l.in[start:l.at]
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return token{}, syntax(start, "%q is no number", clip(text))
		}
		return token{kind: tokenValue, at: start, text: text, value: Value{Kind: Number, Text: text, Number: n}}, nil
	}
	for _, p := range [...]string{"!=", "<>", ">=", "<=", "==", "=", ">", "<", "[", "]", "(", ")", ",", ":", ".", "*"} {
		if strings.HasPrefix(l.in[start:], p) {
			l.at += len(p)
			return token{kind: tokenPunct, text: p, at: start}, nil
		}
	}
	return token{}, syntax(start, "%q belongs to nothing", c)
}

func (l *lexer) skip() error {
	for l.at < len(l.in) {
		switch rest := l.in[l.at:]; {
		case strings.IndexByte(" \t\r\n\v\f", rest[0]) >= 0:
			l.at++
		case strings.HasPrefix(rest, "//"):
			i := strings.IndexByte(rest, '\n')
			if i < 0 {
				i = len(rest)
			}
			l.at += i
		case strings.HasPrefix(rest, "/*"):
			i := strings.Index(rest, "*/")
			if i < 0 {
				return syntax(l.at, "a comment does not end")
			}
			l.at += i + 2
		default:
			return nil
		}
	}
	return nil
}

// quoted reads '…', in which \' and \\ stand for themselves.
func (l *lexer) quoted() (string, error) {
	start := l.at
	var b strings.Builder
	for i := start + 1; i < len(l.in); i++ {
		switch c := l.in[i]; c {
		case '\'':
			l.at = i + 1
			return b.String(), nil
		case '\\':
			if i+1 == len(l.in) || l.in[i+1] != '\'' && l.in[i+1] != '\\' {
				return "", syntax(i, "a backslash stands before neither a quote nor a backslash")
			}
			i++
			b.WriteByte(l.in[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", syntax(start, "a string does not end")
}

func prefixed(c byte, text string) (Value, error) {
	switch c {
	case 'h':
		b, err := hex.DecodeString(text)
		if err != nil {
			return Value{}, fmt.Errorf("%q is not hexadecimal", clip(text))
		}
		return Value{Kind: Bytes, Text: string(b)}, nil
	case 'b':
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return Value{}, fmt.Errorf("%q is not base64", clip(text))
		}
		return Value{Kind: Bytes, Text: string(b)}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return Value{}, fmt.Errorf("%q is no time", clip(text))
	}
	return Value{Kind: Time, Text: text, Time: t}, nil
}

// clip bounds what an error repeats of the text.
func clip(s string) string { return s[:min(len(s), 80)] }
