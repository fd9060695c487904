package export

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/omega-mesh/omega/sim/planner"
	"github.com/omega-mesh/omega/sim/world"
)

// maxRows bounds the hosts that a picture shows.
const maxRows = 60

// Colours of what an attacker holds.
const (
	clean  = "#dfe8df"
	asUser = "#f2c14e"
	asRoot = "#c8553d"
	edge   = "#888888"
	decoys = "#2a6f97"
)

// change is when what is held on a host became another.
type change struct {
	at   time.Duration
	held int
}

// day is what a picture shows of a run.
type day struct {
	changes [][]change // by host
	caught  map[string][]time.Duration
	refused []time.Duration
	result  world.Result
}

// Network runs a scenario once and draws what was held where over time: a row a host, grouped by zone, with the decoys
// and sensors that caught a step, and the moments at which the swarm refused a source. Of networks of over sixty hosts
// those are shown that were attacked first.
func Network(s *world.Scenario, seed uint64) ([]byte, error) {
	w, err := world.New(s, world.Stream(seed, 0))
	if err != nil {
		return nil, err
	}
	d := day{changes: make([][]change, len(s.Hosts)), caught: map[string][]time.Duration{}}
	number := map[string]int{}
	for h := range s.Hosts {
		number[s.Hosts[h].Name] = h
	}
	touched := make([]time.Duration, len(s.Hosts))
	for h := range touched {
		touched[h] = math.MaxInt64
	}
	w.OnStep = func(x world.Step) {
		if x.Action == world.Refuse.String() {
			d.refused = append(d.refused, x.At)
			return
		}
		h, ok := number[x.To]
		if !ok || x.Technique == "" {
			return
		}
		touched[h] = min(touched[h], x.At)
		if x.Caught != "" {
			d.caught[x.To] = append(d.caught[x.To], x.At)
		}
		held := 0
		if n := len(d.changes[h]); n > 0 {
			held = d.changes[h][n-1].held
		}
		if now := w.Held(h); now > held {
			d.changes[h] = append(d.changes[h], change{x.At, now})
		}
	}
	d.result = w.Run(time.Duration(s.Duration))
	shown := make([]int, len(s.Hosts))
	for h := range shown {
		shown[h] = h
	}
	if len(shown) > maxRows {
		slices.SortStableFunc(shown, func(a, b int) int { return cmp.Compare(touched[a], touched[b]) })
		shown = shown[:maxRows]
	}
	slices.SortStableFunc(shown, func(a, b int) int { return cmp.Compare(s.Hosts[a].Zone, s.Hosts[b].Zone) })
	return d.draw(s, shown, seed), nil
}

func (d *day) draw(s *world.Scenario, shown []int, seed uint64) []byte {
	const left, right, width, row, head = 230.0, 20.0, 860.0, 20.0, 44.0
	zones := 0
	for i, h := range shown {
		if i == 0 || s.Hosts[h].Zone != s.Hosts[shown[i-1]].Zone {
			zones++
		}
	}
	height := head + row*float64(len(shown)+zones) + 60
	end := float64(s.Duration)
	x := func(t time.Duration) float64 { return left + (width-left-right)*float64(t)/end }
	var b svg
	b.begin(int(width), int(height), s.Name)
	b.write(10, 20, "start", text(fmt.Sprintf("%s: seed %d, loss %.1f, %d hosts taken, %d as root", s.Name, seed, d.result.Loss, d.result.Taken, d.result.Rooted), 110))
	if n := len(s.Hosts) - len(shown); n > 0 {
		b.write(10, 36, "start", fmt.Sprintf("%d more hosts are not shown", n))
	}
	y := head
	for i, h := range shown {
		host := &s.Hosts[h]
		if i == 0 || host.Zone != s.Hosts[shown[i-1]].Zone {
			b.write(10, y+14, "start", text(host.Zone, 34))
			b.line(10, y+18, width-right, y+18, "#cccccc")
			y += row
		}
		b.write(left-8, y+14, "end", text(host.Name, 28))
		b.box(left, y+3, width-left-right, row-6, clean)
		for _, c := range d.changes[h] {
			colour := asUser
			if c.held == 2 {
				colour = asRoot
			}
			b.box(x(c.at), y+3, width-right-x(c.at), row-6, colour)
		}
		for _, t := range d.caught[host.Name] {
			fmt.Fprintf(&b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x(t), y+row/2, decoys)
		}
		y += row
	}
	for _, t := range d.refused {
		b.line(x(t), head, x(t), y, "#000000")
	}
	for i := range 5 {
		t := time.Duration(end / 4 * float64(i))
		anchor := "middle"
		if i == 4 {
			anchor = "end"
		}
		b.write(x(t), y+14, anchor, fmt.Sprintf("%g h", math.Round(100*t.Hours())/100))
	}
	for i, k := range []struct{ colour, name string }{{clean, "not held"}, {asUser, "user"}, {asRoot, "root"}, {decoys, "a step was caught"}, {"#000000", "a source is refused"}} {
		at := 10 + float64(i)*165
		b.box(at, y+26, 12, 12, k.colour)
		b.write(at+16, y+36, "start", k.name)
	}
	return b.end()
}

// maxAlternatives bounds those that a picture shows.
const maxAlternatives = 20

// Alternatives draws one decision of the planner: the expected loss of every action it considered with its 95 % interval,
// the one chosen first.
func Alternatives(e planner.Explanation) []byte {
	const left, right, width, row, head = 210.0, 110.0, 760.0, 22.0, 64.0
	list := e.Alternatives[:min(len(e.Alternatives), maxAlternatives)]
	most := 1e-9
	for _, a := range list {
		most = max(most, a.Loss+a.CI95)
	}
	x := func(loss float64) float64 { return left + (width-left-right)*max(0, loss)/most }
	var b svg
	b.begin(int(width), int(head+row*float64(len(list))+30), "expected loss of every alternative")
	b.write(10, 20, "start", text(fmt.Sprintf("Decision: %s. Expected loss over the next %d steps, with its 95 %% interval.", e.Action, e.Depth), 110))
	belief := "Belief:"
	for _, name := range sortedKeys(e.Attacker) {
		belief += fmt.Sprintf("  %s %.0f %%", name, 100*e.Attacker[name])
	}
	for _, h := range e.Hosts {
		belief += fmt.Sprintf("  ·  %s user %.0f %%, root %.0f %%", h.Host, 100*h.User, 100*h.Root)
	}
	b.write(10, 42, "start", text(belief, 118))
	for i, a := range list {
		y := head + row*float64(i)
		colour := "#b8c4ce"
		if i == 0 {
			colour = decoys
		}
		b.write(left-8, y+15, "end", text(a.Action, 28))
		b.box(left, y+4, x(a.Loss)-left, row-8, colour)
		b.line(x(a.Loss-a.CI95), y+row/2, x(a.Loss+a.CI95), y+row/2, "#222222")
		for _, v := range []float64{a.Loss - a.CI95, a.Loss + a.CI95} {
			b.line(x(v), y+row/2-4, x(v), y+row/2+4, "#222222")
		}
		b.write(width-right+10, y+15, "start", fmt.Sprintf("%.2f ± %.2f", a.Loss, a.CI95))
	}
	if n := len(e.Alternatives) - len(list); n > 0 {
		b.write(10, head+row*float64(len(list))+18, "start", fmt.Sprintf("%d more, all expected to lose at least as much, are not shown", n))
	}
	return b.end()
}

func sortedKeys(m map[string]float64) []string {
	var names []string
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}
