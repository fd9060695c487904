package sigma

import (
	"bytes"
	"math/bits"
	"slices"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
)

// matcher is a set of rules made one. It is not changed once made; each goroutine looks through a scan of its own.
type matcher struct {
	rules    []*Rule
	programs []*node
	atoms    []*atom
	slotOf   []int32  // of each atom
	otherOf  []int32  // the slot an atom compares with, -1
	uses     []int    // how often an atom stands in the rules
	must     []string // of each atom: the text that it is looked for by, empty where there is none
	slots    []string
	readers  []read
	numbered map[string]int32
}

// node is an expression over atoms by their numbers.
type node struct {
	op   operator
	atom int32
	kids []*node
}

// newMatcher makes one of rules that are detections.
func newMatcher(rules []*Rule) *matcher {
	m := &matcher{rules: rules, numbered: map[string]int32{}}
	atoms := map[string]int32{}
	for _, r := range rules {
		m.programs = append(m.programs, m.compile(r.detection, atoms))
	}
	m.choose()
	return m
}

// choose says by which text each atom is looked for: of those that a pattern needs, a long one that few others need.
func (m *matcher) choose() {
	needed := map[string]int{}
	for _, a := range m.atoms {
		for _, text := range a.also {
			needed[text]++
		}
	}
	for _, a := range m.atoms {
		must, most := a.must, 0
		for i, text := range a.also {
			if q := worth(text, needed[text]); i == 0 || q > most {
				must, most = text, q
			}
		}
		m.must = append(m.must, must)
	}
}

// worth is how good a text is at telling events apart that so many ask for.
func worth(text string, uses int) int {
	return 4*len(text) - common(text[:min(4, len(text))])/4 - 8*bits.Len(uint(uses-1))
}

func (m *matcher) slot(name string) int32 {
	if i, ok := m.numbered[name]; ok {
		return i
	}
	i := int32(len(m.slots))
	m.numbered[name] = i
	m.slots, m.readers = append(m.slots, name), append(m.readers, reader(name))
	return i
}

func (m *matcher) compile(e *expr, atoms map[string]int32) *node {
	n := &node{op: e.op}
	if e.op == opAtom {
		key := e.atom.key()
		id, ok := atoms[key]
		if !ok {
			id = int32(len(m.atoms))
			atoms[key] = id
			other := int32(-1)
			if e.atom.ask >= askFieldEquals {
				other = m.slot(e.atom.text)
			}
			m.atoms, m.slotOf, m.otherOf = append(m.atoms, e.atom), append(m.slotOf, m.slot(e.atom.slot)), append(m.otherOf, other)
			m.uses = append(m.uses, 0)
		}
		m.uses[id]++
		n.atom = id
		return n
	}
	for _, k := range e.kids {
		n.kids = append(n.kids, m.compile(k, atoms))
	}
	return n
}

// witness is a set of atoms one of which is true whenever n is, and how good they are at telling events apart; nil where
// there is no such set. What many rules ask for is what hosts are full of, and has each of them looked at once it is there: a
// word of one rule alone is better.
func (m *matcher) witness(n *node) (atoms []int32, quality int) {
	switch n.op {
	case opAtom:
		a := m.atoms[n.atom]
		must := m.must[n.atom]
		if must == "" {
			return nil, 0
		}
		q := worth(must, m.uses[n.atom])
		if a.ask == askEquals {
			q += 8
		}
		return []int32{n.atom}, q
	case opAnd:
		for _, k := range n.kids {
			if w, q := m.witness(k); w != nil && (atoms == nil || q > quality) {
				atoms, quality = w, q
			}
		}
	case opOr:
		quality = 1 << 20
		for _, k := range n.kids {
			w, q := m.witness(k)
			if w == nil {
				return nil, 0
			}
			atoms, quality = append(atoms, w...), min(quality, q)
		}
		quality -= len(atoms) / 4
	}
	return atoms, quality
}

// plan is how the events of some log sources are looked at: which fields are searched, and what each literal may mean.
type plan struct {
	indexes []slotIndex
	asks    map[int32][]int32 // atom → rules it is a witness of
	always  []int32           // rules without a witness
	rules   int
}

type slotIndex struct {
	slot  int32
	index *gramIndex
}

func (m *matcher) plan(covers func(*Rule) bool) *plan {
	p := &plan{asks: map[int32][]int32{}}
	for i, r := range m.rules {
		if !covers(r) {
			continue
		}
		p.rules++
		w, _ := m.witness(m.programs[i])
		if w == nil {
			p.always = append(p.always, int32(i))
			continue
		}
		slices.Sort(w)
		for _, a := range slices.Compact(w) {
			p.asks[a] = append(p.asks[a], int32(i))
		}
	}
	bySlot := map[int32]map[int32]string{}
	order := map[int32][]int32{}
	for a := range p.asks {
		s := m.slotOf[a]
		if bySlot[s] == nil {
			bySlot[s] = map[int32]string{}
		}
		bySlot[s][a] = m.must[a]
		order[s] = append(order[s], a)
	}
	for s, literals := range bySlot {
		slices.Sort(order[s])
		p.indexes = append(p.indexes, slotIndex{s, newGramIndex(literals, order[s])})
	}
	slices.SortFunc(p.indexes, func(a, b slotIndex) int { return int(a.slot - b.slot) })
	return p
}

// What is known of a slot in the event at hand.
const (
	unread  = iota
	absent  // it has no such field
	empty   // one of our own: empty and absent are the same
	present // there it is
)

// slotValue is one field of the event at hand.
type slotValue struct {
	epoch uint32
	state uint8
	multi bool // parts joined by NUL
	text  string
	low   string
	made  []byte // what text is made in, where it is not there already
	lower []byte
}

// scan is the work of one goroutine on one event after another. It allocates nothing once its buffers have grown.
type scan struct {
	m      *matcher
	epoch  uint32
	values []slotValue
	known  []uint32 // of each atom: epoch<<1 | answer
	asked  []uint32 // of each atom: epoch in which its rules were looked at
	seen   []uint32 // of each rule: epoch in which it was evaluated
	event  *event.Event
	record *Record
	hits   []int32
	plan   *plan
	hit    func(int32)
}

func newScan(m *matcher) *scan {
	s := &scan{m: m, values: make([]slotValue, len(m.slots)), known: make([]uint32, len(m.atoms)), asked: make([]uint32, len(m.atoms)), seen: make([]uint32, len(m.rules))}
	s.hit = s.ask
	return s
}

// match gives the numbers of the rules that match; the slice is good until the next call.
func (s *scan) match(p *plan, e *event.Event, r *Record) []int32 {
	if s.epoch++; s.epoch >= 1<<31 {
		clear(s.known)
		clear(s.asked)
		clear(s.seen)
		for i := range s.values {
			s.values[i].epoch = 0
		}
		s.epoch = 1
	}
	s.event, s.record, s.plan, s.hits = e, r, p, s.hits[:0]
	for _, i := range p.always {
		s.evaluate(i)
	}
	for _, x := range p.indexes {
		v := s.value(x.slot)
		if v.state == present {
			x.index.each(lowBytes(v), s.hit)
		}
	}
	s.event, s.record = nil, nil
	return s.hits
}

// ask is called with an atom whose literal may be there.
func (s *scan) ask(atom int32) {
	if s.asked[atom] == s.epoch {
		return
	}
	if s.asked[atom] = s.epoch; !s.atom(atom) {
		return
	}
	for _, rule := range s.plan.asks[atom] {
		s.evaluate(rule)
	}
}

func (s *scan) evaluate(rule int32) {
	if s.seen[rule] == s.epoch {
		return
	}
	s.seen[rule] = s.epoch
	if s.eval(s.m.programs[rule]) {
		s.hits = append(s.hits, rule)
	}
}

func (s *scan) eval(n *node) bool {
	switch n.op {
	case opAtom:
		return s.atom(n.atom)
	case opAnd:
		for _, k := range n.kids {
			if !s.eval(k) {
				return false
			}
		}
		return true
	case opOr:
		for _, k := range n.kids {
			if s.eval(k) {
				return true
			}
		}
		return false
	case opNot:
		return !s.eval(n.kids[0])
	}
	return n.op == opTrue
}

// atom answers a question once an event.
func (s *scan) atom(id int32) bool {
	if k := s.known[id]; k>>1 == s.epoch {
		return k&1 == 1
	}
	yes := s.answer(s.m.atoms[id], id)
	s.known[id] = s.epoch << 1
	if yes {
		s.known[id] |= 1
	}
	return yes
}

func (s *scan) answer(a *atom, id int32) bool {
	v := s.value(s.m.slotOf[id])
	switch a.ask {
	case askExists:
		return v.state == present
	case askNull:
		return v.state != present
	case askEquals:
		if a.text == "" && v.state == empty {
			return true
		}
	case askFieldEquals, askFieldContains, askFieldPrefix, askFieldSuffix:
		o := s.value(s.m.otherOf[id])
		if v.state != present || o.state != present {
			return false
		}
		x, y := low(v), low(o)
		if a.cased {
			x, y = v.text, o.text
		}
		switch a.ask {
		case askFieldContains:
			return strings.Contains(x, y)
		case askFieldPrefix:
			return strings.HasPrefix(x, y)
		case askFieldSuffix:
			return strings.HasSuffix(x, y)
		}
		return x == y
	}
	if v.state != present {
		return false
	}
	if !v.multi {
		return a.matchText(v.text, low(v))
	}
	text, lowered := v.text, low(v)
	if len(text) != len(lowered) { // some letter is longer in lower case: the parts are lowered one by one
		for part := range strings.SplitSeq(text, "\x00") {
			if a.matchText(part, lower(part)) {
				return true
			}
		}
		return false
	}
	for {
		i := strings.IndexByte(text, 0)
		if i < 0 {
			return a.matchText(text, lowered)
		}
		if a.matchText(text[:i], lowered[:i]) {
			return true
		}
		if text, lowered = text[i+1:], lowered[i+1:]; text == "" {
			return false
		}
	}
}

// value fetches a field once an event.
func (s *scan) value(slot int32) *slotValue {
	v := &s.values[slot]
	if v.epoch == s.epoch {
		return v
	}
	v.epoch, v.state, v.multi, v.low, v.lower = s.epoch, absent, false, "", v.lower[:0]
	if s.record != nil {
		if t, ok := s.record.lookup(s.m.slots[slot]); ok {
			v.state, v.text = present, t
		}
	} else if f := s.m.readers[slot]; f != nil {
		t, made := f(s.event, v.made[:0])
		if v.made = made; t == "" && len(made) > 0 {
			t = view(made)
		}
		if v.state, v.text = present, t; t == "" {
			v.state = empty
		}
	}
	if v.state == present {
		v.multi = strings.IndexByte(v.text, 0) >= 0
	}
	return v
}

// low is a value in lower case, made once an event.
func low(v *slotValue) string {
	if v.low == "" && v.text != "" {
		v.lower = appendLower(v.lower[:0], v.text)
		v.low = view(v.lower)
	}
	return v.low
}

func lowBytes(v *slotValue) []byte {
	low(v)
	return v.lower
}

// fieldText is a field of the event at hand as it is, for grouping and evidence.
func fieldText(m *matcher, e *event.Event, r *Record, name string) string {
	if r != nil {
		s, _ := r.lookup(name)
		return s
	}
	f := reader(name)
	if f == nil {
		return ""
	}
	t, made := f(e, nil)
	if t == "" {
		t = string(bytes.TrimRight(made, "\x00"))
	}
	return strings.Clone(t)
}
