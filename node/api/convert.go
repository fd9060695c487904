package api

import (
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm/event"
)

// Finding is f as the API shows it.
func Finding(f *event.Finding) *apiv1.Finding {
	out := &apiv1.Finding{
		Id: f.ID, Time: stamp(f.Time), Peer: f.Peer, Host: f.Host, Rule: f.Rule, RuleId: f.RuleID, Title: f.Title,
		Attack: f.Attack, Severity: f.Severity.String(), Confidence: uint32(f.Confidence),
		Subject:   &apiv1.Subject{Port: uint32(f.Subject.Port), User: f.Subject.User, File: f.Subject.File, Member: f.Subject.Member},
		Handshake: f.Handshake, Decoy: f.Decoy, Boot: f.Boot,
	}
	if a := f.Anonymous; a != nil {
		out.Anonymous = &apiv1.Anonymity{Ring: uint32(a.Ring), StandingMs: float64(a.Standing.Milliseconds()), Role: a.Role, Carrier: a.Carrier}
	}
	if f.Subject.Address.IsValid() {
		out.Subject.Address = f.Subject.Address.String()
	}
	if p := f.Subject.Process; p != nil {
		s := out.Subject
		s.Process, s.Pid, s.Exe, s.Args, s.Uid, s.ParentExe = true, p.Key.PID, p.Exe, p.Args, p.UID, p.ParentExe
	}
	for _, e := range f.Evidence {
		out.Evidence = append(out.Evidence, &apiv1.Evidence{Name: e.Name, Value: e.Value})
	}
	return out
}

// Receipt is r as the API shows it.
func Receipt(r *event.Receipt) *apiv1.Receipt {
	return &apiv1.Receipt{
		Id: r.ID, Peer: r.Peer, Host: r.Host, Response: r.Response, Outcome: string(r.Outcome), Guard: r.Guard,
		Detail: r.Detail, Time: stamp(r.Time), Heard: r.Heard, Acted: r.Acted, Means: r.Means,
		StoppedBeforeFirstInstruction: r.BeforeFirstInstruction,
	}
}

// Response is r as the API shows it, with what became of it here and how long it still stands.
func Response(r *event.Response, state string, remaining time.Duration) *apiv1.Response {
	t := &apiv1.Target{
		Path: r.Target.Path, Inode: r.Target.Inode, Device: r.Target.Device, Sha256: r.Target.SHA256,
		Pid: r.Target.PID, Start: r.Target.Start, Tree: r.Target.Tree, Peer: r.Target.Peer,
		Domain: r.Target.Domain, Port: uint32(r.Target.Port), Protocol: uint32(r.Target.Protocol), Write: r.Target.Write,
	}
	if p := r.Target.Address; p.IsValid() {
		t.Address = p.String()
		if p.IsSingleIP() {
			t.Address = p.Addr().String()
		}
	}
	return &apiv1.Response{
		Id: r.ID, Action: string(r.Action), Target: t, Scope: r.Scope, Reason: r.Reason, Authority: string(r.Authority),
		By: r.By, Findings: r.Findings, Issued: stamp(r.Issued), TtlMs: milliseconds(r.TTL), Releases: r.Releases,
		State: state, RemainingMs: milliseconds(max(remaining, 0)),
	}
}

// maxText bounds every text of a request.
const maxText = 4096

// maxTTL bounds what a request may ask for; the privileged side has its own bound.
const maxTTL = 30 * 24 * time.Hour

// ParseResponse reads a response that a client asks for. Authority, author and time are not the client's to say.
func ParseResponse(m *apiv1.Response) (event.Response, error) {
	var r event.Response
	if m == nil || m.Target == nil {
		return r, fmt.Errorf("a response needs a target")
	}
	t := m.Target
	for _, s := range []string{m.Action, m.Reason, m.Releases, t.Address, t.Path, t.Sha256, t.Peer, t.Domain, t.Write} {
		if len(s) > maxText {
			return r, fmt.Errorf("a text is longer than %d bytes", maxText)
		}
	}
	if within := m.TtlMs >= 1 && m.TtlMs <= milliseconds(maxTTL); !within { // so put, it also refuses NaN
		if m.Action != string(event.ActionRelease) {
			return r, fmt.Errorf("ttl_ms is not within 1 and %.0f", milliseconds(maxTTL))
		}
		m.TtlMs = 0
	}
	switch event.Action(m.Action) {
	case event.ActionDeny, event.ActionContain, event.ActionKill, event.ActionQuarantine, event.ActionRelease:
	default:
		return r, fmt.Errorf("unknown action %.40q", m.Action)
	}
	if t.Port > 65535 || t.Protocol > 255 {
		return r, fmt.Errorf("port %d or protocol %d is out of range", t.Port, t.Protocol)
	}
	r = event.Response{
		Action: event.Action(m.Action), Reason: m.Reason, Releases: m.Releases,
		TTL: time.Duration(m.TtlMs * float64(time.Millisecond)),
		Target: event.Target{
			Path: t.Path, Inode: t.Inode, Device: t.Device, SHA256: t.Sha256, PID: t.Pid, Start: t.Start, Tree: t.Tree, Peer: t.Peer,
			Domain: t.Domain, Port: uint16(t.Port), Protocol: uint8(t.Protocol), Write: t.Write,
		},
	}
	if t.Address != "" {
		p, err := parsePrefix(t.Address)
		if err != nil {
			return r, err
		}
		r.Target.Address = p
	}
	return r, nil
}

// ParseReport reads what a client reports. Author, time and whatever names a host are not the client's to say.
func ParseReport(m *apiv1.Finding) (event.Finding, error) {
	var f event.Finding
	if m == nil || m.Title == "" || m.RuleId == "" {
		return f, fmt.Errorf("a report needs a title and a rule id")
	}
	texts := append([]string{m.RuleId, m.Rule, m.Title}, m.Attack...)
	for _, e := range m.Evidence {
		texts = append(texts, e.GetName(), e.GetValue())
	}
	s := m.Subject
	if s == nil {
		s = &apiv1.Subject{}
	}
	if texts = append(texts, s.User, s.File, s.Address); len(m.Attack) > maxListed || len(m.Evidence) > maxListed {
		return f, fmt.Errorf("more than %d techniques or observables", maxListed)
	}
	for _, t := range texts {
		if len(t) > maxText {
			return f, fmt.Errorf("a text is longer than %d bytes", maxText)
		}
	}
	severity, err := event.ParseSeverity(m.Severity)
	if err != nil {
		return f, err
	}
	if m.Confidence > 100 || s.Port > 65535 {
		return f, fmt.Errorf("confidence %d, port %d", m.Confidence, s.Port)
	}
	f = event.Finding{
		RuleID: m.RuleId, Rule: m.Rule, Title: m.Title, Attack: m.Attack, Severity: severity, Confidence: uint8(m.Confidence),
		Subject: event.Subject{Port: uint16(s.Port), User: s.User, File: s.File},
	}
	for _, e := range m.Evidence {
		f.Evidence = append(f.Evidence, event.Evidence{Name: e.GetName(), Value: e.GetValue()})
	}
	if s.Address != "" {
		p, err := parsePrefix(s.Address)
		if err != nil || !p.IsSingleIP() {
			return f, fmt.Errorf("%.80q is not one address", s.Address)
		}
		f.Subject.Address = p.Addr()
	}
	return f, nil
}

// maxListed bounds the lists of a report.
const maxListed = 64

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q: an address with a zone", s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%.80q is neither an address nor a prefix", s)
	}
	return p.Masked(), nil
}

func stamp(ns int64) *timestamppb.Timestamp {
	if ns == 0 {
		return nil
	}
	return timestamppb.New(time.Unix(0, ns))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
