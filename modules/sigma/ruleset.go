package sigma

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Fault is a file or rule that is not used, and why.
type Fault struct{ File, Why string }

// Options say how rules are read.
type Options struct {
	// Placeholders are the values that %NAME% stands for behind the modifier "expand".
	Placeholders map[string][]string
	// AnySource keeps rules that no sensor of a host here can match: for events from elsewhere.
	AnySource bool
}

// Set is a set of rules as it was read.
type Set struct {
	Files         int
	Rules         []*Rule // that are used: detections, then correlations, each after those it refers to
	NotApplicable []Fault
	Rejected      []Fault
	total         int
	filters       []*filter
	budget        budget
	opt           Options
}

// Total is how many rules were read, used or not; filters are rules.
func (s *Set) Total() int { return s.total }

// Loaded is how many of them are used.
func (s *Set) Loaded() int { return len(s.Rules) + len(s.filters) }

// Load reads every .yml and .yaml file of folders and files. A broken rule costs itself alone. It fails only where a
// path cannot be read, or ctx ends.
func Load(ctx context.Context, opt Options, paths ...string) (*Set, error) {
	s := &Set{opt: opt}
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err = errors.Join(err, ctx.Err()); err != nil {
				return err
			}
			if d.IsDir() {
				if name := d.Name(); path != root && strings.HasPrefix(name, ".") {
					return filepath.SkipDir
				}
				return nil
			}
			if e := strings.ToLower(filepath.Ext(path)); path != root && e != ".yml" && e != ".yaml" || !d.Type().IsRegular() && path != root {
				return nil
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
			if err != nil {
				return err
			}
			s.Files++
			s.add(path, b)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read rules: %w", err)
		}
	}
	s.finish()
	return s, nil
}

// LoadFS reads every .yml file of a file system, as Load does of folders.
func LoadFS(ctx context.Context, opt Options, files fs.FS) (*Set, error) {
	s := &Set{opt: opt}
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || d.IsDir() || !strings.HasSuffix(path, ".yml") {
			return err
		}
		b, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		s.Files++
		s.add(path, b)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	s.finish()
	return s, nil
}

// Parse reads rules from one text of several documents, as a module carries them.
func Parse(name string, text []byte, opt Options) *Set {
	s := &Set{Files: 1, opt: opt}
	s.add(name, text)
	s.finish()
	return s
}

func (s *Set) reject(file string, err error) {
	s.Rejected = append(s.Rejected, Fault{file, strings.TrimPrefix(err.Error(), ErrRule.Error()+": ")})
}

func (s *Set) add(file string, b []byte) {
	nodes, err := documents(b)
	if err != nil {
		s.reject(file, err)
		return
	}
	for _, n := range nodes {
		if s.total++; s.total > MaxRules {
			s.reject(file, refuse("more than %d rules", MaxRules))
			return
		}
		d, err := parseDocument(n, file, s.opt.Placeholders, &s.budget)
		switch {
		case errors.Is(err, errPlaceholder):
			why, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), ErrRule.Error()+": "), "\n")
			s.NotApplicable = append(s.NotApplicable, Fault{file, why})
		case err != nil:
			s.reject(file, err)
		case d.filter != nil:
			s.filters = append(s.filters, d.filter)
		default:
			s.Rules = append(s.Rules, d.rule)
		}
	}
}

// finish refuses what stands twice, adds filters, leaves out what cannot apply, and puts correlations in their order.
func (s *Set) finish() {
	names := map[string]*Rule{}
	s.Rules = slices.DeleteFunc(s.Rules, func(r *Rule) bool {
		for _, name := range []string{r.ID, r.Name} {
			if other, twice := names[name]; twice && name != "" {
				s.reject(r.File, refuse("%q is also the id or name of a rule in %s", name, other.File))
				return true
			}
		}
		for _, name := range []string{r.ID, r.Name} {
			if name != "" {
				names[name] = r
			}
		}
		return false
	})
	s.filters = slices.DeleteFunc(s.filters, func(f *filter) bool {
		_, err := (&compiler{placeholders: s.opt.Placeholders}).detection(f.node)
		if err != nil {
			why, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), ErrRule.Error()+": "), "\n")
			s.NotApplicable = append(s.NotApplicable, Fault{f.file, why})
		}
		return err != nil
	})
	s.Rules = slices.DeleteFunc(s.Rules, func(r *Rule) bool {
		err := s.filter(r)
		if err != nil {
			s.reject(r.File, err)
		}
		return err != nil
	})
	if !s.opt.AnySource {
		s.Rules = slices.DeleteFunc(s.Rules, func(r *Rule) bool {
			if r.detection == nil {
				return false
			}
			why := applicable(r)
			if why != "" {
				s.NotApplicable = append(s.NotApplicable, Fault{r.File, why})
			}
			return why != ""
		})
	}
	s.order(names)
}

// filter joins to a rule what filters say of it. As the reference implementation has it, a filter's condition is joined to the
// rule's by "and": one that leaves something out says "not selection".
func (s *Set) filter(r *Rule) error {
	if r.detection == nil {
		return nil
	}
	for _, f := range s.filters {
		if !f.concerns(r) {
			continue
		}
		e, err := (&compiler{space: space(r.Source), placeholders: s.opt.Placeholders, budget: &s.budget}).detection(f.node)
		if err != nil {
			return fmt.Errorf("with the filter %q: %w", f.title, err)
		}
		r.detection = join(opAnd, r.detection, e)
	}
	return nil
}

// order puts each correlation behind what it refers to, and refuses one whose rules are not there, or that refers to
// itself by way of others.
func (s *Set) order(names map[string]*Rule) {
	var ordered, waiting []*Rule
	placed, there := map[*Rule]bool{}, map[*Rule]bool{}
	for _, r := range s.Rules {
		there[r] = true
		if r.correlation == nil {
			ordered, placed[r] = append(ordered, r), true
		} else {
			waiting = append(waiting, r)
		}
	}
	for progress := true; progress; {
		progress = false
		waiting = slices.DeleteFunc(waiting, func(r *Rule) bool {
			for _, name := range r.correlation.rules {
				if !placed[names[name]] {
					return false
				}
			}
			ordered, placed[r], progress = append(ordered, r), true, true
			return true
		})
	}
	for _, r := range waiting {
		why, applicable := "it refers to itself by way of others", true
		for _, name := range r.correlation.rules {
			if names[name] == nil {
				why = fmt.Sprintf("there is no rule %.80q that it refers to", name)
			} else if !there[names[name]] {
				why, applicable = fmt.Sprintf("rule %.80q, which it refers to, is not applicable", name), false
			}
		}
		if applicable {
			s.reject(r.File, refuse("%s", why))
		} else {
			s.NotApplicable = append(s.NotApplicable, Fault{r.File, why})
		}
	}
	for _, r := range ordered {
		if r.correlation == nil {
			continue
		}
		for _, name := range r.correlation.rules {
			names[name].quiet = names[name].quiet || !r.correlation.generate
		}
	}
	s.Rules = ordered
}
