package place

import (
	"cmp"
	"context"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omega-mesh/omega/sim/rng"
)

// board is a set of sampled days on which decoys and sensors are placed: the problem without chance.
type board struct {
	days     []outcome
	decoys   []int // hosts where one can be placed
	sensors  []int
	immunity int64
	window   int64
}

// sampleDays samples days on all cores; the result depends on the model alone.
func sampleDays(ctx context.Context, m *model, samples int) ([]outcome, error) {
	attackers := len(m.s.Attackers)
	days := make([]outcome, samples*attackers)
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(len(days), runtime.GOMAXPROCS(0)) {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(days) || ctx.Err() != nil {
					return
				}
				days[i] = m.day(i/attackers, i%attackers)
			}
		})
	}
	all.Wait()
	return days, ctx.Err()
}

func newBoard(m *model, days []outcome) *board {
	b := &board{days: days, immunity: int64(m.s.Response.Immunity), window: int64(m.s.Response.Window)}
	if b.window == 0 {
		b.window = int64(10 * time.Minute)
	}
	for i := range days { // after the first two findings within the window the day is over
		d := &days[i]
		d.fell = nil // not needed any more
		for k := 1; k < len(d.seen); k++ {
			if d.seen[k]-d.seen[k-1] <= b.window {
				d.seen = d.seen[:k+1]
			}
		}
	}
	for h := range m.s.Hosts {
		touched, seen := false, false
		for i := range days {
			touched = touched || days[i].decoy[h] != never
			seen = seen || days[i].sensor[h] != never
		}
		if touched {
			b.decoys = append(b.decoys, h)
		}
		if seen && m.s.Hosts[h].Detect < m.sensor {
			b.sensors = append(b.sensors, h)
		}
	}
	return b
}

// set is a placement: hosts with a new decoy and hosts with a new sensor.
type set struct{ decoys, sensors []int }

func (s set) clone() set { return set{slices.Clone(s.decoys), slices.Clone(s.sensors)} }

// loss is the mean loss of the days with s in place.
func (b *board) loss(s set) float64 {
	sum := 0.0
	var seen []int64
	for i := range b.days {
		d := &b.days[i]
		caught := int64(never)
		for _, t := range d.caught {
			caught = min(caught, t)
		}
		for _, h := range s.decoys {
			caught = min(caught, d.decoy[h])
		}
		seen = seen[:0]
		if len(s.sensors) > 0 || len(s.decoys) == 0 {
			seen = append(seen, d.seen...)
		} else if n := len(d.seen); n > 1 && d.seen[n-1]-d.seen[n-2] <= b.window { // nothing new among them
			caught = min(caught, d.seen[n-1])
		}
		for _, h := range s.sensors {
			if t := d.sensor[h]; t != never {
				at, _ := slices.BinarySearch(seen, t)
				seen = slices.Insert(seen, at, t)
			}
		}
		for k := 1; k < len(seen) && seen[k] < caught; k++ {
			if seen[k]-seen[k-1] <= b.window { // two hosts' findings within the window
				caught = seen[k]
			}
		}
		sum += b.until(d, caught)
	}
	return sum / float64(len(b.days))
}

// until is the loss of a day that ends for its attacker when the swarm, having caught it, refuses it everywhere.
func (b *board) until(d *outcome, caught int64) float64 {
	n := len(d.at)
	if b.immunity > 0 && caught < never-b.immunity {
		n, _ = slices.BinarySearch(d.at, caught+b.immunity)
	}
	if n == 0 {
		return 0
	}
	return d.loss[n-1]
}

// optimum searches the best placement by branch and bound. It gives up, and says so, after so many look-ups.
type optimum struct {
	b       *board
	decoys  []int // by what each saves alone, best first
	sensors []int
	best    set
	loss    float64
	left    int       // look-ups of an item on all days
	floor   []float64 // loss with every decoy from i on, and every sensor: no completion can be below it
	alone   []float64 // what each decoy saves alone, in the order of decoys
	bare    float64
}

// exact is the placement of nd decoys and ns sensors with the least loss. Two bounds cut the search. A placement is never
// better than all that is still left to choose from together. And while only decoys are placed, what one more of them
// saves never grows with what is there already (a day ends with the first that is touched), so that the rest save at most
// what they would save alone.
func (b *board) exact(nd, ns, lookups int) (set, float64, bool) {
	if lookups <= 0 {
		return set{}, 0, false
	}
	o := &optimum{b: b, left: lookups, bare: b.loss(set{})}
	o.decoys, o.alone = b.ranked(b.decoys, func(h int) set { return set{decoys: []int{h}} }, o.bare)
	o.sensors, _ = b.ranked(b.sensors, func(h int) set { return set{sensors: []int{h}} }, o.bare)
	all := set{sensors: o.sensors}
	if ns == 0 {
		all.sensors = nil
	}
	o.floor = make([]float64, len(o.decoys)+1)
	for i := len(o.decoys); i >= 0; i-- {
		o.floor[i] = b.loss(set{o.decoys[i:], all.sensors})
	}
	o.best, o.loss = b.greedy(nd, ns)
	o.search(set{}, 0, 0, nd, ns)
	return o.best, o.loss, o.left > 0
}

// restrict keeps the hosts that save most alone, n for decoys and n for sensors; it reports whether that was all of them.
func (b *board) restrict(n int) bool {
	all := len(b.decoys) <= n && len(b.sensors) <= n
	bare := b.loss(set{})
	if len(b.decoys) > n {
		b.decoys, _ = b.ranked(b.decoys, func(h int) set { return set{decoys: []int{h}} }, bare)
		b.decoys = b.decoys[:n]
	}
	if len(b.sensors) > n {
		b.sensors, _ = b.ranked(b.sensors, func(h int) set { return set{sensors: []int{h}} }, bare)
		b.sensors = b.sensors[:n]
	}
	return all
}

// ranked sorts hosts by what one item there saves alone, best first.
func (b *board) ranked(hosts []int, one func(int) set, bare float64) (sorted []int, saves []float64) {
	gain := map[int]float64{}
	for _, h := range hosts {
		gain[h] = bare - b.loss(one(h))
	}
	sorted = slices.Clone(hosts)
	slices.SortStableFunc(sorted, func(x, y int) int { return cmp.Compare(gain[y], gain[x]) })
	for _, h := range sorted {
		saves = append(saves, gain[h])
	}
	return sorted, saves
}

func (o *optimum) eval(s set) float64 {
	o.left -= 1 + len(s.decoys) + len(s.sensors)
	return o.b.loss(s)
}

func (o *optimum) search(s set, decoy, sensor, nd, ns int) {
	if o.left <= 0 {
		return
	}
	here := o.eval(s)
	if here < o.loss {
		o.best, o.loss = s.clone(), here
	}
	if nd > 0 && decoy < len(o.decoys) {
		for i := decoy; i < len(o.decoys); i++ {
			if ns == 0 {
				saved := 0.0
				for k := i; k < min(i+nd, len(o.alone)); k++ {
					saved += o.alone[k]
				}
				if here-saved >= o.loss {
					return
				}
			}
			rest := set{slices.Concat(s.decoys, o.decoys[i:]), s.sensors}
			if ns > 0 {
				rest.sensors = slices.Concat(s.sensors, o.sensors[sensor:])
			}
			if len(s.decoys) == 0 && o.floor[i] >= o.loss || o.eval(rest) >= o.loss {
				return
			}
			s.decoys = append(s.decoys, o.decoys[i])
			o.search(s, i+1, sensor, nd-1, ns)
			s.decoys = s.decoys[:len(s.decoys)-1]
		}
	}
	if ns > 0 {
		for i := sensor; i < len(o.sensors); i++ {
			if o.eval(set{s.decoys, slices.Concat(s.sensors, o.sensors[i:])}) >= o.loss {
				return
			}
			s.sensors = append(s.sensors, o.sensors[i])
			o.search(s, len(o.decoys), i+1, 0, ns-1) // the decoys were chosen above
			s.sensors = s.sensors[:len(s.sensors)-1]
		}
	}
}

// greedy adds the item that saves most, again and again.
func (b *board) greedy(nd, ns int) (set, float64) {
	var s set
	loss := b.loss(s)
	for len(s.decoys) < min(nd, len(b.decoys)) || len(s.sensors) < min(ns, len(b.sensors)) {
		var best set
		least := math.Inf(1)
		try := func(t set) {
			if l := b.loss(t); l < least {
				best, least = t.clone(), l
			}
		}
		if len(s.decoys) < nd {
			for _, h := range b.decoys {
				if !slices.Contains(s.decoys, h) {
					try(set{append(s.decoys, h), s.sensors})
				}
			}
		}
		if len(s.sensors) < ns {
			for _, h := range b.sensors {
				if !slices.Contains(s.sensors, h) {
					try(set{s.decoys, append(s.sensors, h)})
				}
			}
		}
		if math.IsInf(least, 1) {
			break
		}
		s, loss = best, least
	}
	return s, loss
}

// anneal searches by simulated annealing from a random placement: items move to other hosts, and a move for the worse is
// taken with a chance that falls from one half to nearly none.
func (b *board) anneal(ctx context.Context, nd, ns, moves int, source rng.Source) (set, float64, error) {
	pick := func(from []int, n int) []int {
		from = slices.Clone(from)
		n = min(n, len(from))
		for i := range n {
			k := i + int(source.Below(uint32(len(from)-i)))
			from[i], from[k] = from[k], from[i]
		}
		return from // the first n are placed, the rest are free
	}
	decoys, sensors := pick(b.decoys, nd), pick(b.sensors, ns)
	nd, ns = min(nd, len(decoys)), min(ns, len(sensors))
	now := set{decoys[:nd], sensors[:ns]}
	loss := b.loss(now)
	best, least := now.clone(), loss
	canDecoy, canSensor := nd > 0 && nd < len(decoys), ns > 0 && ns < len(sensors)
	if !canDecoy && !canSensor {
		return best, least, nil
	}
	hot := max(b.loss(set{}), 1e-9) * 0.05
	for i := range moves {
		if err := ctx.Err(); err != nil {
			return best, least, err
		}
		list, n := decoys, nd
		if canSensor && (!canDecoy || source.Below(uint32(nd+ns)) >= uint32(nd)) {
			list, n = sensors, ns
		}
		x, y := int(source.Below(uint32(n))), n+int(source.Below(uint32(len(list)-n)))
		list[x], list[y] = list[y], list[x]
		next := b.loss(now)
		heat := hot * math.Pow(0.001, float64(i)/float64(moves))
		if next <= loss || source.Float64() < math.Exp((loss-next)/heat) {
			if loss = next; loss < least {
				best, least = now.clone(), loss
			}
			continue
		}
		list[x], list[y] = list[y], list[x]
	}
	return best, least, nil
}
