package indicator

import (
	"strings"
)

// Kind is what an indicator is of.
type Kind uint8

// The kinds there are sets of. A digest of 32 bytes may be SHA-256 or BLAKE3: they do not collide.
const (
	MD5 Kind = iota
	SHA1
	SHA256
	IPv4
	IPv6
	Prefix
	Domain
	URL
	Path
	Name // of a file, without its folder
	Pattern
	kinds
)

// The names are STIX object paths, as modules ask for them.
var kindNames = [...]string{"file:md5", "file:sha1", "file:sha256", "ipv4-addr", "ipv6-addr", "prefix", "domain-name", "url", "path", "file:name", "pattern"}

// String is the name used on screen and by modules.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// rule ends the id of a finding: indicator.address, ….
func (k Kind) rule() string {
	switch k {
	case MD5, SHA1, SHA256:
		return "hash"
	case IPv4, IPv6, Prefix:
		return "address"
	case Domain:
		return "domain"
	case URL:
		return "url"
	case Path, Name:
		return "path"
	}
	return "pattern"
}

// Kinds lists every kind in order.
func Kinds() []Kind {
	out := make([]Kind, kinds)
	for i := range out {
		out[i] = Kind(i)
	}
	return out
}

// parseKind reads a name; "path" and its like may be given without "file:".
func parseKind(s string) (Kind, bool) {
	for i, n := range kindNames {
		if s == n || strings.TrimPrefix(n, "file:") == s {
			return Kind(i), true
		}
	}
	return 0, false
}

// Meta is what is known of an indicator beside its value.
type Meta struct {
	Origin     uint16 // index into the set's origins
	Confidence uint8  // 0 to 100
	flags      uint8
	Expires    uint32 // Unix seconds; 0 never
}

// What a domain stands for.
const (
	flagExact      = 1 << iota // itself
	flagSubdomains             // what lies beneath it
)

// Origin is who says so.
type Origin struct {
	Source string // the store's name of it
	Label  string // what the source calls it: the name of an indicator or event; may be empty
}

// Match is an indicator that was found.
type Match struct {
	Kind       Kind
	Value      string // as the set has it: of a domain the suffix, of a prefix the prefix
	Origin     Origin
	Confidence uint8
	Expires    uint32 // Unix seconds; 0 never
}
