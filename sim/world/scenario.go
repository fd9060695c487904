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
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bounds of a scenario file.
const (
	MaxFile      = 8 << 20 // bytes
	MaxHosts     = 20_000
	MaxZones     = 200
	MaxServices  = 64  // a host, its decoys counted too
	MaxHoles     = 512 // known vulnerabilities a host
	MaxAccounts  = 256 // a host
	MaxLinks     = 50_000
	MaxUsers     = 100_000
	MaxSecrets   = 100_000
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
	Accounts  []Account `yaml:"accounts,omitempty" doc:"who can log on here"`
	Escalate  float64   `yaml:"escalate,omitempty" doc:"chance that one attempt to become root from a user session works, known vulnerabilities apart"`
	Decoys    []uint16  `yaml:"decoys,omitempty" doc:"ports on which a decoy listens"`
	Detect    float64   `yaml:"detect,omitempty" doc:"chance that the sensor catches a step of an attack here"`
	FalseRate float64   `yaml:"false_rate,omitempty" doc:"chance that an ordinary logon here is taken for an attack"`

	Vulnerabilities []Vulnerability `yaml:"vulnerabilities,omitempty" doc:"known holes in what is installed here"`
}

// Account is someone who can log on to a host. Accounts of one name on several hosts share their secret: that is reuse.
type Account struct {
	Name string `yaml:"name"`
	Root bool   `yaml:"root,omitempty" doc:"whether its sessions are root"`
}

// Vulnerability is a known hole in something installed on a host.
type Vulnerability struct {
	ID      string  `yaml:"id" doc:"CVE, GHSA, ..."`
	Package string  `yaml:"package,omitempty" doc:"what to patch: patching it closes all its holes"`
	Port    uint16  `yaml:"port,omitempty" doc:"the port of a service through which it is reached; absent: from a session on the host, to become root"`
	Exploit float64 `yaml:"exploit" doc:"chance that one attempt at it works"`
	Gives   string  `yaml:"gives,omitempty" doc:"what that yields through a port: user (default) or root"`
}

// Service is something that listens.
type Service struct {
	Name          string  `yaml:"name"`
	Port          uint16  `yaml:"port"`
	Exploit       float64 `yaml:"exploit,omitempty" doc:"chance that one attempt at it works; 0: it has no known hole"`
	Gives         string  `yaml:"gives,omitempty" doc:"what that yields: user (default) or root"`
	Vulnerability string  `yaml:"vulnerability,omitempty" doc:"the identifier of that hole, for people"`
}

// Link says that hosts of one zone can open connections to hosts of another.
type Link struct {
	From  string   `yaml:"from"`
	To    string   `yaml:"to"`
	Ports []uint16 `yaml:"ports,omitempty" doc:"which; all where absent"`
}

// Credential is a secret that lies on some hosts and opens some.
type Credential struct {
	Name    string   `yaml:"name"`
	On      []string `yaml:"on" doc:"hosts where root finds it"`
	Opens   []string `yaml:"opens,omitempty" doc:"hosts it logs in to"`
	Root    bool     `yaml:"root,omitempty" doc:"whether the session on those is root at once"`
	Account string   `yaml:"account,omitempty" doc:"whose secret it is: it also opens every host that has an account of this name"`
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
	Host    string   `yaml:"host"`
	To      []string `yaml:"to"`
	Each    Duration `yaml:"each" doc:"mean time between logons"`
	Account string   `yaml:"account,omitempty" doc:"as whom: its secret lies on the user's host, and from the first logon in the memory of each host logged on to"`
	From    Duration `yaml:"from,omitempty" doc:"time of the day at which its work begins"`
	Until   Duration `yaml:"until,omitempty" doc:"time of the day at which its work ends; absent: at midnight"`
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

// clip keeps what a file says short in an error.
func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "..."
	}
	return s
}
