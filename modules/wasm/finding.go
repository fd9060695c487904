package wasm

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
)

// What a guest may give back, bounded before it is read.
const (
	maxFindings = 64 // a call
	findingHead = 12
	maxRuleID   = 63
	maxText     = 256
	maxEvidence = 8
)

// Bits of a finding's subject: what of its event the finding is about.
const (
	subjectProcess = 1 << iota
	subjectRemote
	subjectFile
	subjectUser
	subjectLocal
)

// decodeFindings reads what a guest gave back; batch is what it was given. A guest names an event and what of it the
// finding is about, and the host fills that in: a guest cannot invent an address, a process, or a rule of another's.
func decodeFindings(b []byte, name string, batch []*event.Event, emit func(event.Finding)) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrOutput, fmt.Sprintf(format, args...))
	}
	if len(b) < 4 {
		return bad("%d bytes", len(b))
	}
	count := binary.LittleEndian.Uint32(b)
	if count > maxFindings {
		return bad("%d findings, more than %d", count, maxFindings)
	}
	b = b[4:]
	for range count {
		if len(b) < findingHead {
			return bad("a finding cut short")
		}
		size, index := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		if size < findingHead || uint64(size) > uint64(len(b)) {
			return bad("a finding of %d bytes where %d are left", size, len(b))
		}
		if uint64(index) >= uint64(len(batch)) {
			return bad("a finding on event %d of %d", index, len(batch))
		}
		severity, confidence, subject, n := b[8], b[9], b[10], int(b[11])
		if severity < byte(event.SeverityInformational) || severity > byte(event.SeverityCritical) || confidence > 100 {
			return bad("severity %d, confidence %d", severity, confidence)
		}
		if n < 4 || n > 4+2*maxEvidence || n%2 != 0 {
			return bad("%d texts: rule id, rule, title, techniques, and up to %d pairs of evidence", n, maxEvidence)
		}
		rest := b[findingHead:size]
		var texts [4 + 2*maxEvidence]string
		for i := range n {
			if len(rest) < 2 {
				return bad("a text cut short")
			}
			l := int(binary.LittleEndian.Uint16(rest))
			if l > maxText || l > len(rest)-2 {
				return bad("a text of %d bytes", l)
			}
			texts[i] = modules.Printable(string(rest[2 : 2+l]))
			rest = rest[2+l:]
		}
		id := texts[0]
		if id == "" || len(id) > maxRuleID || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			return bad("rule id %.80q: 1 to %d of a-z, 0-9, '-', '_', '.'", id, maxRuleID)
		}
		e := batch[index]
		f := event.Finding{Time: e.Time, Boot: e.Boot, RuleID: modules.RuleID(name, id), Rule: texts[1], Title: texts[2],
			Severity: event.Severity(severity), Confidence: confidence, Subject: subjectOf(e, subject)}
		if texts[3] != "" {
			for t := range strings.SplitSeq(texts[3], ",") {
				if !modules.IsTechnique(t) || len(f.Attack) == maxEvidence {
					return bad("technique %.40q", t)
				}
				f.Attack = append(f.Attack, t)
			}
		}
		for i := 4; i < n; i += 2 {
			f.Evidence = append(f.Evidence, event.Evidence{Name: texts[i], Value: texts[i+1]})
		}
		emit(f)
		b = b[size:]
	}
	if len(b) != 0 {
		return bad("%d bytes after the last finding", len(b))
	}
	return nil
}

// subjectOf copies what of e the finding is about.
func subjectOf(e *event.Event, bits byte) (s event.Subject) {
	if bits&subjectProcess != 0 && e.Process.Key.PID != 0 {
		s.Process = modules.Process(&e.Process)
	}
	switch {
	case bits&subjectRemote != 0 && e.Network.Remote.IsValid():
		s.Address = e.Network.Remote.Addr().Unmap()
	case bits&subjectRemote != 0:
		s.Address = e.Logon.Remote.Unmap()
	}
	if bits&subjectLocal != 0 {
		s.Port = e.Network.Local.Port()
	}
	if bits&subjectFile != 0 {
		s.File = modules.Printable(strings.Clone(e.File.Path))
	}
	if bits&subjectUser != 0 {
		s.User = modules.Printable(strings.Clone(e.Logon.User))
	}
	return s
}
