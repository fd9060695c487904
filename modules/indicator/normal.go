package indicator

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/omega-mesh/omega/modules/indicator/stix"
)

// Bounds of a value.
const (
	maxDomain = 253
	maxText   = 4096
	// Wider prefixes are somebody's mistake: a sixteenth of the internet is no indicator.
	widest4 = 8
	widest6 = 19
)

// Why a value is not taken.
var (
	errEmpty    = errors.New("it is empty or too long")
	errDigest   = errors.New("it is no digest of MD5, SHA-1 or SHA-256")
	errAddress  = errors.New("it is neither an address nor a prefix")
	errSpecial  = errors.New("the address is unspecified, loopback, link-local or multicast: it is on every host")
	errWide     = errors.New("the prefix is wider than /8, or /19 of IPv6")
	errDomain   = errors.New("it is no domain name")
	errSuffix   = errors.New("it is a public suffix: it would match everyone beneath it")
	errURL      = errors.New("it is no URL with a scheme and a host")
	errPath     = errors.New("it is no absolute path of Linux")
	errName     = errors.New("it is no name of a file")
	errUnknown  = errors.New("it is neither digest, address, prefix, domain, URL nor path")
	errNullHash = errors.New("it is the digest of the empty file")
)

// normal is a value as sets have it.
type normal struct {
	kind   Kind
	sum    []byte
	prefix netip.Prefix
	text   string
	under  bool // of a domain: it was written *.name
}

// emptyDigests are of no bytes at all; feeds have them by accident, and every host has empty files.
var emptyDigests = [...]string{"d41d8cd98f00b204e9800998ecf8427e", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}

// normalise makes a value of a kind what sets have. An address of full length given as Prefix becomes an address.
func normalise(k Kind, s string) (normal, error) {
	v := normal{kind: k}
	if s = strings.TrimSpace(s); s == "" || len(s) > maxText {
		return v, errEmpty
	}
	switch k {
	case MD5, SHA1, SHA256:
		return digest(s)
	case IPv4, IPv6, Prefix:
		return address(s)
	case Domain:
		return domain(s)
	case URL:
		var room [maxText]byte
		b, ok := appendURL(room[:0], s)
		if !ok {
			return v, errURL
		}
		v.text = string(b)
	case Path:
		if s[0] != '/' || len(s) < 2 || strings.IndexByte(s, 0) >= 0 {
			return v, errPath
		}
		v.text = s
	case Name:
		if strings.ContainsAny(s, "/\x00") || len(s) > 255 || s == "." || s == ".." {
			return v, errName
		}
		v.text = s
	default:
		return v, errUnknown
	}
	return v, nil
}

func digest(s string) (normal, error) {
	var v normal
	switch len(s) {
	case 32:
		v.kind = MD5
	case 40:
		v.kind = SHA1
	case 64:
		v.kind = SHA256
	default:
		return v, errDigest
	}
	sum, err := hex.DecodeString(s)
	if err != nil {
		return v, errDigest
	}
	if strings.EqualFold(s, emptyDigests[v.kind]) {
		return v, errNullHash
	}
	v.sum = sum
	return v, nil
}

func address(s string) (normal, error) {
	p, err := stix.ParsePrefix(s)
	if err != nil {
		return normal{}, errAddress
	}
	a := p.Addr()
	v := normal{kind: IPv6, prefix: p}
	widest := widest6
	if a.Is4() {
		v.kind, widest = IPv4, widest4
	}
	if !p.IsSingleIP() {
		if v.kind = Prefix; p.Bits() < widest {
			return v, errWide
		}
	}
	if a.IsUnspecified() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() {
		return v, errSpecial
	}
	return v, nil
}

func domain(s string) (normal, error) {
	v := normal{kind: Domain}
	s = strings.TrimSuffix(s, ".")
	if rest, ok := strings.CutPrefix(s, "*."); ok {
		s, v.under = rest, true
	} else if rest, ok := strings.CutPrefix(s, "."); ok {
		s, v.under = rest, true
	}
	ascii := true
	for i := range len(s) {
		ascii = ascii && s[i] < 0x80
	}
	if s = strings.ToLower(s); !ascii {
		var err error
		if s, err = idna.Lookup.ToASCII(s); err != nil {
			return v, errDomain
		}
	}
	if len(s) > maxDomain || !isDomain(s) {
		return v, errDomain
	}
	if !strings.Contains(s, ".") {
		return v, errSuffix
	}
	if suffix, _ := publicsuffix.PublicSuffix(s); suffix == s {
		return v, errSuffix
	}
	v.text = s
	return v, nil
}

// isDomain says whether s has labels of letters, digits, - and _, the last of which is no number.
func isDomain(s string) bool {
	label, letters := 0, false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if label == 0 {
				return false
			}
			label, letters = 0, false
			continue
		case c >= 'a' && c <= 'z':
			letters = true
		case c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return label > 0 && letters
}

// appendURL appends the normal form of a URL: scheme and host in lower case, no user, no fragment, no default port, a path. It
// allocates nothing where b has room.
func appendURL(b []byte, s string) ([]byte, bool) {
	i := strings.Index(s, "://")
	if i < 1 || len(s) > maxText {
		return b, false
	}
	scheme, rest := s[:i], s[i+3:]
	if h := strings.IndexByte(rest, '#'); h >= 0 {
		rest = rest[:h]
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	host := rest[:end]
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		host = host[at+1:]
	}
	b = appendLower(b, scheme)
	switch tls := string(b); { // string(b) of a comparison is not copied
	case tls == "http":
		host = strings.TrimSuffix(host, ":80")
	case tls == "https":
		host = strings.TrimSuffix(host, ":443")
	}
	if host = strings.TrimSuffix(host, "."); host == "" {
		return b, false
	}
	for j := range len(scheme) {
		if c := b[j]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '+' && c != '.' && c != '-' {
			return b, false
		}
	}
	b = append(b, "://"...)
	b = appendLower(b, host)
	if end == len(rest) || rest[end] == '?' {
		b = append(b, '/')
	}
	return append(b, rest[end:]...), true
}

func appendLower(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// guess tells by its form what a value is.
func guess(s string) (normal, error) {
	s = strings.TrimSpace(s)
	if s == "" || len(s) > maxText {
		return normal{}, errEmpty
	}
	switch {
	case strings.Contains(s, "://"):
		return normalise(URL, s)
	case s[0] == '/':
		return normalise(Path, s)
	}
	if v, err := digest(s); err == nil || errors.Is(err, errNullHash) {
		return v, err
	}
	if v, err := address(s); !errors.Is(err, errAddress) {
		return v, err
	}
	v, err := domain(s)
	if errors.Is(err, errDomain) {
		return v, errUnknown
	}
	return v, err
}

// Recognised says whether a value looks like an indicator of some kind, whether or not it would be taken.
func Recognised(s string) bool {
	_, err := guess(s)
	return err == nil || errors.Is(err, errSpecial) || errors.Is(err, errWide) || errors.Is(err, errNullHash)
}
