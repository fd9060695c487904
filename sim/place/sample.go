package place

import (
	"math"
	"slices"
	"time"

	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/sim/world"
)

// never is a time that does not come.
const never = math.MaxInt64

// model is a scenario's attack graph, ready to be sampled. It does not change.
type model struct {
	s        *world.Scenario
	g        *world.Graph
	seed     uint64
	hostsOf  [][]int  // of each zone
	out      [][]out  // by source zone
	openedBy [][]door // secrets that open each host
	trap     []uint16
	sensor   float64 // detection rate of a new sensor
}

// door is a secret that opens a host.
type door struct {
	secret int
	kind   uint8 // of session: userOn or rootOn
}

type out struct {
	zone  int
	route world.Route
}

func newModel(s *world.Scenario, seed uint64, sensor float64) *model {
	g := world.NewGraph(s)
	m := &model{s: s, g: g, seed: seed, sensor: sensor, hostsOf: make([][]int, len(g.Zones)), out: make([][]out, len(g.Zones)), openedBy: make([][]door, len(s.Hosts))}
	for h, z := range g.ZoneOf {
		m.hostsOf[z] = append(m.hostsOf[z], h)
	}
	for z, routes := range g.Routes {
		for _, r := range routes {
			m.out[r.From] = append(m.out[r.From], out{z, r})
		}
	}
	for c, doors := range g.Opens {
		for _, d := range doors {
			m.openedBy[d.Host] = append(m.openedBy[d.Host], door{c, session(d.Root)})
		}
	}
	for h := range s.Hosts {
		m.trap = append(m.trap, m.trapPort(h))
	}
	return m
}

// trapPort is the port at which a decoy on h would be reached from most zones, of those that are free; 0: there is none.
func (m *model) trapPort(h int) uint16 {
	host := &m.s.Hosts[h]
	if len(host.Services)+len(host.Decoys) >= world.MaxServices {
		return 0
	}
	best, most := uint16(0), 0
	for _, p := range m.trapPorts(m.g.ZoneOf[h]) {
		if slices.Contains(host.Decoys, p) || slices.ContainsFunc(host.Services, func(v world.Service) bool { return v.Port == p }) {
			continue
		}
		n := 0
		for _, r := range m.g.Routes[m.g.ZoneOf[h]] {
			if r.Open(p) {
				n++
			}
		}
		if n > most {
			best, most = p, n
		}
	}
	return best
}

// trapPorts are the ports that are let through into a zone, and one that a zone's own hosts reach.
func (m *model) trapPorts(zone int) []uint16 {
	ports := []uint16{2323} // telnet's other port: what listens there is always worth an attacker's look
	for _, r := range m.g.Routes[zone] {
		for _, p := range r.Ports {
			if p != world.LogonPort && !slices.Contains(ports, p) && len(ports) < 2*world.MaxServices {
				ports = append(ports, p)
			}
		}
	}
	return ports
}

// outcome is one attacker's sampled day if nobody stopped it, and when each candidate would have seen it.
type outcome struct {
	at     []int64   // when it became root somewhere, ascending
	loss   []float64 // that these hosts come to until the end, summed up
	caught []int64   // by the decoys that are there already
	seen   []int64   // by the sensors that are there already, ascending
	decoy  []int64   // of each host: when a decoy there would be touched
	sensor []int64   // of each host: when a sensor there would see it
	fell   []int64   // of each host: when it was first held
}

// event of the search: from when something is the attacker's.
type event struct {
	at   int64
	kind uint8 // of what: a zone, a user's session, root, a secret
	id   int
}

const (
	footholdIn uint8 = iota
	userOn
	rootOn
	secretOf
)

// queue is a heap by time, then by kind and number.
type queue []event

func (q *queue) push(e event) {
	*q = append(*q, e)
	h := *q
	for i := len(h) - 1; i > 0 && h[i].before(h[(i-1)/2]); i = (i - 1) / 2 {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
	}
}

func (q *queue) pop() event {
	h := *q
	top, last := h[0], len(h)-1
	h[0] = h[last]
	h = h[:last]
	*q = h
	for i := 0; ; {
		c := 2*i + 1
		if c >= last {
			return top
		}
		if c+1 < last && h[c+1].before(h[c]) {
			c++
		}
		if !h[c].before(h[i]) {
			return top
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}

func (e event) before(f event) bool {
	return e.at < f.at || e.at == f.at && (e.kind < f.kind || e.kind == f.kind && e.id < f.id)
}

// What a chance is for, so that each has its own, whatever else changes: that is what makes the numbers common.
const (
	forWay = iota
	forRoot
	forDecoy
	forSensor
	forPace
)

// attempts is how many it takes until one works with chance p; over world.Patience: none does.
func (m *model) attempts(sample, attacker, host, what int, port uint16, p float64) int64 {
	r := rng.Derive(m.seed+uint64(sample)*uint64(world.MaxAttackers)+uint64(attacker), uint64(host)<<24|uint64(port)<<8|uint64(what))
	u, miss := r.Float64(), 1-p
	k := int64(1)
	for left := miss; u < left && k <= world.Patience; k++ { // u is under the chance that k attempts fail
		left = float64(left * miss)
	}
	return k
}

// day samples one attacker's first passage through the graph: every step takes its pace times the attempts it needs, and
// whatever can be begun is begun at once.
func (m *model) day(sample, attacker int) outcome {
	a := &m.s.Attackers[attacker]
	hosts, end := len(m.s.Hosts), int64(m.s.Duration)
	r := rng.Derive(m.seed+uint64(sample)*uint64(world.MaxAttackers)+uint64(attacker), forPace)
	pace := int64(a.Pace)/2 + int64(r.Float64()*float64(a.Pace))
	full := func(n int) []int64 {
		t := make([]int64, n)
		for i := range t {
			t[i] = never
		}
		return t
	}
	user, root, reach, faced := full(hosts), full(hosts), full(hosts), full(hosts)
	zone, secret := full(len(m.g.Zones)), full(len(m.g.Opens))
	o := outcome{decoy: full(hosts), sensor: full(hosts), caught: nil}
	standing := int64(never)
	var q queue
	pending := [...][]int64{footholdIn: full(len(m.g.Zones)), userOn: full(hosts), rootOn: full(hosts), secretOf: full(len(m.g.Opens))}
	push := func(at int64, kind uint8, id int) {
		if at < end && at < pending[kind][id] { // later ones change nothing
			pending[kind][id] = at
			q.push(event{at, kind, id})
		}
	}
	push(int64(a.Start), footholdIn, m.g.Origin[attacker])
	for len(q) > 0 {
		e := q.pop()
		switch e.kind {
		case footholdIn:
			if zone[e.id] != never {
				continue
			}
			zone[e.id] = e.at
			for _, to := range m.out[e.id] {
				for _, h := range m.hostsOf[to.zone] {
					seen := e.at + 2*pace // swept and scanned
					faced[h] = min(faced[h], seen)
					ways := len(m.g.Ways[h])
					for _, w := range m.g.Ways[h] {
						if !to.route.Open(w.Port) {
							continue
						}
						if w.Decoy {
							if k := m.attempts(sample, attacker, h, forDecoy, w.Port, 1/float64(ways)); k <= world.Patience {
								standing = min(standing, seen+k*pace)
							}
							continue
						}
						if k := m.attempts(sample, attacker, h, forWay, w.Port, w.Exploit); k <= world.Patience {
							push(seen+k*pace, session(w.Root), h)
						}
					}
					if t := m.trap[h]; t != 0 && to.route.Open(t) {
						if k := m.attempts(sample, attacker, h, forDecoy, 0, 1/float64(ways+1)); k <= world.Patience {
							o.decoy[h] = min(o.decoy[h], seen+k*pace)
						}
					}
					if to.route.Open(world.LogonPort) && e.at < reach[h] {
						reach[h] = e.at
						for _, d := range m.openedBy[h] {
							if secret[d.secret] != never {
								push(max(secret[d.secret], e.at)+pace, d.kind, h)
							}
						}
					}
				}
			}
		case userOn:
			if user[e.id] != never {
				continue
			}
			user[e.id] = e.at
			push(e.at, footholdIn, m.g.ZoneOf[e.id])
			if p := m.g.Escalate[e.id]; p > 0 {
				if k := m.attempts(sample, attacker, e.id, forRoot, 0, p); k <= world.Patience {
					push(e.at+k*pace, rootOn, e.id)
				}
			}
		case rootOn:
			if root[e.id] != never {
				continue
			}
			root[e.id] = e.at
			user[e.id] = min(user[e.id], e.at)
			push(e.at, footholdIn, m.g.ZoneOf[e.id])
			for _, c := range m.g.Lies[e.id] {
				push(e.at+pace, secretOf, c)
			}
			o.at = append(o.at, e.at)
			sum := 0.0
			if n := len(o.loss); n > 0 {
				sum = o.loss[n-1]
			}
			o.loss = append(o.loss, sum+float64(m.s.Hosts[e.id].Value*float64(end-e.at)/float64(time.Hour)))
		case secretOf:
			if secret[e.id] != never {
				continue
			}
			secret[e.id] = e.at
			for _, d := range m.g.Opens[e.id] {
				if reach[d.Host] != never {
					push(max(e.at, reach[d.Host])+pace, session(d.Root), d.Host)
				}
			}
		}
	}
	o.fell = user
	if standing != never {
		o.caught = []int64{standing}
	}
	for h := range hosts {
		if faced[h] == never {
			continue
		}
		if o.decoy[h] > user[h] { // by then it has what it wanted there
			o.decoy[h] = never
		}
		last := faced[h] + world.Patience*pace
		if user[h] != never {
			last = user[h] + world.Patience*pace
		}
		if root[h] != never {
			last = root[h] + pace
		}
		sees := func(rate float64) int64 {
			if rate == 0 {
				return never
			}
			k := m.attempts(sample, attacker, h, forSensor, 0, rate)
			if at := faced[h] + (k-1)*pace; at <= last {
				return at
			}
			return never
		}
		if t := sees(m.s.Hosts[h].Detect); t != never {
			o.seen = append(o.seen, t)
		}
		o.sensor[h] = sees(max(m.sensor, m.s.Hosts[h].Detect))
	}
	slices.Sort(o.seen)
	return o
}

// session is the kind of session that a way in or a secret gives.
func session(root bool) uint8 {
	if root {
		return rootOn
	}
	return userOn
}
