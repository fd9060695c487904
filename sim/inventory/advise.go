package inventory

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/omega-mesh/omega/sim/world"
)

// match is an advisory that a component falls under.
type match struct {
	host      int
	component component
	id        string
	others    []string // what else the same hole is called
	vector    string
}

// maxMatches bounds what a feed can add.
const maxMatches = 1_000_000

// advise looks up every component in the advisories and gives the hosts the holes that are found.
func (im *importer) advise(feeds []string) error {
	type owner struct {
		bill      int
		component component
	}
	owners := map[[2]string][]owner{} // by ecosystem and name
	undated, nameless := 0, 0
	for i, b := range im.bills {
		nameless += b.nameless
		for _, c := range b.components {
			if c.release == "" && (c.ecosystem == "Debian" || c.ecosystem == "Ubuntu" || c.ecosystem == "Alpine") {
				undated++
			}
			key := [2]string{c.ecosystem, c.name}
			owners[key] = append(owners[key], owner{i, c})
		}
	}
	if nameless > 0 {
		im.warn("components-unknown", "%d components have no package URL with a version that OSV could know; no advisory was looked up for them", nameless)
	}
	if len(feeds) == 0 {
		if len(im.bills) > 0 {
			im.warn("no-advisories", "bills of materials, but no advisories (--osv): nothing in them is taken to be vulnerable")
		}
		return nil
	}
	if len(im.bills) == 0 {
		im.warn("no-components", "advisories, but no bill of materials: a scan alone does not tell versions surely enough to look them up")
		return nil
	}
	if undated > 0 {
		im.warn("release-unknown", "%d packages do not say of which release of their distribution; they were held against every release", undated)
	}
	var matches []match
	unjudgedIDs := map[string]bool{}
	for _, feed := range feeds {
		err := eachAdvisory(feed, func(where string, a *advisory) error {
			if a.Withdrawn != "" {
				return nil
			}
			for i := range a.Affected {
				f := &a.Affected[i]
				ecosystem, release, _ := strings.Cut(f.Package.Ecosystem, ":")
				name := f.Package.Name
				if ecosystem == "PyPI" {
					name = pythonName(name)
				}
				for _, o := range owners[[2]string{ecosystem, name}] {
					c := o.component
					others := slices.Concat(a.Aliases, a.Upstream)
					if release = trimRelease(ecosystem, release); release != "" && c.release != "" && release != c.release || im.bills[o.bill].excuses(a.ID, others) {
						continue
					}
					switch f.judge(c) {
					case unjudged:
						unjudgedIDs[a.ID] = true
					case vulnerable:
						matches = append(matches, match{im.bills[o.bill].host, c, a.ID, others, vector(f.Severity, a.Severity)})
					}
				}
			}
			if len(matches) > maxMatches {
				return fmt.Errorf("%s: more than %d matches of components and advisories", where, maxMatches)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(unjudgedIDs) > 0 {
		im.warn("versions-unjudged", "%d advisories could not be judged, because the order of their versions is not known here: %s", len(unjudgedIDs), some(slices.Sorted(maps.Keys(unjudgedIDs))))
	}
	if err := borrowVectors(matches, feeds); err != nil {
		return err
	}
	im.place(matches)
	return nil
}

func (b *bill) excuses(id string, others []string) bool {
	return b.excused[id] || slices.ContainsFunc(others, func(o string) bool { return b.excused[o] })
}

// trimRelease is a release as component has it: Ubuntu's may carry words.
func trimRelease(ecosystem, text string) string {
	if ecosystem == "Ubuntu" {
		for part := range strings.SplitSeq(text, ":") {
			if part != "" && part[0] >= '0' && part[0] <= '9' {
				return part
			}
		}
		return ""
	}
	return text
}

// borrowVectors fills in vectors that distributions leave to the advisory theirs is made of: a second pass over the
// feeds keeps those of the names that are wanted.
func borrowVectors(matches []match, feeds []string) error {
	wanted := map[string]string{}
	for _, m := range matches {
		if m.vector == "" {
			for _, o := range m.others {
				wanted[o] = ""
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	for _, feed := range feeds {
		if err := eachAdvisory(feed, func(_ string, a *advisory) error {
			v := vector(a.Severity)
			for i := range a.Affected {
				v = cmp.Or(v, vector(a.Affected[i].Severity))
			}
			for _, id := range append([]string{a.ID}, a.Aliases...) {
				if had, want := wanted[id]; want && had == "" && a.Withdrawn == "" {
					wanted[id] = v
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for i := range matches {
		for _, o := range matches[i].others {
			matches[i].vector = cmp.Or(matches[i].vector, wanted[o])
		}
	}
	return nil
}

// place gives each host its holes: one over the network at the ports where its package seems to listen, one from a
// session on the host without a port.
func (im *importer) place(matches []match) {
	slices.SortStableFunc(matches, func(a, b match) int {
		return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.id, b.id), cmp.Compare(a.component.name, b.component.name))
	})
	var vectorless, harmless, portless, bad []string
	left := 0
	seen := map[string]bool{}
	for _, m := range matches {
		h := &im.hosts[m.host]
		what := fmt.Sprintf("%s (%s %s on %s)", clip(m.id), clip(m.component.name), clip(m.component.version), h.Name)
		if again := fmt.Sprint(m.host, m.id, m.component.name); seen[again] {
			continue
		} else {
			seen[again] = true
		}
		if m.vector == "" {
			vectorless = append(vectorless, what)
			continue
		}
		e, err := parseCVSS(m.vector)
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", what, err))
			continue
		}
		v := world.Vulnerability{ID: clip(m.id), Package: clip(m.component.name), Exploit: e.chance}
		switch {
		case !e.takes:
			harmless = append(harmless, what)
		case e.remote:
			found := false
			for _, service := range h.Services {
				if !listens(m.component.name, service.Name, h.products[service.Port]) {
					continue
				}
				found = true
				if v.Port = service.Port; len(h.Vulnerabilities) < world.MaxHoles {
					h.Vulnerabilities = append(h.Vulnerabilities, v)
				} else {
					left++
				}
			}
			if !found {
				portless = append(portless, what)
			}
		case len(h.Vulnerabilities) < world.MaxHoles:
			h.Vulnerabilities = append(h.Vulnerabilities, v)
		default:
			left++
		}
	}
	for _, w := range []struct {
		code, text string
		list       []string
	}{
		{"no-severity", "have no CVSS v3 vector, here or under another name: how they are used is not known, they are left out", vectorless},
		{"bad-severity", "have a vector that cannot be read, they are left out", bad},
		{"no-control", "give a look or a crash, not control (no high impact on integrity): they are left out", harmless},
		{"no-port", "are used over the network, but no open port could be matched to the package: they are left out; where you know the port, add them under vulnerabilities", portless},
	} {
		if len(w.list) > 0 {
			im.warn(w.code, "%d advisories %s: %s", len(w.list), w.text, some(w.list))
		}
	}
	if left > 0 {
		im.warn("too-many", "%d holes are over the %d that one host may have", left, world.MaxHoles)
	}
}

// listens guesses whether a package is what listens on a port: its name's stem (postgresql of postgresql-15) is that of
// the service, or stands in what the scanner recognised.
func listens(name, service, product string) bool {
	name = strings.ToLower(name)
	if i := strings.LastIndexAny(name, "/:"); i >= 0 {
		name = name[i+1:]
	}
	stem := name
	if i := strings.IndexFunc(name, func(r rune) bool { return r < 'a' || r > 'z' }); i >= 0 {
		stem = name[:i]
	}
	if len(stem) < 3 {
		return false
	}
	switch stem { // names of protocols and of half the packages there are
	case "http", "https", "ssh", "smtp", "ftp", "domain", "server", "lib", "python", "java", "go":
		return false
	}
	return strings.Contains(strings.ToLower(product), stem) || strings.EqualFold(service, stem)
}

// scenario puts together what was found, with what has to be assumed for anything to happen in it.
func (im *importer) scenario(bare bool) *world.Scenario {
	s := &world.Scenario{Name: fmt.Sprintf("imported: %d hosts", len(im.hosts)), Duration: world.Duration(24 * time.Hour)}
	zones, ports := map[string]bool{}, map[uint16]bool{}
	valueless, sightless, holes := 0, 0, 0
	for i := range im.hosts {
		h := &im.hosts[i]
		if h.Value == 0 {
			valueless++
			if !bare {
				h.Value = 1
			}
		}
		if h.Detect == 0 {
			sightless++
		}
		holes += len(h.Vulnerabilities)
		zones[h.Zone] = true
		for _, v := range h.Services {
			ports[v.Port] = true
		}
		s.Hosts = append(s.Hosts, h.Host)
	}
	if sightless > 0 {
		im.warn("no-sensors", "%d hosts have no sensor (detect): only decoys can catch anyone there", sightless)
	}
	im.warn("no-secrets", "which secrets lie where, and who logs on to what, is in none of these files")
	if holes > 0 {
		im.warn("chances", "the chance of each hole is made of its CVSS v3 vector: exploitability over the greatest there is, times %g; it orders holes, it is not a measured rate", surest)
	}
	if bare {
		return s
	}
	if valueless > 0 {
		im.warn("assumed-values", "%d hosts have no value: each counts 1 an hour", valueless)
	}
	names := slices.Sorted(maps.Keys(zones))
	open := slices.Sorted(maps.Keys(ports))
	outside := "outside"
	for zones[outside] {
		outside += "'"
	}
	for _, z := range names {
		if len(open) > 0 {
			s.Links = append(s.Links, world.Link{From: outside, To: z, Ports: open})
		}
	}
	const few = 20
	if len(names) <= few {
		for _, from := range names {
			for _, to := range names {
				if from != to {
					s.Links = append(s.Links, world.Link{From: from, To: to})
				}
			}
		}
	}
	s.Attackers = []world.Attacker{{Name: "intruder", Zone: outside, Pace: world.Duration(5 * time.Minute)}}
	s.Response = world.Response{Immunity: world.Duration(50 * time.Millisecond), Lifetime: world.Duration(24 * time.Hour)}
	im.warn("assumed-attacker", "one attacker, in zone %q, takes a step every 5 minutes", outside)
	if len(names) > few {
		im.warn("assumed-links", "%q reaches every zone on the ports that are open somewhere; the %d zones do not reach one another", outside, len(names))
	} else {
		im.warn("assumed-links", "%q reaches every zone on the ports that are open somewhere, and the zones reach one another: no file tells what a firewall forbids", outside)
	}
	im.warn("assumed-response", "the swarm refuses a caught source everywhere after 50 ms, for a day")
	return s
}
