package ledger

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
)

// EncodeFinding is the body of a KindFinding entry.
func EncodeFinding(f *event.Finding) ([]byte, error) { return encodeActivity(f) }

// DecodeFinding reads a KindFinding entry. ID and Peer are the entry's; Host is for the caller, who knows the members.
// Control characters in its texts are replaced, an IPv4-mapped address is IPv4.
func DecodeFinding(e *Entry) (event.Finding, error) {
	if e.Kind != KindFinding {
		return event.Finding{}, fmt.Errorf("ledger: %s is not a finding", e.Kind)
	}
	f, err := ReadFinding(e.Body)
	if err != nil {
		return event.Finding{}, fmt.Errorf("ledger: finding %s: %w", e.ID(), err)
	}
	f.ID, f.Peer = e.ID(), string(e.Author)
	return f, nil
}

// ReadFinding is DecodeFinding for bytes that no entry holds: ID and Peer are left empty.
func ReadFinding(raw []byte) (event.Finding, error) {
	var f event.Finding
	if err := canonical.Unmarshal(raw, &f, trust.MaxActivityBody); err != nil {
		return event.Finding{}, err
	}
	if f.Confidence > 100 || f.Severity > event.SeverityCritical || f.Time < 0 || len(f.Attack) > maxItems || len(f.Evidence) > maxItems {
		return event.Finding{}, fmt.Errorf("confidence %d, severity %d, %d techniques, %d observables", f.Confidence, f.Severity, len(f.Attack), len(f.Evidence))
	}
	texts := []*string{&f.RuleID, &f.Rule, &f.Title, &f.Decoy, &f.Subject.User, &f.Subject.File, &f.Subject.Member}
	for i := range f.Attack {
		texts = append(texts, &f.Attack[i])
	}
	for i := range f.Evidence {
		texts = append(texts, &f.Evidence[i].Name, &f.Evidence[i].Value)
	}
	if p := f.Subject.Process; p != nil {
		texts = append(texts, &p.Exe, &p.Args, &p.ParentExe)
	}
	plain(texts...)
	f.Subject.Address = f.Subject.Address.Unmap().WithZone("")
	return f, nil
}

// EncodeReceipt is the body of a KindReceipt entry.
func EncodeReceipt(r *event.Receipt) ([]byte, error) { return encodeActivity(r) }

// DecodeReceipt reads a KindReceipt entry. ID and Peer are the entry's; Host is for the caller.
func DecodeReceipt(e *Entry) (event.Receipt, error) {
	var r event.Receipt
	if e.Kind != KindReceipt {
		return r, fmt.Errorf("ledger: %s is not a receipt", e.Kind)
	}
	if err := canonical.Unmarshal(e.Body, &r, trust.MaxActivityBody); err != nil {
		return event.Receipt{}, err
	}
	if len(r.Means) > maxItems {
		return event.Receipt{}, fmt.Errorf("ledger: receipt %s: %d means", e.ID(), len(r.Means))
	}
	texts := []*string{&r.Response, (*string)(&r.Outcome), &r.Guard, &r.Detail}
	for i := range r.Means {
		texts = append(texts, &r.Means[i])
	}
	plain(texts...)
	r.ID, r.Peer = e.ID(), string(e.Author)
	return r, nil
}

// EncodeModules is the body of a KindModules entry.
func EncodeModules(r *event.ModuleReport) ([]byte, error) { return encodeActivity(r) }

// DecodeModules reads a KindModules entry. Peer is the entry's.
func DecodeModules(e *Entry) (event.ModuleReport, error) {
	var r event.ModuleReport
	if e.Kind != KindModules {
		return r, fmt.Errorf("ledger: %s is not a report of modules", e.Kind)
	}
	if err := canonical.Unmarshal(e.Body, &r, trust.MaxActivityBody); err != nil {
		return event.ModuleReport{}, err
	}
	if len(r.Modules) > event.MaxModuleStates {
		return event.ModuleReport{}, fmt.Errorf("ledger: report %s of %d modules", e.ID(), len(r.Modules))
	}
	for i := range r.Modules {
		m := &r.Modules[i]
		if len(m.Module) != 32 || len(m.Why) > 128 || len(m.State) > 16 {
			return event.ModuleReport{}, fmt.Errorf("ledger: report %s: a digest of %d bytes, texts of %d and %d", e.ID(), len(m.Module), len(m.Why), len(m.State))
		}
		plain(&m.State, &m.Why)
	}
	r.Peer = string(e.Author)
	return r, nil
}

// EncodeCoverage is the body of a KindCoverage entry.
func EncodeCoverage(c *event.Coverage) ([]byte, error) { return encodeActivity(c) }

// DecodeCoverage reads a KindCoverage entry. Peer is the entry's; Host is for the caller.
func DecodeCoverage(e *Entry) (event.Coverage, error) {
	var c event.Coverage
	if e.Kind != KindCoverage {
		return c, fmt.Errorf("ledger: %s is not a coverage", e.Kind)
	}
	if err := canonical.Unmarshal(e.Body, &c, trust.MaxActivityBody); err != nil {
		return event.Coverage{}, err
	}
	if len(c.Components) > event.MaxComponents || len(c.Gaps) > event.MaxComponents || len(c.Drops) > event.MaxComponents {
		return event.Coverage{}, fmt.Errorf("ledger: coverage %s: %d components, %d gaps, %d drops", e.ID(), len(c.Components), len(c.Gaps), len(c.Drops))
	}
	texts := []*string{&c.Mode}
	for i := range c.Components {
		texts = append(texts, &c.Components[i].Name, &c.Components[i].Proof, &c.Components[i].Lost)
	}
	for i := range c.Gaps {
		texts = append(texts, &c.Gaps[i].Name, &c.Gaps[i].Lost)
	}
	for i := range c.Drops {
		texts = append(texts, &c.Drops[i].Name)
	}
	plain(texts...)
	c.Peer = string(e.Author)
	return c, nil
}

// EncodeBaseline is the body of a KindBaseline entry.
func EncodeBaseline(b *event.Baseline) ([]byte, error) { return encodeActivity(b) }

// DecodeBaseline reads a KindBaseline entry. Peer is the entry's.
func DecodeBaseline(e *Entry) (event.Baseline, error) {
	var b event.Baseline
	if e.Kind != KindBaseline {
		return b, fmt.Errorf("ledger: %s is not a baseline", e.Kind)
	}
	if err := canonical.Unmarshal(e.Body, &b, trust.MaxActivityBody); err != nil {
		return event.Baseline{}, err
	}
	plain(&b.Why, &b.By)
	b.Peer = string(e.Author)
	return b, nil
}

// maxItems bounds the lists of a finding or receipt.
const maxItems = 64

// plain takes control characters out of what a peer wrote: it ends up on terminals.
func plain(texts ...*string) {
	for _, t := range texts {
		*t = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return unicode.ReplacementChar
			}
			return r
		}, *t)
	}
}

func encodeActivity(v any) ([]byte, error) {
	b, err := canonical.Marshal(v)
	if err == nil && len(b) > trust.MaxActivityBody {
		err = fmt.Errorf("ledger: body of %d bytes, at most %d: %w", len(b), trust.MaxActivityBody, canonical.ErrTooLong)
	}
	return b, err
}
