package redact

import (
	"strings"
	"unicode/utf8"
)

// secretNames are what a word is called whose value is nobody's business: matched as part of the name before '=' or ':',
// or of an option whose value is the next word.
var secretNames = [...]string{"pass", "pwd", "secret", "token", "apikey", "api-key", "api_key", "access_key", "access-key", "credential", "authorization", "bearer", "private"}

// redacted stands in the place of what was taken out.
const redacted = "***"

// Words makes words that a process was started with, or that a stranger typed, fit to travel: values of options and
// variables that are called like a secret, passwords in URLs, keys and Omega's own tokens are taken out; control bytes and
// invalid UTF-8 become '?'; the whole, joined by spaces, is at most limit bytes.
func Words(words []string, limit int) string {
	var b strings.Builder
	hide, program := false, ""
	for i, w := range words {
		if b.Len() >= limit {
			break
		}
		if i == 0 {
			program = w[strings.LastIndexByte(w, '/')+1:]
		} else {
			b.WriteByte(' ')
		}
		w, hide = word(program, w[:min(len(w), limit)], hide)
		b.WriteString(Printable(w, limit))
	}
	return cut(b.String(), limit)
}

// redactWord takes the secret out of one word; next says that the following word is one.
func redactWord(w string) (out string, next bool) {
	if i := strings.Index(strings.ToLower(w), "omega1"); i >= 0 && i < len(w) { // a join token, wherever it stands
		return w[:i] + "omega1" + redacted, false
	}
	if i := strings.Index(w, "-----BEGIN "); i >= 0 {
		return w[:i] + redacted, false
	}
	if accessKey(w) {
		return redacted, false
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
		if strings.TrimLeft(w[i+1:], " ") == "" { // "Authorization:" and its value as another word
			return w, true
		}
		return w[:i+1] + redacted, false
	}
	if strings.HasPrefix(w, "-") && secret(w) || strings.EqualFold(w, "bearer") || strings.EqualFold(w, "basic") {
		return w, true
	}
	return w, false
}

// accessKey says whether a word holds an AWS access key's id: AKIA or ASIA, and 16 capitals and digits.
func accessKey(w string) bool {
	for _, mark := range [...]string{"AKIA", "ASIA"} {
		if i := strings.Index(w, mark); i >= 0 && len(w) >= i+20 && strings.Trim(w[i:i+20], "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == "" {
			return true
		}
	}
	return false
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
