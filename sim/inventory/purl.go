package inventory

import (
	"net/url"
	"strings"
)

// component is something installed, as OSV names it.
type component struct {
	ecosystem string // "Debian", "npm", ...; empty where it is not known
	release   string // of a distribution: "12", "v3.20"; empty where it is not known
	name      string
	version   string
}

// ecosystems has OSV's name for each type of package URL that has one (ossf.github.io/osv-schema).
func ecosystemOf(kind, namespace string) string {
	switch kind {
	case "deb":
		return map[string]string{"debian": "Debian", "ubuntu": "Ubuntu"}[namespace]
	case "apk":
		return map[string]string{"alpine": "Alpine", "wolfi": "Wolfi", "chainguard": "Chainguard"}[namespace]
	case "rpm":
		return map[string]string{"redhat": "Red Hat", "rocky": "Rocky Linux", "almalinux": "AlmaLinux", "suse": "SUSE", "opensuse": "openSUSE", "openeuler": "openEuler", "mageia": "Mageia"}[namespace]
	}
	return map[string]string{"npm": "npm", "pypi": "PyPI", "golang": "Go", "maven": "Maven", "cargo": "crates.io", "gem": "RubyGems", "nuget": "NuGet",
		"composer": "Packagist", "hex": "Hex", "pub": "Pub", "swift": "SwiftURL", "cran": "CRAN", "hackage": "Hackage", "julia": "Julia", "githubactions": "GitHub Actions"}[kind]
}

// parsePURL reads a package URL (ECMA-427), pkg:type/namespace/name@version?qualifiers#subpath. A distribution's package is
// named by its source, as OSV does, where the URL says which that is.
func parsePURL(text string) (component, bool) {
	rest, ok := strings.CutPrefix(text, "pkg:")
	if !ok {
		return component{}, false
	}
	rest, _, _ = strings.Cut(rest, "#")
	rest, query, _ := strings.Cut(rest, "?")
	kind, path, ok := strings.Cut(strings.TrimLeft(rest, "/"), "/")
	if !ok {
		return component{}, false
	}
	kind = strings.ToLower(kind)
	var c component
	if i := strings.LastIndexByte(path, '@'); i > 0 {
		if c.version, ok = unescape(path[i+1:]); !ok {
			return component{}, false
		}
		path = path[:i]
	}
	if path, ok = unescape(strings.Trim(path, "/")); !ok || path == "" {
		return component{}, false
	}
	namespace, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		namespace, name = path[:i], path[i+1:]
	}
	if name == "" {
		return component{}, false
	}
	qualifiers, err := url.ParseQuery(query)
	if err != nil {
		return component{}, false
	}
	c.ecosystem, c.name = ecosystemOf(kind, strings.ToLower(namespace)), path
	switch kind {
	case "maven":
		c.name = namespace + ":" + name
	case "golang":
		c.version = strings.TrimPrefix(c.version, "v")
	case "pypi":
		c.name = pythonName(name)
	case "deb", "rpm", "apk":
		c.name = name
		if source, version, _ := strings.Cut(qualifiers.Get("upstream"), "@"); source != "" && kind != "rpm" {
			c.name = source
			if version != "" {
				c.version = version
			}
		}
		if epoch := qualifiers.Get("epoch"); epoch != "" && !strings.Contains(c.version, ":") {
			c.version = epoch + ":" + c.version
		}
		distribution := qualifiers.Get("distro")
		if i := strings.LastIndexByte(distribution, '-'); i >= 0 {
			distribution = distribution[i+1:]
		}
		c.release = release(c.ecosystem, distribution)
	}
	return c, true
}

// release is a distribution's release as OSV writes it.
func release(ecosystem, version string) string {
	if version == "" || version[0] < '0' || version[0] > '9' {
		return "" // a code name: not known to OSV
	}
	parts := strings.Split(version, ".")
	switch {
	case ecosystem == "Alpine" && len(parts) >= 2:
		return "v" + parts[0] + "." + parts[1]
	case ecosystem == "Ubuntu":
		return version
	}
	return parts[0]
}

func unescape(s string) (string, bool) {
	t, err := url.PathUnescape(s)
	return t, err == nil && len(t) <= maxText
}

// pythonName is the normal form of a project's name on PyPI.
func pythonName(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return r == '-' || r == '_' || r == '.' }), "-")
}
