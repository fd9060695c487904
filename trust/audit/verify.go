package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/tlog"
	"github.com/omega-mesh/omega/trust/witness"
)

// Options of Verify.
type Options struct {
	// Swarm is the id the genesis must have; nil takes the file's own, which then proves only that it is whole.
	Swarm *trust.SwarmID
	// Progress, where not nil, is told the entries so far now and then.
	Progress func(entries uint64)
}

// Verify reads an export once and checks all of it: form, links, signatures, membership, checkpoints, cosignatures, seen
// heads and proofs. What is wrong with the file is in the Result; the error is the reader's, or ctx's.
func Verify(ctx context.Context, r io.Reader, opt Options) (*Result, error) {
	v := &verifier{
		opt: opt, in: newReader(r), res: &Result{Evidence: []Evidence{}, Faults: []Fault{}, Notes: []Note{}},
		named: make(map[ledger.Feed][]mention), past: make(map[ledger.Feed]*history), roots: make(map[point]tlog.Hash),
	}
	if err := v.run(ctx); err != nil {
		return v.res, fmt.Errorf("audit: verify: %w", err)
	}
	v.res.OK = len(v.res.Faults) == 0
	return v.res, nil
}

type verifier struct {
	opt      Options
	in       *reader
	res      *Result
	swarm    trust.SwarmID
	fold     *authority.Fold
	registry *witness.Registry
	ended    bool

	// The feed being read.
	feed    ledger.Feed
	key     *composite.PublicKey
	rotated bool // its author has had several
	audit   *ledger.Auditor
	hist    *history
	until   uint64 // number after its last entry, as announced
	strange bool   // its author is no member: told
	last    record
	proofs  uint64

	damage []int64 // offsets of damage whose place is not known yet
	past   map[ledger.Feed]*history
	roots  map[point]tlog.Hash
	claims []claim
	named  map[ledger.Feed][]mention
	knew   map[identity.DID]tip // heads of authority chains that the feed being read has seen by now
}

func (v *verifier) fault(f Fault) {
	if len(v.res.Faults) >= MaxFaults {
		v.res.MoreFaults++
		return
	}
	v.res.Faults = append(v.res.Faults, f)
}

func name(f ledger.Feed) string {
	if f.Author == "" {
		return ""
	}
	return string(f.Author) + "/" + f.Chain.String()
}

// here is a fault at the next entry of the feed being read.
func (v *verifier) here(kind record, at int64, cause, detail string) {
	f := Fault{Record: kind.String(), Feed: name(v.feed), Offset: at, Cause: cause, Detail: detail}
	if v.audit != nil {
		f.Seq = v.audit.Next()
	}
	v.fault(f)
}

func (v *verifier) run(ctx context.Context) error {
	if err := v.in.magic(); errors.Is(err, errDamage) {
		v.fault(Fault{Record: "header", Cause: CauseChecksum, Detail: "does not begin as an export does"})
	} else if err != nil {
		return err
	}
	for n := 0; ; n++ {
		if n%4096 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if v.opt.Progress != nil {
				v.opt.Progress(v.res.Entries)
			}
		}
		kind, payload, at, err := v.in.next()
		switch {
		case errors.Is(err, errDamage):
			v.damage = append(v.damage, at)
			continue
		case errors.Is(err, io.EOF):
			v.finish(at)
			return nil
		case err != nil:
			return err
		}
		if v.fold == nil && !v.genesis(kind, payload, at) {
			return nil // nothing can be judged without it
		}
		v.take(kind, payload, at)
	}
}

// genesis begins with the first record; false where it is not the one asked for.
func (v *verifier) genesis(kind record, payload []byte, at int64) bool {
	if kind != recordGenesis || len(v.damage) > 0 {
		v.damage = nil
		v.fault(Fault{Record: "genesis", Offset: int64(len(magic)), Cause: CauseChecksum, Detail: "the genesis does not read, and without it nothing can be verified"})
		return false
	}
	g, err := authority.DecodeGenesis(bytes.Clone(payload))
	if err == nil && v.opt.Swarm != nil && g.SwarmID() != *v.opt.Swarm {
		err = fmt.Errorf("of swarm %s, wanted %s", g.SwarmID(), *v.opt.Swarm)
	}
	if err != nil {
		v.fault(Fault{Record: "genesis", Offset: at, Cause: CauseGenesis, Detail: err.Error()})
		return false
	}
	v.swarm = g.SwarmID()
	v.res.Swarm = v.swarm.String()
	v.fold = authority.NewFold(g)
	v.registry = witness.NewRegistry(v.swarm, v.fold.State)
	return true
}

func (v *verifier) take(kind record, payload []byte, at int64) {
	if v.ended {
		v.damage = nil
		v.fault(Fault{Record: "end", Offset: at, Cause: CauseTrailing, Detail: "a record behind the end"})
		return
	}
	if kind != recordEntry {
		v.place(kind)
	}
	switch kind {
	case recordGenesis:
		if v.last != 0 {
			v.here(recordGenesis, at, CauseTrailing, "a second genesis")
		}
	case recordFeed:
		v.announce(payload, at)
	case recordEntry:
		v.entry(payload, at)
	case recordEvidence:
		v.evidence(payload, at)
	case recordEnd:
		v.end(payload, at)
	}
	v.last = kind
}

// place says what the damage before a record of that kind has hit: an entry while the feed lacks some.
func (v *verifier) place(next record) {
	for _, at := range v.damage {
		switch {
		case v.audit != nil && v.last != recordEvidence && v.audit.Next() < v.until:
			v.here(recordEntry, at, CauseChecksum, errDamage.Error())
			v.skip()
		case next == recordEntry:
			v.here(recordFeed, at, CauseChecksum, errDamage.Error())
		case next == recordEvidence, next == recordEnd:
			v.fault(Fault{Record: "evidence", Seq: v.proofs, Offset: at, Cause: CauseChecksum, Detail: errDamage.Error()})
			v.proofs++
		default:
			v.here(recordFeed, at, CauseChecksum, errDamage.Error())
		}
	}
	v.damage = nil
}

// skip counts the next entry as told of and lost.
func (v *verifier) skip() {
	v.audit.Skip()
	v.hist.ids = append(v.hist.ids, [16]byte{})
	v.hist.trees = nil
}

func (v *verifier) announce(payload []byte, at int64) {
	v.close(at)
	h, f, base, err := decodeFeedHead(payload)
	if err != nil {
		v.feed, v.audit = f, nil
		v.here(recordFeed, at, ledger.CauseMalformed, err.Error())
		return
	}
	v.open(f, base, h.First+h.Count, at)
}

// open begins a feed.
func (v *verifier) open(f ledger.Feed, base *ledger.Base, until uint64, at int64) {
	v.feed, v.until, v.strange = f, until, false
	v.knew = make(map[identity.DID]tip)
	if v.past[f] != nil {
		v.audit = nil
		v.here(recordFeed, at, ledger.CauseMalformed, "a feed twice")
	}
	var ok bool
	if v.key, ok = v.fold.Key(f.Author); !ok {
		v.key, v.strange = nil, true
		v.audit = nil
		v.here(recordFeed, at, ledger.CauseUnknownAuthor, "no entry before this admits its author: its signatures were not verified")
	} else if base != nil {
		key, _, _ := v.fold.KeyAt(f, base.First)
		err := base.Verify(v.swarm, key)
		if err == nil {
			err = v.registry.WasBacked(base)
		}
		if err != nil {
			v.audit = nil
			v.here(recordFeed, at, CauseBase, err.Error())
		}
	}
	_, _, v.rotated = v.fold.Stands(f)
	v.audit = ledger.NewAuditor(v.swarm, f, base)
	v.hist = &history{first: v.audit.Next()}
	if f.Chain == ledger.Authority {
		v.hist.trees = []tlog.Tree{{}}
	}
	v.past[f] = v.hist
	v.res.Feeds++
}

// close ends the feed being read.
func (v *verifier) close(at int64) {
	if v.audit == nil {
		return
	}
	for _, x := range v.audit.End() {
		v.entryFault(x, at)
	}
	if n := v.audit.Next(); n < v.until {
		v.here(recordEntry, at, CauseMissing, fmt.Sprintf("entries %d to %d are not in the file", n, v.until-1))
	}
	v.res.Seals += v.audit.Sealed()
	v.audit = nil
}

func (v *verifier) entryFault(x ledger.AuditFault, at int64) {
	cause := ledger.CauseMalformed
	var r *ledger.RejectError
	var gap *ledger.GapError
	switch {
	case errors.As(x.Err, &r):
		cause = r.Cause
	case errors.As(x.Err, &gap):
		cause = CauseMissing
	}
	f := Fault{Record: "entry", Feed: name(v.feed), Seq: x.Seq, Offset: at, Cause: cause, Detail: x.Err.Error()}
	if id, ok := v.hist.id(x.Seq); ok {
		f.Entry = fmt.Sprintf("%x", id)
	}
	v.fault(f)
}

func (v *verifier) entry(raw []byte, at int64) {
	if len(v.damage) > 0 || v.audit == nil {
		v.resume(raw, at)
	}
	if v.audit == nil {
		v.here(recordEntry, at, ledger.CauseMalformed, "an entry outside any feed")
		return
	}
	number := v.turn(raw)
	e, faults := v.audit.Add(raw, v.key)
	if e != nil {
		e.Rotation = number
	}
	v.res.Entries++
	if e == nil {
		v.hist.ids = append(v.hist.ids, [16]byte{})
		v.hist.trees = nil
	} else {
		hash := e.Hash()
		v.remember(e.Seq, [16]byte(hash[:16]))
	}
	for _, x := range faults {
		v.entryFault(x, at)
	}
	if e == nil {
		return
	}
	if n, cut := v.fold.Cut(e.Author, e.Chain); cut && e.Seq >= n {
		v.entryFault(ledger.AuditFault{Seq: e.Seq, Err: &ledger.RejectError{Cause: ledger.CauseRevoked, Author: e.Author, Detail: fmt.Sprintf("revoked at %d", n)}}, at)
	}
	if len(faults) > 0 {
		return
	}
	v.heads(e, at) // a stranger's are not verified, but then the file does not stand, and what it lacks may say why
	if !v.strange {
		v.learn(e, at)
	}
}

// turn sets the key that the next entry must be signed with, and gives its number: authors rotate theirs. A rotation is
// signed by the key that it shows.
func (v *verifier) turn(raw []byte) (number uint32) {
	if v.strange || v.audit == nil {
		return 0
	}
	if v.feed.Chain == ledger.Authority {
		if e, err := ledger.Decode(raw); err == nil && e.Kind == ledger.KindRotate {
			if r, err := identity.DecodeRotation(e.Body); err == nil && r.DID == v.feed.Author && r.Authority == e.Seq && v.fold.Rotates(r) == nil {
				v.key, v.rotated = r.PublicKey(), true
				return r.Number
			}
		}
	}
	if v.rotated {
		v.key, number, _ = v.fold.KeyAt(v.feed, v.audit.Next())
	}
	return number
}

// resume finds, behind damage, which feed the next entry goes on with, and says what the damage hit.
func (v *verifier) resume(raw []byte, at int64) {
	e, err := ledger.Decode(raw)
	if err != nil {
		v.place(recordFeed)
		return
	}
	if v.audit != nil && e.Feed() == v.feed {
		for len(v.damage) > 0 && v.audit.Next() < e.Seq {
			v.here(recordEntry, v.damage[0], CauseChecksum, errDamage.Error())
			v.skip()
			v.damage = v.damage[1:]
		}
		if v.audit.Next() < e.Seq { // one damage took several
			v.audit.Lost()
		}
		v.place(recordEntry)
		return
	}
	if len(v.damage) == 0 {
		return // an entry that no feed announces: told by who called
	}
	// The announcement of another feed was hit, and perhaps the end of the one before.
	for len(v.damage) > 1 && v.audit != nil && v.audit.Next() < v.until {
		v.here(recordEntry, v.damage[0], CauseChecksum, errDamage.Error())
		v.skip()
		v.damage = v.damage[1:]
	}
	hit := v.damage[0]
	v.damage = nil
	v.close(hit)
	v.open(e.Feed(), nil, 0, at)
	v.here(recordFeed, hit, CauseChecksum, errDamage.Error())
	if e.Seq > 0 {
		v.audit.Lost()
		v.hist.first, v.hist.trees = e.Seq, nil
	}
}

// learn takes over what a verified entry says that later ones are judged by.
func (v *verifier) learn(e *ledger.Entry, at int64) {
	switch {
	case e.Chain == ledger.Authority:
		kept, err := ledger.Decode(e.Raw())
		if err != nil {
			return // it was decoded before
		}
		_ = v.fold.Apply(kept) // what has no effect is history, too
		if err := v.registry.Learn(kept); err != nil {
			v.entryFault(ledger.AuditFault{Seq: e.Seq, Err: err}, at)
		}
	case e.Kind == ledger.KindCheckpoint:
		own, other, err := ledger.Checkpoints(e)
		if err != nil {
			return // the auditor decoded it
		}
		v.res.Checkpoints++
		v.roots[point{v.feed, own.Size}] = own.Root
		v.mentioned(ledger.Feed{Author: e.Author, Chain: ledger.Authority}, other.Size, e, at, CauseCheckpoint)
		v.later(claim{point: point{ledger.Feed{Author: e.Author, Chain: ledger.Authority}, other.Size}, root: other.Root, knew: v.knew[e.Author], by: e.Head(), at: at, cause: CauseCheckpoint})
	case e.Kind == ledger.KindCosign:
		c, err := witness.DecodeCosigned(e)
		if err == nil {
			_, err = v.registry.Key(c.Checkpoint(v.swarm), c.By)
		}
		if err != nil {
			v.entryFault(ledger.AuditFault{Seq: e.Seq, Err: &ledger.RejectError{Cause: CauseCosign, Author: e.Author, Detail: err.Error()}}, at)
			return
		}
		v.res.Cosignatures++
		v.mentioned(c.Feed, c.Size, e, at, CauseCosign)
		v.later(claim{point: point{c.Feed, c.Size}, root: c.Root, knew: v.knew[c.Feed.Author], by: e.Head(), at: at, cause: CauseCosign})
	}
}

func (v *verifier) evidence(payload []byte, at int64) {
	v.proofs++
	p, err := ledger.DecodeProof(payload)
	if err == nil {
		err = v.fold.Proves(p)
	}
	var a, b *ledger.Entry
	if err == nil {
		a, err = ledger.Decode(p.A)
	}
	if err == nil {
		b, err = ledger.Decode(p.B)
	}
	if err == nil && a.Swarm != v.swarm {
		err = fmt.Errorf("of swarm %s", a.Swarm)
	}
	if err != nil {
		v.fault(Fault{Record: "evidence", Seq: v.proofs - 1, Offset: at, Cause: CauseEvidence, Detail: err.Error()})
		return
	}
	v.res.Evidence = append(v.res.Evidence, Evidence{Feed: name(a.Feed()), Seq: p.Seq, A: a.ID(), B: b.ID()})
}

func (v *verifier) end(payload []byte, at int64) {
	v.close(at)
	v.ended = true
	var e ending
	if err := canonical.Unmarshal(payload, &e, 128); err != nil {
		v.fault(Fault{Record: "end", Offset: at, Cause: ledger.CauseMalformed, Detail: err.Error()})
		return
	}
	if len(v.res.Faults) > 0 {
		return // and so it cannot agree
	}
	switch {
	case e.Feeds != v.res.Feeds || e.Entries != v.res.Entries || e.Evidence != v.proofs:
		v.fault(Fault{Record: "end", Offset: at, Cause: CauseMissing, Detail: fmt.Sprintf("%d feeds, %d entries and %d proofs were written", e.Feeds, e.Entries, e.Evidence)})
	case !bytes.Equal(e.Digest, v.in.digest()):
		v.fault(Fault{Record: "end", Offset: at, Cause: CauseDigest, Detail: "the digest of the whole file is another"})
	}
}

// finish compares what was left for the end.
func (v *verifier) finish(at int64) {
	switch {
	case v.fold == nil:
		v.fault(Fault{Record: "genesis", Offset: at, Cause: CauseTruncated, Detail: "the file ends before its genesis"})
		return
	case !v.ended && len(v.damage) > 0 && (v.audit == nil || v.audit.Next() >= v.until):
		v.fault(Fault{Record: "end", Offset: v.damage[0], Cause: CauseChecksum, Detail: errDamage.Error()})
	case !v.ended && len(v.damage) > 0:
		v.place(recordEntry)
		v.close(at)
	case !v.ended:
		v.here(recordEnd, at, CauseTruncated, "the file ends here, and this was not its end")
		v.close(at)
	case len(v.damage) > 0:
		v.fault(Fault{Record: "end", Offset: v.damage[0], Cause: CauseTrailing, Detail: "bytes behind the end"})
	}
	for _, c := range v.claims {
		v.compare(c)
	}
	v.whole(at)
}
