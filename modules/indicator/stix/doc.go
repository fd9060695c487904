// Package stix reads STIX patterns (STIX 2.1, section 9: the OASIS standard of 10 June 2021) and holds events against them.
//
// A pattern is text of strangers: its length, depth and number of terms are bounded before it means anything. What can be
// looked up in a set is left to the caller, who walks the tree; the rest becomes a Matcher over this host's events. A
// pattern that speaks of what no event here has is refused with the reason (ErrNotApplicable), never dropped in silence.
package stix
