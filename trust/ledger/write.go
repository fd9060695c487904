package ledger

import (
	"errors"
	"fmt"
)

// chunk is what goes into one file at once.
type chunk struct {
	name  string
	at    int64
	buf   []byte
	fresh bool // the file does not exist yet
}

// chunks lays entries out over segments, from the end of tail on. advance will do the same.
func chunks(id Feed, tail segment, entries []*Entry, durable uint64) []chunk {
	out := []chunk{{name: tail.name, at: tail.size}}
	for _, e := range entries {
		if tail.ends(e) {
			tail = segment{name: segmentFile(id, e.Seq), first: e.Seq, size: headerSize}
			out = append(out, chunk{name: tail.name, buf: segmentHeader(id, e.Seq), fresh: true})
		}
		last := &out[len(out)-1]
		last.buf = appendRecord(last.buf, e.raw, durable)
		tail.index = nil // not needed here, and not ours to append to
		tail.take(e, int64(recordHead+len(e.raw)))
	}
	if len(out[0].buf) == 0 {
		out = out[1:]
	}
	return out
}

// write puts entries at the end of a feed whose last segment is tail; with sync they are on the disk on return. A file
// is begun only once the one before it is on the disk, so that a power cut leaves no hole between two. broken says that
// the file's state is not known.
func (l *Ledger) write(f *feed, tail segment, entries []*Entry, durable uint64, sync bool) (broken bool, err error) {
	for _, c := range chunks(f.id, tail, entries, durable) {
		if c.fresh {
			if broken, err := l.syncSegment(tail.name); err != nil {
				return broken, err
			}
		}
		if broken, err := l.writeChunk(c, sync); err != nil {
			return broken, err
		}
		tail.name = c.name
	}
	return false, nil
}

func (l *Ledger) syncSegment(name string) (broken bool, err error) {
	h, err := l.files.get(name)
	if err != nil {
		return false, err
	}
	defer l.files.put(h, false)
	if err := h.Sync(); err != nil {
		return true, err
	}
	return false, nil
}

func (l *Ledger) writeChunk(c chunk, sync bool) (broken bool, err error) {
	h, err := l.files.get(c.name)
	if err != nil {
		return false, err
	}
	defer l.files.put(h, !sync)
	if c.fresh { // left by a crash, if anything
		if err := h.Truncate(0); err != nil {
			return false, err
		}
	}
	if _, err := h.WriteAt(c.buf, c.at); err != nil {
		// The next write goes to the same place, so a part left behind does no harm to others' feeds.
		if cut := h.Truncate(c.at); cut != nil {
			return true, errors.Join(err, cut)
		}
		return false, err
	}
	if !sync {
		return false, nil
	}
	// After a failed fdatasync the kernel may have dropped the pages: what is on the disk is not known.
	if err := h.Sync(); err != nil {
		return true, err
	}
	if c.fresh {
		if err := l.disk.Sync(); err != nil {
			return true, fmt.Errorf("folder: %w", err)
		}
	}
	return false, nil
}
