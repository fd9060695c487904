package meter

// Instructions that are looked at, or written.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opSelectTyped  = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI64Const     = 0x42
	opI32Const     = 0x41
	opI32GtU       = 0x4b
	opI64LtS       = 0x53
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64ShrU      = 0x88
	opI64Shl       = 0x86
	opI64ExtendU   = 0xad
	opBulk         = 0xfc

	bulkMemoryInit = 8
	bulkMemoryCopy = 10
	bulkMemoryFill = 11
	bulkTableInit  = 12
	bulkTableCopy  = 14
	bulkTableGrow  = 15
	bulkTableFill  = 17

	blockEmpty = 0x40
)

// What a function's entry takes beside its straight code: for the call, and for its place on the stack, so that a
// recursion of large frames stops within some tens of megabytes.
const (
	callCost  = 16
	localCost = 4
)

// MaxDepth is how many calls of functions that call others may be open at once: one more is a trap. Without it a
// recursion would grow the engine's stack by hundreds of megabytes before its fuel is used up.
const MaxDepth = 8192

// immediates reads past what follows op. It refuses what this host does not run.
func immediates(r *reader, op byte) {
	switch {
	case op == opBlock || op == opLoop || op == opIf:
		r.skipSigned(5)
	case op == 0x0c || op == 0x0d || op == 0x10 || op >= opLocalGet && op <= 0x26 || op == 0xd2:
		r.uint32()
	case op == opBrTable:
		for n := r.count("branches", 1<<20); n >= 0 && r.err == nil; n-- {
			r.uint32()
		}
	case op == 0x11:
		r.uint32()
		r.uint32()
	case op == opSelectTyped:
		r.take(uint32(r.count("types of a select", 16)))
	case op >= 0x28 && op <= 0x3e:
		r.uint32()
		r.uint32()
	case op == 0x3f || op == opMemoryGrow || op == 0xd0:
		r.byte()
	case op == 0x41:
		r.skipSigned(5)
	case op == opI64Const:
		r.skipSigned(10)
	case op == 0x43:
		r.take(4)
	case op == 0x44:
		r.take(8)
	case op == 0x00 || op == 0x01 || op == 0x05 || op == opEnd || op == 0x0f || op == 0x1a || op == 0x1b || op >= 0x45 && op <= 0xc4 || op == 0xd1:
	case op == opBulk:
		r.fail("an instruction that is none") // read by bulk
	default:
		r.fail("instruction %#x: vector instructions, tail calls, threads and exceptions are not run here", op)
	}
}

// bulk reads the rest of an instruction of the 0xfc group, and says what its size, on top of the stack, costs: a right
// shift of it; -1 where it costs nothing of its own.
func bulk(r *reader) (shift int) {
	switch sub := r.uint32(); {
	case sub <= 7:
		return -1
	case sub == bulkMemoryInit || sub == bulkTableInit || sub == bulkMemoryCopy || sub == bulkTableCopy:
		r.uint32()
		r.uint32()
		if sub == bulkTableInit || sub == bulkTableCopy {
			return 0
		}
		return 4
	case sub == bulkMemoryFill:
		r.uint32()
		return 4
	case sub == bulkTableGrow || sub == bulkTableFill:
		r.uint32()
		return 0
	case sub <= 17: // data.drop, elem.drop, table.size
		r.uint32()
		return -1
	default:
		r.fail("instruction 0xfc %d", sub)
		return -1
	}
}

// growShift makes pages into the cost of clearing or copying them: 64 KiB a page, 16 bytes a unit.
const growShift = 12

// code rewrites every function.
func (w *rewriter) code() error {
	r := &reader{b: w.sections[sectionCode]}
	if len(r.b) == 0 {
		if len(w.functions) > 0 {
			r.fail("functions without code")
		}
		return r.err
	}
	n := r.count("function bodies", maxFunctions)
	if n != len(w.functions) {
		r.fail("%d function bodies for %d functions", n, len(w.functions))
	}
	if r.err != nil {
		return r.err
	}
	out := appendUint32(make([]byte, 0, len(r.b)+len(r.b)/8), uint32(n))
	var body []byte
	for i := range n {
		raw := r.take(r.uint32())
		if r.err != nil {
			return r.err
		}
		var err error
		if body, err = w.function(body[:0], raw, w.functions[i]); err != nil {
			return err
		}
		out = append(appendUint32(out, uint32(len(body))), body...)
	}
	w.sections[sectionCode] = out
	return nil
}

// function appends the rewritten body of one function.
func (w *rewriter) function(out, raw []byte, typ uint32) ([]byte, error) {
	r := &reader{b: raw}
	groups := r.count("groups of locals", maxLocals)
	locals := uint64(w.params[typ])
	start := r.at
	for range groups {
		locals += uint64(r.uint32())
		r.byte()
	}
	if locals > maxLocals {
		r.fail("%d locals", locals)
	}
	if r.err != nil {
		return nil, r.err
	}
	code := raw[r.at:]
	costs, calls, err := w.costs(code)
	if err != nil {
		return nil, err
	}
	out = appendUint32(out, uint32(groups+2))
	out = append(out, raw[start:r.at]...)
	out = append(out, 1, 0x7e, 1, 0x7f) // an i64 and an i32 of our own, after all of the guest's
	wide, narrow := uint32(locals), uint32(locals)+1

	out = w.charge(out, wide, costs[0]+callCost+localCost*int64(locals))
	if calls { // the body becomes a block, so that every way out of it leads past the count
		out = w.enter(out, narrow)
		out = append(out, opBlock)
		out = w.blockType(out, typ)
	}
	next := 1
	c := &reader{b: code}
	copied, nested := 0, 0
	for c.more() {
		at := c.at
		op := c.byte()
		shift := -1
		if op == opBulk {
			shift = bulk(c)
		} else {
			immediates(c, op)
		}
		switch {
		case op == opBlock || op == opIf:
			nested++
		case op == opEnd:
			nested--
		case op == opLoop:
			nested++
			out = append(out, code[copied:c.at]...)
			copied = c.at
			out = w.charge(out, wide, costs[next])
			next++
		case op == opReturn && calls:
			out = append(out, code[copied:at]...)
			copied = c.at
			out = appendUint32(append(out, opBr), uint32(nested))
		case shift >= 0 || op == opMemoryGrow:
			out = append(out, code[copied:at]...)
			copied = at
			out = w.chargeSize(out, wide, narrow, shift, op == opMemoryGrow)
		}
	}
	out = append(out, code[copied:]...)
	if calls {
		out = w.leave(out)
		out = append(out, opEnd)
	}
	return out, c.err
}

// blockType appends the type of a block that takes nothing and gives what a function of type typ gives.
func (w *rewriter) blockType(out []byte, typ uint32) []byte {
	results := w.results[typ]
	switch len(results) {
	case 0:
		return append(out, blockEmpty)
	case 1:
		return append(out, results[0])
	}
	index, ok := w.blocks[results]
	if !ok {
		index = uint32(len(w.params) + len(w.blocks))
		w.blocks[results] = index
		w.moreTypes = append(w.moreTypes, 0x60, 0)
		w.moreTypes = append(appendUint32(w.moreTypes, uint32(len(results))), results...)
	}
	return appendInt64(out, int64(index))
}

// enter appends: one more call is open, and stop where that is too many.
func (w *rewriter) enter(out []byte, narrow uint32) []byte {
	depth := uint32(w.globals) + 1
	out = appendUint32(append(out, opGlobalGet), depth)
	out = append(out, opI32Const, 1, opI32Add)
	out = appendUint32(append(out, opLocalTee), narrow)
	out = appendUint32(append(out, opGlobalSet), depth)
	out = appendUint32(append(out, opLocalGet), narrow)
	out = appendInt64(append(out, opI32Const), MaxDepth)
	return append(out, opI32GtU, opIf, blockEmpty, opUnreachable, opEnd)
}

// leave appends: one call is over.
func (w *rewriter) leave(out []byte) []byte {
	depth := uint32(w.globals) + 1
	out = appendUint32(append(out, opGlobalGet), depth)
	out = append(out, opI32Const, 1, opI32Sub)
	return appendUint32(append(out, opGlobalSet), depth)
}

// costs counts the instructions of a function's straight code: first what stands in no loop, then each loop in its order.
// It also says whether the function calls others.
func (w *rewriter) costs(code []byte) (all []int64, calls bool, err error) {
	r := &reader{b: code}
	costs := []int64{0}
	var frames []int // which cost the code of each open block counts to
	frames = append(frames, 0)
	for r.more() {
		at := r.at
		op := r.byte()
		if len(frames) == 0 {
			r.fail("code after a function's end")
			break
		}
		costs[frames[len(frames)-1]]++
		switch op {
		case opBulk:
			bulk(r)
			continue
		case opLoop:
			frames = append(frames, len(costs))
			costs = append(costs, 1)
		case opBlock, opIf:
			frames = append(frames, frames[len(frames)-1])
		case opEnd:
			frames = frames[:len(frames)-1]
		case opCall, opCallIndirect:
			calls = true
		case opGlobalGet, opGlobalSet:
			g := &reader{b: code, at: at + 1}
			if index := g.uint32(); g.err == nil && int64(index) >= int64(w.globals) {
				r.fail("it names global %d, and has %d", index, w.globals)
			}
		}
		if len(frames) > maxDepth {
			r.fail("blocks nested more than %d deep", maxDepth)
		}
		immediates(r, op)
	}
	if r.err == nil && len(frames) != 0 {
		r.fail("a function without an end")
	}
	return costs, calls, r.err
}

// charge appends: take cost from the counter, and stop where it is below zero.
func (w *rewriter) charge(out []byte, wide uint32, cost int64) []byte {
	out = appendUint32(append(out, opGlobalGet), uint32(w.globals))
	out = append(appendInt64(append(out, opI64Const), cost), opI64Sub)
	return w.spend(out, wide)
}

// chargeSize appends the same for a size that lies on the stack, and leaves it there.
func (w *rewriter) chargeSize(out []byte, wide, narrow uint32, shift int, grow bool) []byte {
	out = appendUint32(append(out, opLocalSet), narrow)
	out = appendUint32(append(out, opGlobalGet), uint32(w.globals))
	out = append(appendUint32(append(out, opLocalGet), narrow), opI64ExtendU)
	op := byte(opI64ShrU)
	if grow { // what is there already may be copied
		out = append(out, opMemorySize, 0, opI64ExtendU, opI64Add)
		op, shift = opI64Shl, growShift
	}
	out = append(appendInt64(append(out, opI64Const), int64(shift)), op, opI64Sub)
	out = w.spend(out, wide)
	return appendUint32(append(out, opLocalGet), narrow)
}

// spend appends: the new count lies on the stack; keep it, and stop where it is below zero.
func (w *rewriter) spend(out []byte, wide uint32) []byte {
	out = appendUint32(append(out, opLocalTee), wide)
	out = appendUint32(append(out, opGlobalSet), uint32(w.globals))
	out = appendUint32(append(out, opLocalGet), wide)
	return append(out, opI64Const, 0, opI64LtS, opIf, blockEmpty, opUnreachable, opEnd)
}
