// Package world simulates attacks on a network that someone described: hosts with services, credentials and sensors,
// zones with the links between them, attackers, users, and a swarm that refuses an attacker everywhere some time after
// it was caught. Time is virtual; everything happens by discrete events from one queue, with one random source.
//
// A Scenario is what a file says; New turns it into a World of flat arrays, which runs, can be cloned at any moment (a
// checkpoint, or a branch with the same future), records what happened, and shows the events our sensors would see.
//
// It is a model for comparing defences, not a claim about any product's detection rates: those are in the file.
package world

import (
	"fmt"
	"io"
	"math"
	"net/netip"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bounds of a scenario file.
const (
	MaxFile      = 4 << 20 // bytes
	MaxHosts     = 20_000
	MaxZones     = 200
	MaxServices  = 64 // a host
	MaxAttackers = 16
	maxName      = 100
	maxDuration  = 366 * 24 * time.Hour
)

// Duration is a time.Duration that a file writes as "90s", "5m" or "24h".
type Duration time.Duration

// UnmarshalYAML reads a duration.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q is not a duration such as 90s, 5m or 24h", n.Line, clip(n.Value))
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML writes a duration as it is read.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

// Scenario is a network and what happens in it.
type Scenario struct {
	Name        string       `yaml:"name" doc:"what this network is"`
	Duration    Duration     `yaml:"duration" doc:"how long to simulate"`
	Hosts       []Host       `yaml:"hosts" doc:"the members of the swarm"`
	Links       []Link       `yaml:"links,omitempty" doc:"which zone reaches which; a zone reaches itself"`
	Credentials []Credential `yaml:"credentials,omitempty" doc:"secrets, where they lie and what they open"`
	Attackers   []Attacker   `yaml:"attackers,omitempty"`
	Users       []User       `yaml:"users,omitempty" doc:"ordinary life, which sensors may mistake for an attack"`
	Response    Response     `yaml:"response,omitempty" doc:"what the swarm does"`
}

// Host is one machine.
type Host struct {
	Name      string    `yaml:"name"`
	Zone      string    `yaml:"zone"`
	Address   string    `yaml:"address,omitempty" doc:"IP address; given out from 10.0.0.0/8 where absent"`
	Value     float64   `yaml:"value,omitempty" doc:"loss an hour while an attacker is root here"`
	Services  []Service `yaml:"services,omitempty"`
	Escalate  float64   `yaml:"escalate,omitempty" doc:"chance that one attempt to become root from a user session works"`
	Decoys    []uint16  `yaml:"decoys,omitempty" doc:"ports on which a decoy listens"`
	Detect    float64   `yaml:"detect,omitempty" doc:"chance that the sensor catches a step of an attack here"`
	FalseRate float64   `yaml:"false_rate,omitempty" doc:"chance that an ordinary logon here is taken for an attack"`
}

// Service is something that listens.
type Service struct {
	Name          string  `yaml:"name"`
	Port          uint16  `yaml:"port"`
	Exploit       float64 `yaml:"exploit,omitempty" doc:"chance that one attempt at it works; 0: it has no known hole"`
	Gives         string  `yaml:"gives,omitempty" doc:"what that yields: user (default) or root"`
	Vulnerability string  `yaml:"vulnerability,omitempty" doc:"its identifier, for people"`
}

// Link says that hosts of one zone can open connections to hosts of another.
type Link struct {
	From  string   `yaml:"from"`
	To    string   `yaml:"to"`
	Ports []uint16 `yaml:"ports,omitempty" doc:"which; all where absent"`
}

// Credential is a secret that lies on some hosts and opens some.
type Credential struct {
	Name  string   `yaml:"name"`
	On    []string `yaml:"on" doc:"hosts where root finds it"`
	Opens []string `yaml:"opens" doc:"hosts it logs in to"`
	Root  bool     `yaml:"root,omitempty" doc:"whether the session is root at once"`
}

// Attacker comes from outside and works its way in.
type Attacker struct {
	Name    string   `yaml:"name"`
	Zone    string   `yaml:"zone" doc:"where it starts"`
	Address string   `yaml:"address,omitempty" doc:"IP address; given out from 198.51.100.0/24 where absent"`
	Start   Duration `yaml:"start,omitempty"`
	Pace    Duration `yaml:"pace" doc:"mean time between its steps"`
}

// User logs on from one host to others, as people do.
type User struct {
	Host string   `yaml:"host"`
	To   []string `yaml:"to"`
	Each Duration `yaml:"each" doc:"mean time between logons"`
}

// Response is the swarm's: a source caught by a decoy, or by the sensors of two hosts within Window, is refused by every
// host Immunity later, for Lifetime.
type Response struct {
	Immunity Duration `yaml:"immunity,omitempty" doc:"from being caught to being refused everywhere; absent: the swarm only watches"`
	Lifetime Duration `yaml:"lifetime,omitempty" doc:"of a refusal; 1h where absent"`
	Window   Duration `yaml:"window,omitempty" doc:"within which two hosts' findings on one source count together; 10m where absent"`
}

// Read reads a scenario and checks it. Unknown keys are errors that name the nearest known one.
func Read(r io.Reader) (*Scenario, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFile {
		return nil, fmt.Errorf("scenario: larger than %d bytes", MaxFile)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	if len(root.Content) != 1 {
		return nil, fmt.Errorf("scenario: empty")
	}
	if err := checkKeys(root.Content[0], scenarioType); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	s := &Scenario{}
	if err := root.Decode(s); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	return s, nil
}

// Validate says what is wrong with s, if anything.
func (s *Scenario) Validate() error {
	if err := positive("duration", s.Duration); err != nil {
		return err
	}
	if len(s.Hosts) == 0 || len(s.Hosts) > MaxHosts {
		return fmt.Errorf("%d hosts; from 1 to %d", len(s.Hosts), MaxHosts)
	}
	if len(s.Attackers) > MaxAttackers {
		return fmt.Errorf("%d attackers; at most %d", len(s.Attackers), MaxAttackers)
	}
	hosts, zones := map[string]bool{}, map[string]bool{}
	addresses := map[netip.Addr]string{}
	address := func(who, text string) error {
		if text == "" {
			return nil
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("%s: address %q: %w", who, clip(text), err)
		}
		if other := addresses[a]; other != "" {
			return fmt.Errorf("%s: address %s is also that of %s", who, a, other)
		}
		addresses[a] = who
		return nil
	}
	for i := range s.Hosts {
		h := &s.Hosts[i]
		who := fmt.Sprintf("host %q", clip(h.Name))
		if h.Name == "" || len(h.Name) > maxName || hosts[h.Name] {
			return fmt.Errorf("host %d: the name %q is empty, too long or taken", i+1, clip(h.Name))
		}
		hosts[h.Name], zones[h.Zone] = true, true
		if h.Zone == "" || len(h.Zone) > maxName {
			return fmt.Errorf("%s: no zone, or too long a name for one", who)
		}
		if err := address(who, h.Address); err != nil {
			return err
		}
		if h.Value < 0 || h.Value > 1e9 || math.IsNaN(h.Value) {
			return fmt.Errorf("%s: value %v; from 0 to 1e9", who, h.Value)
		}
		for name, p := range map[string]float64{"escalate": h.Escalate, "detect": h.Detect, "false_rate": h.FalseRate} {
			if err := probability(who+": "+name, p); err != nil {
				return err
			}
		}
		if len(h.Services)+len(h.Decoys) > MaxServices {
			return fmt.Errorf("%s: more than %d services and decoys", who, MaxServices)
		}
		ports := map[uint16]bool{}
		for _, v := range h.Services {
			if v.Port == 0 || ports[v.Port] {
				return fmt.Errorf("%s: service %q: port %d is 0 or taken", who, clip(v.Name), v.Port)
			}
			ports[v.Port] = true
			if err := probability(fmt.Sprintf("%s: service %q: exploit", who, clip(v.Name)), v.Exploit); err != nil {
				return err
			}
			if v.Gives != "" && v.Gives != "user" && v.Gives != "root" {
				return fmt.Errorf("%s: service %q gives %q; user or root", who, clip(v.Name), clip(v.Gives))
			}
		}
		for _, p := range h.Decoys {
			if p == 0 || ports[p] {
				return fmt.Errorf("%s: a decoy cannot listen on %d: it is 0 or taken", who, p)
			}
			ports[p] = true
		}
	}
	for _, a := range s.Attackers {
		who := fmt.Sprintf("attacker %q", clip(a.Name))
		if a.Name == "" || len(a.Name) > maxName || a.Zone == "" || len(a.Zone) > maxName {
			return fmt.Errorf("%s: no name or no zone, or too long", who)
		}
		zones[a.Zone] = true
		if err := address(who, a.Address); err != nil {
			return err
		}
		if err := positive(who+": pace", a.Pace); err != nil {
			return err
		}
		if a.Start < 0 || time.Duration(a.Start) > maxDuration {
			return fmt.Errorf("%s: start %s", who, time.Duration(a.Start))
		}
	}
	if len(zones) > MaxZones {
		return fmt.Errorf("%d zones; at most %d", len(zones), MaxZones)
	}
	for _, l := range s.Links {
		for _, z := range []string{l.From, l.To} {
			if !zones[z] {
				return fmt.Errorf("link %q to %q: no host and no attacker is in zone %q%s", clip(l.From), clip(l.To), clip(z), nearest(z, zones))
			}
		}
	}
	known := func(who string, names []string) error {
		for _, n := range names {
			if !hosts[n] {
				return fmt.Errorf("%s: no host %q%s", who, clip(n), nearest(n, hosts))
			}
		}
		return nil
	}
	for _, c := range s.Credentials {
		if err := known(fmt.Sprintf("credential %q", clip(c.Name)), append(append([]string{}, c.On...), c.Opens...)); err != nil {
			return err
		}
	}
	for i, u := range s.Users {
		who := fmt.Sprintf("user %d", i+1)
		if err := known(who, append([]string{u.Host}, u.To...)); err != nil {
			return err
		}
		if err := positive(who+": each", u.Each); err != nil {
			return err
		}
		if len(u.To) == 0 {
			return fmt.Errorf("%s logs on nowhere", who)
		}
	}
	for name, d := range map[string]Duration{"immunity": s.Response.Immunity, "lifetime": s.Response.Lifetime, "window": s.Response.Window} {
		if d < 0 || time.Duration(d) > maxDuration {
			return fmt.Errorf("response: %s %s", name, time.Duration(d))
		}
	}
	return nil
}

func positive(what string, d Duration) error {
	if d < Duration(time.Millisecond) || time.Duration(d) > maxDuration {
		return fmt.Errorf("%s is %s; from 1ms to a year", what, time.Duration(d))
	}
	return nil
}

func probability(what string, p float64) error {
	if !(p >= 0 && p <= 1) { // NaN too
		return fmt.Errorf("%s is %v; from 0 to 1", what, p)
	}
	return nil
}

// clip keeps what a file says short in an error.
func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "..."
	}
	return s
}
