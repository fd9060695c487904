package world

// Graph is a scenario as an attacker could know it at best: what reaches what, and what may be won where. Hosts, zones,
// attackers and secrets are numbered from 0, hosts and attackers as in the scenario.
type Graph struct {
	Zones    []string
	ZoneOf   []int // of each host
	Origin   []int // zone of each attacker's own machine
	Routes   [][]Route
	Ways     [][]Way   // what looks like a way in, of each host
	Escalate []float64 // chance that an attempt to become root works, of each host
	Opens    [][]Door  // hosts that each secret opens
	Lies     [][]int   // secrets that root finds on each host sooner or later
}

// Route says that hosts of zone From reach the zone it is listed under, on Ports (nil: on all).
type Route struct {
	From  int
	Ports []uint16
}

// Open reports whether a port is reached over r.
func (r Route) Open(port uint16) bool { return route{ports: r.Ports}.open(port) }

// Way is a port that an attacker takes for a way in.
type Way struct {
	Port    uint16
	Exploit float64 // chance that an attempt works; 0 of a decoy
	Root    bool
	Decoy   bool
}

// Door is a host that a secret opens.
type Door struct {
	Host int
	Root bool
}

// LogonPort is where secrets are used.
const LogonPort = logonPort

// Patience is after how many failed attempts an attacker gives up a way in.
const Patience = patience

// Loudness scales a host's detection rate for the action.
func (a Action) Loudness() float64 { return a.loudness() }

// NewGraph makes the graph of a scenario that has been validated.
func NewGraph(s *Scenario) *Graph {
	n := compile(s)
	g := &Graph{Zones: n.zones, Escalate: n.escalate, Routes: make([][]Route, len(n.zones)), Ways: make([][]Way, len(s.Hosts)),
		Lies: make([][]int, len(s.Hosts)), Opens: make([][]Door, len(n.opens))}
	for _, z := range n.zone {
		g.ZoneOf = append(g.ZoneOf, int(z))
	}
	for _, z := range n.origin {
		g.Origin = append(g.Origin, int(z))
	}
	for z, from := range n.from {
		for _, r := range from {
			g.Routes[z] = append(g.Routes[z], Route{int(r.zone), r.ports})
		}
	}
	for h := range s.Hosts {
		for _, p := range n.weak[h] {
			g.Ways[h] = append(g.Ways[h], Way{p.number, p.exploit, p.root, p.decoy})
		}
		for _, c := range n.lies[h] {
			g.Lies[h] = append(g.Lies[h], int(c))
		}
		for _, t := range n.leaves[h] {
			g.Lies[h] = append(g.Lies[h], int(t.credential))
		}
	}
	for c, doors := range n.opens {
		for _, d := range doors {
			g.Opens[c] = append(g.Opens[c], Door{int(d.host), d.root})
		}
	}
	return g
}
