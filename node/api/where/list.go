package where

import (
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/fields"
)

// list compares a field whose parts are joined by NUL: it holds of the whole, where a space stands between the parts as
// on a command line, or of any part by itself.
func (p *parser) list(f *fields.Field, op, value string) Expr {
	value, get := strings.Clone(value), f.Text
	switch op {
	case "=":
		return func(e *event.Event) bool {
			s := get(e)
			return len(s) == len(value) && spaced(s, value) || anyPart(s, value, func(part, v string) bool { return part == v })
		}
	case "~", "contains":
		return func(e *event.Event) bool {
			for s := get(e); len(s) >= len(value); s = s[1:] {
				if spaced(s, value) {
					return true
				}
				if s == "" {
					break
				}
			}
			return false
		}
	case "startswith":
		return func(e *event.Event) bool {
			s := get(e)
			return spaced(s, value) || anyPart(s, value, strings.HasPrefix)
		}
	case "endswith":
		return func(e *event.Event) bool {
			s := get(e)
			return len(s) >= len(value) && spaced(s[len(s)-len(value):], value) || anyPart(s, value, strings.HasSuffix)
		}
	}
	return p.fail("%s is a list: = != ~ !~ in contains startswith endswith apply", f.Name)
}

// spaced tells that s begins with v, where a NUL in s is as good as a space.
func spaced(s, v string) bool {
	if len(s) < len(v) {
		return false
	}
	for i := range len(v) {
		if s[i] != v[i] && (s[i] != 0 || v[i] != ' ') {
			return false
		}
	}
	return true
}

func anyPart(s, v string, holds func(part, v string) bool) bool {
	for s != "" {
		part, rest, _ := strings.Cut(s, "\x00")
		if holds(part, v) {
			return true
		}
		s = rest
	}
	return false
}
