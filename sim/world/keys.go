package world

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

var scenarioType = reflect.TypeFor[Scenario]()

// fieldsOf are the keys that a file may use for a struct.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	m := map[string]reflect.StructField{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		m[name] = f
	}
	return m
}

// checkKeys refuses unknown and repeated keys, and aliases, whose expansion a small file can make enormous.
func checkKeys(n *yaml.Node, t reflect.Type) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return fmt.Errorf("line %d: anchors and aliases are not taken", n.Line)
	}
	switch {
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		fields := fieldsOf(t)
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			f, ok := fields[key.Value]
			if !ok {
				return fmt.Errorf("line %d: unknown key %q%s", key.Line, clip(key.Value), Nearest(key.Value, fields))
			}
			if seen[key.Value] {
				return fmt.Errorf("line %d: key %q again", key.Line, key.Value)
			}
			seen[key.Value] = true
			if err := checkKeys(value, f.Type); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for _, c := range n.Content {
			if err := checkKeys(c, t.Elem()); err != nil {
				return err
			}
		}
	case t.Kind() != reflect.Struct && t.Kind() != reflect.Slice && n.Kind == yaml.ScalarNode, n.Tag == "!!null":
	default:
		return fmt.Errorf("line %d: a %s cannot stand here", n.Line, strings.TrimPrefix(n.Tag, "!!"))
	}
	return nil
}

// Nearest names the known word closest to one that is not known, if any is close.
func Nearest[V any](word string, known map[string]V) string {
	best, distance := "", 4
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if d := edits(clip(word), clip(k)); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", clip(best))
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Schema is the JSON Schema (2020-12) of a scenario file, made from the types that read it.
func Schema() []byte {
	m := schemaOf(scenarioType)
	m["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	m["title"] = "Omega scenario"
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil // maps of strings always encode
	}
	return append(b, '\n')
}

func schemaOf(t reflect.Type) map[string]any {
	if t == reflect.TypeFor[Duration]() {
		return map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]*)?(ns|us|ms|s|m|h))+$`}
	}
	switch t.Kind() {
	case reflect.Struct:
		properties, required := map[string]any{}, []string{}
		for name, f := range fieldsOf(t) {
			p := schemaOf(f.Type)
			if d := f.Tag.Get("doc"); d != "" {
				p["description"] = d
			}
			properties[name] = p
			if !strings.Contains(f.Tag.Get("yaml"), ",omitempty") {
				required = append(required, name)
			}
		}
		slices.Sort(required)
		return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number", "minimum": 0}
	case reflect.Uint16:
		return map[string]any{"type": "integer", "minimum": 1, "maximum": 65535}
	}
	return map[string]any{"type": "string"}
}
