package yara

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

func put(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const marker = `rule marker { strings: $a = "OMEGA-TEST-MARKER" condition: $a }`

// A folder gives its rule files, however deep; what is no rule file is left, and what cannot be read as one is said.
func TestReadAFolder(t *testing.T) {
	dir := t.TempDir()
	good := put(t, dir, "a.yar", marker)
	deep := put(t, dir, "b/c/d.yara", marker)
	put(t, dir, "notes.txt", "no rules")
	large := put(t, dir, "large.yar", strings.Repeat("/", MaxSource+1))
	zero := put(t, dir, "compiled.yar", "YARA\x00\x01")
	magic := put(t, dir, "magic.yar", "import \"magic\"\nrule m { condition: magic.type() contains \"ELF\" }")
	outside := put(t, t.TempDir(), "outside.yar", marker)
	link := filepath.Join(dir, "link.yar")
	fifo := filepath.Join(dir, "fifo.yar")
	if err := errors.Join(os.Symlink(outside, link), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	sources, rejected, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range sources {
		names = append(names, s.Name)
	}
	if fmt.Sprint(names) != fmt.Sprint([]string{good, deep}) {
		t.Errorf("read %v", names)
	}
	why := map[string]string{large: "larger", zero: "zero byte", magic: "magic", link: "symbolic link", fifo: "regular"}
	for _, r := range rejected {
		if want, ok := why[r.File]; !ok || !strings.Contains(r.Why, want) {
			t.Errorf("%s: %s", r.File, r.Why)
		}
		delete(why, r.File)
	}
	if len(why) > 0 {
		t.Errorf("not rejected: %v", why)
	}
	// A file is taken whatever it is called, and where a person names a link they mean what it leads to.
	if sources, _, err = Read(link); err != nil || len(sources) != 1 {
		t.Errorf("%v %v", sources, err)
	}
}

func TestNoRulesIsAnError(t *testing.T) {
	if _, _, err := Read(t.TempDir()); err == nil || !strings.Contains(err.Error(), ".yar") {
		t.Error(err)
	}
	if _, _, err := Read(filepath.Join(t.TempDir(), "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestTooManyRuleFiles(t *testing.T) {
	dir := t.TempDir()
	for i := range MaxSources + 1 {
		put(t, dir, fmt.Sprintf("%d.yar", i), "x")
	}
	if _, _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
	dir = t.TempDir()
	for i := range MaxTotal/MaxSource + 1 {
		put(t, dir, fmt.Sprintf("%d.yar", i), strings.Repeat("/", MaxSource))
	}
	if _, _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

// What a rule says of itself is taken where it reads, and bounded.
func TestDescribe(t *testing.T) {
	m := newMatch("r\x1b[31m", "f")
	m.describe("description", "an implant\x00 "+strings.Repeat("x", 1000))
	m.describe("severity", "Critical")
	m.describe("confidence", 90)
	m.describe("mitre_attack", strings.Repeat("T1059.004, T1027 and T1059.004; ", 1000))
	if strings.ContainsAny(m.Rule+m.Title, "\x00\x1b") || len(m.Title) > MaxTitle+3 || m.Severity != event.SeverityCritical || m.Confidence != 90 || fmt.Sprint(m.Attack) != "[T1059.004 T1027]" {
		t.Errorf("%+v", m)
	}
	n := newMatch("r", "f")
	n.describe("severity", "very")
	n.describe("severity", 3)
	n.describe("confidence", 300)
	n.describe("confidence", "high")
	n.describe("date", "T1027")
	if n.Severity != event.SeverityHigh || n.Confidence != 75 || n.Attack != nil || n.Title != "" {
		t.Errorf("%+v", n)
	}
}

// A build without YARA says what to do.
func TestWithoutYara(t *testing.T) {
	if Built {
		t.Skip("this build has YARA")
	}
	if _, _, err := New([]Source{{"a", []byte(marker)}}, func(int) {}); !errors.Is(err, ErrBuild) || !strings.Contains(err.Error(), "make build-yara") {
		t.Error(err)
	}
	if _, err := (&Rules{}).Scan(bytes.Repeat([]byte("x"), 10), Names{}); !errors.Is(err, ErrBuild) {
		t.Error(err)
	}
}
