package indicator

import (
	"strings"

	"github.com/omega-mesh/omega/modules/indicator/stix"
)

// alternative is one value that a pattern is satisfied by.
type alternative struct {
	normal
	exact bool
}

// alternatives gives the values of a pattern that says no more than "one of these": observations and comparisons joined by
// OR, without qualifiers, each of them an equality, a list, a subset, or LIKE '%.domain'. A value that sets refuse (a
// loopback address) is left out.
func alternatives(n *stix.Node) ([]alternative, bool) {
	if len(n.Qualifiers) > 0 {
		return nil, false
	}
	var out []alternative
	switch n.Join {
	case stix.Leaf:
		return testAlternatives(nil, n.Test)
	case stix.Or:
		for _, p := range n.Parts {
			more, ok := alternatives(p)
			if !ok {
				return nil, false
			}
			out = append(out, more...)
		}
		return out, true
	}
	return nil, false
}

func testAlternatives(out []alternative, t *stix.Test) ([]alternative, bool) {
	ok := true
	switch t.Join {
	case stix.Or:
		for _, p := range t.Parts {
			if out, ok = testAlternatives(out, p); !ok {
				return nil, false
			}
		}
		return out, true
	case stix.And:
		return oneFile(out, t)
	}
	k, ok := setOf(t.Path)
	if !ok || t.Negated {
		return nil, false
	}
	if k == Domain && t.Compare == stix.Like {
		rest, ok := strings.CutPrefix(t.Values[0].Text, "%.")
		if !ok || strings.ContainsAny(rest, "%_") {
			return nil, false
		}
		if v, err := normalise(Domain, "*."+rest); err == nil {
			out = append(out, alternative{normal: v})
		}
		return out, true
	}
	if t.Compare != stix.Equal && t.Compare != stix.In && (t.Compare != stix.IsSubset || k != Prefix) {
		return nil, false
	}
	for _, v := range t.Values {
		text := v.Text
		if v.Kind != stix.String && v.Kind != stix.Bytes || v.Kind == stix.Bytes && k != SHA256 {
			return nil, false
		}
		if v, err := normalise(k, text); err == nil {
			out = append(out, alternative{normal: v, exact: true})
		}
	}
	return out, true
}

// setOf says which set a path's values are in.
func setOf(path string) (Kind, bool) {
	switch path {
	case "ipv4-addr:value", "ipv6-addr:value":
		return Prefix, true
	case "domain-name:value":
		return Domain, true
	case "url:value":
		return URL, true
	case "file:name":
		return Name, true
	case "file:path":
		return Path, true
	}
	rest, ok := strings.CutPrefix(path, "file:hashes.")
	if !ok {
		return 0, false
	}
	switch strings.ToUpper(strings.ReplaceAll(rest, "-", "")) {
	case "MD5":
		return MD5, true
	case "SHA1":
		return SHA1, true
	case "SHA256", "BLAKE3":
		return SHA256, true
	}
	return 0, false
}

// oneFile reduces digests of one file joined by AND to the strongest: the others say the same of it.
func oneFile(out []alternative, t *stix.Test) ([]alternative, bool) {
	best := -1
	for i, p := range t.Parts {
		if k, ok := setOf(p.Path); p.Join != stix.Leaf || !ok || k > SHA256 || p.Negated || p.Compare != stix.Equal {
			return nil, false
		} else if best < 0 {
			best = i
		} else if was, _ := setOf(t.Parts[best].Path); k > was {
			best = i
		}
	}
	return testAlternatives(out, t.Parts[best])
}
