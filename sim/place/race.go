package place

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/omega-mesh/omega/sim/world"
)

// Bounds of the race.
const (
	raceRounds   = 3
	raceEntrants = 24      // in a round
	raceRuns     = 200     // of each entrant, at most
	raceWork     = 700_000 // runs times hosts in a round; where that leaves too few runs there is no race
	raceLeast    = 30
)

// race lets the placements that come nearest to the best one on the graph run against it in the simulator, because the
// graph knows many placements as equal that are not: the best itself and those that differ from it in one item. The
// winner of a round is the one the next starts from. It gives the winner and how many ran.
func (x *search) race(ctx context.Context, b *board, patches []Patch, best set) (set, int, error) {
	runs := min(raceRuns, raceWork/(raceEntrants*len(x.s.Hosts)*len(x.s.Attackers)))
	if runs < raceLeast || len(best.decoys)+len(best.sensors) == 0 {
		return best, 0, nil
	}
	base := patched(x.s, patches)
	m := newModel(base, x.o.Seed, x.o.SensorRate)
	known := map[string]float64{}
	run := func(s set) (float64, error) {
		key := fmt.Sprint(sorted(s.decoys), sorted(s.sensors))
		if loss, ok := known[key]; ok {
			return loss, nil
		}
		placed := x.placed(base, m, s)
		loss, err := losses(ctx, placed, runs, x.o.Seed^1<<63)
		known[key] = mean(loss).Loss
		return known[key], err
	}
	least, err := run(best)
	if err != nil {
		return best, 0, err
	}
	for range raceRounds {
		start := best
		for _, s := range b.neighbours(start) {
			loss, err := run(s)
			if err != nil {
				return best, len(known), err
			}
			if loss < least {
				best, least = s, loss
			}
		}
		if fmt.Sprint(start) == fmt.Sprint(best) {
			break
		}
	}
	return best, len(known), nil
}

func sorted(v []int) []int {
	v = slices.Clone(v)
	slices.Sort(v)
	return v
}

// neighbours are the placements that differ from s in one item, the best of them on the graph, at most raceEntrants.
func (b *board) neighbours(s set) []set {
	type entrant struct {
		set
		loss float64
	}
	var all []entrant
	swap := func(from []int, placed []int, with func([]int) set) {
		for i := range placed {
			for _, h := range from {
				if !slices.Contains(placed, h) {
					other := slices.Clone(placed)
					other[i] = h
					all = append(all, entrant{set: with(other)})
				}
			}
		}
	}
	swap(b.decoys, s.decoys, func(d []int) set { return set{d, s.sensors} })
	swap(b.sensors, s.sensors, func(n []int) set { return set{s.decoys, n} })
	for i := range all {
		all[i].loss = b.loss(all[i].set)
	}
	slices.SortStableFunc(all, func(p, q entrant) int { return cmp.Compare(p.loss, q.loss) })
	var best []set
	for _, e := range all[:min(len(all), raceEntrants)] {
		best = append(best, e.set)
	}
	return best
}

// placed is a scenario with decoys and sensors in place.
func (x *search) placed(s *world.Scenario, m *model, chosen set) *world.Scenario {
	t := *s
	t.Hosts = slices.Clone(s.Hosts)
	for _, h := range chosen.decoys {
		t.Hosts[h].Decoys = append(slices.Clone(t.Hosts[h].Decoys), m.trap[h])
	}
	for _, h := range chosen.sensors {
		t.Hosts[h].Detect = max(t.Hosts[h].Detect, x.o.SensorRate)
	}
	return &t
}
