package learn

import (
	"bytes"
	"fmt"
	"math"
)

// CurveSVG draws the course of a training: the totals over the nine settings by both versions' rules, and the worst
// learned attacker's duel where there is one.
func CurveSVG(points []Point) []byte {
	const width, height, left, top, right, bottom = 720, 360, 60, 30, 20, 40
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	const lowest, highest = -160.0, -20.0 // what is worse is drawn at the bottom
	most := int64(1)
	for _, p := range points {
		most = max(most, p.Steps)
	}
	x := func(steps int64) float64 { return left + float64(steps)/float64(most)*(width-left-right) }
	y := func(v float64) float64 {
		v = max(lowest, min(highest, v))
		return top + (highest-v)/(highest-lowest)*(height-top-bottom)
	}
	for v := lowest; v <= highest; v += 20 {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#555">%.0f</text>`+"\n", left, y(v), width-right, left-6, y(v)+4, v)
	}
	for i := range 5 {
		s := most * int64(i) / 4
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%.1f M</text>`+"\n", x(s), height-bottom+18, float64(s)/1e6)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#555">steps of the defender</text>`+"\n", left, height-6)
	lines := []struct {
		name, colour string
		value        func(Point) float64
	}{
		{"total, leaderboard rules", "#1b6ca8", func(p Point) float64 { return p.Leaderboard }},
		{"total, later rules", "#2a9d57", func(p Point) float64 { return p.Later }},
		{"100 steps against the worst learned attacker", "#c0392b", func(p Point) float64 { return p.Worst }},
	}
	at := left + 10
	for _, l := range lines {
		fmt.Fprintf(&b, `<path d="M%d %dh18" stroke="%s" stroke-width="2"/><text x="%d" y="%d" fill="#333">%s</text>`+"\n", at, top-14, l.colour, at+24, top-10, l.name)
		at += 44 + 6*len(l.name)
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, l.colour)
		for _, p := range points {
			if v := l.value(p); v != 0 && !math.IsNaN(v) {
				fmt.Fprintf(&b, "%.1f,%.1f ", x(p.Steps), y(v))
			}
		}
		b.WriteString(`"/>` + "\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
