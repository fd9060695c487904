package modules

import (
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
)

// Process is as much of p as travels with a finding, copied.
func Process(p *event.Process) *event.ProcessRef {
	exe := p.Exe
	if exe == "" {
		exe = p.Comm
	}
	return &event.ProcessRef{Key: p.Key, UID: p.UID, Exe: strings.Clone(exe), ParentExe: strings.Clone(p.ParentExe)}
}
