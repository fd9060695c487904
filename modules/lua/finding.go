package lua

import (
	"fmt"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of what a script gives back.
const (
	maxFindings = 16 // an event
	maxEvidence = 8
)

// findings reads what detect gave back: nothing, one finding, or a list of them.
func (s *script) findings(v lua.LValue, emit func(event.Finding)) error {
	if v == lua.LNil || v == lua.LFalse {
		return nil
	}
	t, ok := v.(*lua.LTable)
	if !ok {
		return fmt.Errorf("%w: detect gave back a %s: want nothing, a finding, or a list of them", ErrScript, v.Type())
	}
	list := []*lua.LTable{t}
	if n := t.Len(); n > 0 {
		if n > maxFindings {
			return fmt.Errorf("%w: %d findings on one event, more than %d", ErrScript, n, maxFindings)
		}
		list = list[:0]
		for i := range n {
			one, ok := t.RawGetInt(i + 1).(*lua.LTable)
			if !ok {
				return fmt.Errorf("%w: a list of findings holds something else", ErrScript)
			}
			list = append(list, one)
		}
	}
	var out []event.Finding
	for _, one := range list {
		f, err := s.finding(one)
		if err != nil {
			return err
		}
		out = append(out, f)
	}
	for _, f := range out {
		emit(f)
	}
	return nil
}

// finding reads {rule=, title=, severity=, confidence=, attack={}, about={}, evidence={}}. What it is about is taken from
// the event: a script cannot invent an address or a process.
func (s *script) finding(t *lua.LTable) (f event.Finding, err error) {
	bad := func(format string, args ...any) (event.Finding, error) {
		return f, fmt.Errorf("%w: a finding's %s", ErrScript, fmt.Sprintf(format, args...))
	}
	text := func(key, otherwise string) string {
		if v, ok := t.RawGetString(key).(lua.LString); ok {
			return modules.Printable(string(v))
		}
		return otherwise
	}
	id := text("rule", "")
	if id == "" || len(id) > 63 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return bad("rule is %.40q: want 1 to 63 of a-z, 0-9, '-', '_', '.'", id)
	}
	e := s.event
	f = event.Finding{Time: e.Time, Boot: e.Boot, RuleID: modules.RuleID(s.program.manifest.Name, id), Rule: id, Title: text("title", id), Confidence: 50}
	if f.Severity, err = event.ParseSeverity(text("severity", "medium")); err != nil || f.Severity == event.SeverityUnknown {
		return bad("severity is %q", text("severity", ""))
	}
	if n, ok := t.RawGetString("confidence").(lua.LNumber); ok {
		if n < 0 || n > 100 || n != n {
			return bad("confidence is %v: want 0 to 100", float64(n))
		}
		f.Confidence = uint8(n)
	}
	for _, a := range texts(t.RawGetString("attack")) {
		if !modules.IsTechnique(a) || len(f.Attack) >= maxEvidence {
			return bad("attack has %.40q", a)
		}
		f.Attack = append(f.Attack, a)
	}
	about := texts(t.RawGetString("about"))
	if about == nil {
		about = []string{"process"}
	}
	for _, what := range about {
		switch what {
		case "process":
			if e.Process.Key.PID != 0 {
				f.Subject.Process = modules.Process(&e.Process)
			}
		case "remote":
			if f.Subject.Address = e.Network.Remote.Addr().Unmap(); !f.Subject.Address.IsValid() {
				f.Subject.Address = e.Logon.Remote.Unmap()
			}
		case "file":
			f.Subject.File = modules.Printable(e.File.Path)
		case "user":
			f.Subject.User = modules.Printable(e.Logon.User)
		case "local_port":
			f.Subject.Port = e.Network.Local.Port()
		default:
			return bad("about has %.40q: process, remote, file, user, local_port", what)
		}
	}
	if ev, ok := t.RawGetString("evidence").(*lua.LTable); ok {
		for k, v := ev.Next(lua.LNil); k != lua.LNil; k, v = ev.Next(k) {
			if len(f.Evidence) >= maxEvidence {
				return bad("evidence has more than %d pieces", maxEvidence)
			}
			f.Evidence = append(f.Evidence, event.Evidence{Name: modules.Printable(lua.LVAsString(k)), Value: modules.Printable(lua.LVAsString(v))})
		}
	}
	return f, nil
}

// texts are the strings of a list, or one alone.
func texts(v lua.LValue) []string {
	switch v := v.(type) {
	case lua.LString:
		return []string{string(v)}
	case *lua.LTable:
		out := []string{}
		for i := range min(v.Len(), 64) {
			if s, ok := v.RawGetInt(i + 1).(lua.LString); ok {
				out = append(out, string(s))
			}
		}
		return out
	}
	return nil
}
