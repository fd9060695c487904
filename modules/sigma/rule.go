package sigma

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
)

// LogSource is what kind of events a rule is about; an empty part stands for any.
type LogSource struct{ Category, Product, Service string }

// String gives the parts that are there.
func (l LogSource) String() string {
	var parts []string
	for _, p := range []struct{ name, value string }{{"category", l.Category}, {"product", l.Product}, {"service", l.Service}} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	return strings.Join(parts, ", ")
}

// Rule is one rule as its file has it.
type Rule struct {
	ID, Name, Title, Level, Status string
	Attack                         []string // technique ids, from its tags
	Source                         LogSource
	File                           string

	detection   *expr
	correlation *correlation
	quiet       bool // it is only there for a correlation to refer to
}

// Severity is a rule's level in our words.
func (r *Rule) Severity() event.Severity {
	switch strings.ToLower(r.Level) {
	case "low":
		return event.SeverityLow
	case "medium":
		return event.SeverityMedium
	case "high":
		return event.SeverityHigh
	case "critical":
		return event.SeverityCritical
	}
	return event.SeverityInformational
}

// confidence is how far a rule is to be believed: an experimental one has not been tried for long.
func (r *Rule) confidence() uint8 {
	switch r.Status {
	case "stable":
		return 80
	case "test":
		return 65
	}
	return 50
}

// filter is a Sigma filter: a condition that is added to the rules it names.
type filter struct {
	title  string
	file   string
	source LogSource
	rules  map[string]bool
	any    bool
	node   *yaml.Node // its selections and condition, compiled anew in the name space of each rule
}

// document is what one YAML document turned out to be.
type document struct {
	rule   *Rule
	filter *filter
}

// parseDocument reads one document. A broken one is refused with its reason.
// What is kept of it is taken from left.
func parseDocument(n *yaml.Node, file string, placeholders map[string][]string, left *budget) (document, error) {
	if n.Kind != yaml.MappingNode {
		return document{}, refuse("a rule is a map")
	}
	if get(n, "action") != nil {
		return document{}, refuse("collections by \"action\" are of Sigma 1: give each rule its own document")
	}
	r := &Rule{File: file}
	for key, to := range map[string]*string{"id": &r.ID, "name": &r.Name, "title": &r.Title, "level": &r.Level, "status": &r.Status} {
		s, err := text(get(n, key), key)
		if err != nil {
			return document{}, err
		}
		if len(s) > 1024 || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
			return document{}, refuse("%s: at most 1,024 printable bytes", key)
		}
		*to = s
	}
	if r.Title == "" {
		return document{}, refuse("it has no title")
	}
	switch strings.ToLower(r.Level) {
	case "", "informational", "low", "medium", "high", "critical":
	default:
		return document{}, refuse("level %.40q is none of informational, low, medium, high, critical", r.Level)
	}
	tags, err := texts(get(n, "tags"), "tags")
	if err != nil {
		return document{}, err
	}
	for _, t := range tags {
		id, ok := strings.CutPrefix(strings.ToLower(t), "attack.")
		if id = strings.ToUpper(id); ok && modules.IsTechnique(id) && len(r.Attack) < 32 {
			r.Attack = append(r.Attack, id)
		}
	}
	if r.Source, err = parseSource(get(n, "logsource")); err != nil {
		return document{}, err
	}
	switch detection, related := get(n, "detection"), get(n, "correlation"); {
	case get(n, "filter") != nil:
		f, err := parseFilter(get(n, "filter"), r)
		return document{filter: f}, err
	case related != nil:
		r.correlation, err = parseCorrelation(related)
		return document{rule: r}, err
	case detection != nil:
		if r.Source == (LogSource{}) {
			return document{}, refuse("it names no log source")
		}
		c := &compiler{space: space(r.Source), placeholders: placeholders, budget: left}
		if r.detection, err = c.detection(detection); err != nil {
			return document{rule: r}, err
		}
		return document{rule: r}, nil
	}
	return document{}, refuse("it has no detection, correlation or filter")
}

func parseSource(n *yaml.Node) (l LogSource, err error) {
	if n == nil {
		return l, nil
	}
	if n.Kind != yaml.MappingNode {
		return l, refuse("line %d: a log source is a map", n.Line)
	}
	for key, to := range map[string]*string{"category": &l.Category, "product": &l.Product, "service": &l.Service} {
		if *to, err = text(get(n, key), key); err != nil {
			return l, err
		}
		*to = strings.ToLower(*to)
	}
	return l, nil
}

// detection compiles the selections and the condition that joins them; a list of conditions is joined by or.
func (c *compiler) detection(n *yaml.Node) (*expr, error) {
	if n.Kind != yaml.MappingNode {
		return nil, refuse("line %d: a detection is a map", n.Line)
	}
	selections := map[string]*expr{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i].Value
		if name == "condition" || name == "timeframe" || name == "rules" {
			continue
		}
		e, err := c.selection(n.Content[i+1])
		if err != nil {
			return nil, fmt.Errorf("selection %.80q: %w", name, err)
		}
		selections[name] = e
	}
	conditions, err := texts(get(n, "condition"), "condition")
	if err != nil {
		return nil, err
	}
	if len(conditions) == 0 {
		return nil, refuse("it has no condition")
	}
	var kids []*expr
	for _, s := range conditions {
		e, err := parseCondition(s, selections)
		if err != nil {
			return nil, err
		}
		kids = append(kids, e)
	}
	return join(opOr, kids...), nil
}

func parseFilter(n *yaml.Node, r *Rule) (*filter, error) {
	f := &filter{title: r.Title, file: r.File, source: r.Source, rules: map[string]bool{}, node: n}
	if n.Kind != yaml.MappingNode {
		return nil, refuse("line %d: a filter is a map", n.Line)
	}
	names, err := texts(get(n, "rules"), "rules")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 || len(names) == 1 && names[0] == "any" {
		f.any = true
	}
	for _, name := range names {
		f.rules[name] = true
	}
	_, err = (&compiler{}).detection(n)
	if errors.Is(err, errPlaceholder) {
		err = nil
	}
	return f, err
}

// concerns says whether f is added to r: it names r, and r's log source has all that f's has.
func (f *filter) concerns(r *Rule) bool {
	if !f.any && !f.rules[r.ID] && (r.Name == "" || !f.rules[r.Name]) {
		return false
	}
	s := f.source
	return (s.Category == "" || s.Category == r.Source.Category) && (s.Product == "" || s.Product == r.Source.Product) && (s.Service == "" || s.Service == r.Source.Service)
}
