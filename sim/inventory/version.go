package inventory

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// order compares two versions; false where it cannot read one of them.
type order func(a, b string) (int, bool)

// orderOf is how an ecosystem of OSV orders its versions; nil where only listed versions can be judged.
func orderOf(ecosystem string) order {
	switch ecosystem {
	case "npm", "crates.io", "Go", "Hex", "Pub", "SwiftURL", "GitHub Actions", "NuGet", "Packagist", "Julia":
		return compareSemantic
	case "Debian", "Ubuntu":
		return compareDebian
	case "Red Hat", "Rocky Linux", "AlmaLinux", "SUSE", "openSUSE", "openEuler", "Mageia", "Azure Linux":
		return compareRPM
	case "PyPI":
		return comparePython
	}
	return nil
}

// number compares decimal numbers of any length.
func number(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

func digits(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }) < 0
}

// compareSemantic is the order of Semantic Versioning 2.0.0, for versions of one to four numbers.
func compareSemantic(a, b string) (int, bool) {
	x, pre, ok := semantic(a)
	y, post, ok2 := semantic(b)
	if !ok || !ok2 {
		return 0, false
	}
	for i := range x {
		if c := number(x[i], y[i]); c != 0 {
			return c, true
		}
	}
	if pre == "" || post == "" { // a release comes after its candidates
		return cmp.Compare(len(post), len(pre)), true
	}
	p, q := strings.Split(pre, "."), strings.Split(post, ".")
	for i := range min(len(p), len(q)) {
		m, n := digits(p[i]), digits(q[i])
		c := cmp.Compare(p[i], q[i])
		switch {
		case m && n:
			c = number(p[i], q[i])
		case m:
			c = -1
		case n:
			c = 1
		}
		if c != 0 {
			return c, true
		}
	}
	return cmp.Compare(len(p), len(q)), true
}

func semantic(v string) (core [4]string, pre string, ok bool) {
	v = strings.TrimPrefix(strings.TrimPrefix(v, "="), "v")
	v, _, _ = strings.Cut(v, "+")
	v, pre, _ = strings.Cut(v, "-")
	parts := strings.Split(v, ".")
	if len(parts) > len(core) {
		return core, "", false
	}
	for i, p := range parts {
		if !digits(p) {
			return core, "", false
		}
		core[i] = p
	}
	return core, pre, true
}

// compareDebian is the order of deb-version(7).
func compareDebian(a, b string) (int, bool) {
	split := func(v string) (epoch, upstream, revision string) {
		epoch, rest, ok := strings.Cut(v, ":")
		if !ok {
			epoch, rest = "0", v
		}
		if i := strings.LastIndexByte(rest, '-'); i >= 0 {
			return epoch, rest[:i], rest[i+1:]
		}
		return epoch, rest, ""
	}
	e, u, r := split(a)
	f, w, q := split(b)
	if !digits(e) || !digits(f) || u == "" || w == "" {
		return 0, false
	}
	return cmp.Or(number(e, f), debianPart(u, w), debianPart(r, q)), true
}

// debianPart compares what is no number, then what is one, by turns: a tilde before the end, letters before the rest.
func debianPart(a, b string) int {
	weight := func(s string, i int) int {
		switch {
		case i >= len(s) || s[i] >= '0' && s[i] <= '9':
			return 0
		case s[i] == '~':
			return -1
		case s[i]|0x20 >= 'a' && s[i]|0x20 <= 'z':
			return int(s[i])
		}
		return int(s[i]) + 256
	}
	for a != "" || b != "" {
		i := 0
		for ; i < len(a) && !digits(a[i:i+1]) || i < len(b) && !digits(b[i:i+1]); i++ {
			if c := cmp.Compare(weight(a, i), weight(b, i)); c != 0 {
				return c
			}
		}
		a, b = a[min(i, len(a)):], b[min(i, len(b)):]
		var m, n string
		m, a = leading(a)
		n, b = leading(b)
		if c := number(m, n); c != 0 {
			return c
		}
	}
	return 0
}

// leading cuts off the digits that s begins with.
func leading(s string) (number, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i], s[i:]
}

// compareRPM is the order of rpm's versions, epoch:version-release.
func compareRPM(a, b string) (int, bool) {
	split := func(v string) [3]string {
		epoch, rest, ok := strings.Cut(v, ":")
		if !ok {
			epoch, rest = "0", v
		}
		version, release, _ := strings.Cut(rest, "-")
		return [3]string{epoch, version, release}
	}
	x, y := split(a), split(b)
	if !digits(x[0]) || !digits(y[0]) || x[1] == "" || y[1] == "" {
		return 0, false
	}
	c := cmp.Or(number(x[0], y[0]), rpmPart(x[1], y[1]))
	if c == 0 && x[2] != "" && y[2] != "" {
		c = rpmPart(x[2], y[2])
	}
	return c, true
}

func rpmPart(a, b string) int {
	word := func(r byte) bool { return r|0x20 >= 'a' && r|0x20 <= 'z' }
	figure := func(r byte) bool { return r >= '0' && r <= '9' }
	trim := func(s string) string {
		for s != "" && !word(s[0]) && !figure(s[0]) && s[0] != '~' && s[0] != '^' {
			s = s[1:]
		}
		return s
	}
parts:
	for {
		a, b = trim(a), trim(b)
		for _, mark := range []struct {
			is        byte
			sole, end int // what it means where a alone has it, and where b has come to its end
		}{{'~', -1, -1}, {'^', -1, 1}} {
			p, q := a != "" && a[0] == mark.is, b != "" && b[0] == mark.is
			switch {
			case p && q:
				a, b = a[1:], b[1:]
				continue parts // another mark may stand behind it
			case p && b == "":
				return mark.end
			case q && a == "":
				return -mark.end
			case p:
				return mark.sole
			case q:
				return -mark.sole
			}
		}
		if a == "" || b == "" {
			return cmp.Compare(len(a), len(b))
		}
		kind := word
		if figure(a[0]) {
			kind = figure
		}
		take := func(s string) (string, string) {
			i := 0
			for i < len(s) && kind(s[i]) {
				i++
			}
			return s[:i], s[i:]
		}
		var p, q string
		p, a = take(a)
		q, b = take(b)
		switch {
		case q == "" && figure(p[0]):
			return 1 // a number is newer than letters
		case q == "":
			return -1
		case figure(p[0]):
			if c := number(p, q); c != 0 {
				return c
			}
		default:
			if c := cmp.Compare(p, q); c != 0 {
				return c
			}
		}
	}
}

// pythonVersion is the grammar of PEP 440, local versions cut off.
var pythonVersion = regexp.MustCompile(`^v?(?:(\d+)!)?(\d+(?:\.\d+)*)[-_.]?(?:(a|b|c|rc|alpha|beta|pre|preview)[-_.]?(\d*))?(?:-(\d+)|[-_.]?(post|rev|r)[-_.]?(\d*))?(?:[-_.]?(dev)[-_.]?(\d*))?$`)

// comparePython is the order of PEP 440.
func comparePython(a, b string) (int, bool) {
	x, ok := python(a)
	y, ok2 := python(b)
	if !ok || !ok2 {
		return 0, false
	}
	return slices.CompareFunc(x, y, number), true
}

// python is a version as a list of numbers that compares as the version does.
func python(v string) ([]string, bool) {
	v, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(v)), "+")
	if len(v) > 200 {
		return nil, false
	}
	m := pythonVersion.FindStringSubmatch(v)
	if m == nil {
		return nil, false
	}
	const numbers = 12 // compared; further ones of a release are left out
	release := strings.Split(m[2], ".")
	list := append(make([]string, 0, numbers+8), m[1])
	for i := range numbers {
		if i < len(release) {
			list = append(list, release[i])
		} else {
			list = append(list, "")
		}
	}
	pre, post, dev := "4", "0", "1" // no candidate comes after every candidate; no post-release before each; no dev after each
	switch m[3] {
	case "a", "alpha":
		pre = "1"
	case "b", "beta":
		pre = "2"
	case "c", "rc", "pre", "preview":
		pre = "3"
	}
	if m[5] != "" || m[6] != "" {
		post = "1"
	}
	if m[8] != "" {
		if dev = "0"; m[3] == "" && post == "0" {
			pre = "0" // a dev-release alone comes before the first candidate
		}
	}
	return append(list, pre, m[4], post, cmp.Or(m[5], m[7]), dev, m[9]), true
}
