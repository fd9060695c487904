package authority

import (
	"errors"
	"fmt"
	"slices"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/root"
)

// The root chain travels in the authority chains of members, each entry proving itself. A change of it may make or end
// operators, so everything is derived again; and what somebody said as an operator before this peer knew it to be one is
// kept for that day.

// RootBody carries an entry of the root chain. Any member may post it; it proves itself.
type RootBody struct {
	Entry *root.Entry
}

// Kind implements Body.
func (*RootBody) Kind() ledger.Kind { return ledger.KindRoot }

// Encode implements Body.
func (b *RootBody) Encode() ([]byte, error) { return b.Entry.Encode() }

// Anchor is what the root chain begins with.
func (g *Genesis) Anchor() root.Anchor {
	return root.Anchor{
		Swarm: g.id, Suite: g.Suite, Created: g.Created.UnixNano(), Operators: g.Operators, K: g.Threshold,
		Recovery: g.Recovery, RecoveryK: g.RecoveryK,
	}
}

// Propose makes the entry that would change the root as it stands, for operators to sign.
func (s *State) Propose(body root.Body, now int64) (*root.Entry, error) {
	return root.New(s.Root(), body, now)
}

// Root is the state of the root chain.
func (s *State) Root() *root.State { return s.root }

// RootEntries are the entries of the root chain that stand, from the first; and RootEntry finds one of any branch.
func (f *Fold) RootEntries() []*root.Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tree.Chain()
}

// RootEntry finds a root entry, of a branch that does not stand too.
func (f *Fold) RootEntry(h root.Hash) (*root.Entry, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tree.Find(h)
}

// RootAt gives the root's state after an entry of any branch: what a recovery follows.
func (f *Fold) RootAt(h root.Hash) (*root.State, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tree.At(h)
}

// CheckRoot says whether a root entry would be taken now, without taking it.
func (f *Fold) CheckRoot(e *root.Entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tree.Check(e)
}

func (f *Fold) applyRoot(e *ledger.Entry, b *RootBody) error {
	changed, err := f.tree.Add(b.Entry, e.Author)
	if err != nil {
		return fmt.Errorf("authority: %s %s of %s: %w: %w", e.Kind, e.ID(), e.Author.Short(), ErrVoid, err)
	}
	if !changed {
		return nil
	}
	next := f.frost.clone()
	next.root = f.tree.State()
	f.frost = next
	f.rekey()
	f.judge()
	f.rebuild()
	f.letIn()
	return nil
}

// rekey derives which invite holds each key, and which withdrawals count.
func (f *Fold) rekey() {
	clear(f.byKey)
	for id, inv := range f.invites {
		inv.withdraw = f.withdrawn(id)
		if hash := [32]byte(inv.body.KeyHash); f.frost.counts(inv.by, inv.seq) {
			if old := f.byKey[hash]; old == nil || inv.before(old.fact) { // one key, one invite: the first
				f.byKey[hash] = inv
			}
		}
	}
	f.recountHeld()
}

// withdrawn are the withdrawals of an invite that count.
func (f *Fold) withdrawn(id string) []*WithdrawBody {
	var out []*WithdrawBody
	for _, w := range f.withdrawals[id] {
		if f.frost.counts(w.by, w.seq) {
			out = append(out, w.body)
		}
	}
	return out
}

// waiting is what one author, no operator so far, said as one.
type waiting struct {
	entries []*ledger.Entry // by number
	size    int
}

// errNoOperator says why an entry waits.
var errNoOperator = errors.New("its author is no operator")

// wait keeps e for the day its author becomes an operator: of each author the first so many, so that what is kept does
// not depend on the order of arrival.
func (f *Fold) wait(e *ledger.Entry) error {
	refused := fmt.Errorf("authority: %s %s of %s: %w: %w", e.Kind, e.ID(), e.Author.Short(), errNoOperator, ErrVoid)
	w := f.waiting[e.Author]
	if w == nil {
		w = new(waiting)
	}
	i, there := slices.BinarySearchFunc(w.entries, e.Seq, func(a *ledger.Entry, n uint64) int {
		switch {
		case a.Seq < n:
			return -1
		case a.Seq > n:
			return 1
		}
		return 0
	})
	if there || f.waits+len(e.Body) > trust.MaxWaitingAll {
		return refused
	}
	w.entries = slices.Insert(w.entries, i, e)
	w.size += len(e.Body)
	f.waits += len(e.Body)
	f.waiting[e.Author] = w
	for len(w.entries) > trust.MaxWaiting || w.size > trust.MaxWaitingBytes {
		last := w.entries[len(w.entries)-1]
		w.entries = w.entries[:len(w.entries)-1]
		w.size -= len(last.Body)
		f.waits -= len(last.Body)
	}
	return refused
}

// letIn applies what waited for its author to become an operator, and the proofs that waited for its key.
func (f *Fold) letIn() {
	for did, w := range f.waiting {
		if _, ok := f.frost.root.Inception(did); !ok {
			continue
		}
		delete(f.waiting, did)
		f.waits -= w.size
		for _, e := range w.entries {
			_ = f.apply(e) // what has no effect is said in the log of who brings it again
		}
	}
	f.provenNow()
}

// inceptionOf is the record of an operator, former ones included, or a member.
func (f *Fold) inceptionOf(did identity.DID) (*identity.Inception, bool) {
	if i, ok := f.frost.root.Inception(did); ok {
		return i, true
	}
	if m := f.members[did]; m != nil {
		return m.inception, true
	}
	return nil, false
}
