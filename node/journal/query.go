package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/fields"
)

// Query says which events are asked for.
type Query struct {
	Since  int64                    // wall clock, Unix nanoseconds; 0 is from the beginning
	Until  int64                    // 0 is until now
	Follow bool                     // go on as new ones come, until ctx ends
	Match  func(*event.Event) bool  // nil takes all
	Needs  fields.Needs             // what Match implies: blocks that cannot satisfy it are passed by
	Counts func(blocks, passed int) // if set, is told at the end how many blocks there were in the time asked for, and how many were passed by
}

// Read yields what a query asks for, in the order it was appended. The event and its strings' owner are reused: they are
// valid during the call alone. A block that does not read is passed over, and ends the reading with ErrDamaged once the
// rest is told.
func (j *Journal) Read(ctx context.Context, q Query, yield func(*event.Event) error) error {
	if q.Until == 0 {
		q.Until = math.MaxInt64
	}
	if err := j.Flush(ctx); err != nil {
		return err
	}
	u, err := newUnpacker()
	if err != nil {
		return err
	}
	defer u.close()
	r := &reading{journal: j, q: &q, plan: compile(q.Needs), u: u, yield: func(e *event.Event) error {
		if e.Time < q.Since || e.Time > q.Until || q.Match != nil && !q.Match(e) {
			return nil
		}
		return yield(e)
	}}
	if q.Counts != nil {
		defer func() { q.Counts(r.blocks, r.passed) }()
	}
	if q.Follow {
		j.followers.Add(1)
		defer j.followers.Add(-1)
		select {
		case j.kick <- struct{}{}:
		default:
		}
	}
	for {
		j.mu.Lock()
		wake, closed := j.wake, j.closed
		parts := j.since(r.id)
		j.mu.Unlock()
		for i := range parts {
			if err := r.segment(ctx, &parts[i]); err != nil {
				return err
			}
		}
		if !q.Follow || closed {
			return r.damage
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// since copies what is known of the segments from id on.
func (j *Journal) since(id uint64) []segment {
	var out []segment
	for _, s := range j.segments {
		if s.id >= id {
			out = append(out, *s) // its index only grows, behind the length that the copy has
		}
	}
	return out
}

// reading is one reader's place and its buffers.
type reading struct {
	journal *Journal
	q       *Query
	plan    plan
	u       *unpacker
	yield   func(*event.Event) error
	id      uint64 // of the segment reached
	off     int64  // in it: the first block not read
	buf     []byte
	blocks  int
	passed  int
	damage  error
}

func (r *reading) segment(ctx context.Context, s *segment) error {
	if s.id != r.id {
		r.id, r.off = s.id, 0
	}
	if s.blocks == r.off || s.last < r.q.Since || s.first > r.q.Until || r.plan.classes&s.classes == 0 {
		r.off = s.blocks
		return nil
	}
	f, err := os.Open(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the budget took it meanwhile
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	index := s.index
	if s.sealed {
		if index, err = s.readIndex(f); errors.Is(err, ErrDamaged) {
			index, err = scanIndex(f, s.blocks)
			r.damage = ErrDamaged
		}
		if err != nil {
			return err
		}
	}
	for len(index) >= 8+headerLen {
		off := int64(binary.LittleEndian.Uint64(index))
		h, err := parseHeader(index[8:])
		if err != nil || len(index) < 8+headerLen+h.filterLen() {
			r.damage = ErrDamaged
			break
		}
		filter := index[8+headerLen:][:h.filterLen()]
		index = index[8+headerLen+h.filterLen():]
		if off < r.off {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.block(f, off, &h, filter); err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return err
			}
			r.damage = err
		}
	}
	r.off = s.blocks
	return nil
}

// scanIndex makes the index anew, from the blocks.
func scanIndex(f io.ReaderAt, size int64) ([]byte, error) {
	s := newSegment("", 0)
	var buf []byte
	for s.blocks < size {
		h, b, err := readBlock(f, s.blocks, buf)
		if err != nil {
			if errors.Is(err, ErrDamaged) || errors.Is(err, io.EOF) {
				break
			}
			return nil, err
		}
		buf = b
		s.note(&h, b)
	}
	return s.index, nil
}

// errYield marks what the reader's own function returned, so that it is not taken for damage.
type errYield struct{ error }

func (e errYield) Unwrap() error { return e.error }

func (r *reading) block(f io.ReaderAt, off int64, h *header, filter []byte) error {
	if h.last < r.q.Since || h.first > r.q.Until {
		return nil
	}
	r.blocks++
	if !r.plan.mayHold(h, filter) {
		r.passed++
		return nil
	}
	start := headerLen + h.filterLen()
	if r.plan.words { // its strings alone may tell that it is not wanted
		part := r.room(int(h.dict))
		if _, err := f.ReadAt(part, off+int64(start)); err != nil {
			return err
		}
		if err := r.u.dictionary(part, h.dictRaw); err != nil {
			return err
		}
		if !r.plan.mayHoldWords(h, filter, r.u.words) {
			r.passed++
			return nil
		}
	}
	b := r.room(int(h.length))
	if _, err := f.ReadAt(b, off); err != nil {
		return err
	}
	if err := checkBlock(b); err != nil {
		return err
	}
	if err := r.u.dictionary(b[start:start+int(h.dict)], h.dictRaw); err != nil {
		return err
	}
	if err := r.u.table(b[start+int(h.dict):], h.colsRaw); err != nil {
		return err
	}
	var failed error
	err := r.u.each(h.events, func(e *event.Event) error {
		failed = r.yield(e)
		return failed
	})
	if failed != nil {
		return errYield{failed}
	}
	return err
}

func (r *reading) room(n int) []byte {
	if cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	return r.buf[:n]
}

// plan is what a block must have, of what can be told from outside of it.
type plan struct {
	classes uint16 // one of them
	clauses [][]probe
	words   bool // some probe wants to see the strings
}

// probe is a need as a block can answer it; what is zero is not asked.
type probe struct {
	classes    uint16
	activities [2]uint64
	hashes     []uint64 // one of them in the filter
	text       string   // in one of the strings, a NUL as good as a space
}

// wholeText tells that the field's text is one of a block's strings, partText that it is a part of one.
func wholeText(name string) bool {
	switch name {
	case "sensor", "exe", "comm", "cwd", "script", "parent", "tty", "container", "image", "pod", "unit", "remote_name", "sni", "file", "other", "hash", "fs",
		"dns_name", "operation", "target", "user", "as", "service", "method", "command":
		return true
	}
	return false
}

func partText(name string) bool {
	return name == "args" || name == "ancestors" || name == "answers" || name == "file_name"
}

func compile(needs fields.Needs) plan {
	p := plan{classes: 1<<classCount - 1}
	for _, clause := range needs {
		var probes []probe
		classes, any := uint16(0), false
		for i := range clause {
			pr, ok := compileNeed(&clause[i])
			if !ok {
				any = true
				break
			}
			probes = append(probes, pr)
			if classes |= pr.classes; pr.classes == 0 {
				classes = 1<<classCount - 1
			}
		}
		if any || len(probes) == 0 {
			continue
		}
		p.classes &= classes
		p.clauses = append(p.clauses, probes)
		for i := range probes {
			p.words = p.words || probes[i].text != ""
		}
	}
	return p
}

func compileNeed(n *fields.Need) (pr probe, ok bool) {
	switch name := n.Field.Name; {
	case name == "class":
		for _, c := range event.Classes() {
			if n.Holds(c.String()) {
				pr.classes |= 1 << classIndex(c)
			}
		}
		pr.classes |= 1 << (classCount - 1)
	case name == "activity":
		for a := range event.Activities {
			if n.Holds(event.Activity(a).String()) {
				pr.activities[a>>6] |= 1 << (a & 63)
			}
		}
		ok = pr.activities != [2]uint64{}
		return pr, ok
	case name == "pid", name == "ppid", name == "target_pid":
		if n.Number == 0 || n.Number > math.MaxUint32 {
			return pr, false
		}
		pr.hashes = []uint64{hashPID(uint32(n.Number))}
	case n.Field.Address != nil:
		if !n.Address.IsValid() {
			return pr, false
		}
		a := n.Address.Unmap()
		pr.hashes = []uint64{hashText(string(appendAddr(nil, a)))}
		if a.Is4() { // as an IPv6 socket has it
			x := a.As16()
			pr.hashes = append(pr.hashes, hashText(string(x[:])))
		}
	case n.Text == "" || len(n.Text) > maxText:
		return pr, false // what is not there is in no string; a longer one was cut
	case wholeText(name) && n.Op == fields.Equal:
		pr.hashes = []uint64{hashText(n.Text)}
	case wholeText(name), partText(name):
		pr.text = n.Text
	default:
		return pr, false
	}
	return pr, true
}

// mayHold asks what the header and the filter know.
func (p *plan) mayHold(h *header, filter []byte) bool {
	for _, clause := range p.clauses {
		if !anyOf(clause, func(pr *probe) bool { return pr.text != "" || pr.outside(h, filter) }) {
			return false
		}
	}
	return true
}

// mayHoldWords asks the strings too.
func (p *plan) mayHoldWords(h *header, filter []byte, words []string) bool {
	for _, clause := range p.clauses {
		if !anyOf(clause, func(pr *probe) bool {
			if pr.text == "" {
				return pr.outside(h, filter)
			}
			for _, w := range words {
				if holds(w, pr.text) {
					return true
				}
			}
			return false
		}) {
			return false
		}
	}
	return true
}

func anyOf(clause []probe, f func(*probe) bool) bool {
	for i := range clause {
		if f(&clause[i]) {
			return true
		}
	}
	return false
}

func (pr *probe) outside(h *header, filter []byte) bool {
	if pr.classes != 0 {
		return pr.classes&h.classes != 0
	}
	if pr.hashes == nil {
		return pr.activities[0]&h.activities[0]|pr.activities[1]&h.activities[1] != 0
	}
	for _, x := range pr.hashes {
		if mayHold(filter, x) {
			return true
		}
	}
	return false
}

// holds tells whether text is in word, where a NUL of word is as good as a space.
func holds(word, text string) bool {
	if strings.Contains(word, text) {
		return true
	}
	if strings.IndexByte(text, ' ') < 0 || strings.IndexByte(word, 0) < 0 {
		return false
	}
	for ; len(word) >= len(text); word = word[1:] {
		i := 0
		for i < len(text) && (word[i] == text[i] || word[i] == 0 && text[i] == ' ') {
			i++
		}
		if i == len(text) {
			return true
		}
	}
	return false
}
