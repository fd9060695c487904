package fields

import (
	"net/netip"
	"strings"
)

// Op is a comparison of text; numbers, addresses and bits know Equal alone.
type Op uint8

const (
	Equal Op = iota
	Contains
	Prefix
	Suffix
)

// Need is one comparison that must hold of an event, as data: a store passes by what cannot satisfy it.
type Need struct {
	Field   *Field
	Op      Op
	Text    string
	Number  uint64
	Address netip.Addr
}

// Needs are necessary conditions of an expression: of each clause at least one need holds in every event that the
// expression is true of. No clause says nothing: all events must be looked at.
type Needs [][]Need

// And gives what both need.
func (n Needs) And(o Needs) Needs { return append(append(Needs(nil), n...), o...) }

// Or gives what one or the other needs: a clause of each, joined. Clauses beyond the first are given up.
func (n Needs) Or(o Needs) Needs {
	if len(n) == 0 || len(o) == 0 {
		return nil
	}
	return Needs{append(append([]Need(nil), n[0]...), o[0]...)}
}

// Holds tells whether a comparison of text holds of s.
func (n *Need) Holds(s string) bool {
	switch n.Op {
	case Equal:
		return s == n.Text
	case Contains:
		return strings.Contains(s, n.Text)
	case Prefix:
		return strings.HasPrefix(s, n.Text)
	}
	return strings.HasSuffix(s, n.Text)
}
