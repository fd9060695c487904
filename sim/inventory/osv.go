package inventory

import (
	"archive/zip"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of a vulnerability feed.
const (
	maxAdvisory   = 8 << 20 // bytes of one
	MaxAdvisories = 2_000_000
)

// advisory is what is read of an OSV record (ossf.github.io/osv-schema, version 1.7).
type advisory struct {
	ID        string     `json:"id"`
	Withdrawn string     `json:"withdrawn"`
	Aliases   []string   `json:"aliases"`
	Upstream  []string   `json:"upstream"`
	Related   []string   `json:"related"`
	Severity  []severity `json:"severity"`
	Affected  []affected `json:"affected"`
}

type severity struct {
	Type  string `json:"type"`
	Score string `json:"score"`
}

type affected struct {
	Package struct {
		Ecosystem string `json:"ecosystem"`
		Name      string `json:"name"`
	} `json:"package"`
	Ranges []struct {
		Type   string  `json:"type"`
		Events []limit `json:"events"`
	} `json:"ranges"`
	Versions []string   `json:"versions"`
	Severity []severity `json:"severity"`
}

// limit is an event of a range: exactly one of its fields is set.
type limit struct {
	Introduced   string `json:"introduced"`
	Fixed        string `json:"fixed"`
	LastAffected string `json:"last_affected"`
	Limit        string `json:"limit"`
}

// verdict is what an advisory says of a version.
type verdict uint8

const (
	unaffected verdict = iota
	vulnerable
	unjudged // neither listed nor in an order that is known here
)

// judge is the specification's evaluation: a version is affected where it is listed, or lies within a range.
func (a *affected) judge(c component) verdict {
	if slices.Contains(a.Versions, c.version) {
		return vulnerable
	}
	result := unaffected
	for _, r := range a.Ranges {
		compare := orderOf(c.ecosystem)
		switch r.Type {
		case "SEMVER":
			compare = compareSemantic
		case "ECOSYSTEM":
		default: // GIT: commits, which a bill of materials does not tell
			if len(a.Versions) == 0 {
				result = unjudged
			}
			continue
		}
		if compare == nil {
			if len(a.Versions) == 0 {
				result = unjudged
			}
			continue
		}
		within, ok := inRange(r.Events, c.version, compare)
		switch {
		case !ok:
			result = unjudged
		case within:
			return vulnerable
		}
	}
	return result
}

func inRange(events []limit, version string, compare order) (within, ok bool) {
	ok = true
	at := func(v string) int { // where the version stands relative to v
		if v == "0" {
			return 1 // before every version
		}
		c, known := compare(version, v)
		ok = ok && known
		return c
	}
	limited, before := false, false
	sorted := slices.Clone(events)
	slices.SortStableFunc(sorted, func(x, y limit) int {
		p, q := cmp.Or(x.Introduced, x.Fixed, x.LastAffected, x.Limit), cmp.Or(y.Introduced, y.Fixed, y.LastAffected, y.Limit)
		switch {
		case p == q:
			return 0
		case p == "0":
			return -1
		case q == "0":
			return 1
		}
		c, known := compare(p, q)
		ok = ok && known
		return c
	})
	for _, e := range sorted {
		switch {
		case e.Introduced != "":
			within = within || at(e.Introduced) >= 0
		case e.Fixed != "":
			within = within && at(e.Fixed) < 0
		case e.LastAffected != "":
			within = within && at(e.LastAffected) <= 0
		case e.Limit != "":
			limited = true
			before = before || e.Limit == "*" || at(e.Limit) < 0
		}
	}
	return within && (!limited || before), ok
}

// vector is the advisory's CVSS v3 vector, the affected package's own first.
func vector(lists ...[]severity) string {
	for _, l := range lists {
		for _, s := range l {
			if s.Type == "CVSS_V3" {
				return s.Score
			}
		}
	}
	return ""
}

// eachAdvisory gives every record of a feed to f: a JSON file with one record or an array of them, a .zip of such files,
// or a folder of either. Other files are passed over. A record is valid during the call only.
func eachAdvisory(path string, f func(where string, a *advisory) error) error {
	n := 0
	count := func(where string, a *advisory) error {
		if n++; n > MaxAdvisories {
			return fmt.Errorf("%s: more than %d advisories", path, MaxAdvisories)
		}
		return f(where, a)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return feedFile(path, count)
	}
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(name, ".json") && !strings.HasSuffix(name, ".zip") {
			return err
		}
		return feedFile(name, count)
	})
}

func feedFile(path string, f func(string, *advisory) error) error {
	if strings.HasSuffix(path, ".zip") {
		archive, err := zip.OpenReader(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		defer archive.Close()
		for _, e := range archive.File {
			if !strings.HasSuffix(e.Name, ".json") {
				continue
			}
			r, err := e.Open()
			if err != nil {
				return fmt.Errorf("%s: %s: %w", path, clip(e.Name), err)
			}
			err = readAdvisories(r, func(a *advisory) error { return f(path+": "+clip(e.Name), a) })
			r.Close()
			if err != nil {
				return fmt.Errorf("%s: %s: %w", path, clip(e.Name), err)
			}
		}
		return nil
	}
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := readAdvisories(r, func(a *advisory) error { return f(path, a) }); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// errTooLong is of an advisory larger than maxAdvisory.
var errTooLong = fmt.Errorf("an advisory of more than %d bytes", maxAdvisory)

// budget fails once more than left bytes were read, and is refilled before each record.
type budget struct {
	r    io.Reader
	left int
}

func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func readAdvisories(r io.Reader, f func(*advisory) error) error {
	in := &budget{r, maxAdvisory}
	d := json.NewDecoder(in)
	first, err := d.Token()
	if err != nil {
		return fmt.Errorf("OSV: %w", err)
	}
	// The decoder's look-ahead stays within the budget, so a record may use at most all of it.
	one := func(d *json.Decoder) error {
		a := &advisory{}
		in.left = maxAdvisory
		if err := d.Decode(a); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New("the file is truncated")
			}
			return fmt.Errorf("OSV: %w", err)
		}
		if a.ID == "" {
			return errors.New("OSV: a record without an id")
		}
		return f(a)
	}
	switch first {
	case json.Delim('['):
		for d.More() {
			if err := one(d); err != nil {
				return err
			}
		}
		if _, err := d.Token(); err != nil {
			return fmt.Errorf("OSV: %w", err)
		}
		return nil
	case json.Delim('{'):
		return one(json.NewDecoder(io.MultiReader(strings.NewReader("{"), d.Buffered(), in)))
	}
	return fmt.Errorf("OSV: a record or an array of them should stand here, not %v", first)
}
