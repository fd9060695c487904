package integrity

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Run takes the first baseline, looks at all watched files at the start, each hour, and when asked, and stores what it knows,
// until ctx ends. It waits for Begin.
func (k *Keeper) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-k.began:
	}
	next := time.Now()
	for {
		now := time.Now()
		k.mu.Lock()
		scan := k.asked || !now.Before(next)
		full := k.full || k.state != nil && !k.lastFull.IsZero() && now.Sub(k.lastFull) >= fullEvery
		wait, store := k.due(now)
		if scan {
			k.asked, k.full = false, false
		}
		k.mu.Unlock()
		switch {
		case scan:
			if err := k.scan(ctx, full); err != nil {
				return err
			}
			next = time.Now().Add(rescanEvery)
			continue
		case store && wait == 0:
			k.offer()
			continue
		case !store || wait > next.Sub(now):
			wait = next.Sub(now)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-k.wake:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// scan looks at everything once. What was looked at by itself meanwhile is left as that found it.
func (k *Keeper) scan(ctx context.Context, full bool) error {
	k.mu.Lock()
	before := k.view()
	first := k.state == nil
	if k.phase = PhaseScanning; first {
		k.phase = PhaseBuilding
	}
	k.touched = map[string]struct{}{}
	k.status.Done, k.status.Bytes = 0, 0
	k.mu.Unlock()
	began := time.Now()
	opt := Options{Paths: k.opt.Paths, Exclude: k.opt.Exclude, Before: before, Share: k.opt.Share, Rate: k.opt.Rate, Done: k.progress}
	if full {
		// What cannot be read now keeps what was known: only that a file looks untouched counts for nothing.
		opt.Before = untrusted(before)
	}
	is, err := Take(ctx, opt)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.phase = PhaseWatching
	touched := k.touched
	k.touched = nil
	if err != nil {
		return err
	}
	k.status.Scans++
	if full || first {
		k.lastFull = began
	}
	now := time.Now().UnixNano()
	if first {
		is.Entries = slices.Clip(is.Entries)
		k.state = &State{Time: now, Paths: k.opt.Paths, Exclude: k.opt.Exclude, Accepted: *is, Standing: map[string]*Entry{}}
		k.mark(event.BaselineTaken, "")
		for p := range touched { // seen to change before it was known: look again, now that there is something to compare with
			if err := k.examine(ctx, p, &Report{}); err != nil {
				return err
			}
		}
		return nil
	}
	k.fold(is, touched, k.state.Time, now)
	k.state.Time, k.state.Accepted.Skipped = now, is.Skipped
	return nil
}

func (k *Keeper) progress(entries int, bytes int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Done, k.status.Bytes = entries, bytes
}

// untrusted is a baseline that tells what is known, but not that a file was left alone.
func untrusted(b *Baseline) *Baseline {
	if b == nil {
		return nil
	}
	out := &Baseline{Entries: slices.Clone(b.Entries)}
	for i := range out.Entries {
		out.Entries[i].Changed = 0
	}
	return out
}

// view is how everything was last seen; nil where there is nothing yet. The caller holds mu; what it gives is not changed.
func (k *Keeper) view() *Baseline {
	if k.state == nil {
		return nil
	}
	return &Baseline{Entries: k.state.seen()}
}

// seen merges what is to be with what stands against it.
func (s *State) seen() []Entry {
	if len(s.Standing) == 0 {
		return slices.Clone(s.Accepted.Entries)
	}
	out := make([]Entry, 0, len(s.Accepted.Entries)+len(s.Standing))
	standing := s.standing()
	put := func(p string) {
		if is := s.Standing[p]; is != nil {
			out = append(out, *is)
		}
	}
	i := 0
	for j := range s.Accepted.Entries {
		e := &s.Accepted.Entries[j]
		for ; i < len(standing) && standing[i] < e.Path; i++ {
			put(standing[i])
		}
		if i < len(standing) && standing[i] == e.Path {
			put(e.Path)
			i++
			continue
		}
		out = append(out, *e)
	}
	for ; i < len(standing); i++ {
		put(standing[i])
	}
	return out
}

// fold takes what a scan saw. The caller holds mu.
func (k *Keeper) fold(is *Baseline, touched map[string]struct{}, from, to int64) {
	ours := map[string]bool{} // the configuration's doing, not the host's
	for _, c := range Compare(k.view(), is) {
		if _, ok := touched[c.Path]; ok {
			continue
		}
		k.see(c)
		if c.Is == nil && !k.watches(c.Path) || c.Was == nil && !k.watchedBefore(c.Path) {
			ours[c.Path] = true
			continue
		}
		k.tell(c, from, to)
	}
	if len(ours) > 0 {
		k.state.accept(func(p string) bool { return ours[p] })
	}
	// What nothing happened to may still have been touched: so that the next scan need not read it.
	for i := range is.Entries {
		e := &is.Entries[i]
		if _, ok := touched[e.Path]; !ok {
			k.refresh(e)
		}
	}
	k.state.Paths, k.state.Exclude = k.opt.Paths, k.opt.Exclude
}

// watches says whether a path is watched now.
func (k *Keeper) watches(path string) bool {
	return Covers(k.opt.Paths, path) && !Covers(k.opt.Exclude, path)
}

// watchedBefore says whether a path was watched by the stored state.
func (k *Keeper) watchedBefore(path string) bool {
	return Covers(k.state.Paths, path) && !Covers(k.state.Exclude, path) || k.state.Paths == nil
}

// see takes over how a path is now. The caller holds mu.
func (k *Keeper) see(c Change) {
	accepted := k.state.Accepted.find(c.Path)
	if _, differs := compare(c.Path, accepted, c.Is); differs {
		var is *Entry
		if c.Is != nil {
			e := *c.Is
			is = &e
		}
		k.state.Standing[c.Path] = is
	} else {
		delete(k.state.Standing, c.Path) // as it is to be, again
		if accepted != nil && c.Is != nil {
			path := accepted.Path
			*accepted = *c.Is
			accepted.Path = path
		}
	}
	k.mark(event.BaselineChanged, "")
}

// refresh takes over inode and times of what is otherwise as it was. The caller holds mu.
func (k *Keeper) refresh(e *Entry) {
	at := k.state.Accepted.find(e.Path)
	if s, stands := k.state.Standing[e.Path]; stands {
		at = s
	}
	if at == nil || differs(at, e) != "" {
		return
	}
	at.Inode, at.Device, at.Changed, at.Modified, at.Size = e.Inode, e.Device, e.Changed, e.Modified, e.Size
	if !e.unread() {
		at.Digest = e.Digest
	}
}

// tell queues a change that nobody saw being made. The caller holds mu.
func (k *Keeper) tell(c Change, from, to int64) {
	if len(k.told) >= maxTold {
		k.status.Dropped++
		return
	}
	k.seq++
	k.told = append(k.told, Told{Change: copied(c), Seq: k.seq, From: from, To: to})
	k.bell()
}

// copied keeps a change from what happens to the state it points into.
func copied(c Change) Change {
	if c.Was != nil {
		e := *c.Was
		c.Was = &e
	}
	if c.Is != nil {
		e := *c.Is
		c.Is = &e
	}
	return c
}

// accept makes what is at the chosen paths what is to be.
func (s *State) accept(chosen func(string) bool) {
	var fresh []Entry
	gone := map[string]bool{}
	for _, p := range s.standing() {
		if !chosen(p) {
			continue
		}
		is, at := s.Standing[p], s.Accepted.find(p)
		switch {
		case is == nil:
			gone[p] = true
		case at != nil:
			*at = *is
		default:
			fresh = append(fresh, *is)
		}
		delete(s.Standing, p)
	}
	if len(gone) > 0 {
		s.Accepted.Entries = slices.DeleteFunc(s.Accepted.Entries, func(e Entry) bool { return gone[e.Path] })
	}
	if len(fresh) > 0 {
		s.Accepted.Entries = append(s.Accepted.Entries, fresh...)
		slices.SortFunc(s.Accepted.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	}
}
