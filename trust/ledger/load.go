package ledger

import (
	"errors"
	"fmt"
	"slices"

	"github.com/omega-mesh/omega/trust"
)

// files is what lies in the folder of one feed.
type files struct {
	segments []uint64 // numbers of their first entries
	marks    []uint64
	base     bool
}

// loadFeed reads a feed's files, and ends what a crash interrupted.
func (l *Ledger) loadFeed(id Feed, have *files) (*feed, error) {
	f := &feed{id: id, own: l.self != nil && id.Author == l.self.DID()}
	slices.Sort(have.segments)
	slices.Sort(have.marks)
	if have.base {
		if err := l.loadBase(f); err != nil {
			return nil, err
		}
	}
	var gone []segment
	for len(have.segments) > 0 && have.segments[0] < f.count {
		gone = append(gone, segment{name: segmentFile(id, have.segments[0])})
		have.segments = have.segments[1:]
	}
	f.marks = have.marks
	if err := l.removeOld(f, gone, f.dropMarks(f.count)); err != nil {
		return nil, err
	}
	if len(have.segments) == 0 || have.segments[0] != f.count {
		have.segments = slices.Insert(have.segments, 0, f.count) // begun anew; what follows it is orphaned
	}
	for _, first := range have.segments {
		if first != f.count {
			if err := l.orphan(f, first); err != nil {
				return nil, err
			}
			continue
		}
		f.segments = append(f.segments, segment{name: segmentFile(id, first), first: first, tree: f.tree})
		fault, err := l.scan(f)
		if err != nil {
			return nil, err
		}
		l.tell(f, fault)
	}
	return f, nil
}

// loadBase has f begin where its base says. A base that does not read is set aside: the feed is fetched again.
func (l *Ledger) loadBase(f *feed) error {
	name := besideFile(f.id, suffixBase)
	raw, err := l.disk.Read(name, trust.MaxBase)
	if err != nil {
		return err
	}
	b, err := DecodeBase(raw)
	if err == nil && (b.Feed != f.id || b.entry.Swarm != l.swarm) {
		err = errors.New("of another feed")
	}
	if err != nil {
		l.tell(f, &Fault{Feed: f.id, File: name, Detail: fmt.Sprintf("the base does not read (%v); the feed is fetched again from peers", err)})
		return errors.Join(l.disk.Write(name+".damaged", raw), l.disk.Remove(name))
	}
	f.base, f.state = b, b.start()
	return nil
}

// orphan removes a segment that no longer follows what is held, because something before it was damaged; what it proves
// to have been acknowledged is remembered.
func (l *Ledger) orphan(f *feed, first uint64) error {
	name := segmentFile(f.id, first)
	h, err := l.files.get(name)
	if err != nil {
		return err
	}
	size, err := h.Size()
	var acked uint64
	var whole bool
	if err == nil {
		acked, whole, err = l.salvage(f, name, h, 0, size)
	}
	l.files.put(h, false)
	if err != nil {
		return err
	}
	if whole {
		f.lost = max(f.lost, acked, first)
		l.tell(f, &Fault{Feed: f.id, File: name, Detail: fmt.Sprintf("entries from %d on follow nothing that is held; they were set aside and are fetched again from peers", first)})
	}
	return errors.Join(l.files.drop(name), l.disk.Remove(name))
}

func (l *Ledger) tell(f *feed, fault *Fault) {
	if fault == nil {
		return
	}
	fault.Own = f.own
	l.faults = append(l.faults, *fault)
	l.log.Error("a feed is damaged", "file", fault.File, "detail", fault.Detail)
}
