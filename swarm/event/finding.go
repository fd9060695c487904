package event

import (
	"fmt"
	"net/netip"
	"time"
)

// Severity follows OCSF severity_id.
type Severity uint8

const (
	SeverityUnknown Severity = iota
	SeverityInformational
	SeverityLow
	SeverityMedium
	SeverityHigh
	SeverityCritical
)

var severityNames = [...]string{"unknown", "informational", "low", "medium", "high", "critical"}

// String gives the OCSF caption in lower case.
func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return "unknown"
}

// ParseSeverity reads what String gives.
func ParseSeverity(s string) (Severity, error) {
	for i, name := range severityNames {
		if s == name {
			return Severity(i), nil
		}
	}
	return SeverityUnknown, fmt.Errorf("severity %.40q is none of %v", s, severityNames)
}

// Subject is what a finding is about: at least one field is set.
type Subject struct {
	Address netip.Addr  `cbor:"1,keyasint,omitzero"`
	Port    uint16      `cbor:"2,keyasint,omitempty"` // the local port that was touched
	Process *ProcessRef `cbor:"3,keyasint,omitempty"`
	User    string      `cbor:"4,keyasint,omitempty"`
	File    string      `cbor:"5,keyasint,omitempty"`
	Member  string      `cbor:"6,keyasint,omitempty"` // DID of a member of the swarm
}

// ProcessRef is as much of a process as travels: raw telemetry stays on its host.
type ProcessRef struct {
	Key       ProcessKey `cbor:"1,keyasint"`
	Exe       string     `cbor:"2,keyasint,omitempty"`
	Args      string     `cbor:"3,keyasint,omitempty"` // space-joined, redacted, at most 512 bytes
	UID       uint32     `cbor:"4,keyasint"`
	ParentExe string     `cbor:"5,keyasint,omitempty"`
}

// Evidence is one observable behind a finding.
type Evidence struct {
	Name  string `cbor:"1,keyasint"`
	Value string `cbor:"2,keyasint"`
}

// Anonymity is what is known of the author of an anonymous finding.
type Anonymity struct {
	Ring     int           // how many members it may be
	Standing time.Duration // how long each of them had been a member when the report's hour began, at least
	Role     string        // a role each of them held; empty: none is claimed
	Carrier  string        // DID of the member in whose feed it came, which is not its author's but by chance
}

// Finding is a detector's claim about events. What is signed is all but ID, Peer and Host, which the reader fills in
// from the feed entry it came in.
type Finding struct {
	ID         string     `cbor:"-"`          // hex of the first 16 bytes of its entry's hash
	Peer       string     `cbor:"-"`          // DID of the author
	Host       string     `cbor:"-"`          // the author's name in the swarm
	Time       int64      `cbor:"1,keyasint"` // Unix nanoseconds by the author's clock
	Boot       uint64     `cbor:"2,keyasint"` // CLOCK_BOOTTIME of the first event behind it, nanoseconds, on the author's host
	RuleID     string     `cbor:"3,keyasint"` // stable, e.g. "omega.decoy.touch"
	Rule       string     `cbor:"4,keyasint"` // short name
	Title      string     `cbor:"5,keyasint"`
	Attack     []string   `cbor:"6,keyasint,omitempty"` // ATT&CK technique ids
	Severity   Severity   `cbor:"7,keyasint"`
	Confidence uint8      `cbor:"8,keyasint"` // 0 to 100
	Subject    Subject    `cbor:"9,keyasint"`
	Evidence   []Evidence `cbor:"10,keyasint,omitempty"`
	Handshake  bool       `cbor:"11,keyasint,omitempty"` // a decoy touch whose TCP handshake was completed: the source address is not forged
	Decoy      string     `cbor:"12,keyasint,omitempty"` // the decoy service touched, e.g. "tcp/2323"

	// Anonymous is set where some member of a ring said it; Peer and Host are empty then. It never travels.
	Anonymous *Anonymity `cbor:"-"`
}

// When is Time as a time.Time in UTC.
func (f *Finding) When() time.Time { return time.Unix(0, f.Time).UTC() }
