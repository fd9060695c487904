package indicator

import (
	"encoding/hex"
	"hash/maphash"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/omega-mesh/omega/modules/indicator/stix"
)

// Set is indicators to look up. It does not change and is safe for concurrent use.
type Set struct {
	seed     maphash.Seed
	digests  [3]keys // MD5, SHA-1, SHA-256
	v4, v6   keys
	nets     prefixes
	names    [4]texts // Domain, URL, Path, Name
	origins  []Origin
	patterns []pattern
	count    [kinds]uint64
}

// pattern is one that no set can answer.
type pattern struct {
	text    string
	matcher *stix.Matcher // of no events: detectors fork it
	meta    Meta
}

// Current is the set that holds now. Storing another is seen by the next event.
type Current = atomic.Pointer[Set]

func newSet() *Set {
	s := &Set{seed: maphash.MakeSeed()}
	for i, w := range [...]int{16, 20, 32} {
		s.digests[i].width = w
	}
	s.v4.width, s.v6.width = 4, 16
	return s
}

// Len is the number of indicators of all kinds, or of those named.
func (s *Set) Len(of ...Kind) uint64 {
	if s == nil {
		return 0
	}
	if len(of) == 0 {
		of = Kinds()
	}
	var n uint64
	for _, k := range of {
		n += s.count[k]
	}
	return n
}

// Bytes is about the memory it takes.
func (s *Set) Bytes() int64 {
	if s == nil {
		return 0
	}
	n := s.v4.bytes() + s.v6.bytes() + s.nets.bytes()
	for i := range s.digests {
		n += s.digests[i].bytes()
	}
	for i := range s.names {
		n += s.names[i].bytes()
	}
	for i := range s.patterns {
		n += patternCost + 8*int64(len(s.patterns[i].text))
	}
	for _, o := range s.origins {
		n += 32 + int64(len(o.Label))
	}
	return n
}

func (m Meta) live(now uint32) bool { return m.Expires == 0 || m.Expires > now }

func (s *Set) match(k Kind, value string, m Meta) Match {
	return Match{Kind: k, Value: value, Origin: s.origins[m.Origin], Confidence: m.Confidence, Expires: m.Expires}
}

// Digest looks up a digest by its length; now is in Unix seconds, as everywhere here.
func (s *Set) Digest(sum []byte, now uint32) (Match, bool) {
	for i := range s.digests {
		t := &s.digests[i]
		if t.width != len(sum) {
			continue
		}
		if e := t.find(s.seed, sum); e != nil {
			if m := getMeta(e[t.width:]); m.live(now) {
				return s.match(Kind(i), hex.EncodeToString(sum), m), true
			}
		}
	}
	return Match{}, false
}

// Address looks up an address, and then the prefixes it lies in.
func (s *Set) Address(a netip.Addr, now uint32) (Match, bool) {
	if !a.IsValid() {
		return Match{}, false
	}
	a = a.Unmap()
	t, k := &s.v6, IPv6
	var e []byte
	if a.Is4() {
		t, k = &s.v4, IPv4
		b := a.As4()
		e = t.find(s.seed, b[:])
	} else {
		b := a.As16()
		e = t.find(s.seed, b[:])
	}
	if e != nil {
		if m := getMeta(e[t.width:]); m.live(now) {
			return s.match(k, a.WithZone("").String(), m), true
		}
	}
	if p := s.nets.find(a, now); p != nil {
		return s.match(Prefix, p.prefix(a.Is4()).String(), p.meta), true
	}
	return Match{}, false
}

// Domain looks up a name in lower case, and then the domains it lies in.
func (s *Set) Domain(name string, now uint32) (Match, bool) {
	t := &s.names[0]
	if t.n == 0 || len(name) > maxDomain {
		return Match{}, false
	}
	name = strings.TrimSuffix(name, ".")
	for rest, want := name, uint8(flagExact); rest != ""; want = flagSubdomains {
		if r := t.find(s.seed, rest); r != nil {
			if m := getMeta(r); m.flags&want != 0 && m.live(now) {
				return s.match(Domain, strings.Clone(rest), m), true
			}
		}
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			break
		}
		rest = rest[i+1:]
	}
	return Match{}, false
}

// Text looks up a URL in normal form, a path or a name.
func (s *Set) Text(k Kind, value string, now uint32) (Match, bool) {
	if k < Domain || k > Name {
		return Match{}, false
	}
	r := s.names[k-Domain].find(s.seed, value)
	if r == nil {
		return Match{}, false
	}
	m := getMeta(r)
	if !m.live(now) {
		return Match{}, false
	}
	return s.match(k, strings.Clone(value), m), true
}

// Lookup looks a value up as a person or module gives it, by the name of a kind or, with "", by what it looks like.
func (s *Set) Lookup(kind, value string, now uint32) (Match, bool) {
	if s == nil {
		return Match{}, false
	}
	k, ok := parseKind(kind)
	var v normal
	var err error
	switch {
	case kind == "":
		v, err = guess(value)
	case !ok:
		return Match{}, false
	default:
		v, err = normalise(k, value)
	}
	if err != nil {
		return Match{}, false
	}
	switch v.kind {
	case MD5, SHA1, SHA256:
		return s.Digest(v.sum, now)
	case IPv4, IPv6:
		return s.Address(v.prefix.Addr(), now)
	case Prefix:
		if p := s.nets.find(v.prefix.Addr(), now); p != nil && int(p.bits) <= v.prefix.Bits() {
			return s.match(Prefix, p.prefix(v.prefix.Addr().Is4()).String(), p.meta), true
		}
		return Match{}, false
	case Domain:
		return s.Domain(v.text, now)
	}
	return s.Text(v.kind, v.text, now)
}
