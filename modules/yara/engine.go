//go:build yara

package yara

// #include <yara.h>
import "C"

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	libyara "github.com/hillu/go-yara/v4"

	"github.com/omega-mesh/omega/swarm/event/redact"
)

// Built says whether this binary can match YARA rules.
const Built = true

// Version is that of libyara's headers this was built with.
func Version() string { return C.YR_VERSION }

// flags of a scan: each string once where that is enough; and a fault ends the process, which is what it is there for, rather
// than being caught by handlers of libyara's beside those of Go's runtime.
const flags = libyara.ScanFlagsFastMode | libyara.ScanFlags(C.SCAN_FLAGS_NO_TRYCATCH)

// Rules are compiled rules. Scan is for one goroutine.
type Rules struct {
	rules   *libyara.Rules
	scanner *libyara.Scanner
	n       int
}

// maxAnew is how often all is begun anew without a file that did not compile. A compiler that met an error is of no more use;
// who has many such files has each of the rest tried by itself first, which takes longer and ends.
const maxAnew = 8

// New compiles sources. A file that does not compile is left out and told of. before is called before each with its index, and
// with the number of sources before all are made into one matcher: so that who started this process knows what it fell over.
func New(sources []Source, before func(int)) (*Rules, []Rejected, error) {
	var rejected []Rejected
	reject := func(s *Source, err error) {
		rejected = append(rejected, Rejected{s.Name, redact.Printable(strings.ToValidUTF8(err.Error(), "?"), maxWhy)})
	}
	c, err := compiler()
	if err != nil {
		return nil, nil, err
	}
	defer func() { c.Destroy() }()
	var good []*Source
	anew := 0
	for i := range sources {
		before(i)
		s := &sources[i]
		if anew >= maxAnew {
			alone, err := compiler()
			if err != nil {
				return nil, rejected, err
			}
			err = add(alone, s)
			alone.Destroy()
			if err != nil {
				reject(s, err)
				continue
			}
		}
		err := add(c, s)
		if err == nil {
			good = append(good, s)
			continue
		}
		reject(s, err)
		anew++
		c.Destroy()
		if c, err = compiler(); err != nil {
			return nil, rejected, err
		}
		for _, g := range good {
			if err := add(c, g); err != nil {
				return nil, rejected, fmt.Errorf("%s, a second time: %w", g.Name, err)
			}
		}
	}
	before(len(sources))
	r := &Rules{}
	if len(good) == 0 {
		return r, rejected, nil
	}
	if r.rules, err = c.GetRules(); err != nil {
		return nil, rejected, fmt.Errorf("compile YARA rules: %w", err)
	}
	holds := map[string]bool{}
	for _, one := range r.rules.GetRules() {
		if holds[one.Namespace()] = true; !one.IsPrivate() {
			r.n++
		}
	}
	for _, s := range good {
		if !holds[namespace(s.Name)] {
			reject(s, errors.New("holds no rule"))
		}
	}
	if r.scanner, err = libyara.NewScanner(r.rules); err != nil {
		return nil, rejected, fmt.Errorf("compile YARA rules: %w", err)
	}
	return r, rejected, nil
}

// namespace is what a file's rules are known under; C ends a text at a zero.
func namespace(name string) string { return strings.ReplaceAll(name, "\x00", "?") }

func compiler() (*libyara.Compiler, error) {
	c, err := libyara.NewCompiler()
	if err != nil {
		return nil, fmt.Errorf("YARA's compiler: %w", err)
	}
	c.DisableIncludes()
	for _, name := range []string{"filename", "filepath", "extension"} {
		if err := c.DefineVariable(name, ""); err != nil {
			c.Destroy()
			return nil, fmt.Errorf("YARA's compiler: %w", err)
		}
	}
	return c, nil
}

// add compiles one file.
func add(c *libyara.Compiler, s *Source) error {
	err := c.AddString(string(s.Text), namespace(s.Name))
	if err != nil && len(c.Errors) > 0 {
		return fmt.Errorf("line %d: %s", c.Errors[0].Line, c.Errors[0].Text)
	}
	return err
}

// Len is how many rules there are, but for those that only others use.
func (r *Rules) Len() int { return r.n }

// Scan gives the rules that data is found by, at most MaxMatches. It reads data and changes nothing.
func (r *Rules) Scan(data []byte, names Names) ([]Match, error) {
	if r.scanner == nil {
		return nil, nil
	}
	path := strings.ReplaceAll(names.Path, "\x00", "?")
	for name, value := range map[string]string{"filepath": path, "filename": filepath.Base(path), "extension": filepath.Ext(path)} {
		if err := r.scanner.DefineVariable(name, value); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrScan, err)
		}
	}
	var found matches
	r.scanner.SetFlags(flags).SetTimeout(ScanTime).SetCallback(&found)
	if err := r.scanner.ScanMem(data); err != nil {
		return found, fmt.Errorf("%w: %w", ErrScan, err)
	}
	return found, nil
}

// matches takes what a scan finds.
type matches []Match

// RuleMatching implements libyara.ScanCallback.
func (m *matches) RuleMatching(_ *libyara.ScanContext, r *libyara.Rule) (abort bool, err error) {
	if r.IsPrivate() {
		return false, nil
	}
	one := newMatch(r.Identifier(), strings.ToValidUTF8(r.Namespace(), "?"))
	for _, meta := range r.Metas() {
		one.describe(meta.Identifier, meta.Value)
	}
	*m = append(*m, one)
	return len(*m) == MaxMatches, nil
}
