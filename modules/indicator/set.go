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
	seed     maphash.Seed // of detectors
	values   table
	nets     prefixes
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

func newSet() *Set { return &Set{seed: maphash.MakeSeed(), values: newTable()} }

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
	n := s.values.bytes() + s.nets.bytes()
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

// find gives what is known of a value and has not ended.
func (s *Set) find(k Kind, value string, now uint32) (Meta, bool) {
	if s.count[k] == 0 {
		return Meta{}, false
	}
	m, ok := s.values.find(k, value)
	return m, ok && m.live(now)
}

// Digest looks up a digest by its length; now is in Unix seconds, as everywhere here.
func (s *Set) Digest(sum []byte, now uint32) (Match, bool) {
	k, ok := digestKind(len(sum))
	if !ok {
		return Match{}, false
	}
	if m, ok := s.find(k, view(sum), now); ok {
		return s.match(k, hex.EncodeToString(sum), m), true
	}
	return Match{}, false
}

// digestKind is what a digest of n bytes is.
func digestKind(n int) (Kind, bool) {
	switch n {
	case 16:
		return MD5, true
	case 20:
		return SHA1, true
	case 32:
		return SHA256, true
	}
	return 0, false
}

// Address looks up an address, and then the prefixes it lies in.
func (s *Set) Address(a netip.Addr, now uint32) (Match, bool) {
	if !a.IsValid() {
		return Match{}, false
	}
	a = a.Unmap()
	k, raw := IPv6, a.As16()
	value := view(raw[:])
	if a.Is4() {
		v4 := a.As4()
		k, value = IPv4, view(v4[:])
	}
	if m, ok := s.find(k, value, now); ok {
		return s.match(k, a.WithZone("").String(), m), true
	}
	if p := s.nets.find(a, now); p != nil {
		return s.match(Prefix, p.prefix(a.Is4()).String(), p.meta), true
	}
	return Match{}, false
}

// Domain looks up a name in lower case, and then the domains it lies in.
func (s *Set) Domain(name string, now uint32) (Match, bool) {
	if s.count[Domain] == 0 || len(name) > maxDomain {
		return Match{}, false
	}
	name = strings.TrimSuffix(name, ".")
	for rest, want := name, uint8(flagExact); rest != ""; want = flagSubdomains {
		if m, ok := s.find(Domain, rest, now); ok && m.flags&want != 0 {
			return s.match(Domain, strings.Clone(rest), m), true
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
	if m, ok := s.find(k, value, now); ok {
		return s.match(k, strings.Clone(value), m), true
	}
	return Match{}, false
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
