package inventory

import (
	"cmp"
	"strings"
	"testing"
)

// Each line is in rising order, as the ecosystem's own documentation gives it; = stands between equals.
func TestVersionOrders(t *testing.T) {
	for ecosystem, lines := range map[string][]string{
		"npm": {"1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 2.0.0 2.1.0 2.1.1",
			"1.2.3+build = v1.2.3", "1.9.0 1.10.0 99999999999999999999.0.0", "1.2 = 1.2.0"},
		"Debian": {"1.0~~ 1.0~~a 1.0~ 1.0 1.0a 1.0+b1 1.0.1", "1.0-1~deb11u1 1.0-1 1.0-1+deb12u1 1.0-2 1.0-10 1:0.1", "1.0 = 1.0-0 = 0:1.0", "2.4.1-3 2.4.1-4",
			"4.17~rc1 4.17", "1.a 1.b 1.+"},
		"Red Hat":   {"1.0~rc1 1.0 1.0^git1 1.0.1", "1.0a 1.0.1 1.1", "1.0-1.el8 1.0-2.el8 1:0.5-1", "1.0 = 1.0-5", "1.fc9 1.2"},
		"PyPI":      {"1.0.dev1 1.0a1.dev2 1.0a1 1.0a2 1.0b1 1.0rc1 1.0 1.0.post1.dev1 1.0.post1 1.0.1 1.1 1!0.1", "1.0 = 1.0.0 = v1.0 = 1.0+local", "1.0alpha1 = 1.0.a.1", "1.0-1 = 1.0.post1"},
		"crates.io": {"0.9.0 0.10.0"},
	} {
		compare := orderOf(ecosystem)
		for _, line := range lines {
			words := strings.Fields(line)
			rank := map[string]int{}
			var order []string
			level := 0
			for i, w := range words {
				if w == "=" {
					continue
				}
				if i > 0 && words[i-1] != "=" {
					level++
				}
				rank[w] = level
				order = append(order, w)
			}
			for _, a := range order {
				for _, b := range order {
					if got, ok := compare(a, b); !ok || got != cmp.Compare(rank[a], rank[b]) {
						t.Errorf("%s: %s against %s gives %d, %t; want %d", ecosystem, a, b, got, ok, cmp.Compare(rank[a], rank[b]))
					}
				}
			}
		}
	}
	for ecosystem, bad := range map[string]string{"npm": "1.x", "Debian": "a:1", "PyPI": "one", "Red Hat": "x:1"} {
		if _, ok := orderOf(ecosystem)(bad, "1.0"); ok {
			t.Errorf("%s: %q has a place", ecosystem, bad)
		}
	}
	if orderOf("Maven") != nil {
		t.Error("Maven's order is said to be known")
	}
}

// Every order is one: nothing hangs or panics, and turning the question round turns the answer round.
func FuzzVersions(f *testing.F) {
	f.Add("1.0~rc1-2", "1:1.0^git", uint8(1))
	f.Add("1.0.post1.dev3", "1!2.0rc1", uint8(3))
	f.Fuzz(func(t *testing.T, a, b string, which uint8) {
		compare := orderOf([]string{"npm", "Debian", "Red Hat", "PyPI"}[which%4])
		x, ok := compare(a, b)
		y, ok2 := compare(b, a)
		if ok != ok2 || ok && x != -y {
			t.Fatalf("%q against %q is %d (%t), the other way round %d (%t)", a, b, x, ok, y, ok2)
		}
		if c, ok := compare(a, a); ok && c != 0 {
			t.Fatalf("%q differs from itself", a)
		}
	})
}

// The greatest and some known exploitability sub-scores of CVSS v3.1 (3.887, 2.835, 2.221, 1.834, 0.915).
func TestCVSS(t *testing.T) {
	for v, want := range map[string]exploit{
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H":     {true, true, 0.90},
		"CVSS:3.0/AV:N/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H/E:P": {true, true, 0.66},
		"CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:H/I:H/A:H":     {true, true, 0.72},
		"CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:N/A:N":     {true, false, 0.51},
		"CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H":     {false, true, 0.42},
		"CVSS:3.1/AV:P/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H":     {false, false, 0.21},
	} {
		if got, err := parseCVSS(v); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", v, got, err, want)
		}
	}
	for _, bad := range []string{"", "CVSS:2.0/AV:N", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H", "CVSS:3.1/AV:N/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
		"CVSS:3.1/AV:X/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:?/C:H/I:H/A:H", "CVSS:3.1/" + strings.Repeat("A:B/", 100000), "CVSS:3.1/AVN"} {
		if _, err := parseCVSS(bad); err == nil || len(err.Error()) > 300 {
			t.Errorf("%.60q: %v", bad, err)
		}
	}
}

func TestPURL(t *testing.T) {
	for text, want := range map[string]component{
		"pkg:deb/debian/nginx@1.22.1-9?arch=amd64&distro=debian-12":             {"Debian", "12", "nginx", "1.22.1-9"},
		"pkg:deb/debian/libc6@2.36-9?distro=debian-12.4&upstream=glibc":         {"Debian", "12", "glibc", "2.36-9"},
		"pkg:deb/debian/libx@2+b1?distro=bookworm&upstream=x%402":               {"Debian", "", "x", "2"},
		"pkg:deb/ubuntu/bash@5.1?distro=ubuntu-22.04&epoch=1":                   {"Ubuntu", "22.04", "bash", "1:5.1"},
		"pkg:apk/alpine/musl@1.2.4-r2?distro=alpine-3.18.4":                     {"Alpine", "v3.18", "musl", "1.2.4-r2"},
		"pkg:rpm/redhat/bash@5.1-2.el9?epoch=0&upstream=bash-5.1-2.el9.src.rpm": {"Red Hat", "", "bash", "0:5.1-2.el9"},
		"pkg:npm/%40scope/name@1.0.0#sub/path":                                  {"npm", "", "@scope/name", "1.0.0"},
		"pkg:pypi/Some_Package@1.0":                                             {"PyPI", "", "some-package", "1.0"},
		"pkg:golang/example.com/a/b@v1.2.3":                                     {"Go", "", "example.com/a/b", "1.2.3"},
		"pkg:maven/org.example/core@2.0":                                        {"Maven", "", "org.example:core", "2.0"},
		"pkg:cargo/serde@1.0":                                                   {"crates.io", "", "serde", "1.0"},
		"pkg:generic/thing@1":                                                   {"", "", "thing", "1"},
	} {
		if got, ok := parsePURL(text); !ok || got != want {
			t.Errorf("%s: %+v, %t; want %+v", text, got, ok, want)
		}
	}
	for _, bad := range []string{"", "npm/x@1", "pkg:npm", "pkg:npm/", "pkg:npm/%zz@1", "pkg:npm/a@%zz", "pkg:npm/a?%zz", "pkg:npm/" + strings.Repeat("a", 10<<10)} {
		if c, ok := parsePURL(bad); ok {
			t.Errorf("%.40q is %+v", bad, c)
		}
	}
}
