package world

import (
	"fmt"
	"strings"
)

// Action is what an attacker, a user or the swarm does.
type Action uint8

const (
	Loot     Action = iota // take the secrets that lie on a host
	Escalate               // become root from a user session
	Logon                  // use a secret
	Exploit                // attack a service
	Scan                   // look at a host's ports
	Sweep                  // look for hosts
	UserLogon
	Refuse // every host begins to refuse a source
	actions
)

// kind is what is known of an action beside its effect.
type kind struct {
	name, technique, called string
	needs, chance, takes    string
	shows                   string // the events that the target's sensor would see
}

// kindOf has every action's kind.
func kindOf(a Action) kind {
	return [actions]kind{
		Loot:      {"loot", "T1552", "Unsecured Credentials", "root on the host", "1", "pace", "process exec of find"},
		Escalate:  {"escalate", "T1068", "Exploitation for Privilege Escalation", "a user session on the host", "the surest of `escalate` and the vulnerabilities without a port", "pace", "process exec of pkexec as a user"},
		Logon:     {"logon", "T1078", "Valid Accounts", "a secret that opens the host, and a machine that reaches its port 22", "1", "pace", "authentication logon_success"},
		Exploit:   {"exploit", "T1210", "Exploitation of Remote Services", "the host scanned, and a machine that reaches a port that looks weak", "`exploit` of the surest hole behind the port; a decoy: 0", "pace", "network accept; where it works process exec of a shell on a socket"},
		Scan:      {"scan", "T1046", "Network Service Discovery", "the host known, and a machine that reaches its zone", "1", "pace", "network probe, one a service"},
		Sweep:     {"sweep", "T1018", "Remote System Discovery", "a machine that reaches the zone", "1", "pace", ""},
		UserLogon: {"user", "", "", "the hours of its work", "1", "`each`", "authentication logon_success"},
		Refuse:    {"refuse", "", "", "a decoy touched, or two hosts' findings within `window`", "1", "`immunity`", "network refuse, at the next attempt"},
	}[a]
}

// String is the action's name in recordings.
func (a Action) String() string { return kindOf(a).name }

// Technique is the action's ATT&CK technique; empty for what is no attack.
func (a Action) Technique() string { return kindOf(a).technique }

// loudness scales a host's detection rate by what the action leaves to be seen there. A sweep leaves nothing on a member.
func (a Action) loudness() float64 {
	switch a {
	case Escalate, Exploit:
		return 1
	case Loot, Scan:
		return 0.5
	case Logon:
		return 0.3
	}
	return 0
}

// The attacker gives a host up after so many failed attempts at one way in.
const patience = 6

// ActionTable is a table of every action in Markdown: its ATT&CK technique, what it needs, how likely it is to work, how
// long it takes, how loud it is and what it shows.
func ActionTable() string {
	var b strings.Builder
	b.WriteString("| action | ATT&CK | needs | works with chance | takes | caught with `detect` times | the target's sensor sees |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for a := range actions {
		k := kindOf(a)
		technique := strings.TrimSpace(k.technique + " " + k.called)
		if technique == "" {
			technique = "none"
		}
		shows := k.shows
		if shows == "" {
			shows = "nothing"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %g | %s |\n", k.name, technique, k.needs, k.chance, k.takes, a.loudness(), shows)
	}
	return b.String()
}
