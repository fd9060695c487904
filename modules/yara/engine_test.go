//go:build yara

package yara

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

func compile(t *testing.T, texts ...string) (*Rules, []Rejected) {
	t.Helper()
	var sources []Source
	for i, s := range texts {
		sources = append(sources, Source{fmt.Sprintf("%d.yar", i), []byte(s)})
	}
	var told []int
	r, rejected, err := New(sources, func(i int) { told = append(told, i) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range told {
		if told[i] != i || len(told) != len(sources)+1 {
			t.Fatalf("told of %v", told)
		}
	}
	return r, rejected
}

func rules(found []Match) (names []string) {
	for _, m := range found {
		names = append(names, m.Rule)
	}
	slices.Sort(names)
	return names
}

func TestScan(t *testing.T) {
	r, rejected := compile(t, marker, `
import "elf"
import "hash"
import "math"
private rule is_elf { condition: elf.type == elf.ET_EXEC or elf.type == elf.ET_DYN }
rule implant : backdoor {
	meta:
		description = "An implant of the test's"
		severity = "critical"
		confidence = 95
		attack = "T1059.004"
	strings: $a = { 4F 4D [0-4] 47 41 } $b = /evil-[0-9]{4}/ wide ascii
	condition: is_elf and any of them
}
rule named { condition: filename == "dropper" and extension == "" and filepath startswith "/tmp/" }`)
	if len(rejected) != 0 || r.Len() != 3 {
		t.Fatalf("%d rules, %v", r.Len(), rejected)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
		path string
		want []string
	}{
		{"nothing", []byte("nothing to see"), "/bin/x", nil},
		{"a marker", []byte("xxOMEGA-TEST-MARKERxx"), "/bin/x", []string{"marker"}},
		{"a name", []byte("anything"), "/tmp/dropper", []string{"named"}},
		{"a real program, and what it holds", append(bytes.Clone(self), "evil-2026"...), "/tmp/x", []string{"implant", "marker"}}, // the test holds the marker itself
		{"an empty file", nil, "/tmp/x", nil},
		{"no ELF", []byte("evil-2026"), "/x", nil},
	} {
		found, err := r.Scan(c.data, Names{c.path})
		if err != nil || fmt.Sprint(rules(found)) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v %v, want %v", c.name, rules(found), err, c.want)
		}
		for _, m := range found {
			if m.Rule == "implant" && (m.Severity != event.SeverityCritical || m.Confidence != 95 || m.Title != "An implant of the test's" || fmt.Sprint(m.Attack) != "[T1059.004]" || m.File != "1.yar") {
				t.Errorf("%+v", m)
			}
		}
	}
}

// Each rule file that is meant to do harm is left out, and the others work.
func TestHostileRules(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret.yar")
	if err := os.WriteFile(outside, []byte(`rule secret { condition: true }`), 0o600); err != nil {
		t.Fatal(err)
	}
	hostile := map[string]string{
		"an include":                  fmt.Sprintf("include %q\nrule x { condition: true }", outside),
		"an include of /etc/passwd":   `include "/etc/passwd"`,
		"an include upwards":          `include "../../../etc/shadow"`,
		"syntax":                      `rule {`,
		"no rule":                     `// nothing`,
		"a name that is not there":    `rule x { condition: nothere > 1 }`,
		"a module that is not there":  "import \"nothere\"\nrule x { condition: true }",
		"loops in loops":              `rule x { condition: for all a in (1..9) : (for all b in (1..9) : (for all c in (1..9) : (for all d in (1..9) : (for all e in (1..9) : (true))))) }`,
		"a regular expression's bomb": `rule x { strings: $a = /((((((a{1,1000}){1,1000}){1,1000}){1,1000}){1,1000}){1,1000})/ condition: $a }`,
		"a name longer than any":      `rule ` + strings.Repeat("x", 1000) + ` { condition: true }`,
		"brackets":                    `rule x { condition: ` + strings.Repeat("(", 20000) + "true" + strings.Repeat(")", 20000) + ` }`,
		"strings without end":         "rule x { strings:\n" + strings.Repeat("$ = \"abcdefgh\"\n", 20000) + "condition: any of them }",
	}
	for name, text := range hostile {
		t.Run(name, func(t *testing.T) {
			r, rejected := compile(t, text, marker)
			if len(rejected) != 1 || rejected[0].File != "0.yar" || rejected[0].Why == "" || len(rejected[0].Why) > maxWhy+3 {
				t.Fatalf("%v", rejected)
			}
			t.Log(rejected[0].Why)
			if found, err := r.Scan([]byte("OMEGA-TEST-MARKER"), Names{}); err != nil || len(found) != 1 {
				t.Errorf("%v %v", found, err)
			}
		})
	}
}

// More files that do not compile than all is begun anew for are each left out as well.
func TestManyBadFiles(t *testing.T) {
	var texts []string
	for i := range 4 * maxAnew {
		texts = append(texts, fmt.Sprintf("rule good%d { condition: true }", i), "rule {")
	}
	r, rejected := compile(t, texts...)
	if r.Len() != 4*maxAnew || len(rejected) != 4*maxAnew {
		t.Errorf("%d rules, %d rejected", r.Len(), len(rejected))
	}
	for _, m := range rejected {
		if !strings.Contains(m.Why, "syntax") {
			t.Error(m)
		}
	}
}

// Two files may have a rule of the same name.
func TestNamesOfTwoFiles(t *testing.T) {
	r, rejected := compile(t, marker, marker)
	found, err := r.Scan([]byte("OMEGA-TEST-MARKER"), Names{})
	if err != nil || len(rejected) != 0 || len(found) != 2 || found[0].File == found[1].File {
		t.Errorf("%v %v %v", found, rejected, err)
	}
}

// More rules than are told end the scan, and a rule that is slow is given up.
func TestScanIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range 2 * MaxMatches {
		fmt.Fprintf(&b, "rule r%d { condition: true }\n", i)
	}
	r, _ := compile(t, b.String())
	if found, err := r.Scan([]byte("x"), Names{}); err != nil || len(found) != MaxMatches {
		t.Errorf("%d matches, %v", len(found), err)
	}
	if testing.Short() {
		t.Skip("waits for libyara's clock")
	}
	r, rejected := compile(t, `rule slow { condition: for all i in (1..100000000) : (for all j in (1..100000000) : (for all k in (1..100000000) : (i+j+k > 0))) }`, marker)
	if len(rejected) != 0 {
		t.Fatal(rejected)
	}
	began := time.Now()
	if _, err := r.Scan([]byte("OMEGA-TEST-MARKER"), Names{}); !errors.Is(err, ErrScan) || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// Files cut short, of no sense or of one byte without end: an answer, whatever it is.
func TestHostileFiles(t *testing.T) {
	r, rejected := compile(t, `
import "elf"
import "pe"
import "dotnet"
import "hash"
import "math"
rule every { strings: $a = /a.{0,100}b/ $b = "a" condition: elf.number_of_sections > 60000 or pe.number_of_sections > 60000 or dotnet.number_of_streams > 9 or math.entropy(0, filesize) > 7.99 or hash.md5(0, filesize) == "x" or #b > 10 or $a }`)
	if len(rejected) != 0 {
		t.Fatal(rejected)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	pe := append([]byte("MZ"), make([]byte, 4096)...)
	pe[0x3c] = 0x40
	copy(pe[0x40:], "PE\x00\x00\x64\x86\xff\xff")
	for i := range pe[0x58:] {
		pe[0x58+i] = 0xff
	}
	for name, data := range map[string][]byte{
		"half an ELF": self[:len(self)/2], "an ELF's head": self[:64], "63 bytes of it": self[:63], "an ELF that lies": append(bytes.Clone(self[:40]), bytes.Repeat([]byte{0xff}, 4096)...),
		"a PE that lies": pe, "MZ": []byte("MZ"), "one byte without end": bytes.Repeat([]byte("a"), 1<<20), "zeros": make([]byte, 16<<20),
	} {
		if _, err := r.Scan(data, Names{"/tmp/" + name + "\x00\xff"}); err != nil && !errors.Is(err, ErrScan) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
