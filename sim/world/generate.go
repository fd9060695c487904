package world

import (
	"fmt"
	"time"

	"github.com/omega-mesh/omega/sim/rng"
)

// Generate makes up a company's network of n hosts (4 to MaxHosts): a demilitarised zone that the internet reaches,
// offices whose desks share a helpdesk account, farms of servers behind them with service accounts used on several, and
// an administrators' zone that reaches everything. It depends on n and seed alone. The rates are plausible, not measured.
func Generate(n int, seed uint64) (*Scenario, error) {
	if n < 4 || n > MaxHosts {
		return nil, fmt.Errorf("%d hosts; from 4 to %d", n, MaxHosts)
	}
	g := generator{rand: rng.Derive(seed, uint64(n)), s: &Scenario{Name: fmt.Sprintf("generated: %d hosts, seed %d", n, seed), Duration: day,
		Response: Response{Immunity: Duration(50 * time.Millisecond), Lifetime: day}}}
	dmz, admins := max(1, n/20), max(1, n/100)
	servers := max(1, n/4)
	g.zone("dmz", "web", dmz)
	farms := g.zones("farm", "srv", servers, max(50, servers/60+1))
	offices := g.zones("office", "desk", n-dmz-admins-servers, max(100, n/120+1))
	g.zone("admin", "adm", admins)
	g.links(farms, offices)
	g.secrets()
	g.people(offices)
	g.s.Attackers = []Attacker{{Name: "intruder", Zone: "internet", Start: Duration(time.Hour), Pace: Duration(4 * time.Minute)}}
	return g.s, g.s.Validate()
}

type generator struct {
	rand rng.Source
	s    *Scenario
	at   map[string][]int // hosts of each zone
}

// between is a number from low to high in steps of a hundredth, so that a file stays readable.
func (g *generator) between(low, high float64) float64 {
	steps := uint32((high-low)*100 + 1.5)
	return float64(int(low*100+0.5)+int(g.rand.Below(steps))) / 100
}

func (g *generator) zones(prefix, host string, n, size int) []string {
	var names []string
	for i := 0; n > 0; i++ {
		name := fmt.Sprintf("%s%d", prefix, i+1)
		g.zone(name, fmt.Sprintf("%s%d-", host, i+1), min(n, size))
		names = append(names, name)
		n -= size
	}
	return names
}

// zone adds n hosts; what they are follows from the zone's name.
func (g *generator) zone(zone, prefix string, n int) {
	if g.at == nil {
		g.at = map[string][]int{}
	}
	for i := range n {
		h := Host{Name: fmt.Sprintf("%s%d", prefix, i+1), Zone: zone, Services: []Service{{Name: "ssh", Port: 22}}, Detect: g.between(0.1, 0.4)}
		switch zone[0] {
		case 'd':
			h.Value, h.Escalate = 1, g.between(0.1, 0.4)
			h.Services = append(h.Services, Service{Name: "http", Port: 80, Exploit: g.between(0, 0.3)})
			h.Accounts = []Account{{Name: "deploy"}}
		case 'f':
			h.Value, h.Escalate = float64(2+g.rand.Below(20)), g.between(0, 0.3)
			h.Accounts = []Account{{Name: "backup", Root: true}, {Name: "deploy"}}
			switch g.rand.Below(3) {
			case 0:
				h.Services = append(h.Services, Service{Name: "postgresql", Port: 5432})
				h.Accounts = append(h.Accounts, Account{Name: "dba", Root: true})
			case 1:
				h.Services = append(h.Services, Service{Name: "http", Port: 8080})
				if g.rand.Chance(0.3) {
					h.Vulnerabilities = []Vulnerability{{ID: fmt.Sprintf("EXAMPLE-%d", 1+g.rand.Below(20)), Package: "appserver", Port: 8080, Exploit: g.between(0.1, 0.5)}}
				}
			}
		case 'o':
			h.Value, h.Escalate, h.FalseRate = 0.5, g.between(0.1, 0.5), 1e-4
			h.Accounts = []Account{{Name: "helpdesk-" + zone, Root: true}}
			if g.rand.Chance(0.2) {
				h.Services = append(h.Services, Service{Name: "smb", Port: 445, Exploit: g.between(0.05, 0.3)})
			}
		default:
			h.Value, h.Escalate = 5, g.between(0, 0.2)
		}
		if g.rand.Chance(0.01) {
			h.Decoys = []uint16{2323}
		}
		g.at[zone] = append(g.at[zone], len(g.s.Hosts))
		g.s.Hosts = append(g.s.Hosts, h)
	}
}

func (g *generator) links(farms, offices []string) {
	add := func(from, to string, ports ...uint16) {
		g.s.Links = append(g.s.Links, Link{From: from, To: to, Ports: ports})
	}
	add("internet", "dmz", 22, 80, 2323)
	for i, f := range farms {
		add("dmz", f, 22, 5432, 8080)
		if next := farms[(i+1)%len(farms)]; next != f {
			add(f, next)
		}
		add("admin", f)
		for k := range min(3, len(offices)) { // an office works with a few farms
			add(offices[(i+k)%len(offices)], f, 22, 8080)
		}
	}
	for _, o := range offices {
		add("dmz", o, 22, 445)
		add("admin", o)
	}
	add("admin", "dmz")
}

// any is the name of one of the hosts of a zone.
func (g *generator) any(zone string) string {
	hosts := g.at[zone]
	return g.s.Hosts[hosts[g.rand.Below(uint32(len(hosts)))]].Name
}

// secrets leaves the shared accounts' secrets on a few hosts, as in life.
func (g *generator) secrets() {
	add := func(account, zone string, n int) {
		c := Credential{Name: account + " key", Account: account}
		for range n {
			c.On = append(c.On, g.any(zone))
		}
		g.s.Credentials = append(g.s.Credentials, c)
	}
	add("deploy", "dmz", 1)
	add("backup", "farm1", 2)
	seen := map[string]bool{"deploy": true, "backup": true}
	for _, h := range g.s.Hosts {
		for _, a := range h.Accounts {
			if seen[a.Name] {
				continue
			}
			seen[a.Name] = true
			add(a.Name, h.Zone, 1)
		}
	}
}

// people gives every desk a user with an account of its own on the servers it works with, and every administrators' host
// one who logs on everywhere.
func (g *generator) people(offices []string) {
	var servers []int
	for i, h := range g.s.Hosts {
		if h.Zone[0] == 'f' {
			servers = append(servers, i)
		}
	}
	for _, o := range offices {
		for _, d := range g.at[o] {
			desk := &g.s.Hosts[d]
			u := User{Host: desk.Name, Account: "u-" + desk.Name, Each: Duration(time.Hour), From: 8 * Duration(time.Hour), Until: 18 * Duration(time.Hour)}
			for range 1 + g.rand.Below(2) {
				to := &g.s.Hosts[servers[g.rand.Below(uint32(len(servers)))]]
				if len(u.To) == 1 && u.To[0] == to.Name || len(to.Accounts) == MaxAccounts {
					continue
				}
				u.To, to.Accounts = append(u.To, to.Name), append(to.Accounts, Account{Name: u.Account})
			}
			if len(u.To) > 0 {
				g.s.Users = append(g.s.Users, u)
			}
		}
	}
	for _, a := range g.at["admin"] {
		admin := User{Host: g.s.Hosts[a].Name, Account: "backup", Each: Duration(4 * time.Hour)}
		for range 4 {
			admin.To = append(admin.To, g.s.Hosts[servers[g.rand.Below(uint32(len(servers)))]].Name)
		}
		g.s.Users = append(g.s.Users, admin)
	}
}
