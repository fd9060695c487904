package world

import (
	"bufio"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Write writes a scenario as the YAML that Read reads: one line a host, link, secret, attacker and user. Each is encoded
// by itself, because the time the encoder takes for one document grows with the square of its length.
func (s *Scenario) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		name, option, _ := strings.Cut(scenarioType.Field(i).Tag.Get("yaml"), ",")
		field := v.Field(i)
		if option == "omitempty" && field.IsZero() {
			continue
		}
		b.WriteString(name + ":")
		if field.Kind() != reflect.Slice {
			if err := flow(b, " ", field.Interface()); err != nil {
				return err
			}
			continue
		}
		if field.Len() == 0 {
			b.WriteString(" []\n")
			continue
		}
		b.WriteByte('\n')
		for k := range field.Len() {
			if err := flow(b, "  - ", field.Index(k).Interface()); err != nil {
				return err
			}
		}
	}
	return b.Flush()
}

// flow writes one value on one line.
func flow(b *bufio.Writer, before string, v any) error {
	var n yaml.Node
	if err := n.Encode(v); err != nil {
		return err
	}
	plain(&n)
	text, err := yaml.Marshal(&n)
	if err != nil {
		return err
	}
	b.WriteString(before)
	_, err = b.Write(text)
	return err
}

// plain puts n on one line: what the encoder would spread over several is quoted.
func plain(n *yaml.Node) {
	n.Style = yaml.FlowStyle
	if n.Kind == yaml.ScalarNode {
		if n.Style = 0; n.Tag == "!!str" && strings.ContainsAny(n.Value, "\n\r\u0085\u2028\u2029") {
			n.Style = yaml.DoubleQuotedStyle
		}
	}
	for _, c := range n.Content {
		plain(c)
	}
}
