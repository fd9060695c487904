package drill

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Recording keeps what a terminal was sent, and when, and draws it as a picture that plays itself.
type Recording struct {
	mu     sync.Mutex
	began  time.Time
	chunks []chunk
	bytes  int
}

type chunk struct {
	at   time.Duration
	text []byte
}

// Bounds of a recording: what a drill writes, many times over.
const (
	maxRecording = 1 << 20
	maxRows      = 500
	maxColumns   = 200
)

// NewRecording starts the clock at the first byte.
func NewRecording() *Recording { return &Recording{} }

// Write records b; it never fails, and leaves out what is over the bound.
func (r *Recording) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.began.IsZero() {
		r.began = time.Now()
	}
	if r.bytes += len(b); r.bytes <= maxRecording {
		r.chunks = append(r.chunks, chunk{time.Since(r.began), bytes.Clone(b)})
	}
	return len(b), nil
}

// cell is one character and its colours.
type cell struct {
	r     rune
	style string // SGR parameters
}

// terminal understands as much of ECMA-48 as screen writes: SGR, cursor up, erase to the end of the line, CR and LF.
type terminal struct {
	rows    [][]cell
	changed []time.Duration // when each row last changed
	row     int
	col     int
	style   string
}

func (t *terminal) put(at time.Duration, r rune) {
	for len(t.rows) <= t.row && len(t.rows) < maxRows {
		t.rows, t.changed = append(t.rows, nil), append(t.changed, at)
	}
	if t.row >= len(t.rows) || t.col >= maxColumns {
		return
	}
	line := t.rows[t.row]
	for len(line) <= t.col {
		line = append(line, cell{' ', ""})
	}
	line[t.col] = cell{r, t.style}
	t.rows[t.row], t.changed[t.row] = line, at
	t.col++
}

func (t *terminal) feed(at time.Duration, b []byte) {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == '\n':
			t.row, t.col = min(t.row+1, maxRows), 0
		case r == '\r':
			t.col = 0
		case r == 0x1b && len(b) > 2 && b[1] == '[':
			end := 2
			for end < len(b) && (b[end] < 0x40 || b[end] > 0x7e) {
				end++
			}
			if end == len(b) {
				return
			}
			t.control(b[end], string(b[2:end]))
			n = end + 1
		case r >= ' ':
			t.put(at, r)
		}
		b = b[n:]
	}
}

func (t *terminal) control(final byte, params string) {
	switch final {
	case 'm':
		t.style = params
		if params == plain {
			t.style = ""
		}
	case 'A':
		up, err := strconv.Atoi(params)
		if err == nil {
			t.row = max(0, t.row-up)
		}
	case 'K':
		if t.row < len(t.rows) && t.col < len(t.rows[t.row]) {
			t.rows[t.row] = t.rows[t.row][:t.col]
		}
	}
}

const (
	cellWidth  = 8.4
	lineHeight = 19
	fontSize   = 14
	margin     = 18
	titleBar   = 30
	playFor    = 9 * time.Second // the picture's own time: waiting is cut short
	longestGap = 900 * time.Millisecond
)

var colors = map[string]string{"": "#d6deeb", bold: "#ffffff", dim: "#7f8ea3", bad: "#ff6b6b", good: "#5fd38d", warn: "#f5c451", accent: "#67c7ff"}

// SVG draws the last state of the terminal. Each line appears when it was last written, so that the picture plays once
// where it is let; elsewhere it shows the end.
func (r *Recording) SVG(w io.Writer, title string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var t terminal
	for _, c := range r.chunks {
		t.feed(c.at, c.text)
	}
	for len(t.rows) > 0 && len(t.rows[len(t.rows)-1]) == 0 {
		t.rows = t.rows[:len(t.rows)-1]
	}
	columns := 60
	for _, row := range t.rows {
		columns = max(columns, len(row))
	}
	delays := pace(t.changed[:len(t.rows)])
	width, height := float64(columns)*cellWidth+2*margin, len(t.rows)*lineHeight+titleBar+2*margin
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" viewBox="0 0 %.0f %d" role="img" aria-label="%s" xml:space="preserve">`+"\n",
		width, height, width, height, escape(title))
	fmt.Fprintf(&b, "<style>text{font:%dpx ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}"+
		"g.l{animation:s .18s ease-out backwards}@keyframes s{from{opacity:0}}"+
		"@media (prefers-reduced-motion:reduce){g.l{animation:none}}</style>\n", fontSize)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="9" fill="#0b1220"/><rect width="100%%" height="%d" rx="9" fill="#162033"/>`+"\n", titleBar)
	for i, c := range []string{"#ff5f57", "#febc2e", "#28c840"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="%d" r="5.5" fill="%s"/>`, margin+i*19, titleBar/2, c)
	}
	fmt.Fprintf(&b, `<text x="50%%" y="%d" text-anchor="middle" fill="#8fa1bd">%s</text>`+"\n", titleBar/2+5, escape(title))
	for i, row := range t.rows {
		if len(row) == 0 {
			continue
		}
		fmt.Fprintf(&b, `<g class="l" style="animation-delay:%.2fs"><text y="%d">`, delays[i].Seconds(), titleBar+margin+i*lineHeight+fontSize)
		for start := 0; start < len(row); {
			end := start + 1
			for end < len(row) && row[end].style == row[start].style {
				end++
			}
			var text strings.Builder
			for _, c := range row[start:end] {
				text.WriteRune(c.r)
			}
			// Not every viewer keeps blanks at the edges: a run is placed where its first letter stands.
			words := strings.TrimSpace(text.String())
			if words != "" {
				column := start + utf8.RuneCountInString(text.String()) - utf8.RuneCountInString(strings.TrimLeft(text.String(), " "))
				weight := ""
				if row[start].style == bold {
					weight = ` font-weight="bold"`
				}
				fmt.Fprintf(&b, `<tspan x="%.1f" fill="%s"%s>%s</tspan>`, margin+float64(column)*cellWidth, colors[row[start].style], weight, escape(words))
			}
			start = end
		}
		b.WriteString("</text></g>\n")
	}
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return err
}

// pace turns when rows appeared into when they appear in the picture: no gap is longer than longestGap, and lines
// that came at once follow one another quickly enough to be seen coming.
func pace(at []time.Duration) []time.Duration {
	out := make([]time.Duration, len(at))
	const least = 60 * time.Millisecond
	for i := 1; i < len(at); i++ {
		out[i] = out[i-1] + min(max(at[i]-at[i-1], least), longestGap)
	}
	if n := len(out); n > 0 && out[n-1] > playFor {
		for i := range out {
			out[i] = time.Duration(float64(out[i]) * float64(playFor) / float64(out[n-1]))
		}
	}
	return out
}

func escape(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return ""
	}
	return b.String()
}
