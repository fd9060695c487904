package sigma

import (
	"cmp"
	"container/list"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bounds of what correlations remember.
const (
	maxTimespan = 30 * 24 * time.Hour
	maxGroups   = 10_000 // of one correlation; the least recently used goes first, and is counted
	maxHeld     = 4096   // matches of one group; the oldest goes first, and is counted
	maxValues   = 4      // fields that are counted or grouped by
)

// correlation is what a correlation rule asks of the matches of other rules.
type correlation struct {
	kind       string
	rules      []string // ids or names, in their order
	groupBy    []string
	aliases    map[string]map[string]string // alias → rule → field
	span       time.Duration
	fields     []string
	bounds     []bound
	percentile float64
	generate   bool
}

// bound is one comparison of a condition.
type bound struct {
	op string
	n  float64
}

func parseCorrelation(n *yaml.Node) (*correlation, error) {
	if n.Kind != yaml.MappingNode {
		return nil, refuse("line %d: a correlation is a map", n.Line)
	}
	c := &correlation{aliases: map[string]map[string]string{}, percentile: 50}
	var err error
	if c.kind, err = text(get(n, "type"), "type"); err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"event_count", "value_count", "temporal", "temporal_ordered", "value_sum", "value_avg", "value_percentile"}, c.kind) {
		return nil, refuse("correlation type %.40q", c.kind)
	}
	if c.rules, err = texts(get(n, "rules"), "rules"); err != nil {
		return nil, err
	}
	if len(c.rules) == 0 || len(c.rules) > 64 {
		return nil, refuse("a correlation of %d rules: 1 to 64", len(c.rules))
	}
	if c.groupBy, err = texts(get(n, "group-by"), "group-by"); err != nil {
		return nil, err
	}
	if len(c.groupBy) > maxValues {
		return nil, refuse("grouped by %d fields, more than %d", len(c.groupBy), maxValues)
	}
	span, err := text(get(n, "timespan"), "timespan")
	if err != nil {
		return nil, err
	}
	if c.span, err = parseSpan(span); err != nil {
		return nil, err
	}
	if g, err := text(get(n, "generate"), "generate"); err != nil {
		return nil, err
	} else if g != "" {
		if c.generate, err = strconv.ParseBool(g); err != nil {
			return nil, refuse("generate is true or false")
		}
	}
	if aliases := get(n, "aliases"); aliases != nil {
		if aliases.Kind != yaml.MappingNode {
			return nil, refuse("line %d: aliases are a map", aliases.Line)
		}
		for i := 0; i+1 < len(aliases.Content); i += 2 {
			of := map[string]string{}
			m := aliases.Content[i+1]
			for j := 0; m.Kind == yaml.MappingNode && j+1 < len(m.Content); j += 2 {
				of[m.Content[j].Value] = m.Content[j+1].Value
			}
			if len(of) == 0 {
				return nil, refuse("line %d: alias %.80q names no fields", m.Line, aliases.Content[i].Value)
			}
			c.aliases[aliases.Content[i].Value] = of
		}
	}
	return c, c.parseCondition(get(n, "condition"))
}

func (c *correlation) parseCondition(n *yaml.Node) error {
	if n != nil && n.Kind != yaml.MappingNode {
		return refuse("line %d: a correlation's condition is a map", n.Line)
	}
	for i := 0; n != nil && i+1 < len(n.Content); i += 2 {
		key, v := n.Content[i].Value, n.Content[i+1]
		switch key {
		case "field":
			var err error
			if c.fields, err = texts(v, "field"); err != nil {
				return err
			}
		case "gt", "gte", "lt", "lte", "eq", "neq", "percentile":
			num, err := strconv.ParseFloat(v.Value, 64)
			if err != nil || math.IsNaN(num) {
				return refuse("line %d: %.40q is no number", v.Line, v.Value)
			}
			if key == "percentile" {
				c.percentile = num
			} else {
				c.bounds = append(c.bounds, bound{key, num})
			}
		default:
			return refuse("line %d: a condition has no %.40q", n.Line, key)
		}
	}
	temporal := strings.HasPrefix(c.kind, "temporal")
	switch {
	case !temporal && len(c.bounds) == 0:
		return refuse("%s needs a condition", c.kind)
	case strings.HasPrefix(c.kind, "value_") && (len(c.fields) == 0 || len(c.fields) > maxValues):
		return refuse("%s needs the field it is about", c.kind)
	case c.percentile < 0 || c.percentile > 100:
		return refuse("percentile %v", c.percentile)
	}
	return nil
}

// parseSpan reads a number and s, m, h, d, w, M or y.
func parseSpan(s string) (time.Duration, error) {
	if s == "" {
		return 0, refuse("it has no timespan")
	}
	unit, ok := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour, 'M': 30 * 24 * time.Hour}[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if !ok || err != nil || n == 0 || time.Duration(n) > maxTimespan/unit {
		return 0, refuse("timespan %.40q: a number and s, m, h, d or w, at most 30 days", s)
	}
	return time.Duration(n) * unit, nil
}

func (b bound) holds(v float64) bool {
	switch b.op {
	case "gt":
		return v > b.n
	case "gte":
		return v >= b.n
	case "lt":
		return v < b.n
	case "lte":
		return v <= b.n
	case "eq":
		return v == b.n
	}
	return v != b.n
}

// correlator is a correlation at work: what matched lately, by group.
type correlator struct {
	rule    *Rule
	c       *correlation
	members map[*Rule]int // which of c.rules each is
	groups  map[string]*list.Element
	recent  *list.List // of *group, the one used last in front
	dropped uint64     // groups and matches that had to be forgotten before their time
}

type group struct {
	key  string
	held []held
}

// held is one match that is remembered.
type held struct {
	at     int64
	member int
	value  string
	number float64
}

func newCorrelator(r *Rule, members map[*Rule]int) *correlator {
	return &correlator{rule: r, c: r.correlation, members: members, groups: map[string]*list.Element{}, recent: list.New()}
}

// field is the name that an alias has for a rule's events, or the name itself.
func (k *correlator) field(name string, of *Rule) string {
	if m, ok := k.c.aliases[name]; ok {
		if f, ok := m[of.Name]; ok && of.Name != "" {
			return f
		}
		return m[of.ID]
	}
	return name
}

// matched takes a match of one of its rules, and says whether the correlation is now fulfilled. Time is the events' own;
// one that comes late is counted where it belongs.
func (k *correlator) matched(of *Rule, at int64, get func(field string) string) bool {
	var key strings.Builder
	for _, name := range k.c.groupBy {
		key.WriteString(get(k.field(name, of)))
		key.WriteByte(0)
	}
	h := held{at: at, member: k.members[of]}
	if len(k.c.fields) > 0 {
		for i, name := range k.c.fields {
			if i > 0 {
				h.value += "\x00"
			}
			h.value += get(k.field(name, of))
		}
		if strings.Trim(h.value, "\x00") == "" {
			return false // it has no such field: there is nothing to count
		}
		if k.c.kind != "value_count" {
			n, err := strconv.ParseFloat(h.value, 64)
			if err != nil {
				return false
			}
			h.number, h.value = n, ""
		}
	}
	g := k.group(key.String())
	i, _ := slices.BinarySearchFunc(g.held, at+1, func(h held, at int64) int { return cmp.Compare(h.at, at) })
	g.held = slices.Insert(g.held, i, h)
	newest := g.held[len(g.held)-1].at
	old := 0
	for old < len(g.held) && g.held[old].at <= newest-int64(k.c.span) {
		old++
	}
	if over := len(g.held) - old - maxHeld; over > 0 {
		old += over
		k.dropped += uint64(over)
	}
	g.held = slices.Delete(g.held, 0, old)
	if !k.fulfilled(g.held) {
		return false
	}
	g.held = g.held[:0] // told once: the next time begins anew
	return true
}

func (k *correlator) group(key string) *group {
	if e, ok := k.groups[key]; ok {
		k.recent.MoveToFront(e)
		return e.Value.(*group)
	}
	if len(k.groups) >= maxGroups {
		last := k.recent.Back()
		delete(k.groups, last.Value.(*group).key)
		k.recent.Remove(last)
		k.dropped++
	}
	g := &group{key: key}
	k.groups[key] = k.recent.PushFront(g)
	return g
}

func (k *correlator) fulfilled(all []held) bool {
	switch k.c.kind {
	case "temporal":
		seen := map[int]bool{}
		for _, h := range all {
			seen[h.member] = true
		}
		if len(k.c.bounds) > 0 {
			return k.holds(float64(len(seen)))
		}
		return len(seen) == len(k.c.rules)
	case "temporal_ordered":
		next := 0
		for _, h := range all {
			if h.member == next {
				next++
			}
		}
		return next == len(k.c.rules)
	case "event_count":
		return k.holds(float64(len(all)))
	case "value_count":
		distinct := map[string]bool{}
		for _, h := range all {
			distinct[h.value] = true
		}
		return k.holds(float64(len(distinct)))
	case "value_percentile":
		values := make([]float64, len(all))
		for i, h := range all {
			values[i] = h.number
		}
		slices.Sort(values)
		i := int(math.Ceil(k.c.percentile/100*float64(len(values)))) - 1
		return k.holds(values[max(i, 0)])
	}
	sum := 0.0
	for _, h := range all {
		sum += h.number
	}
	if k.c.kind == "value_avg" {
		sum /= float64(len(all))
	}
	return k.holds(sum)
}

func (k *correlator) holds(v float64) bool {
	for _, b := range k.c.bounds {
		if !b.holds(v) {
			return false
		}
	}
	return true
}
