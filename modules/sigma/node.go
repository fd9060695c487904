package sigma

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// Bounds of a rule file. The largest public rule has 40 KiB and 700 values.
const (
	MaxFile      = 1 << 20 // bytes
	MaxDocuments = 10_000  // in a file
	MaxRules     = 50_000  // in a set
	maxNodes     = 100_000 // YAML nodes of a file, aliases counted each time they are used
	maxDepth     = 64
	maxText      = 4096 // of a value, bytes
	maxAtoms     = 20_000
)

// ErrRule is wrapped by every refusal of a rule.
var ErrRule = errors.New("not a Sigma rule")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRule, fmt.Sprintf(format, args...))
}

// documents reads the YAML documents of a file. Anchors are followed, but what they stand for is counted each time, so
// that a file of a few lines cannot grow to gigabytes; a key that stands twice is refused.
func documents(text []byte) ([]*yaml.Node, error) {
	if len(text) > MaxFile {
		return nil, refuse("%d bytes, more than %d", len(text), MaxFile)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var all []*yaml.Node
	budget := maxNodes
	for {
		var n yaml.Node
		if err := d.Decode(&n); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("%w: %.200s", ErrRule, err)
		}
		if len(all) >= MaxDocuments {
			return nil, refuse("more than %d documents", MaxDocuments)
		}
		if n.Kind != yaml.DocumentNode || len(n.Content) != 1 {
			continue // nothing between two separators
		}
		root, err := resolve(n.Content[0], &budget, 0)
		if err != nil {
			return nil, err
		}
		if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
			continue
		}
		all = append(all, root)
	}
}

// resolve puts what aliases stand for in their place.
func resolve(n *yaml.Node, budget *int, depth int) (*yaml.Node, error) {
	if *budget--; *budget < 0 {
		return nil, refuse("more than %d values, aliases counted each time", maxNodes)
	}
	if depth > maxDepth {
		return nil, refuse("nested more than %d deep", maxDepth)
	}
	if n.Kind == yaml.AliasNode {
		return resolve(n.Alias, budget, depth+1)
	}
	if n.Kind == yaml.ScalarNode && len(n.Value) > 1<<16 {
		return nil, refuse("line %d: a text of %d bytes", n.Line, len(n.Value))
	}
	if n.Kind == yaml.ScalarNode {
		return n, nil
	}
	out := *n
	out.Content = make([]*yaml.Node, len(n.Content))
	seen := map[string]bool{}
	for i, c := range n.Content {
		r, err := resolve(c, budget, depth+1)
		if err != nil {
			return nil, err
		}
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if r.Kind != yaml.ScalarNode {
				return nil, refuse("line %d: a key that is no text", c.Line)
			}
			if seen[r.Value] {
				return nil, refuse("line %d: key %.80q stands twice", c.Line, r.Value)
			}
			seen[r.Value] = true
		}
		out.Content[i] = r
	}
	return &out, nil
}

// get is the value under a key of a mapping; nil where there is none.
func get(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// text is a scalar's text; a missing or null one is empty.
func text(n *yaml.Node, what string) (string, error) {
	if n == nil || n.Tag == "!!null" {
		return "", nil
	}
	if n.Kind != yaml.ScalarNode {
		return "", refuse("line %d: %s is no text", n.Line, what)
	}
	return n.Value, nil
}

// texts are a sequence's texts, or the one text that stands in its place.
func texts(n *yaml.Node, what string) ([]string, error) {
	if n == nil || n.Tag == "!!null" {
		return nil, nil
	}
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, refuse("line %d: %s is no list", n.Line, what)
	}
	var out []string
	for _, c := range n.Content {
		s, err := text(c, what)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
