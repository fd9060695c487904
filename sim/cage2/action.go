package cage2

import (
	"fmt"
	"strings"
)

// Action is blue's choice, numbered as the reference's ChallengeWrapper numbers them: 0 Sleep, 1 Monitor, then eleven
// blocks of thirteen hosts.
type Action uint8

// Verb is what an Action does; the order is that of the blocks.
type Verb uint8

const (
	Analyse Verb = iota
	Remove
	DecoyApache
	DecoyFemitter
	DecoyHarakaSMPT
	DecoySmss
	DecoySSHD
	DecoySvchost
	DecoyTomcat
	DecoyVsftpd
	Restore
	verbs

	VerbSleep   Verb = 254
	VerbMonitor Verb = 255
)

const (
	Sleep   Action = 0
	Monitor Action = 1
	Actions        = 2 + int(verbs)*int(Hosts) // 145
)

var verbNames = [verbs]string{"Analyse", "Remove", "DecoyApache", "DecoyFemitter", "DecoyHarakaSMPT", "DecoySmss", "DecoySSHD", "DecoySvchost", "DecoyTomcat", "DecoyVsftpd", "Restore"}

// Do is verb v on host h.
func Do(v Verb, h Host) Action {
	switch v {
	case VerbSleep:
		return Sleep
	case VerbMonitor:
		return Monitor
	}
	return Action(2 + int(v)*int(Hosts) + int(h))
}

// PlaceDecoy is the action that starts decoy d on host h.
func PlaceDecoy(d Decoy, h Host) Action { return Do(DecoyApache+Verb(d), h) }

// Split gives the verb and the host; the host of Sleep and Monitor is Hosts. Numbers past the last action are Sleep.
func (a Action) Split() (Verb, Host) {
	switch {
	case a == Monitor:
		return VerbMonitor, Hosts
	case a == Sleep || int(a) >= Actions:
		return VerbSleep, Hosts
	}
	n := a - 2
	return Verb(n / Action(Hosts)), Host(n % Action(Hosts))
}

// String is the action as people read it: "Restore Enterprise1".
func (a Action) String() string {
	switch v, h := a.Split(); v {
	case VerbSleep:
		return "Sleep"
	case VerbMonitor:
		return "Monitor"
	default:
		return verbNames[v] + " " + h.String()
	}
}

// ParseAction reads what String writes.
func ParseAction(s string) (Action, error) {
	name, host, both := strings.Cut(s, " ")
	if !both {
		switch name {
		case "Sleep":
			return Sleep, nil
		case "Monitor":
			return Monitor, nil
		}
		return 0, fmt.Errorf("action %q: want Sleep, Monitor or a verb and a host", s)
	}
	h, ok := HostByName(host)
	if !ok {
		return 0, fmt.Errorf("action %q: no host %q", s, host)
	}
	for v, n := range verbNames {
		if n == name {
			return Do(Verb(v), h), nil
		}
	}
	return 0, fmt.Errorf("action %q: no verb %q", s, name)
}

// MoveKind is what red does in a step. The comments give the ATT&CK techniques.
type MoveKind uint8

const (
	MoveSleep    MoveKind = iota
	Sweep                 // DiscoverRemoteSystems, T1018
	Scan                  // DiscoverNetworkServices, T1046
	ExploitMove           // ExploitRemoteService, T1210
	EscalateMove          // PrivilegeEscalate, TA0004
	ImpactMove            // Impact, T1489
	moveKinds
)

var moveNames = [moveKinds]string{"Sleep", "DiscoverRemoteSystems", "DiscoverNetworkServices", "ExploitRemoteService", "PrivilegeEscalate", "Impact"}

// String is the move's name in the reference environment.
func (k MoveKind) String() string {
	if k < moveKinds {
		return moveNames[k]
	}
	return "unknown"
}

// SessionKind tells red's sessions on a host apart as far as the rules do.
type SessionKind uint8

const (
	ByLogin  SessionKind = iota // a guessed password: no file, never removable
	Hidden                      // as a service's account, its opening unseen (1 in 20): not removable
	Detected                    // as a service's account, its opening seen: removable
	Root                        // root or SYSTEM
)

// Move is red's choice together with how the chances in it fell.
type Move struct {
	Kind     MoveKind
	Target   uint8       // a Subnet for Sweep, else a Host
	Exploit  Exploit     // which exploit was thrown, where Kind is ExploitMove
	Detected bool        // whether a new session's opening was seen
	Pick     SessionKind // which kind of session was raised, where Kind is EscalateMove and none was root yet
}

// String is the move as people read it.
func (m Move) String() string {
	switch m.Kind {
	case MoveSleep:
		return "Sleep"
	case Sweep:
		return m.Kind.String() + " " + Subnet(m.Target).String()
	case ExploitMove:
		return m.Kind.String() + " " + Host(m.Target).String() + " (" + m.Exploit.String() + ")"
	}
	return m.Kind.String() + " " + Host(m.Target).String()
}
