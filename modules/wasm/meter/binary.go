package meter

import (
	"errors"
	"fmt"
)

// ErrModule is wrapped by every refusal.
var ErrModule = errors.New("not a module this host runs")

// reader goes through a part of a module. Its first failure stays, and every later read gives zero.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrModule, fmt.Sprintf(format, args...))
	}
	r.at = len(r.b)
}

func (r *reader) more() bool { return r.err == nil && r.at < len(r.b) }

func (r *reader) byte() byte {
	if r.at >= len(r.b) {
		r.fail("it ends too soon")
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)-r.at) {
		r.fail("it ends too soon")
		return nil
	}
	r.at += int(n)
	return r.b[r.at-int(n) : r.at]
}

// uint32 reads unsigned LEB128, at most 5 bytes.
func (r *reader) uint32() uint32 {
	var v uint64
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		v |= uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			if v > 0xffffffff {
				r.fail("a number past 32 bits")
				return 0
			}
			return uint32(v)
		}
	}
	r.fail("a number of more than 5 bytes")
	return 0
}

// skipSigned reads past signed LEB128 of at most n bytes: its value does not matter here.
func (r *reader) skipSigned(n int) {
	for ; n > 0; n-- {
		if r.byte()&0x80 == 0 {
			return
		}
	}
	r.fail("a number that is too long")
}

// count reads the length of a vector whose items take at least one byte each, and holds it against a bound.
func (r *reader) count(what string, most int) int {
	n := r.uint32()
	if int64(n) > int64(most) || int(n) > len(r.b)-r.at {
		r.fail("%d %s", n, what)
		return 0
	}
	return int(n)
}

func (r *reader) name() string { return string(r.take(r.uint32())) }

func appendUint32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendInt64(b []byte, v int64) []byte {
	for {
		c := byte(v) & 0x7f
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func appendName(b []byte, s string) []byte {
	return append(appendUint32(b, uint32(len(s))), s...)
}
