package yara

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

// Bounds.
const (
	// MaxSource is the most bytes of one rule file, MaxSources how many files there may be, MaxTotal the bytes of all.
	MaxSource  = 4 << 20
	MaxSources = 4096
	MaxTotal   = 64 << 20
	// MaxScan is how much of a file is looked at, in bytes: what is longer is looked at as far as that.
	MaxScan = 64 << 20
	// MaxMatches is how many rules one file may be found by; a scan ends with the last of them.
	MaxMatches = 64
	// MaxName is the most bytes of a rule's name (YARA's own limit), MaxTitle of its description.
	MaxName  = 128
	MaxTitle = 200
	// ScanTime is how long one scan may take. libyara looks at the clock now and then: who calls Scan must be ready to end the process.
	ScanTime = 10 * time.Second

	maxDepth  = 16    // folders below one that is given
	maxWalk   = 65536 // entries of a folder that are looked at
	maxWhy    = 300
	maxAttack = 8
)

var (
	// ErrBuild says that this binary was built without YARA.
	ErrBuild = errors.New("this build has no YARA: build one with `make build-yara` (needs gcc and libyara-dev)")
	// ErrScan is wrapped by what keeps a scan from its end.
	ErrScan = errors.New("scan not finished")
)

// Source is one file of rules. Its name is the rules' namespace.
type Source struct {
	Name string
	Text []byte
}

// Rejected is a file of rules that is not used, and why.
type Rejected struct {
	File, Why string
}

// Match is a rule that a file was found by. Texts are printable and bounded: they are those of whoever wrote the rule.
type Match struct {
	Rule       string         `cbor:"1,keyasint"`
	File       string         `cbor:"2,keyasint"` // that the rule is from
	Title      string         `cbor:"3,keyasint,omitempty"`
	Severity   event.Severity `cbor:"4,keyasint"`
	Confidence uint8          `cbor:"5,keyasint"` // 0 to 100
	Attack     []string       `cbor:"6,keyasint,omitempty"`
}

// Names are what a rule may ask of a file beside its bytes: the variables filename, filepath and extension.
type Names struct{ Path string }

// Read reads the rule files at paths: a file whatever its name, and of a folder those that end in .yar or .yara, however deep.
// A symbolic link in a folder is not followed. What cannot be used is in the second list; the error is for what holds no rule
// file at all, or more than the bounds.
func Read(paths ...string) ([]Source, []Rejected, error) {
	var sources []Source
	var rejected []Rejected
	total := 0
	take := func(path string, follow int) error {
		text, err := readSource(path, follow)
		if err != nil {
			rejected = append(rejected, Rejected{path, err.Error()})
			return nil
		}
		if total += len(text); total > MaxTotal || len(sources) == MaxSources {
			return fmt.Errorf("more than %d rule files or %d MiB of them", MaxSources, MaxTotal>>20)
		}
		sources = append(sources, Source{path, text})
		return nil
	}
	for _, root := range paths {
		st, err := os.Stat(root)
		if err != nil {
			return nil, nil, fmt.Errorf("YARA rules: %w", err)
		}
		if !st.IsDir() {
			if err := take(root, 0); err != nil {
				return nil, nil, fmt.Errorf("YARA rules: %w", err)
			}
			continue
		}
		seen := 0
		root = filepath.Clean(root)
		err = filepath.WalkDir(root+"/", func(path string, d fs.DirEntry, err error) error {
			if seen++; seen > maxWalk {
				return fmt.Errorf("%s: more than %d entries", root, maxWalk)
			}
			if err != nil {
				rejected = append(rejected, Rejected{path, err.Error()})
				return nil
			}
			if d.IsDir() {
				if strings.Count(path[len(root):], "/") > maxDepth {
					return fs.SkipDir
				}
				return nil
			}
			if ext := filepath.Ext(path); ext != ".yar" && ext != ".yara" {
				return nil
			}
			return take(path, unix.O_NOFOLLOW)
		})
		if err != nil {
			return nil, nil, fmt.Errorf("YARA rules: %w", err)
		}
	}
	if len(sources)+len(rejected) == 0 {
		return nil, nil, fmt.Errorf("YARA rules: no file ends in .yar or .yara below %s", strings.Join(paths, ", "))
	}
	return sources, rejected, nil
}

// magicImport finds the one module of libyara's that opens files.
var magicImport = regexp.MustCompile(`(?m)^[^/\n]*\bimport\s*"magic"`)

func readSource(path string, follow int) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|follow, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, errors.New("a symbolic link, which is not followed")
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case st.Size() > MaxSource:
		return nil, fmt.Errorf("larger than %d MiB", MaxSource>>20)
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxSource+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > MaxSource:
		return nil, fmt.Errorf("larger than %d MiB", MaxSource>>20)
	case bytes.IndexByte(text, 0) >= 0:
		return nil, errors.New("holds a zero byte: it is no text of rules (compiled rules are not read)")
	case magicImport.Match(text):
		return nil, errors.New(`imports the module "magic", which reads files of its own: not used here`)
	}
	return text, nil
}

// technique is an ATT&CK id, as a meta may hold several.
var technique = regexp.MustCompile(`\bT[0-9]{4}(\.[0-9]{3})?\b`)

// describe takes from a rule's metas what a finding has a place for. A rule says what it likes: each is bounded, and what does
// not read is left at what a match means by itself.
func (m *Match) describe(name string, value any) {
	text, _ := value.(string)
	number, numeric := value.(int)
	switch strings.ToLower(name) {
	case "description", "desc", "title":
		if m.Title == "" {
			m.Title = redact.Printable(strings.ToValidUTF8(text, "?"), MaxTitle)
		}
	case "severity":
		if s, err := event.ParseSeverity(strings.ToLower(text)); err == nil && s != event.SeverityUnknown {
			m.Severity = s
		}
	case "confidence":
		if numeric && number >= 0 && number <= 100 {
			m.Confidence = uint8(number)
		}
	default:
		if !strings.Contains(strings.ToLower(name), "att") && !strings.Contains(strings.ToLower(name), "technique") {
			return
		}
		for _, id := range technique.FindAllString(text[:min(len(text), 4096)], maxAttack) {
			if len(m.Attack) < maxAttack && !slices.Contains(m.Attack, id) {
				m.Attack = append(m.Attack, id)
			}
		}
	}
}

// newMatch is a match of a rule that says nothing of itself.
func newMatch(rule, file string) Match {
	return Match{Rule: redact.Printable(rule, MaxName), File: redact.Printable(file, 1024), Severity: event.SeverityHigh, Confidence: 75}
}
