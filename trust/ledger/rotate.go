package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

// suffixAside names what a rotation set aside: the records of one feed from the number on that precedes it.
const suffixAside = ".superseded"

// keyAt is the key that signs entry seq of a feed, and its number.
func (l *Ledger) keyAt(f Feed, seq uint64) (*composite.PublicKey, uint32, bool) {
	if r, ok := l.keys.(Rotator); ok {
		return r.KeyAt(f, seq)
	}
	key, ok := l.keys.Key(f.Author)
	return key, 0, ok
}

// rotation reads e's record, and checks that it can stand where e does.
func (l *Ledger) rotation(e *Entry) (*identity.Rotation, error) {
	r, err := identity.DecodeRotation(e.Body)
	if err != nil {
		return nil, reject(CauseRotation, e.Author, "%v", err)
	}
	if r.DID != e.Author || r.Swarm != l.swarm || r.Authority != e.Seq || r.AuthorityHead != [32]byte(e.Prev) {
		return nil, reject(CauseRotation, e.Author, "the record is for another place")
	}
	known, ok := l.keys.(Rotator)
	if !ok {
		return nil, reject(CauseRotation, e.Author, "nobody rotates here")
	}
	if err := known.Rotates(r); errors.Is(err, identity.ErrContested) {
		return r, err
	} else if err != nil {
		return nil, reject(CauseRotation, e.Author, "%v", err)
	}
	return r, nil
}

// vouched reports whether what is stored of f up to its author's last rotation is what that lets stand. It is false where
// part of that has not come.
func (l *Ledger) vouched(f *feed) (bool, error) {
	known, ok := l.keys.(Rotator)
	if !ok {
		return false, nil
	}
	entries, head, ok := known.Stands(f.id)
	s, _, _ := f.snapshot()
	if !ok || s.count < entries {
		return false, nil
	}
	if entries == 0 {
		return true, nil
	}
	last, err := l.stored(f, entries-1)
	return err == nil && last.hash == head, err
}

// disowned handles an entry that contradicts a stored one where an older key of its author signed the stored one: then
// the author's rotation says which counts, and nobody is convicted. seq is the stored one's; same says that the same key
// is to have signed e.
func (l *Ledger) disowned(f *feed, e *Entry, seq uint64, key *composite.PublicKey, same bool) error {
	if ok, err := l.vouched(f); err != nil {
		return err
	} else if ok || f.own {
		return reject(CauseRotation, e.Author, "entry %d is not the one that its author's rotation lets stand", e.Seq)
	}
	var certified state
	if same {
		var err error
		if certified.epoch, err = l.epochAt(f, e.Epoch); err != nil {
			return err
		}
	}
	if err := l.verify(e, key, &certified); err != nil {
		return err // a new key's first entry in a chain carries a composite signature, so that comes through
	}
	if !same {
		seq = 0 // somewhere before, the stored branch left the one that stands
	}
	if err := l.setAside(f, seq); err != nil {
		return err
	}
	return &GapError{Feed: f.id, Have: seq, Got: e.Seq}
}

// ingestRotation stores a rotation. It sets aside what older keys signed beyond what the rotation lets stand, and opens
// feeds that those keys forked. The caller has verified e, which carries r.
func (l *Ledger) ingestRotation(e *Entry, r *identity.Rotation) (*Entry, error) {
	f, err := l.feedOf(e.Feed())
	if err != nil {
		return nil, err
	}
	activity, err := l.feedOf(Feed{e.Author, Activity})
	if err != nil {
		return nil, err
	}
	f.order.Lock()
	defer f.order.Unlock()
	activity.order.Lock()
	defer activity.order.Unlock()
	for _, x := range []*feed{f, activity} {
		if err := l.writing(x); err != nil {
			return nil, err
		}
	}
	s, _, _ := f.snapshot()
	if e.Seq > s.count {
		return nil, &GapError{Feed: f.id, Have: s.count, Got: e.Seq}
	}
	if e.Seq < s.count {
		switch mine, err := l.stored(f, e.Seq); {
		case err != nil:
			return nil, err
		case mine.hash == e.hash:
			return nil, ErrDuplicate
		case mine.Kind == KindRotate && mine.Full != nil && mine.verifyFull(r.PublicKey()) == nil:
			// The same rotation in two entries: its author signed twice, with the new key.
			return nil, reject(CauseChain, e.Author, "another entry carries rotation %d", r.Number)
		}
	}
	if e.Seq > 0 {
		if before, err := l.stored(f, e.Seq-1); err != nil {
			return nil, err
		} else if before.hash != e.Prev {
			return nil, reject(CauseChain, e.Author, "rotation %d links to another entry than the one stored before it", r.Number)
		}
	}
	if err := l.supersede(f, activity, e.Seq, r); err != nil {
		return nil, err
	}
	s, _, _ = f.snapshot()
	if _, err := s.link(e); err != nil {
		return nil, err
	}
	if _, wait := s.quota.after(e.Chain, e.Time, l.opt.Now().UnixNano(), len(e.raw)); wait > 0 {
		return nil, reject(CauseRate, e.Author, "over quota for another %s", wait)
	}
	if err := l.store(f, []linked{{e, nil}}); err != nil {
		return nil, err
	}
	if err := l.files.sync(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	l.arrived(f, e)
	return e, nil
}

// supersede cuts both feeds of r's author to what r lets stand, and takes back what their forks closed: whatever an older
// key signed twice, r says which counts. The caller holds the order of both.
func (l *Ledger) supersede(authority, activity *feed, seq uint64, r *identity.Rotation) error {
	s, _, _ := activity.snapshot()
	cut := r.Activity
	if r.Activity > 0 && s.count >= r.Activity && !activity.own {
		last, err := l.stored(activity, r.Activity-1)
		if err != nil {
			return err
		}
		if last.hash != Hash(r.ActivityHead) {
			cut = 0 // the branch that does not stand is stored here: the other is fetched again
		}
	}
	l.mu.Lock()
	var answered []*Proof
	l.evidence = slices.DeleteFunc(l.evidence, func(p *Proof) bool {
		if p.Author == r.DID {
			answered = append(answered, p)
		}
		return p.Author == r.DID
	})
	l.mu.Unlock()
	for _, p := range answered {
		if p.Chain == Activity && !activity.own {
			cut = min(cut, p.Seq)
		}
	}
	if err := l.setAside(authority, seq); err != nil {
		return err
	}
	if err := l.setAside(activity, cut); err != nil {
		return err
	}
	for _, f := range []*feed{authority, activity} {
		f.mu.Lock()
		f.forked = false
		f.mu.Unlock()
	}
	for _, p := range answered {
		// The proof stays on the disk under another name, so that the next Open does not close the feed by it again.
		name := besideFile(Feed{p.Author, p.Chain}, suffixProof)
		raw, err := p.Encode()
		if err == nil {
			err = l.disk.Write(fmt.Sprintf("%s.answered-%d", name, r.Number), raw)
		}
		if err == nil {
			err = l.disk.Remove(name)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrStorage, err)
		}
	}
	return nil
}

// setAside ends f before entry from, and keeps what stood there in files beside. The caller holds f.order.
func (l *Ledger) setAside(f *feed, from uint64) error {
	f.mu.Lock()
	count, base, segments := f.count, f.base, slices.Clone(f.segments)
	f.mu.Unlock()
	if base != nil {
		from = max(from, base.First+1) // the checkpoint it begins with was cosigned
	}
	if from >= count {
		return nil
	}
	stay := len(segments)
	for stay > 1 && segments[stay-1].first >= from {
		stay--
		if err := l.keepAside(segments[stay].name, headerSize, segments[stay].size, from); err != nil {
			return err
		}
		if err := errors.Join(l.files.drop(segments[stay].name), l.disk.Remove(segments[stay].name)); err != nil {
			return fmt.Errorf("%w: %w", ErrStorage, err)
		}
	}
	last := segments[stay-1]
	if stay == len(segments) || segments[stay].first > from {
		at, err := l.recordAt(f, from)
		if err != nil {
			return err
		}
		if err := l.keepAside(last.name, at, last.size, from); err != nil {
			return err
		}
		if err := l.truncate(last.name, at); err != nil {
			return err
		}
	}
	again := &feed{id: f.id, own: f.own, base: base}
	if base != nil {
		again.state = base.start()
	}
	for _, seg := range segments[:stay] {
		again.segments = append(again.segments, segment{name: seg.name, first: seg.first, tree: again.tree})
		if fault, err := l.scan(again); err != nil || fault != nil {
			return fmt.Errorf("%w: %s after entry %d: %w", ErrStorage, seg.name, from, errors.Join(err, errRecord))
		}
	}
	f.mu.Lock()
	f.state, f.segments, f.ahead = again.state, again.segments, 0
	f.marks = slices.DeleteFunc(f.marks, func(m uint64) bool { return m >= from })
	f.mu.Unlock()
	l.log.Warn("a rotation set entries aside", "author", f.id.Author, "chain", f.id.Chain, "from", from, "entries", count-from)
	if w := l.writers[f.id.Chain]; f.own && w != nil {
		w.tip, w.key, w.oldest = again.state, nil, time.Time{}
	}
	return nil
}

// keepAside copies what a file holds from at to size into one beside.
func (l *Ledger) keepAside(name string, at, size int64, from uint64) error {
	h, err := l.files.get(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	defer l.files.put(h, false)
	rest := make([]byte, min(size-at, maxSalvage))
	if _, err := h.ReadAt(rest, at); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	if err := l.disk.Write(fmt.Sprintf("%s%s-%d", name, suffixAside, from), rest); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return nil
}

func (l *Ledger) truncate(name string, size int64) error {
	h, err := l.files.get(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	defer l.files.put(h, true)
	if err := h.Truncate(size); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return nil
}

// recordAt is the offset, in the segment that holds it, of entry seq, which is stored.
func (l *Ledger) recordAt(f *feed, seq uint64) (int64, error) {
	_, at, first := f.from(seq)
	if first == seq {
		return at, nil
	}
	n := first
	err := l.walk(f, first, 64<<10, func(raw []byte) (bool, error) {
		at += int64(recordHead + len(raw))
		n++
		return n < seq, nil
	})
	return at, err
}

// Rotate makes key this peer's own from here on: everything it has said stands, under the old key, and the next entry of
// its authority chain is the rotation. next is the hash of the key after; passphrase is the identity's. It is on the disk
// when Rotate returns. Feeds that the old key forked are open again.
func (l *Ledger) Rotate(key *composite.PrivateKey, next [32]byte, passphrase []byte) (*Entry, error) {
	if l.self == nil {
		return nil, ErrReadOnly
	}
	a, b := l.writers[Authority], l.writers[Activity]
	a.feed.order.Lock()
	defer a.feed.order.Unlock()
	b.feed.order.Lock()
	defer b.feed.order.Unlock()
	if err := l.drained(); err != nil {
		return nil, err
	}
	authority, _, _ := a.feed.snapshot()
	activity, _, _ := b.feed.snapshot()
	for _, w := range []*writer{a, b} {
		if s, _, _ := w.feed.snapshot(); w.feed.lost > s.count {
			return nil, fmt.Errorf("%w: %s chain", ErrDamaged, w.feed.id.Chain)
		}
	}
	stands := identity.Standing{
		Authority: authority.count, AuthorityHead: [32]byte(authority.head), Activity: activity.count, ActivityHead: [32]byte(activity.head),
	}
	var e *Entry
	r, err := l.self.Rotate(key, passphrase, func(n uint32) (*identity.Rotation, []byte, error) {
		r, err := identity.NewRotation(l.swarm, l.self.DID(), n, key, next, stands)
		if err != nil {
			return nil, nil, err
		}
		e = &Entry{
			Version: entryVersion, Swarm: l.swarm, Chain: Authority, Seq: authority.count, Prev: authority.head,
			BootEpoch: max(l.boot.Load(), authority.boot), Time: max(l.opt.Now().UnixNano(), authority.time), Kind: KindRotate, Body: r.Encode(),
			Rotation: n,
		}
		err = e.signBy(l.self.DID(), key.Sign)
		return r, e.raw, err
	})
	if err != nil {
		return nil, err
	}
	if err := l.supersede(a.feed, b.feed, authority.count, r); err != nil {
		return nil, err
	}
	if err := l.store(a.feed, []linked{{e, nil}}); err != nil {
		return nil, err
	}
	if err := l.files.sync(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	a.tip, _, _ = a.feed.snapshot()
	b.tip, b.key = activity, nil // the epoch key was certified by the old key
	l.handOut(e)
	return e, nil
}

// drained waits until what was signed is stored. The caller holds the order of both own feeds, so that nothing is added.
func (l *Ledger) drained() error {
	for range 100 {
		l.queue.mu.Lock()
		pending, broken := l.writers[Authority].pending+l.writers[Activity].pending, l.queue.broken
		l.queue.mu.Unlock()
		if broken != nil {
			return broken
		}
		if pending == 0 {
			return nil
		}
		time.Sleep(5 * time.Millisecond) // a commit on its way takes one fdatasync; it does not need the order
	}
	return fmt.Errorf("%w: entries wait for the disk", ErrStorage)
}
