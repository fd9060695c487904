package meter

import (
	"bytes"
	"fmt"
	"strings"
)

// Options say what the rewritten module may do.
type Options struct {
	// Start is the fuel a new instance has for its start function.
	Start int64
	// Memory is the most its memory may grow to, in pages of 64 KiB.
	Memory uint32
}

// Bounds of a module, past which nothing we know of goes.
const (
	maxSections  = 64
	maxTypes     = 4096
	maxFunctions = 100_000
	maxGlobals   = 4096
	maxExports   = 4096
	maxImports   = 256
	maxLocals    = 50_000
	maxResults   = 1000
	maxDepth     = 1024 // nested blocks
	maxTables    = 16
	maxTable     = 1 << 16 // entries
	maxSegments  = 65_536
)

// Exports of a rewritten module that the host alone uses; a guest that exports a name beginning so is refused.
const (
	reserved = "\x00omega "
	// Fuel is the counter, an i64: the host sets it before a call; below zero it was used up.
	Fuel = reserved + "fuel"
	// Depth is how many calls are open, an i32: the host sets it to 0 before a call.
	Depth = reserved + "depth"
)

// Global names the i-th of the guest's own mutable globals: after a trap the host puts each back to what it was before
// the call, the stack pointer above all.
func Global(i int) string { return fmt.Sprintf("%sglobal %d", reserved, i) }

// Module is a rewritten module.
type Module struct {
	Code    []byte
	Globals int // how many mutable globals there are under the names that Global gives
	// Initialize says that the guest has a runtime of its own to start (`_initialize`): after a trap in its midst it
	// cannot go on, and a new instance is made.
	Initialize bool
	Imports    []string // "module.name" of every function asked for
}

const (
	sectionCustom   = 0
	sectionType     = 1
	sectionImport   = 2
	sectionFunction = 3
	sectionTable    = 4
	sectionMemory   = 5
	sectionGlobal   = 6
	sectionExport   = 7
	sectionStart    = 8
	sectionElement  = 9
	sectionCode     = 10
	sectionData     = 11
	sectionCount    = 12
)

// order is where a section stands; 0 is one that may not be.
var order = [...]int{sectionType: 1, sectionImport: 2, sectionFunction: 3, sectionTable: 4, sectionMemory: 5, sectionGlobal: 6,
	sectionExport: 7, sectionStart: 8, sectionElement: 9, sectionCount: 10, sectionCode: 11, sectionData: 12}

type rewriter struct {
	opt       Options
	params    []int             // of each type
	results   []string          // the bytes of each type's results
	blocks    map[string]uint32 // types added for blocks, by their results
	moreTypes []byte
	functions []uint32 // type of each function of its own
	imported  struct{ functions, globals int }
	mutable   []uint32 // indexes of its own mutable globals
	globals   int      // imported and own; the counter comes after
	sections  [13][]byte
	out       Module
}

// Rewrite gives a module that counts. What it refuses says why; what it lets pass is still to be validated by the engine.
func Rewrite(module []byte, opt Options) (*Module, error) {
	w := &rewriter{opt: opt, blocks: map[string]uint32{}}
	if err := w.split(module); err != nil {
		return nil, err
	}
	for _, step := range []func() error{w.types, w.imports, w.declarations, w.tables, w.memory, w.segments, w.global, w.exports, w.code, w.addTypes} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	b := append(make([]byte, 0, len(module)+len(module)/8+128), header...)
	ids := [...]int{sectionType, sectionImport, sectionFunction, sectionTable, sectionMemory, sectionGlobal, sectionExport, sectionStart, sectionElement, sectionCount, sectionCode, sectionData}
	for _, id := range ids {
		if s := w.sections[id]; s != nil {
			b = append(b, byte(id))
			b = appendUint32(b, uint32(len(s)))
			b = append(b, s...)
		}
	}
	w.out.Code = b
	return &w.out, nil
}

var header = []byte("\x00asm\x01\x00\x00\x00")

// split finds the sections. Custom ones are left out: what they say is for tools.
func (w *rewriter) split(module []byte) error {
	rest, ok := bytes.CutPrefix(module, header)
	if !ok {
		return fmt.Errorf("%w: it does not begin as WebAssembly 1 does", ErrModule)
	}
	r := &reader{b: rest}
	last, n := 0, 0
	for r.more() {
		if n++; n > maxSections {
			r.fail("more than %d sections", maxSections)
			break
		}
		id := r.byte()
		s := r.take(r.uint32())
		if r.err != nil {
			break
		}
		if id == sectionCustom {
			continue
		}
		if int(id) >= len(order) || order[id] <= last {
			r.fail("section %d out of its order", id)
			break
		}
		last = order[id]
		w.sections[id] = s
	}
	return r.err
}

func (w *rewriter) types() error {
	r := &reader{b: w.sections[sectionType]}
	if len(r.b) == 0 {
		return nil
	}
	for n := r.count("types", maxTypes); n > 0 && r.err == nil; n-- {
		if r.byte() != 0x60 {
			r.fail("a type that is no function's")
		}
		params := r.count("parameters", maxLocals)
		r.take(uint32(params))
		w.results = append(w.results, string(r.take(uint32(r.count("results", maxResults)))))
		w.params = append(w.params, params)
	}
	return r.err
}

func (w *rewriter) imports() error {
	r := &reader{b: w.sections[sectionImport]}
	if len(r.b) == 0 {
		return nil
	}
	for n := r.count("imports", maxImports); n > 0 && r.err == nil; n-- {
		module, name := r.name(), r.name()
		switch kind := r.byte(); kind {
		case 0:
			r.uint32()
			w.imported.functions++
			w.out.Imports = append(w.out.Imports, module+"."+name)
		default:
			r.fail("it imports %.40q.%.40q, which is no function: a guest has its memory, tables and globals of its own", module, name)
		}
	}
	return r.err
}

func (w *rewriter) declarations() error {
	r := &reader{b: w.sections[sectionFunction]}
	if len(r.b) > 0 {
		for n := r.count("functions", maxFunctions); n > 0 && r.err == nil; n-- {
			t := r.uint32()
			if int64(t) >= int64(len(w.params)) {
				r.fail("a function of type %d, which there is not", t)
			}
			w.functions = append(w.functions, t)
		}
	}
	return r.err
}

// tables lowers the bound of each table: an entry takes 8 bytes of the host's.
func (w *rewriter) tables() error {
	r := &reader{b: w.sections[sectionTable]}
	if len(r.b) == 0 {
		return nil
	}
	n := r.count("tables", maxTables)
	out := appendUint32(nil, uint32(n))
	for ; n > 0 && r.err == nil; n-- {
		kind, flags := r.byte(), r.byte()
		if flags > 1 {
			r.fail("a table of another kind")
		}
		least, most := r.uint32(), uint32(maxTable)
		if flags == 1 {
			most = min(most, r.uint32())
		}
		if least > maxTable || most < least {
			r.fail("a table of %d to %d entries: it may have %d", least, most, maxTable)
		}
		out = appendUint32(appendUint32(append(out, kind, 1), least), most)
	}
	w.sections[sectionTable] = out
	return r.err
}

// segments reads through what is laid into memory and tables. The engine makes room for as many as a section says it
// has, so a section that says four billion must not reach it.
func (w *rewriter) segments() error {
	r := &reader{b: w.sections[sectionElement]}
	if len(r.b) > 0 {
		for n := r.count("element segments", maxSegments); n > 0 && r.err == nil; n-- {
			w.element(r)
		}
	}
	if r.err != nil {
		return r.err
	}
	r = &reader{b: w.sections[sectionData]}
	n := 0
	if len(r.b) > 0 {
		n = r.count("data segments", maxSegments)
		for i := 0; i < n && r.err == nil; i++ {
			flags := r.uint32()
			if flags > 2 {
				r.fail("a data segment of another kind")
			}
			if flags == 2 {
				r.uint32()
			}
			if flags != 1 {
				r.expression()
			}
			r.take(r.uint32())
		}
	}
	if c := (&reader{b: w.sections[sectionCount]}); r.err == nil && len(c.b) > 0 {
		if got := c.uint32(); c.err != nil || int64(got) != int64(n) {
			r.fail("%d data segments, and it says %d", n, got)
		}
	}
	return r.err
}

// element reads one element segment; its flags say which of eight forms it has.
func (w *rewriter) element(r *reader) {
	flags := r.uint32()
	if flags > 7 {
		r.fail("an element segment of another kind")
		return
	}
	active, explicit, expressions := flags&1 == 0, flags&2 != 0, flags&4 != 0
	if active {
		if explicit {
			r.uint32()
		}
		r.expression()
	}
	if !active || explicit {
		r.byte()
	}
	for n := r.count("elements", maxTable); n > 0 && r.err == nil; n-- {
		if expressions {
			r.expression()
		} else {
			r.uint32()
		}
	}
}

// expression reads past a constant expression.
func (r *reader) expression() {
	for r.err == nil {
		op := r.byte()
		if op == opEnd {
			return
		}
		immediates(r, op)
	}
}

// memory lowers the bound the module names for its memory to the one it may have.
func (w *rewriter) memory() error {
	r := &reader{b: w.sections[sectionMemory]}
	if len(r.b) == 0 {
		return nil
	}
	n := r.count("memories", 1)
	out := appendUint32(nil, uint32(n))
	for ; n > 0 && r.err == nil; n-- {
		flags := r.byte()
		if flags > 1 {
			r.fail("a shared memory, or one of 64 bits")
			break
		}
		least, most := r.uint32(), w.opt.Memory
		if flags == 1 {
			most = min(most, r.uint32())
		}
		if least > w.opt.Memory {
			r.fail("it begins with %d pages of memory, and may have %d", least, w.opt.Memory)
		}
		if most < least {
			r.fail("a memory of at most %d pages that begins with %d", most, least)
		}
		out = appendUint32(appendUint32(append(out, 1), least), most)
	}
	w.sections[sectionMemory] = out
	return r.err
}

// global appends the counters.
func (w *rewriter) global() error {
	r := &reader{b: w.sections[sectionGlobal]}
	n := 0
	body := []byte(nil)
	if len(r.b) > 0 {
		n = r.count("globals", maxGlobals)
		start := r.at
		for i := range n {
			kind, mutable := r.byte(), r.byte()
			if mutable == 1 && kind >= 0x7c && kind <= 0x7f {
				w.mutable = append(w.mutable, uint32(i))
			}
			if r.expression(); r.err != nil {
				return r.err
			}
		}
		body = r.b[start:r.at]
	}
	w.globals = w.imported.globals + n
	out := append(appendUint32(nil, uint32(n+2)), body...)
	out = append(out, 0x7e, 1, opI64Const)
	out = append(appendInt64(out, w.opt.Start), opEnd)
	out = append(out, 0x7f, 1, opI32Const, 0, opEnd)
	w.sections[sectionGlobal] = out
	w.out.Globals = len(w.mutable)
	return r.err
}

// exports lets the host reach the counter and the guest's mutable globals.
func (w *rewriter) exports() error {
	r := &reader{b: w.sections[sectionExport]}
	n := 0
	var body []byte
	if len(r.b) > 0 {
		n = r.count("exports", maxExports)
		start := r.at
		for range n {
			name, kind, index := r.name(), r.byte(), r.uint32()
			if strings.HasPrefix(name, reserved) {
				r.fail("it exports a name of the host's")
			}
			if kind == 3 && int64(index) >= int64(w.globals) {
				r.fail("it exports global %d, and has %d", index, w.globals)
			}
			w.out.Initialize = w.out.Initialize || name == "_initialize"
		}
		body = r.b[start:r.at]
	}
	if r.err != nil {
		return r.err
	}
	out := append(appendUint32(nil, uint32(n+2+len(w.mutable))), body...)
	out = appendUint32(append(appendName(out, Fuel), 3), uint32(w.globals))
	out = appendUint32(append(appendName(out, Depth), 3), uint32(w.globals)+1)
	for i, index := range w.mutable {
		out = appendUint32(append(appendName(out, Global(i)), 3), index)
	}
	w.sections[sectionExport] = out
	return nil
}

// addTypes appends the types that blocks needed.
func (w *rewriter) addTypes() error {
	if len(w.blocks) == 0 {
		return nil
	}
	r := &reader{b: w.sections[sectionType]}
	r.uint32()
	out := appendUint32(nil, uint32(len(w.params)+len(w.blocks)))
	w.sections[sectionType] = append(append(out, r.b[r.at:]...), w.moreTypes...)
	return r.err
}
