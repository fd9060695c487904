package roles

import (
	"strings"
	"unicode/utf8"
)

// secretNames are what a word is called whose value is nobody's business: matched as part of the name before '=' or ':',
// or of an option whose value is the next word.
var secretNames = [...]string{"pass", "pwd", "secret", "token", "apikey", "api-key", "api_key", "credential", "authorization", "bearer", "private"}

// redacted stands in the place of what was taken out.
const redacted = "***"

// Redact makes words that a process was started with, or that a stranger typed, fit to travel: values of options and
// variables that are called like a secret, passwords in URLs, and Omega's own tokens are taken out; control bytes and
// invalid UTF-8 become '?'; the whole is at most limit bytes.
func Redact(words []string, limit int) string {
	var b strings.Builder
	hide := false
	for i, w := range words {
		if b.Len() >= limit {
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		var next bool
		if hide {
			// "Authorization:" "Bearer" "xyz": what follows the scheme is the secret.
			next = strings.EqualFold(w, "bearer") || strings.EqualFold(w, "basic")
			w = redacted
		} else {
			w, next = redactWord(w[:min(len(w), limit)])
		}
		hide = next
		b.WriteString(Printable(w, limit))
	}
	return cut(b.String(), limit)
}

// redactWord takes the secret out of one word; next says that the following word is one.
func redactWord(w string) (out string, next bool) {
	if strings.HasPrefix(strings.ToLower(w), "omega1") {
		return "omega1" + redacted, false
	}
	if i := strings.Index(w, "://"); i >= 0 {
		rest := w[i+3:]
		host := rest
		if j := strings.IndexAny(rest, "/?#"); j >= 0 {
			host = rest[:j]
		}
		if at := strings.LastIndexByte(host, '@'); at >= 0 {
			w = w[:i+3] + redacted + rest[at:]
		}
	}
	if i := strings.IndexAny(w, "=:"); i > 0 && secret(w[:i]) {
		if i+1 == len(w) { // "Authorization:" and its value as another word
			return w, true
		}
		return w[:i+1] + redacted, false
	}
	if strings.HasPrefix(w, "-") && secret(w) || strings.EqualFold(w, "bearer") || strings.EqualFold(w, "basic") {
		return w, true
	}
	return w, false
}

func secret(name string) bool {
	name = strings.ToLower(name)
	for _, s := range secretNames {
		if strings.Contains(name, s) {
			return true
		}
	}
	return false
}

// Printable replaces control bytes, characters that turn text round, and invalid UTF-8 by '?', and cuts at limit bytes.
func Printable(s string, limit int) string {
	s = s[:min(len(s), limit)]
	clean := strings.Map(func(r rune) rune {
		switch {
		case r < ' ', r >= 0x7f && r < 0xa0, r == utf8.RuneError,
			r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0xfeff, r == 0x2028, r == 0x2029:
			return '?'
		}
		return r
	}, s)
	return cut(clean, limit)
}

// cut keeps at most limit bytes, and no half of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	s = s[:limit]
	for len(s) > 0 && !utf8.ValidString(s[max(0, len(s)-utf8.UTFMax):]) {
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size > 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}
