package ocsf

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Escape makes s a text that shows itself: control characters, those that turn text round or are not seen, and bytes
// that are not UTF-8 become \xNN or \u{NNNN}, and a backslash \\. Unescape takes it back.
func Escape(s string) string {
	plain := true
	for _, r := range s {
		if hide(r) || r == '\\' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == utf8.RuneError && size <= 1, r < 0x80 && hide(r):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case hide(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

func hide(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff
}

// Unescape undoes Escape; what Escape would not have written stays as it is.
func Unescape(s string) string {
	if !strings.ContainsRune(s, '\\') {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		i := strings.IndexByte(s, '\\')
		if i < 0 || i+1 >= len(s) {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		switch {
		case s[1] == '\\':
			b.WriteByte('\\')
			s = s[2:]
			continue
		case s[1] == 'x' && len(s) >= 4:
			if n, err := strconv.ParseUint(s[2:4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				s = s[4:]
				continue
			}
		case strings.HasPrefix(s, `\u{`):
			if end := strings.IndexByte(s[:min(len(s), 11)], '}'); end > 3 {
				if n, err := strconv.ParseUint(s[3:end], 16, 32); err == nil && n <= utf8.MaxRune {
					b.WriteRune(rune(n))
					s = s[end+1:]
					continue
				}
			}
		}
		b.WriteByte('\\')
		s = s[1:]
	}
	return b.String()
}
