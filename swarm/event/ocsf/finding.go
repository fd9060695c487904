package ocsf

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
)

type findingRecord struct {
	ClassUID    uint16       `json:"class_uid"`
	CategoryUID uint16       `json:"category_uid"`
	ActivityID  uint32       `json:"activity_id"`
	TypeUID     uint64       `json:"type_uid"`
	SeverityID  uint8        `json:"severity_id"`
	Severity    string       `json:"severity"`
	Confidence  uint8        `json:"confidence_score"`
	Time        int64        `json:"time"`
	Metadata    metadata     `json:"metadata"`
	Device      *device      `json:"device,omitempty"`
	Info        findingInfo  `json:"finding_info"`
	Observables []observable `json:"observables,omitempty"`
	Evidences   []evidence   `json:"evidences,omitempty"`
	Unmapped    findingExtra `json:"unmapped"`
}

type findingInfo struct {
	UID      string   `json:"uid"`
	Title    string   `json:"title"`
	Analytic analytic `json:"analytic"`
	Attacks  []attack `json:"attacks,omitempty"`
}

type analytic struct {
	UID  string `json:"uid"`
	Name string `json:"name"`
	Type int    `json:"type_id"` // 1: rule
}

type attack struct {
	Technique technique `json:"technique"`
	Version   string    `json:"version,omitempty"`
}

type technique struct {
	UID string `json:"uid"`
}

type observable struct {
	Name  string `json:"name"`
	Type  int    `json:"type_id"` // 2 IP address, 4 user name, 7 file name, 11 port
	Value string `json:"value"`
}

type evidence struct {
	Process *process  `json:"process,omitempty"`
	Src     *endpoint `json:"src_endpoint,omitempty"`
	Dst     *endpoint `json:"dst_endpoint,omitempty"`
	User    *user     `json:"user,omitempty"`
	File    *file     `json:"file,omitempty"`
	Data    *keyed    `json:"data,omitempty"`
}

type keyed struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type findingExtra struct {
	Boot      uint64 `json:"boot_ns,omitempty"`
	Start     uint64 `json:"process_start_ns,omitempty"`
	Handshake bool   `json:"handshake,omitempty"`
	Decoy     string `json:"decoy,omitempty"`
}

// EncodeFinding gives f as one OCSF detection finding (2004) without a line's end.
func EncodeFinding(f *event.Finding) ([]byte, error) {
	r := findingRecord{
		ClassUID: 2004, CategoryUID: 2, ActivityID: 1, TypeUID: 200401, SeverityID: uint8(f.Severity), Severity: f.Severity.String(), Confidence: f.Confidence,
		Time:     floorMilli(f.Time),
		Metadata: metadata{Version: Version, Product: product{Name: "Omega", Vendor: "Omega"}, UID: Escape(f.ID), Time: stamp(f.Time)},
		Device:   &device{Hostname: Escape(f.Host), UID: Escape(f.Peer)},
		Info:     findingInfo{UID: Escape(f.ID), Title: Escape(f.Title), Analytic: analytic{UID: Escape(f.RuleID), Name: Escape(f.Rule), Type: 1}},
		Unmapped: findingExtra{Boot: f.Boot, Handshake: f.Handshake, Decoy: Escape(f.Decoy)},
	}
	for _, t := range f.Attack {
		r.Info.Attacks = append(r.Info.Attacks, attack{Technique: technique{Escape(t)}})
	}
	var ev evidence
	some := false
	s := &f.Subject
	if s.Address.IsValid() {
		ev.Src, some = &endpoint{IP: s.Address.String()}, true
		r.Observables = append(r.Observables, observable{"evidences.src_endpoint.ip", 2, s.Address.String()})
	}
	if s.Port != 0 {
		ev.Dst, some = &endpoint{Port: s.Port}, true
	}
	if s.User != "" {
		ev.User, some = &user{Name: Escape(s.User)}, true
		r.Observables = append(r.Observables, observable{"evidences.user.name", 4, Escape(s.User)})
	}
	if s.File != "" {
		ev.File, some = encodeFile(s.File), true
		r.Observables = append(r.Observables, observable{"evidences.file.path", 7, Escape(s.File)})
	}
	if p := s.Process; p != nil {
		r.Unmapped.Start, some = p.Key.Start, true
		ev.Process = &process{PID: p.Key.PID, UID: fmt.Sprintf("%d-%d", p.Key.PID, p.Key.Start), CmdLine: Escape(p.Args), File: encodeFile(p.Exe), User: &user{UID: fmt.Sprint(p.UID)}}
		if p.ParentExe != "" {
			ev.Process.Parent = &process{File: encodeFile(p.ParentExe)}
		}
	}
	if some {
		r.Evidences = append(r.Evidences, ev)
	}
	for _, e := range f.Evidence {
		r.Evidences = append(r.Evidences, evidence{Data: &keyed{Escape(e.Name), Escape(e.Value)}})
	}
	return json.Marshal(r)
}

// DecodeFinding reads a detection finding of at most MaxLine bytes back, ID, Peer and Host included.
func DecodeFinding(line []byte) (*event.Finding, error) {
	if err := bound(line); err != nil {
		return nil, err
	}
	var r findingRecord
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLine, err)
	}
	if r.ClassUID != 2004 {
		return nil, fmt.Errorf("%w: class %d is not a detection finding", ErrLine, r.ClassUID)
	}
	if r.SeverityID > uint8(event.SeverityCritical) || r.Confidence > 100 {
		return nil, fmt.Errorf("%w: severity %d, confidence %d", ErrLine, r.SeverityID, r.Confidence)
	}
	f := &event.Finding{
		ID: Unescape(r.Info.UID), Time: timeOf(r.Metadata.Time, r.Time), Boot: r.Unmapped.Boot, Title: Unescape(r.Info.Title),
		RuleID: Unescape(r.Info.Analytic.UID), Rule: Unescape(r.Info.Analytic.Name), Severity: event.Severity(r.SeverityID), Confidence: r.Confidence,
		Handshake: r.Unmapped.Handshake, Decoy: Unescape(r.Unmapped.Decoy),
	}
	if r.Device != nil {
		f.Peer, f.Host = Unescape(r.Device.UID), Unescape(r.Device.Hostname)
	}
	for _, a := range r.Info.Attacks {
		f.Attack = append(f.Attack, Unescape(a.Technique.UID))
	}
	for _, ev := range r.Evidences {
		if ev.Data != nil {
			f.Evidence = append(f.Evidence, event.Evidence{Name: Unescape(ev.Data.Name), Value: Unescape(ev.Data.Value)})
			continue
		}
		if ev.Src != nil {
			f.Subject.Address, _ = netip.ParseAddr(ev.Src.IP)
		}
		if ev.Dst != nil {
			f.Subject.Port = ev.Dst.Port
		}
		if ev.User != nil {
			f.Subject.User = Unescape(ev.User.Name)
		}
		if ev.File != nil {
			f.Subject.File = Unescape(ev.File.Path)
		}
		if p := ev.Process; p != nil {
			var full event.Process
			decodeProcess(&full, p, &details{Start: r.Unmapped.Start})
			f.Subject.Process = &event.ProcessRef{Key: full.Key, Exe: full.Exe, Args: strings.Clone(Unescape(p.CmdLine)), UID: full.UID, ParentExe: full.ParentExe}
		}
	}
	return f, nil
}
