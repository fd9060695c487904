package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

// refuse counts err by its cause and returns it.
func (l *Ledger) refuse(err error) error {
	var r *RejectError
	var q *EquivocationError
	switch {
	case errors.As(err, &r):
		l.rejected.add(r.Cause)
	case errors.As(err, &q):
		l.rejected.add(CauseFork)
	}
	return err
}

// admit checks all of e that does not depend on its feed: swarm, clock, author, revocation. It gives the key that must have
// signed e; where e is a rotation, that is the new one, and the record is given with it. Where another rotation of its
// number stands, the error is identity.ErrContested, and key and record are given all the same.
func (l *Ledger) admit(e *Entry) (*composite.PublicKey, *identity.Rotation, error) {
	if e.Swarm != l.swarm {
		return nil, nil, reject(CauseSwarm, e.Author, "of swarm %s", e.Swarm.Short())
	}
	if ahead := e.Time - l.opt.Now().UnixNano(); ahead > int64(trust.MaxClockSkew) {
		return nil, nil, reject(CauseFuture, e.Author, "dated %d s ahead", ahead/1e9)
	}
	key, number, ok := l.keyAt(e.Feed(), e.Seq)
	if !ok {
		return nil, nil, reject(CauseUnknownAuthor, e.Author, "%s", e.Author)
	}
	if n, cut := l.standing(e.Feed()); cut && e.Seq >= n {
		return nil, nil, reject(CauseRevoked, e.Author, "entry %d, revoked at %d", e.Seq, n)
	}
	e.Rotation = number
	if e.Kind == KindRotate {
		r, err := l.rotation(e)
		if r == nil {
			return nil, nil, err
		}
		e.Rotation = r.Number
		return r.PublicKey(), r, err
	}
	return key, nil, l.checkEpoch(e, number)
}

// checkEpoch refuses an entry that an epoch key signed which an older key of the author certified: a rotation ends them.
func (l *Ledger) checkEpoch(e *Entry, number uint32) error {
	if e.Epoch == 0 || number == 0 {
		return nil
	}
	if _, certified, _ := l.keyAt(e.Feed(), e.Epoch-1); certified != number {
		return reject(CauseSignature, e.Author, "entry %d is signed by an epoch key from before rotation %d", e.Seq, number)
	}
	return nil
}

// standing asks the key resolver how much of a revoked author's chain stands.
func (l *Ledger) standing(f Feed) (uint64, bool) {
	if c, ok := l.keys.(Cutter); ok {
		return c.Cut(f.Author, f.Chain)
	}
	return 0, false
}

// verify checks e's signature by key or by the epoch key in s.
func (l *Ledger) verify(e *Entry, key *composite.PublicKey, s *state) error {
	if e.Full != nil {
		return e.verifyFull(key)
	}
	if s.epoch == nil || s.epoch.number != e.Epoch {
		return &GapError{Feed: e.Feed(), Have: min(s.count, e.Epoch-1), Got: e.Seq}
	}
	return e.verifyEpoch(&s.epoch.body)
}

// Check verifies bounds and signature of an entry and changes nothing that outlives it: for gossip validators. It returns
// ErrDuplicate for an entry that is stored, *GapError where the epoch key that signed it is not known yet or it is too far ahead (neither
// good nor bad: pull the feed), or *RejectError. An entry that contradicts a stored one passes: Ingest makes the proof of it.
func (l *Ledger) Check(raw []byte) (*Entry, error) {
	e, err := l.check(raw)
	return e, l.refuse(err)
}

func (l *Ledger) check(raw []byte) (*Entry, error) {
	e, err := Decode(raw)
	if err != nil {
		return nil, err
	}
	key, r, err := l.admit(e)
	if r != nil {
		return l.checkRotation(e, r, err)
	}
	if err != nil {
		return nil, err
	}
	var s state
	f := l.lookup(e.Feed())
	if f != nil {
		var forked bool
		if s, _, forked = f.snapshot(); forked {
			return nil, reject(CauseFork, e.Author, "%s chain", e.Chain)
		}
		if e.Seq < s.count {
			return l.checkOld(f, e, key)
		}
	}
	if e.Seq == s.count {
		if _, wait := s.quota.after(e.Chain, e.Time, l.opt.Now().UnixNano(), len(e.raw)); wait > 0 {
			return nil, reject(CauseRate, e.Author, "over quota for another %s", wait)
		}
	}
	if err := l.verify(e, key, &s); err != nil {
		if e.Seq == s.count && e.Prev == s.head {
			return nil, err // it says itself that it follows what is stored
		}
		return nil, branched(e, s.ahead(e, err))
	}
	if e.Seq > s.count && (f == nil || !f.passAhead(e.Seq)) {
		return nil, &GapError{Feed: e.Feed(), Have: s.count, Got: e.Seq}
	}
	l.verified.add(MessageID(raw))
	return e, nil
}

// checkRotation is check for a rotation; one that is contested passes, as Ingest makes that known.
func (l *Ledger) checkRotation(e *Entry, r *identity.Rotation, contested error) (*Entry, error) {
	if err := e.verifyFull(r.PublicKey()); err != nil {
		return nil, err
	}
	if contested != nil {
		return e, nil
	}
	var s state
	if f := l.lookup(e.Feed()); f != nil {
		s, _, _ = f.snapshot()
		if e.Seq < s.count {
			if mine, err := l.stored(f, e.Seq); err != nil {
				return nil, err
			} else if mine.hash == e.hash {
				return nil, ErrDuplicate
			}
		}
	}
	if e.Seq > s.count {
		return nil, &GapError{Feed: e.Feed(), Have: s.count, Got: e.Seq}
	}
	return e, nil
}

// checkOld is check for a number that is stored.
func (l *Ledger) checkOld(f *feed, e *Entry, key *composite.PublicKey) (*Entry, error) {
	mine, err := l.stored(f, e.Seq)
	if errors.Is(err, ErrNotStored) {
		return nil, ErrDuplicate // trimmed: it was judged when it came
	}
	if err != nil {
		return nil, err
	}
	if mine.hash == e.hash {
		return nil, ErrDuplicate
	}
	if _, current, _ := l.keyAt(f.id, math.MaxUint64); e.Rotation < current {
		if ok, err := l.vouched(f); ok || err != nil {
			return nil, errors.Join(err, reject(CauseRotation, e.Author, "entry %d is not the one that its author's rotation lets stand", e.Seq))
		}
	}
	var s state
	if s.epoch, err = l.epochAt(f, e.Epoch); err != nil {
		return nil, err
	}
	return e, branched(e, l.verify(e, key, &s))
}

// branched is what a failed verification of an entry that does not follow what is stored comes to. If it is signed by an
// epoch key, that may be one of another branch of its author's feed, which this peer has not seen: then neither the entry
// nor who passed it on is to blame, and the certificate of that branch, wherever it is pulled from, convicts the author.
func branched(e *Entry, err error) error {
	var r *RejectError
	if e.Full == nil && errors.As(err, &r) && r.Cause == CauseSignature {
		return &GapError{Feed: e.Feed(), Have: e.Epoch - 1, Got: e.Seq}
	}
	return err
}

// ahead is what a failed composite signature comes to where entries between are missing: a rotation may be among them, and
// gossip brings what follows it first now and then. What is pulled then is judged by the key it names.
func (s *state) ahead(e *Entry, err error) error {
	var r *RejectError
	if e.Full != nil && e.Seq > s.count && errors.As(err, &r) && r.Cause == CauseSignature {
		return &GapError{Feed: e.Feed(), Have: s.count, Got: e.Seq}
	}
	return err
}

// epochAt reads the certificate that Entry.Epoch names; nil where that entry is none.
func (l *Ledger) epochAt(f *feed, number uint64) (*epochKey, error) {
	if number == 0 {
		return nil, nil
	}
	cert, err := l.stored(f, number-1)
	if errors.Is(err, ErrNotStored) {
		return nil, nil
	}
	if err != nil || cert.Kind != KindEpoch {
		return nil, err
	}
	b, err := decodeEpoch(cert.Body)
	if err != nil {
		return nil, err
	}
	return &epochKey{number: number, body: *b}, nil
}

// Ingest checks, links and stores an entry of any author. It is in the page cache on return: what a power cut takes is
// pulled from peers again. Errors: ErrDuplicate, *GapError (pull from Have), *EquivocationError (once a feed),
// *RejectError, or one that wraps ErrStorage. An entry of this peer's own that is ahead of the local copy is stored: so a
// restored snapshot heals.
func (l *Ledger) Ingest(_ context.Context, raw []byte) (*Entry, error) {
	e, err := l.ingest(raw, false)
	return e, l.refuse(err)
}

// Submit is Ingest for an entry signed on this host (an operator's): it is on the disk on return, and ErrStale is
// returned, with no evidence kept, where its number is taken.
func (l *Ledger) Submit(_ context.Context, raw []byte) (*Entry, error) {
	e, err := l.ingest(raw, true)
	if err != nil {
		return nil, l.refuse(err)
	}
	if err := l.files.sync(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return e, nil
}

func (l *Ledger) ingest(raw []byte, submitted bool) (*Entry, error) {
	e, err := Decode(raw)
	if err != nil {
		return nil, err
	}
	key, r, err := l.admit(e)
	if r != nil {
		if bad := e.verifyFull(key); bad != nil {
			return nil, bad
		}
		if err == nil {
			return l.ingestRotation(e, r)
		}
		if l.opt.OnContest != nil {
			l.opt.OnContest(r)
		}
		err = reject(CauseRotation, e.Author, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	f, err := l.feedOf(e.Feed())
	if err != nil {
		return nil, err
	}
	f.order.Lock()
	defer f.order.Unlock()
	writing := l.writing(f) // asked before the snapshot: a commit in between would leave that behind
	s, _, forked := f.snapshot()
	if forked {
		return nil, reject(CauseFork, e.Author, "%s chain", e.Chain)
	}
	if e.Seq < s.count || e.Seq == s.count && e.Prev != s.head {
		return nil, l.contradiction(f, e, key, submitted)
	}
	if writing != nil {
		return nil, writing
	}
	epoch, err := s.link(e)
	if err != nil {
		return nil, err
	}
	now := l.opt.Now().UnixNano()
	if _, wait := s.quota.after(e.Chain, e.Time, now, len(raw)); wait > 0 {
		return nil, reject(CauseRate, e.Author, "over quota for another %s", wait)
	}
	if !l.verified.has(MessageID(raw)) {
		if err := l.verify(e, key, &s); err != nil {
			return nil, err
		}
	}
	if err := l.store(f, []linked{{e, epoch}}); err != nil {
		return nil, err
	}
	l.arrived(f, e)
	return e, nil
}

// writing refuses to add to an own feed what this process is writing itself.
func (l *Ledger) writing(f *feed) error {
	if !f.own {
		return nil
	}
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	if l.writers[f.id.Chain].pending > 0 {
		return reject(CauseChain, f.id.Author, "this peer is writing that feed")
	}
	return nil
}

// contradiction handles an entry whose number is stored, or whose link says that a stored one is not the author's.
func (l *Ledger) contradiction(f *feed, e *Entry, key *composite.PublicKey, submitted bool) error {
	seq := e.Seq
	s, _, _ := f.snapshot()
	if seq == s.count {
		seq-- // e links to another entry of that number; count is not 0, or the zero link would match
	}
	mine, err := l.stored(f, seq)
	if errors.Is(err, ErrNotStored) {
		return ErrDuplicate // trimmed: it was judged when it came
	}
	if err != nil {
		return err
	}
	if mine.hash == e.hash {
		return ErrDuplicate
	}
	if submitted {
		return ErrStale
	}
	_, number, _ := l.keyAt(f.id, seq)
	if _, current, _ := l.keyAt(f.id, math.MaxUint64); number < current {
		return l.disowned(f, e, seq, key, number == e.Rotation)
	}
	var certs [][]byte
	for _, x := range []*Entry{mine, e} {
		if x.Epoch == 0 {
			continue
		}
		if x.Epoch > seq {
			return &GapError{Feed: f.id, Have: x.Epoch - 1, Got: e.Seq} // certified on the other branch
		}
		cert, err := l.stored(f, x.Epoch-1)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(certs, func(c []byte) bool { return string(c) == string(cert.raw) }) {
			certs = append(certs, cert.raw)
		}
	}
	p, err := NewProof(mine.raw, e.raw, certs...)
	if err == nil {
		err = p.Verify(key)
	}
	if err != nil {
		return branched(e, reject(CauseSignature, e.Author, "contradicts entry %d, unproved: %v", seq, err))
	}
	return l.condemn(f, p)
}

// condemn keeps the proof and closes the feed.
func (l *Ledger) condemn(f *feed, p *Proof) error {
	raw, err := p.Encode()
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.forked = true
	f.mu.Unlock()
	l.mu.Lock()
	keep := len(l.evidence) < trust.MaxEvidence
	if keep {
		l.evidence = append(l.evidence, p)
	}
	l.mu.Unlock()
	if keep {
		if err := l.disk.Write(besideFile(f.id, suffixProof), raw); err != nil {
			l.log.Error("a proof of equivocation could not be stored", "author", f.id.Author, "err", err)
		}
	}
	if l.opt.OnEquivocation != nil {
		l.opt.OnEquivocation(p)
	}
	return &EquivocationError{Proof: p, A: p.A, B: p.B}
}

// linked is an entry that was found to follow, with the key it certifies.
type linked struct {
	entry *Entry
	epoch *epochKey
}

// store writes entries to the end of f and moves its head. The caller holds f.order.
func (l *Ledger) store(f *feed, entries []linked) error {
	s, tail, _ := f.snapshot()
	list := make([]*Entry, 0, len(entries))
	for _, x := range entries {
		list = append(list, x.entry)
	}
	if _, err := l.write(f, tail, list, s.count, false); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range entries {
		f.advance(x.entry, x.epoch, int64(recordHead+len(x.entry.raw)))
	}
	return nil
}

// arrived tells of an entry that came from elsewhere.
func (l *Ledger) arrived(f *feed, e *Entry) {
	if f.own {
		// From before a snapshot was restored: this peer's new entries must not share its boot epoch.
		for b := l.boot.Load(); b <= e.BootEpoch && !l.boot.CompareAndSwap(b, e.BootEpoch+1); b = l.boot.Load() {
		}
	} else {
		l.seen.add(f.id)
	}
	l.handOut(e)
}

// IngestBatch ingests consecutive entries of one feed, as Range gives them. In an activity chain a run that ends in a
// composite signature is verified by that signature and the links alone (and each epoch certificate by itself). It
// returns how many were stored, and the first error; entries already stored are passed over.
func (l *Ledger) IngestBatch(ctx context.Context, raws [][]byte) (int, error) {
	n := 0
	for len(raws) > 0 { // what is stored, or contradicts, is for Ingest to judge
		e, err := Decode(raws[0])
		if err != nil {
			return n, l.refuse(err)
		}
		f := l.lookup(e.Feed())
		if f == nil {
			break
		}
		if s, _, _ := f.snapshot(); e.Seq > s.count || e.Seq == s.count && e.Prev == s.head {
			break
		}
		if _, err := l.Ingest(ctx, raws[0]); err == nil {
			n++ // a rotation takes the place of what it set aside
		} else if !errors.Is(err, ErrDuplicate) {
			return n, err
		}
		raws = raws[1:]
	}
	for len(raws) > 0 {
		run, err := l.ingestRun(raws)
		n += run
		raws = raws[run:]
		if err != nil {
			return n, l.refuse(err)
		}
		if run == 0 {
			break
		}
		if err := ctx.Err(); err != nil {
			return n, fmt.Errorf("ledger: ingest: %w", err)
		}
	}
	for _, raw := range raws { // no seal covers these
		if _, err := l.Ingest(ctx, raw); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// ingestRun stores the first run of raws that ends in a composite signature, and says how long it was: 0 where none is
// within reach.
func (l *Ledger) ingestRun(raws [][]byte) (int, error) {
	var run []*Entry
	for _, raw := range raws[:min(len(raws), 4*trust.SealEvery)] {
		e, err := Decode(raw)
		if err != nil {
			return 0, err
		}
		run = append(run, e)
		if e.Full != nil {
			break
		}
	}
	last := run[len(run)-1]
	if last.Full == nil || last.Kind == KindRotate {
		return 0, nil // for Ingest
	}
	key, _, err := l.admit(last)
	if err != nil {
		return 0, err
	}
	f, err := l.feedOf(last.Feed())
	if err != nil {
		return 0, err
	}
	f.order.Lock()
	defer f.order.Unlock()
	if err := l.writing(f); err != nil {
		return 0, err
	}
	s, _, forked := f.snapshot()
	if forked {
		return 0, reject(CauseFork, f.id.Author, "%s chain", f.id.Chain)
	}
	if run[0].Seq == s.count && run[0].Prev != s.head {
		return 0, nil // for Ingest, which proves the contradiction
	}
	now := l.opt.Now().UnixNano()
	links := make([]linked, 0, len(run))
	for _, e := range run {
		if e.Swarm != l.swarm || e.Feed() != f.id {
			return 0, reject(CauseMalformed, e.Author, "a run of more than one feed")
		}
		epoch, err := s.link(e)
		if err == nil && last.Rotation > 0 && e.Epoch != 0 {
			_, e.Rotation, _ = l.keyAt(f.id, e.Seq)
			err = l.checkEpoch(e, e.Rotation)
		}
		if err != nil {
			return 0, err
		}
		if _, wait := s.quota.after(e.Chain, e.Time, now, len(e.raw)); wait > 0 {
			return 0, reject(CauseRate, e.Author, "over quota for another %s", wait)
		}
		links = append(links, linked{e, epoch})
		s = s.next(e, epoch)
	}
	if err := last.verifyFull(key); err != nil {
		return 0, err
	}
	if err := l.store(f, links); err != nil {
		return 0, err
	}
	for _, x := range links {
		x.entry.sealed.Store(true)
		l.arrived(f, x.entry)
	}
	return len(run), nil
}
