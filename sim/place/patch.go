package place

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/sim/world"
)

// patchesOf are all the patches that a scenario has a use for.
func patchesOf(s *world.Scenario) []Patch {
	var list []Patch
	for i := range s.Hosts {
		h := &s.Hosts[i]
		for _, v := range h.Services {
			if v.Exploit > 0 {
				p := Patch{Host: h.Name, Package: v.Name, host: i, port: v.Port}
				if v.Vulnerability != "" {
					p.Holes = []string{v.Vulnerability}
				}
				list = append(list, p)
			}
		}
		from := len(list)
		for _, v := range h.Vulnerabilities {
			name := cmp.Or(v.Package, v.ID)
			at := slices.IndexFunc(list[from:], func(p Patch) bool { return p.Package == name })
			if at < 0 {
				list = append(list, Patch{Host: h.Name, Package: name, Holes: []string{v.ID}, host: i})
			} else {
				list[from+at].Holes = append(list[from+at].Holes, v.ID)
			}
		}
	}
	return list
}

// patched is s with some patches in place; s is not changed.
func patched(s *world.Scenario, patches []Patch) *world.Scenario {
	t := *s
	if len(patches) == 0 {
		return &t
	}
	t.Hosts = slices.Clone(s.Hosts)
	for _, p := range patches {
		h := &t.Hosts[p.host]
		if p.port == 0 {
			h.Vulnerabilities = slices.DeleteFunc(slices.Clone(h.Vulnerabilities), func(v world.Vulnerability) bool { return cmp.Or(v.Package, v.ID) == p.Package })
			continue
		}
		h.Services = slices.Clone(h.Services)
		for i := range h.Services {
			if h.Services[i].Port == p.port {
				h.Services[i].Exploit, h.Services[i].Vulnerability = 0, ""
			}
		}
	}
	return &t
}

// worst are the patches most likely to matter: of the surest holes on the hosts that fall on most of the sampled days.
func (x *search) worst(ctx context.Context, all []Patch) ([]Patch, error) {
	m := newModel(x.s, x.o.Seed, x.o.SensorRate)
	days, err := sampleDays(ctx, m, min(x.o.Samples, 50))
	if err != nil {
		return nil, err
	}
	weight := make([]float64, len(x.s.Hosts))
	for i := range days {
		for h, t := range days[i].fell {
			if t != never {
				weight[h] += 1 - float64(t)/float64(x.s.Duration) // an early fall opens the way to others
			}
		}
	}
	score := func(p Patch) float64 {
		surest := 0.0
		h := &x.s.Hosts[p.host]
		for _, v := range h.Vulnerabilities {
			if p.port == 0 && cmp.Or(v.Package, v.ID) == p.Package {
				surest = max(surest, v.Exploit)
			}
		}
		for _, v := range h.Services {
			if p.port != 0 && v.Port == p.port {
				surest = max(surest, v.Exploit)
			}
		}
		return surest * weight[p.host]
	}
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Patch) int { return cmp.Compare(score(b), score(a)) })
	return all[:maxPatches], nil
}

// combinations is the number of ways to choose k of n, at most a million.
func combinations(n, k int) int {
	c := 1
	for i := range min(k, n-k) {
		if c = c * (n - i) / (i + 1); c > 1_000_000 {
			return 1_000_000
		}
	}
	return c
}

// each gives f every choice of k of the numbers under n, in order.
func each(n, k int, f func([]int) error) error {
	index := make([]int, k)
	for i := range index {
		index[i] = i
	}
	for {
		if err := f(index); err != nil {
			return err
		}
		i := k - 1
		for i >= 0 && index[i] == n-k+i {
			i--
		}
		if i < 0 {
			return nil
		}
		for index[i]++; i+1 < k; i++ {
			index[i+1] = index[i] + 1
		}
	}
}

// annealPatches chooses n of the candidates by simulated annealing; every move samples the days anew.
func annealPatches(ctx context.Context, candidates []Patch, n, moves int, source rng.Source, loss func([]Patch) (float64, error)) ([]Patch, error) {
	list := slices.Clone(candidates) // the first n are chosen
	now, err := loss(list[:n])
	if err != nil || n == len(list) || n == 0 {
		return list[:n], err
	}
	best, least := slices.Clone(list[:n]), now
	hot := max(now, 1e-9) * 0.02
	for i := range moves {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x, y := int(source.Below(uint32(n))), n+int(source.Below(uint32(len(list)-n)))
		list[x], list[y] = list[y], list[x]
		next, err := loss(list[:n])
		if err != nil {
			return nil, err
		}
		if heat := hot * math.Pow(0.001, float64(i)/float64(moves)); next <= now || source.Float64() < math.Exp((now-next)/heat) {
			if now = next; now < least {
				best, least = slices.Clone(list[:n]), now
			}
			continue
		}
		list[x], list[y] = list[y], list[x]
	}
	return best, nil
}
