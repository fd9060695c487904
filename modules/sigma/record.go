package sigma

import "strings"

// Record is an event of another source: its fields by the names that rules have for them, its whole text for keywords,
// and what it says of where it comes from. A value of several parts is joined by NUL.
type Record struct {
	Source  LogSource
	Fields  map[string]string
	Message string
}

// lookup gives a slot's text; a field of auditd's is looked for by its own name.
func (r *Record) lookup(slot string) (string, bool) {
	if slot == "" {
		return r.Message, r.Message != ""
	}
	s, ok := r.Fields[strings.TrimPrefix(slot, auditdSpace)]
	return s, ok
}
