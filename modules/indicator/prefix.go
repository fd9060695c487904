package indicator

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// prefixes answers which prefix, the longest, an address lies in. Sorted by address, then by length, prefixes nest: the
// last one that begins at or before an address holds it, or one of those it lies in does.
type prefixes struct {
	v4, v6 []span
	first  []uint32 // of IPv4: where those of each upper 16 bits begin; nil for few
}

// span is a prefix; outer is the number, plus one, of the one it lies in.
type span struct {
	hi, lo uint64
	outer  uint32
	bits   uint8
	meta   Meta
}

// firstFrom is the number of IPv4 prefixes from which on their first 16 bits are indexed (256 KiB).
const firstFrom = 4096

func number(a netip.Addr) (hi, lo uint64) {
	if a.Is4() {
		b := a.As4()
		return 0, uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

func (p *prefixes) add(x netip.Prefix, m Meta) bool {
	hi, lo := number(x.Addr())
	s := span{hi: hi, lo: lo, bits: uint8(x.Bits()), meta: m}
	if x.Addr().Is4() {
		p.v4 = append(p.v4, s)
	} else {
		p.v6 = append(p.v6, s)
	}
	return len(p.v4)+len(p.v6) <= maxEntries
}

func (s *span) less(hi, lo uint64) int { return cmp.Or(cmp.Compare(s.hi, hi), cmp.Compare(s.lo, lo)) }

// holds says whether an address of width bits lies in s.
func (s *span) holds(hi, lo uint64, width int) bool {
	drop := width - int(s.bits)
	if drop >= 64 {
		return (hi^s.hi)>>(drop-64) == 0
	}
	return hi == s.hi && (lo^s.lo)>>drop == 0
}

// settle sorts and links; it is called once, after the last add.
func (p *prefixes) settle() {
	p.v4, p.v6 = nest(p.v4, 32), nest(p.v6, 128)
	if p.first = nil; len(p.v4) >= firstFrom {
		p.first = make([]uint32, 1<<16+1)
		for i := len(p.v4) - 1; i >= 0; i-- {
			p.first[p.v4[i].lo>>16] = uint32(i)
		}
		// Where none begins there the search ends where the next ones do.
		next := uint32(len(p.v4))
		for i := 1 << 16; i >= 0; i-- {
			if i < 1<<16 && p.first[i] < uint32(len(p.v4)) && p.v4[p.first[i]].lo>>16 == uint64(i) {
				next = p.first[i]
			}
			p.first[i] = next
		}
	}
}

func nest(all []span, width int) []span {
	slices.SortStableFunc(all, func(a, b span) int { return cmp.Or(a.less(b.hi, b.lo), cmp.Compare(a.bits, b.bits)) })
	out := all[:0]
	for _, s := range all {
		if n := len(out); n > 0 && out[n-1].bits == s.bits && out[n-1].less(s.hi, s.lo) == 0 {
			out[n-1].meta = merge(out[n-1].meta, s.meta)
			continue
		}
		s.outer = 0
		for i := len(out); i > 0; i = int(out[i-1].outer) {
			if out[i-1].bits < s.bits && out[i-1].holds(s.hi, s.lo, width) {
				s.outer = uint32(i)
				break
			}
		}
		out = append(out, s)
	}
	return slices.Clip(out)
}

// find gives the longest live prefix that a lies in.
func (p *prefixes) find(a netip.Addr, now uint32) *span {
	hi, lo := number(a)
	all, width, from, to := p.v6, 128, 0, len(p.v6)
	if a.Is4() {
		all, width, to = p.v4, 32, len(p.v4)
		if p.first != nil {
			from, to = int(p.first[lo>>16]), int(p.first[lo>>16+1])
		}
	}
	for from < to { // the first that begins after a
		if mid := int(uint(from+to) >> 1); all[mid].less(hi, lo) <= 0 {
			from = mid + 1
		} else {
			to = mid
		}
	}
	for i := from; i > 0; i = int(all[i-1].outer) {
		if s := &all[i-1]; s.holds(hi, lo, width) && (s.meta.Expires == 0 || s.meta.Expires > now) {
			return s
		}
	}
	return nil
}

func (s *span) prefix(v4 bool) netip.Prefix {
	if v4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(s.lo))
		return netip.PrefixFrom(netip.AddrFrom4(b), int(s.bits))
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], s.hi)
	binary.BigEndian.PutUint64(b[8:], s.lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), int(s.bits))
}

func (p *prefixes) bytes() int64 {
	return int64(cap(p.v4)+cap(p.v6))*40 + 4*int64(len(p.first))
}
