package indicator

import (
	"hash/maphash"
	"math/bits"
	"unsafe"
)

// Bounds of the sets.
const (
	// maxEntries is how many prefixes there may be.
	maxEntries = 1<<24 - 2
	perLine    = 3
	lineBytes  = 64
	firstLines = 16
)

// table has the values of every kind but prefixes and patterns, by what two hashes say of them: 64 bits of one, which also
// say where to look, and 32 of another. The values themselves are not kept, so that a look-up of what is there goes to one
// line of memory and not to three. Both seeds are random and never leave the process: whoever writes an indicator cannot make
// two of them meet, and by chance one value is taken for another once in 2^70 look-ups among five million.
type table struct {
	place, check maphash.Seed
	lines        []line
	n            int
	filter       []uint64
}

// line is three entries in one line of the processor's cache. A hash of 0 is a free place.
type line struct {
	hash       [perLine]uint64
	check      [perLine]uint32
	expires    [perLine]uint32
	origin     [perLine]uint16
	confidence [perLine]uint8
	flags      [perLine]uint8
	// full says that something whose place is here lies in a line after it.
	full bool
}

// A line must be what it is said to be.
var _ [lineBytes]byte = [unsafe.Sizeof(line{})]byte{}

// at gives the meta of place i.
func (l *line) at(i int) Meta {
	return Meta{Origin: l.origin[i], Confidence: l.confidence[i], flags: l.flags[i], Expires: l.expires[i]}
}

func (l *line) put(i int, m Meta) {
	l.origin[i], l.confidence[i], l.flags[i], l.expires[i] = m.Origin, m.Confidence, m.flags, m.Expires
}

func newTable() table { return table{place: maphash.MakeSeed(), check: maphash.MakeSeed()} }

// hashOf is where a value is looked for. Kinds are kept apart by a number added to it: a name may be a domain's too.
func (t *table) hashOf(k Kind, value string) uint64 {
	return max(1, maphash.String(t.place, value)+uint64(k)*0x9e3779b97f4a7c15)
}

func (t *table) checkOf(value string) uint32 { return uint32(maphash.String(t.check, value)) }

// lineOf is the line whose place a hash is: its upper bits, so that the order of hashes is that of lines.
func (t *table) lineOf(h uint64) int {
	i, _ := bits.Mul64(h, uint64(len(t.lines)))
	return int(i)
}

func (t *table) next(i int) int {
	if i++; i == len(t.lines) {
		return 0
	}
	return i
}

// find gives what is known of a value.
func (t *table) find(k Kind, value string) (Meta, bool) {
	if t.n == 0 {
		return Meta{}, false
	}
	h := t.hashOf(k, value)
	if t.absent(h) {
		return Meta{}, false
	}
	if l, i := t.search(h, value); l != nil {
		return l.at(i), true
	}
	return Meta{}, false
}

// search asks for the three hashes of a line without a branch between them: which of them it is nobody foresees, and a branch
// that waits for memory keeps the processor from beginning the next look-up meanwhile.
func (t *table) search(h uint64, value string) (*line, int) {
	for at := t.lineOf(h); ; at = t.next(at) {
		l := &t.lines[at]
		first, second, third := equal(l.hash[0], h), equal(l.hash[1], h), equal(l.hash[2], h)
		if first|second|third != 0 {
			check := t.checkOf(value)
			if i := second | third<<1; i < perLine && l.check[i] == check {
				return l, int(i)
			}
			for i := range perLine { // several of one hash, and another one of them
				if l.hash[i] == h && l.check[i] == check {
					return l, i
				}
			}
		}
		if !l.full {
			return nil, 0
		}
	}
}

// equal is 1 where a is b, and else 0.
func equal(a, b uint64) uint64 {
	d := a ^ b
	return (d|-d)>>63 ^ 1
}

// add gives the place of a value and whether it is new there; no line if more than most bytes would be needed.
func (t *table) add(k Kind, value string, most int64) (l *line, i int, fresh bool) {
	h := t.hashOf(k, value)
	if t.n > 0 {
		if l, i := t.search(h, value); l != nil {
			return l, i, false
		}
	}
	if 10*t.n >= 8*perLine*len(t.lines) && !t.grow(most) {
		return nil, 0, false
	}
	l, i = t.insert(h, t.checkOf(value))
	return l, i, true
}

// insert takes what is not there yet.
func (t *table) insert(h uint64, check uint32) (*line, int) {
	for at := t.lineOf(h); ; at = t.next(at) {
		l := &t.lines[at]
		for i := range perLine {
			if l.hash[i] == 0 {
				l.hash[i], l.check[i] = h, check
				t.n++
				return l, i
			}
		}
		l.full = true
	}
}

// grow makes the table half as large again, or as much as most bytes allow; for a moment both are in memory.
func (t *table) grow(most int64) bool {
	lines := min(max(firstLines, len(t.lines)+len(t.lines)/2), int(most/lineBytes))
	if lines <= len(t.lines)+len(t.lines)/8 {
		return false
	}
	old := t.lines
	t.lines, t.n = make([]line, lines), 0
	for j := range old {
		for i := range perLine {
			if h := old[j].hash[i]; h != 0 {
				l, at := t.insert(h, old[j].check[i])
				l.put(at, old[j].at(i))
			}
		}
	}
	return true
}

// settle makes the filter: a Bloom filter of three bits in one word, eight to sixteen bits an entry. It is a tenth of the
// lines, so that a look-up of what is not there stays in a nearer cache.
func (t *table) settle() {
	if t.n == 0 {
		return
	}
	words := 1
	for words*64 < t.n*8 {
		words *= 2
	}
	t.filter = make([]uint64, words)
	for j := range t.lines {
		for _, h := range t.lines[j].hash {
			if h != 0 {
				t.filter[word(h)&uint64(words-1)] |= filterBits(h)
			}
		}
	}
}

func word(h uint64) uint64 { return h >> 12 }

func filterBits(h uint64) uint64 { return 1<<(h>>38&63) | 1<<(h>>44&63) | 1<<(h>>50&63) }

// absent says that there is surely no entry of that hash; while a set is built it says nothing.
func (t *table) absent(h uint64) bool {
	if len(t.filter) == 0 {
		return false
	}
	b := filterBits(h)
	return t.filter[word(h)&uint64(len(t.filter)-1)]&b != b
}

func (t *table) bytes() int64 { return lineBytes*int64(len(t.lines)) + 8*int64(len(t.filter)) }

// merge is what two sources say of the same: the surer one is named, the later end holds, and each adds what it covers.
func merge(a, b Meta) Meta {
	out := a
	if b.Confidence > a.Confidence {
		out.Origin, out.Confidence = b.Origin, b.Confidence
	}
	if a.Expires == 0 || b.Expires == 0 {
		out.Expires = 0
	} else {
		out.Expires = max(a.Expires, b.Expires)
	}
	out.flags = a.flags | b.flags
	return out
}
