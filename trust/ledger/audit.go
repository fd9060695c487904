package ledger

import (
	"fmt"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/tlog"
)

// Auditor verifies one feed entry by entry, holding nothing but its state and what no seal covers yet: for feeds that
// come from elsewhere than this host's ledger. After a fault it goes on with what follows. It serves one goroutine.
type Auditor struct {
	swarm   trust.SwarmID
	feed    Feed
	s       state
	entry   Entry
	open    []byte // unsealed entries, one after the other
	ends    []int
	lost    bool // the entry before the next one is not known
	damaged bool // some entry was not: the Merkle tree cannot be compared any more
	seals   uint64
}

// AuditFault is an entry that does not stand.
type AuditFault struct {
	Seq uint64
	Err error
}

// maxOpen is the most entries held for a seal; an honest feed has one after trust.SealEvery.
const maxOpen = 4 * trust.SealEvery

// NewAuditor begins a feed at its first entry, or at base where that is not nil. The caller has verified the base.
func NewAuditor(swarm trust.SwarmID, feed Feed, base *Base) *Auditor {
	a := &Auditor{swarm: swarm, feed: feed}
	if base != nil {
		a.s = base.start()
	}
	return a
}

// Next is the number the next entry has to have.
func (a *Auditor) Next() uint64 { return a.s.count }

// Sealed is how many entries carried a composite signature that verified.
func (a *Auditor) Sealed() uint64 { return a.seals }

// Tree is the Merkle tree of what was added; ok is false where an entry is missing in it.
func (a *Auditor) Tree() (tree tlog.Tree, ok bool) { return a.s.tree, !a.damaged }

// Skip says that the next entry is lost.
func (a *Auditor) Skip() {
	a.s.count++
	a.Lost()
}

// Lost says that an unknown number of entries is lost before the next one.
func (a *Auditor) Lost() {
	a.lost, a.damaged = true, true
	a.drop()
}

func (a *Auditor) drop() { a.open, a.ends = a.open[:0], a.ends[:0] }

// Add takes the next entry. Entries are verified in runs, by the composite signature that ends each: a fault of an entry
// may show when a later one is added. key is the author's; nil checks links alone. The entry is good until the next Add;
// it is nil where raw is none of this feed.
func (a *Auditor) Add(raw []byte, key *composite.PublicKey) (*Entry, []AuditFault) {
	author, known := a.entry.Author, a.entry.author
	a.entry = Entry{raw: raw, Author: author, author: known}
	e := &a.entry
	fail := func(err error) (*Entry, []AuditFault) {
		seq := a.s.count
		a.Skip()
		return nil, []AuditFault{{seq, err}}
	}
	if len(raw) > trust.MaxEntry {
		return fail(reject(CauseOversize, a.feed.Author, "%d bytes", len(raw)))
	}
	n, err := e.parse(raw)
	if err != nil {
		return fail(reject(CauseMalformed, a.feed.Author, "%v", err))
	}
	if err := e.checkForm(); err != nil {
		return fail(err)
	}
	if e.Swarm != a.swarm {
		return fail(reject(CauseSwarm, e.Author, "of swarm %s", e.Swarm.Short()))
	}
	if e.Feed() != a.feed {
		return fail(reject(CauseMalformed, e.Author, "of another feed"))
	}
	e.hash = hashContent(raw[:n])
	var faults []AuditFault
	epoch, err := a.link(e)
	if err != nil {
		faults = append(faults, AuditFault{e.Seq, err})
		a.Lost()
	}
	a.lost = false
	a.s = a.s.next(e, epoch)
	switch {
	case key == nil:
	case e.Full != nil:
		if err := e.verifyFull(key); err != nil {
			faults = append(append(faults, a.End()...), AuditFault{e.Seq, err})
			break
		}
		a.seals++
		a.drop()
	default:
		a.open = append(a.open, raw...)
		a.ends = append(a.ends, len(a.open))
		if len(a.ends) >= maxOpen {
			faults = append(faults, a.End()...)
		}
	}
	return e, faults
}

// link is state.link, less what cannot be known after a loss.
func (a *Auditor) link(e *Entry) (*epochKey, error) {
	s := &a.s
	if a.lost && e.Seq >= s.count {
		s.count, s.head = e.Seq, e.Prev
		s.time, s.boot = min(s.time, e.Time), min(s.boot, e.BootEpoch)
		if e.Epoch != 0 && (s.epoch == nil || s.epoch.number != e.Epoch) {
			s.epoch = &epochKey{number: e.Epoch} // certified in what is lost
		}
	}
	if a.damaged && e.Kind == KindCheckpoint {
		_, err := decodeCheckpoint(e.Body)
		if err != nil {
			return nil, reject(CauseMalformed, e.Author, "%v", err)
		}
		if e.Prev != s.head || e.Seq != s.count {
			return nil, reject(CauseChain, e.Author, "entry %d does not link to the one before it", e.Seq)
		}
		return nil, nil
	}
	return s.link(e)
}

// End verifies what no seal covers, each by its epoch key.
func (a *Auditor) End() []AuditFault {
	var faults []AuditFault
	at := 0
	for _, end := range a.ends {
		e, err := Decode(a.open[at:end])
		at = end
		if err == nil {
			switch {
			case a.s.epoch == nil || a.s.epoch.number != e.Epoch:
				err = reject(CauseSignature, e.Author, "no certificate for the epoch key of entry %d", e.Seq)
			case len(a.s.epoch.body.Key) == 0:
				continue // its certificate is lost, which was told
			default:
				err = e.verifyEpoch(&a.s.epoch.body)
			}
		}
		if err != nil {
			faults = append(faults, AuditFault{e.Seq, fmt.Errorf("unsealed: %w", err)})
		}
	}
	a.drop()
	return faults
}
