package export

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/planner"
	"github.com/omega-mesh/omega/sim/rng"
	"github.com/omega-mesh/omega/sim/world"
)

func office(t *testing.T) *world.Scenario {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "world", "testdata", "office.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := world.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// daySeed is of the run in the README: one of the few in which the attacker gets everything.
const daySeed = 53

// hostile has names that mean something to every format.
func hostile(t *testing.T) *world.Scenario {
	t.Helper()
	s := office(t)
	s.Name = "a\"]; b <script>\n& \x01 \\"
	s.Hosts[0].Name = "<g/>\"\\\n]]>"
	s.Hosts[0].Zone = "z\"&<"
	s.Hosts[0].Address = "2001:db8::1"
	s.Hosts[0].Vulnerabilities = []world.Vulnerability{{ID: "CVE-2026-1", Package: "x", Port: 80, Exploit: 1}, {ID: "CVE-2026-1", Package: "y", Exploit: 1}}
	s.Links = append(s.Links, world.Link{From: "internet", To: s.Hosts[0].Zone})
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return s
}

func wellFormed(t *testing.T, svg []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("no XML: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok && (e.Name.Local == "script" || e.Name.Local == "g") {
			t.Fatalf("a name became an element <%s>", e.Name.Local)
		}
	}
}

// explanation is one decision of the planner, small and the same every time.
func explanation(t *testing.T) planner.Explanation {
	t.Helper()
	p, err := planner.New(planner.DefaultConfig(cage2.Leaderboard))
	if err != nil {
		t.Fatal(err)
	}
	const seed = 2
	w := cage2.NewWorld(cage2.Leaderboard, cage2.BLine, false, rng.Derive(seed, uint64(cage2.BLine)))
	p.Begin(rng.Derive(seed, 1<<40))
	var o cage2.Observation
	for range 9 {
		o = w.Step(p.Act(o)).Observation
	}
	p.Act(o)
	return p.Explain()
}

// The pictures in sim/ are those that this code draws; UPDATE=1 draws them anew.
func TestPicturesAreCurrent(t *testing.T) {
	day, err := Network(office(t), daySeed)
	if err != nil {
		t.Fatal(err)
	}
	for name, drawn := range map[string][]byte{"day.svg": day, "decision.svg": Alternatives(explanation(t))} {
		path := filepath.Join("..", name)
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(path, drawn, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		wellFormed(t, drawn)
		if was, err := os.ReadFile(path); err != nil || !bytes.Equal(was, drawn) {
			t.Errorf("sim/%s is not what is drawn now (%v): run the test with UPDATE=1", name, err)
		}
	}
}

func TestNetwork(t *testing.T) {
	svg, err := Network(hostile(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, svg)
	// A machine that is root at once and stays so is red from then to the end.
	s := &world.Scenario{Name: "one", Duration: world.Duration(time.Hour), Hosts: []world.Host{{Name: "h", Zone: "z", Services: []world.Service{{Port: 80, Exploit: 1, Gives: "root"}}}, {Name: "other", Zone: "z"}},
		Attackers: []world.Attacker{{Name: "a", Zone: "z", Pace: world.Duration(time.Minute)}}}
	if svg, err = Network(s, 1); err != nil || bytes.Count(svg, []byte(asRoot)) != 2 || bytes.Contains(svg, []byte("<circle")) { // the bar and the key
		t.Errorf("%v\n%s", err, svg)
	}
	large, err := world.Generate(500, 1)
	if err != nil {
		t.Fatal(err)
	}
	if svg, err = Network(large, 1); err != nil || !bytes.Contains(svg, []byte("440 more hosts are not shown")) {
		t.Errorf("%v: %d bytes", err, len(svg))
	}
	wellFormed(t, svg)
	if _, err := Network(&world.Scenario{}, 1); err == nil {
		t.Error("an empty scenario is drawn")
	}
}

func TestGraphviz(t *testing.T) {
	out := string(Graphviz(hostile(t)))
	if !strings.Contains(out, `label="<g/>\"\\\n]]>\nhttp 80\nssh 22"`) || strings.Count(out, "{") != strings.Count(out, "}") {
		t.Errorf("%s", out)
	}
	for line := range strings.Lines(out) {
		inside, escaped := false, false
		for _, r := range strings.TrimSuffix(line, "\n") {
			switch {
			case escaped:
				escaped = false
			case r == '\\':
				escaped = true
			case r == '"':
				inside = !inside
			}
		}
		if inside {
			t.Errorf("an open quote: %s", line)
		}
	}
}

// The bundle has the form that STIX 2.1 asks for, every reference leads somewhere, and it is the same every time.
func TestSTIX(t *testing.T) {
	out, err := STIX(hostile(t))
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := STIX(hostile(t)); !bytes.Equal(again, out) {
		t.Error("the same scenario gives another bundle")
	}
	var b struct {
		Type, ID string
		Objects  []map[string]any
	}
	if err := json.Unmarshal(out, &b); err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`^[a-z0-9-]+--[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	if b.Type != "bundle" || !id.MatchString(b.ID) {
		t.Errorf("%s %s", b.Type, b.ID)
	}
	kinds, ids := map[string]int{}, map[string]string{}
	for _, o := range b.Objects {
		kind, name := o["type"].(string), o["id"].(string)
		if ids[name] != "" || !id.MatchString(name) || !strings.HasPrefix(name, kind+"--") || o["spec_version"] != "2.1" {
			t.Errorf("%v", o)
		}
		ids[name] = kind
		kinds[kind]++
		required := map[string][]string{"infrastructure": {"name", "created", "modified"}, "vulnerability": {"name", "created", "modified"},
			"relationship": {"relationship_type", "source_ref", "target_ref", "created", "modified"}, "software": {"name"}, "ipv6-addr": {"value"}}[kind]
		if required == nil {
			t.Errorf("an object of type %s", kind)
		}
		for _, key := range required {
			if v, _ := o[key].(string); v == "" {
				t.Errorf("%s has no %s", name, key)
			}
		}
	}
	// Which verbs may stand between which types: sections 4.8 and 5.1 of the specification.
	allowed := map[string]bool{"infrastructure consists-of infrastructure": true, "infrastructure consists-of software": true, "infrastructure consists-of ipv6-addr": true,
		"infrastructure has vulnerability": true, "infrastructure communicates-with infrastructure": true}
	for _, o := range b.Objects {
		if o["type"] == "relationship" {
			if r := ids[o["source_ref"].(string)] + " " + o["relationship_type"].(string) + " " + ids[o["target_ref"].(string)]; !allowed[r] {
				t.Errorf("%v", r)
			}
		}
	}
	if kinds["infrastructure"] != 6+5 || kinds["vulnerability"] != 2 || kinds["software"] != 6 || kinds["relationship"] == 0 {
		t.Errorf("%v", kinds)
	}
	// The identifier of an observable is the one that the specification's method gives.
	if got := uuid("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "www.example.com"); got != "2ed6657d-e927-568b-95e1-2665a8aea6a2" { // RFC 9562, appendix A.4
		t.Errorf("a name's UUID is %s", got)
	}
}
