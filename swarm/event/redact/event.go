package redact

import (
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
)

// Event takes secrets out of e's texts in place: its arguments, and what was run by sudo or cron. It allocates only where
// there is one.
func Event(e *event.Event) {
	if s := e.Process.Args; s != "" && suspicious(s) {
		e.Process.Args = arguments(s)
	}
	if s := e.Logon.Command; s != "" && suspicious(s) {
		e.Logon.Command = Words(strings.Fields(s), len(s)+len(redacted))
	}
}

// arguments redacts words joined by NUL.
func arguments(args string) string {
	words := strings.Split(args, "\x00")
	out := words[:0:0]
	hide, program := false, ""
	for i, w := range words {
		if i == 0 {
			program = w[strings.LastIndexByte(w, '/')+1:]
		}
		w, hide = word(program, w, hide)
		out = append(out, w)
	}
	return strings.Join(out, "\x00")
}

// word redacts one word; hide says that the one before asked for it, and next that it asks for the one that follows.
func word(program, w string, hide bool) (out string, next bool) {
	if hide {
		// "Authorization:" "Bearer" "xyz": what follows the scheme is the secret.
		return redacted, strings.EqualFold(w, "bearer") || strings.EqualFold(w, "basic")
	}
	switch program {
	case "mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump", "mariadb-admin":
		if strings.HasPrefix(w, "-p") && len(w) > 2 && !strings.HasPrefix(w, "--") { // the password follows at once
			return "-p" + redacted, false
		}
	case "sshpass":
		if strings.HasPrefix(w, "-p") && len(w) > 2 {
			return "-p" + redacted, false
		}
		if w == "-p" {
			return w, true
		}
	case "curl":
		if w == "-u" || w == "--user" || w == "-U" || w == "--proxy-user" {
			return w, true
		}
	}
	return redactWord(w)
}

// marks are what a text with a secret has somewhere, by the letter they begin with, in lower case.
var marks = [256][]string{
	'a': {"apikey", "api-key", "api_key", "authorization", "akia", "asia", "access_key", "access-key"},
	'b': {"bearer", "begin "},
	'c': {"credential", "curl"},
	'm': {"mysql", "mariadb"},
	'o': {"omega1"},
	'p': {"pass", "pwd", "private"},
	's': {"secret"},
	't': {"token"},
	':': {"://"},
}

// suspicious says whether a text may hold a secret: a look at each byte, so that most events cost no more.
func suspicious(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		for _, m := range marks[c] {
			if len(s)-i >= len(m) && strings.EqualFold(s[i:i+len(m)], m) {
				return true
			}
		}
	}
	return false
}
