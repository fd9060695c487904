package sentinel

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/omega-mesh/omega/swarm/event"
)

// DeniedWrites finds who tries to write where a response denies it, and who took the denial off to do so. The zero value denies
// nothing; the responder says what is denied.
type DeniedWrites struct {
	Own   Own
	paths atomic.Pointer[[]string]
}

// deny replaces what is denied.
func (d *DeniedWrites) deny(paths []string) { d.paths.Store(&paths) }

// Detect implements Detector.
func (d *DeniedWrites) Detect(_ context.Context, batch []*event.Event, emit func(event.Finding)) error {
	paths := d.paths.Load()
	if paths == nil || len(*paths) == 0 {
		return nil
	}
	for _, e := range batch {
		if e.Class != event.ClassFile || slices.Contains(d.Own.PIDs, int(e.Process.Key.PID)) {
			continue
		}
		path := ""
		for _, held := range *paths {
			if within(held, e.File.Path) || e.File.Other != "" && (e.Activity == event.ActivityFileRename || e.Activity == event.ActivityFileLink) && within(held, e.File.Other) {
				path = held
				break
			}
		}
		if path == "" {
			continue
		}
		rule, title, severity := "omega.write.denied", "writing was tried where it is denied, and the kernel refused it", event.SeverityMedium
		if e.Result == 0 {
			rule, title, severity = "omega.write.undone", "a file was changed where writing is denied: the host puts it back, or its doctor says why not", event.SeverityHigh
		}
		f := finding(e, rule, "write to what may not be written", title, severity, 55, "T1565.001")
		changing(&f, e, path)
		emit(f)
	}
	return nil
}
