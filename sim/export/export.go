// Package export gives scenarios and what was simulated to other people's tools and eyes: Graphviz, STIX 2.1, and SVG
// pictures. What it writes depends on what it is given alone, to the last byte. It is not responsible for reading any of
// these formats.
package export

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/omega-mesh/omega/sim/world"
)

// Graphviz is a scenario as a graph in the DOT language: a cluster a zone, a node a host with its services and holes,
// edges for what reaches what and for secrets.
func Graphviz(s *world.Scenario) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "digraph %s {\n  rankdir=LR; compound=true; node [shape=box, fontname=\"sans-serif\"];\n", dot(s.Name))
	g := world.NewGraph(s)
	node := make([]string, len(s.Hosts))
	for z, zone := range g.Zones {
		fmt.Fprintf(&b, "  subgraph \"cluster_%d\" {\n    label=%s;\n    \"zone_%d\" [shape=point, style=invis];\n", z, dot(zone), z)
		for h := range s.Hosts {
			if g.ZoneOf[h] != z {
				continue
			}
			node[h] = fmt.Sprintf("host_%d", h)
			label := []string{s.Hosts[h].Name}
			for _, v := range s.Hosts[h].Services {
				label = append(label, fmt.Sprintf("%s %d", v.Name, v.Port))
			}
			for _, w := range g.Ways[h] {
				if w.Decoy {
					label = append(label, fmt.Sprintf("decoy %d", w.Port))
				}
			}
			colour := "white"
			if len(s.Hosts[h].Vulnerabilities) > 0 || len(g.Ways[h]) > len(s.Hosts[h].Decoys) {
				colour = "mistyrose"
			}
			fmt.Fprintf(&b, "    %q [label=%s, style=filled, fillcolor=%s];\n", node[h], dot(strings.Join(label, "\n")), colour)
		}
		for a, origin := range g.Origin {
			if origin == z {
				fmt.Fprintf(&b, "    \"attacker_%d\" [label=%s, shape=octagon, style=filled, fillcolor=lightcoral];\n", a, dot(s.Attackers[a].Name))
			}
		}
		b.WriteString("  }\n")
	}
	for to, routes := range g.Routes {
		for _, r := range routes {
			if r.From == to {
				continue
			}
			fmt.Fprintf(&b, "  \"zone_%d\" -> \"zone_%d\" [ltail=\"cluster_%d\", lhead=\"cluster_%d\", label=%s];\n", r.From, to, r.From, to, dot(ports(r.Ports)))
		}
	}
	for c, doors := range g.Opens[:len(s.Credentials)] {
		for h := range s.Hosts {
			for _, lies := range g.Lies[h] {
				if lies != c {
					continue
				}
				for _, d := range doors {
					fmt.Fprintf(&b, "  %q -> %q [style=dashed, label=%s];\n", node[h], node[d.Host], dot(s.Credentials[c].Name))
				}
			}
		}
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// ports is a list of ports for a label.
func ports(list []uint16) string {
	if list == nil {
		return "all ports"
	}
	const few = 6
	text := strings.Trim(fmt.Sprint(list[:min(len(list), few)]), "[]")
	if len(list) > few {
		text += fmt.Sprintf(" and %d more", len(list)-few)
	}
	return text
}

// dot is a quoted string of the DOT language.
func dot(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", " ").Replace(strings.ToValidUTF8(s, "?")) + `"`
}

// text is s within SVG, at most n characters of it.
func text(s string, n int) string {
	if utf8.RuneCountInString(s) > n {
		s = string([]rune(s)[:n-1]) + "…"
	}
	var b bytes.Buffer
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return "" // a buffer does not fail
	}
	return b.String()
}

// svg is a picture being drawn.
type svg struct{ bytes.Buffer }

func (b *svg) begin(width, height int, title string) {
	fmt.Fprintf(b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n<title>%s</title>\n", width, height, width, text(title, 200))
	b.box(0, 0, float64(width), float64(height), "#ffffff")
}

func (b *svg) box(x, y, w, h float64, fill string) {
	fmt.Fprintf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, y, w, h, fill)
}

func (b *svg) line(x1, y1, x2, y2 float64, colour string) {
	fmt.Fprintf(b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, colour)
}

// write puts words at a place; anchor is start, middle or end.
func (b *svg) write(x, y float64, anchor, words string) {
	fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, words)
}

func (b *svg) end() []byte {
	b.WriteString("</svg>\n")
	return b.Bytes()
}
