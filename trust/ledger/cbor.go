package ledger

import "encoding/binary"

// The entry envelope has a fixed shape, so it is read and written by hand: a run of sealed entries must verify at
// over 400,000 a second, which leaves no room for reflection. Bodies go through package canonical.

const (
	majorUint  = 0
	majorBytes = 2 << 5
	majorArray = 4 << 5
)

// appendHead appends a CBOR head with the shortest form of n.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func appendUint(b []byte, n uint64) []byte { return appendHead(b, majorUint, n) }

func appendBytes(b, v []byte) []byte { return append(appendHead(b, majorBytes, uint64(len(v))), v...) }

// reader takes canonical CBOR items off b. After the first thing that is not as wanted it yields zeros and ok is false.
type reader struct {
	b   []byte
	at  int
	bad bool
}

func (r *reader) ok() bool { return !r.bad }

func (r *reader) byte() byte {
	if r.bad || r.at >= len(r.b) {
		r.bad = true
		return 0
	}
	c := r.b[r.at]
	r.at++
	return c
}

func (r *reader) expect(c byte) {
	if r.byte() != c {
		r.bad = true
	}
}

// head reads a head of the major type with a value up to limit, in its shortest form only.
func (r *reader) head(major byte, limit uint64) uint64 {
	c := r.byte()
	if r.bad || c&0xe0 != major {
		r.bad = true
		return 0
	}
	var n, least uint64
	switch info := c & 0x1f; {
	case info < 24:
		n = uint64(info)
	case info > 27:
		r.bad = true
		return 0
	default:
		size := 1 << (info - 24)
		if len(r.b)-r.at < size {
			r.bad = true
			return 0
		}
		for _, x := range r.b[r.at : r.at+size] {
			n = n<<8 | uint64(x)
		}
		r.at += size
		switch size {
		case 1:
			least = 24
		case 2:
			least = 1 << 8
		case 4:
			least = 1 << 16
		case 8:
			least = 1 << 32
		}
	}
	if n < least || n > limit {
		r.bad = true
		return 0
	}
	return n
}

func (r *reader) uint(limit uint64) uint64 { return r.head(majorUint, limit) }

// bytes is a byte string of at most limit bytes: a part of the input, not a copy.
func (r *reader) bytes(limit int) []byte {
	n := int(r.head(majorBytes, uint64(limit)))
	if r.bad || len(r.b)-r.at < n {
		r.bad = true
		return nil
	}
	v := r.b[r.at : r.at+n : r.at+n]
	r.at += n
	return v
}

// fixed reads a byte string of exactly len(into).
func (r *reader) fixed(into []byte) {
	v := r.bytes(len(into))
	if len(v) != len(into) {
		r.bad = true
		return
	}
	copy(into, v)
}
