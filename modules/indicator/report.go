package indicator

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a report.
const (
	maxReasons = 32
	maxExample = 160
	otherwise  = "for other reasons"
)

// Report is what became of what a source gave. Nothing is left out of it: Read is the sum of the others.
type Report struct {
	Read      uint64
	Taken     uint64
	Duplicate uint64 // had already
	Expired   uint64
	// NotApplicable is what is sound and cannot be seen on this host, by the reason; Rejected what is not sound.
	NotApplicable map[string]*Refusal
	Rejected      map[string]*Refusal
}

// Refusal is how often a reason held, and one example of it.
type Refusal struct {
	Reason  string
	Count   uint64
	Example string
}

func tally(to *map[string]*Refusal, why, example string) {
	if *to == nil {
		*to = map[string]*Refusal{}
	}
	why = printable(why, maxExample)
	r := (*to)[why]
	if r == nil {
		if len(*to) >= maxReasons {
			why = otherwise
		}
		if r = (*to)[why]; r == nil {
			r = &Refusal{Reason: why, Example: printable(example, maxExample)}
			(*to)[why] = r
		}
	}
	r.Count++
}

func (r *Report) reject(why, example string)        { tally(&r.Rejected, why, example) }
func (r *Report) notApplicable(why, example string) { tally(&r.NotApplicable, why, example) }

// Reject and NotApply count what a reader found and could not hand to the builder.
func (r *Report) Reject(why, example string) {
	r.Read++
	r.reject(why, example)
}

// NotApply is Reject for what is sound and not for this host.
func (r *Report) NotApply(why, example string) {
	r.Read++
	r.notApplicable(why, example)
}

// Refusals lists those of a kind, the most frequent first.
func Refusals(of map[string]*Refusal) []Refusal {
	out := make([]Refusal, 0, len(of))
	for _, r := range of {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

// Total is how many there are of a kind.
func Total(of map[string]*Refusal) uint64 {
	var n uint64
	for r := range maps.Values(of) {
		n += r.Count
	}
	return n
}

// printable copies at most n bytes of a stranger's text, without what does not show itself.
func printable(s string, n int) string {
	s = strings.ToValidUTF8(strings.Clone(s[:min(len(s), n)]), "\uFFFD")
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}
