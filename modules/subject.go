package modules

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/redact"
)

// maxArgs bounds the words of a process that travel, in bytes.
const maxArgs = 512

// Process is as much of p as travels with a finding, copied, without the secrets among its words.
func Process(p *event.Process) *event.ProcessRef {
	exe := p.Exe
	if exe == "" {
		exe = p.Comm
	}
	return &event.ProcessRef{Key: p.Key, UID: p.UID, Exe: redact.Printable(strings.Clone(exe), MaxFindingText), Args: redact.Words(p.Argv(), maxArgs),
		ParentExe: redact.Printable(strings.Clone(p.ParentExe), MaxFindingText)}
}

// MaxFindingText bounds every text a module puts into a finding, in bytes.
const MaxFindingText = 256

// Printable copies a text that travels with a finding: what does not show itself is replaced, and it is cut at
// MaxFindingText bytes.
func Printable(s string) string {
	s = strings.Clone(s[:min(len(s), MaxFindingText)])
	if !utf8.ValidString(s) || strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		s = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return '\uFFFD'
			}
			return r
		}, strings.ToValidUTF8(s, "\uFFFD"))
	}
	return s
}
