// Package names reads, from bytes that anybody may have sent, the names that a host's traffic carries: what a DNS
// message asks and answers, and whom a TLS ClientHello calls. It stands between the kernel's copies of packets and the
// events made of them; it allocates nothing, follows no more pointers than a name may have, and reads no byte twice
// without end.
package names

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Bounds of what is read of one message.
const (
	MaxName    = 253  // bytes of a name (RFC 1035, 2.3.4, in text without the last dot)
	MaxAnswers = 32   // records of the answer section
	MaxText    = 1024 // bytes of all answers in text
	maxJumps   = 16   // compression pointers in one name
)

// ErrMalformed is returned for bytes that are no whole message of the form asked for.
var ErrMalformed = errors.New("malformed message")

// Address is one address a DNS answer gives, with its time to live in seconds.
type Address struct {
	Addr netip.Addr
	TTL  uint32
}

// DNS is one message with one question (RFC 1035, 4). It keeps its own room, so that one value serves for many messages.
type DNS struct {
	ID       uint16
	Response bool
	Code     uint8
	Type     uint16
	Partial  bool // it said more than was given, or than is kept

	Name      []byte // asked for, lower case, without the last dot
	Text      []byte // answers: addresses and names, joined by NUL, at most MaxText
	Addresses []Address

	scratch [256]byte
}

// Parse reads message into d. What Name, Text and Addresses held before is overwritten. Bytes of a name that are not
// printable ASCII become '?', so that none reaches a terminal. A message cut short in its answers is not an error: Partial.
func (d *DNS) Parse(message []byte) error {
	name, text, addresses := d.Name[:0], d.Text[:0], d.Addresses[:0]
	d.Name, d.Text, d.Addresses, d.Partial = name, text, addresses, false
	if len(message) < 12 {
		return ErrMalformed
	}
	be := binary.BigEndian
	flags := be.Uint16(message[2:])
	if be.Uint16(message[4:]) != 1 || flags>>11&15 != 0 { // one question, of the ordinary kind
		return ErrMalformed
	}
	d.ID, d.Response, d.Code = be.Uint16(message), flags&0x8000 != 0, uint8(flags&15)
	at, ok := 0, false
	if d.Name, at, ok = appendName(name, message, 12); !ok || at+4 > len(message) {
		return ErrMalformed
	}
	d.Type = be.Uint16(message[at:])
	at += 4
	d.Partial = flags&0x0200 != 0
	if !d.Response {
		return nil
	}
	count := int(be.Uint16(message[6:]))
	if count > MaxAnswers {
		count, d.Partial = MaxAnswers, true
	}
	for range count {
		if at, ok = skipName(message, at); !ok || at+10 > len(message) {
			d.Partial = true
			return nil
		}
		kind, ttl, length := be.Uint16(message[at:]), be.Uint32(message[at+4:]), int(be.Uint16(message[at+8:]))
		at += 10
		if at+length > len(message) {
			d.Partial = true
			return nil
		}
		d.answer(message, at, kind, ttl, length)
		at += length
	}
	return nil
}

func (d *DNS) answer(message []byte, at int, kind uint16, ttl uint32, length int) {
	said := d.scratch[:0]
	switch {
	case kind == 1 && length == 4, kind == 28 && length == 16:
		addr, _ := netip.AddrFromSlice(message[at : at+length])
		d.Addresses = append(d.Addresses, Address{addr, ttl})
		said = addr.AppendTo(said)
	case kind == 5 || kind == 2 || kind == 12: // CNAME, NS, PTR
		var ok bool
		if said, _, ok = appendName(said, message, at); !ok {
			d.Partial = true
			return
		}
	default:
		return
	}
	if len(d.Text)+1+len(said) > MaxText {
		d.Partial = true
		return
	}
	if len(d.Text) > 0 {
		d.Text = append(d.Text, 0)
	}
	d.Text = append(d.Text, said...)
}

// skipName returns where a name ends.
func skipName(b []byte, at int) (int, bool) {
	for at < len(b) {
		switch n := int(b[at]); {
		case n == 0:
			return at + 1, true
		case n >= 192:
			return at + 2, at+2 <= len(b)
		case n > 63:
			return 0, false
		default:
			at += n + 1
		}
	}
	return 0, false
}

// appendName appends the name at b[at:], and says where it ends. Each pointer must lead backwards, so none leads round.
func appendName(to, b []byte, at int) ([]byte, int, bool) {
	end, begin, least := 0, len(to), at
	for jumps := 0; at < len(b); {
		n := int(b[at])
		switch {
		case n == 0:
			if end == 0 {
				end = at + 1
			}
			return to, end, true
		case n >= 192:
			if at+2 > len(b) {
				return to, 0, false
			}
			if end == 0 {
				end = at + 2
			}
			next := (n&63)<<8 | int(b[at+1])
			if jumps++; jumps > maxJumps || next >= least {
				return to, 0, false
			}
			at, least = next, next
		case n > 63 || at+1+n > len(b):
			return to, 0, false
		default:
			if len(to) > begin {
				to = append(to, '.')
			}
			if len(to)-begin+n > MaxName {
				return to, 0, false
			}
			for _, c := range b[at+1 : at+1+n] {
				to = append(to, plain(c))
			}
			at += n + 1
		}
	}
	return to, 0, false
}

func plain(c byte) byte {
	switch {
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	case c <= ' ' || c > '~' || c == '.':
		return '?'
	}
	return c
}

// MaxHello is how much of a ClientHello is read.
const MaxHello = 4096

// Hello puts together a ClientHello that came in several segments. The zero value is ready.
type Hello struct {
	bytes [MaxHello]byte
	n     int
}

// Reset makes h empty.
func (h *Hello) Reset() { h.n = 0 }

// Add takes the segment that lies at offset of the ClientHello. What is there already stays, as the receiver's TCP keeps it; a
// segment that leaves a gap before it, and what lies beyond MaxHello, is left out.
func (h *Hello) Add(offset int, segment []byte) {
	if offset < 0 || offset > h.n || offset+len(segment) <= h.n {
		return
	}
	h.n += copy(h.bytes[h.n:], segment[h.n-offset:])
}

// ServerName is the function ServerName on what was put together so far.
func (h *Hello) ServerName(to []byte) ([]byte, bool) { return ServerName(to, h.bytes[:h.n]) }

// ServerName appends to to the host name of the server_name extension (RFC 6066, 3) of the TLS ClientHello (RFC 8446,
// 4.1.2) that b begins with, record header included. A ClientHello may be cut short, or go on in further records: what lies
// in the first MaxHello bytes is read. It is false where no such extension is in it, and to is then as it was.
func ServerName(to, b []byte) ([]byte, bool) {
	if len(b) < 9 || b[0] != 22 || b[1] != 3 || b[5] != 1 {
		return to, false
	}
	be := binary.BigEndian
	if n := 5 + int(be.Uint16(b[3:])); n < len(b) {
		if hello := int(b[6])<<16 | int(be.Uint16(b[7:])); 9+hello > n {
			var joined [MaxHello]byte
			b = joined[:joinRecords(joined[:], b)]
		} else {
			b = b[:n]
		}
		if len(b) < 9 {
			return to, false
		}
	}
	at := 9 + 2 + 32 // handshake header, version, random
	if at >= len(b) {
		return to, false
	}
	at += 1 + int(b[at]) // session
	if at+2 > len(b) {
		return to, false
	}
	at += 2 + int(be.Uint16(b[at:])) // cipher suites
	if at >= len(b) {
		return to, false
	}
	at += 1 + int(b[at]) // compression
	at += 2              // length of the extensions: their own lengths are what is followed
	for at+4 <= len(b) {
		kind, n := be.Uint16(b[at:]), int(be.Uint16(b[at+2:]))
		at += 4
		if kind != 0 {
			at += n
			continue
		}
		if at+n > len(b) || n < 5 || b[at+2] != 0 {
			return to, false
		}
		host := int(be.Uint16(b[at+3:]))
		if host == 0 || host > MaxName || 5+host > n {
			return to, false
		}
		for _, c := range b[at+5 : at+5+host] {
			if c != '.' {
				c = plain(c)
			}
			to = append(to, c)
		}
		return to, true
	}
	return to, false
}

// joinRecords puts the handshake that goes over several records in b together, behind the first one's header, and says how
// long it is.
func joinRecords(to, b []byte) int {
	n := copy(to, b[:5])
	for len(b) >= 5 && b[0] == 22 {
		end := min(5+int(binary.BigEndian.Uint16(b[3:])), len(b))
		n += copy(to[n:], b[5:end])
		b = b[end:]
	}
	return n
}
