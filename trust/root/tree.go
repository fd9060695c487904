package root

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

// Refusals of Add that a caller may decide on.
var (
	// ErrOrphan: the entry before it has not come; the tree keeps it.
	ErrOrphan = errors.New("the root entry before it has not come")
	// ErrFull: a bound of trust/limits.go is reached.
	ErrFull = errors.New("the bound is reached")
)

// Tree holds every valid root entry and derives the state. It is not safe for concurrent use.
type Tree struct {
	anchor Anchor
	nodes  map[Hash]*node
	held   map[Hash][]orphan // by the hash they wait for
	bytes  map[identity.DID]int
	all    int
	state  *State
}

// node is one entry that may stand. Whether it may depends on the entries before it alone, so it is decided once.
type node struct {
	hash     Hash
	entry    *Entry // nil for genesis
	state    *State // of the path to it; nil where it is derived anew when asked for
	parent   *node
	children []*node // by hash
	recovers []*node // recoveries anywhere below that name this entry as the last common one
}

// keepEvery is how far apart the states that stay in memory are: each may name all that was ever revoked.
const keepEvery = 64

// path is the state of the path to n.
func (n *node) path() *State {
	var behind []*node
	for ; n.state == nil; n = n.parent {
		behind = append(behind, n)
	}
	s := n.state
	for _, n := range slices.Backward(behind) {
		next, err := s.after(n.entry)
		if err != nil {
			break // it was valid when it came, and nothing it depends on changes
		}
		s = next
	}
	return s
}

type orphan struct {
	entry *Entry
	by    identity.DID
	size  int
}

// NewTree begins with genesis.
func NewTree(a Anchor) *Tree {
	g := &node{hash: Hash(a.Swarm), state: genesisState(a)}
	return &Tree{
		anchor: a, nodes: map[Hash]*node{Hash(a.Swarm): g}, held: make(map[Hash][]orphan), bytes: make(map[identity.DID]int), state: g.state,
	}
}

// State is what follows from all that was added.
func (t *Tree) State() *State { return t.state }

// Has reports whether the tree has an entry, and it is valid.
func (t *Tree) Has(h Hash) bool { _, ok := t.nodes[h]; return ok }

// Find gives a valid entry, of the chain or of a branch that does not stand.
func (t *Tree) Find(h Hash) (*Entry, bool) {
	n, ok := t.nodes[h]
	if !ok || n.entry == nil {
		return nil, false
	}
	return n.entry, true
}

// Chain is the entries that stand, from the first to the head.
func (t *Tree) Chain() []*Entry {
	var out []*Entry
	for n := t.nodes[t.state.Head]; n != nil && n.entry != nil; n = n.parent {
		out = append(out, n.entry)
	}
	slices.Reverse(out)
	return out
}

// At gives the state of the path that ends in h, whether it stands or not: what an entry after h is made from.
func (t *Tree) At(h Hash) (*State, bool) {
	n, ok := t.nodes[h]
	if !ok {
		return nil, false
	}
	return n.path(), true
}

// Add takes an entry that by carried, in any order and however often; changed is true where it is new and valid. An
// orphan is kept, within bounds, and added when its parent comes.
func (t *Tree) Add(e *Entry, by identity.DID) (changed bool, err error) {
	if t.Has(e.hash) {
		return false, nil
	}
	parent, ok := t.nodes[e.Prev]
	if !ok {
		return false, t.hold(e, by)
	}
	if err := t.grow(parent, e); err != nil {
		return false, err
	}
	for waiting := []Hash{e.hash}; len(waiting) > 0; waiting = waiting[1:] {
		list := t.held[waiting[0]]
		delete(t.held, waiting[0])
		for _, o := range list {
			t.all -= o.size
			if t.bytes[o.by] -= o.size; t.bytes[o.by] <= 0 {
				delete(t.bytes, o.by)
			}
			if !t.Has(o.entry.hash) && t.grow(t.nodes[waiting[0]], o.entry) == nil {
				waiting = append(waiting, o.entry.hash)
			}
		}
	}
	t.state = t.derive()
	return true, nil
}

// Check says why e would not be taken, without taking it; nil where it is known already.
func (t *Tree) Check(e *Entry) error {
	if t.Has(e.hash) {
		return nil
	}
	parent, ok := t.nodes[e.Prev]
	if !ok {
		return ErrOrphan
	}
	_, _, err := t.judge(parent, e)
	return err
}

func (t *Tree) hold(e *Entry, by identity.DID) error {
	raw, err := e.Encode()
	if err != nil {
		return err
	}
	for _, o := range t.held[e.Prev] {
		// Copies with other signatures are kept apart: one of them may be spoilt.
		if o.entry.hash == e.hash && slices.EqualFunc(o.entry.Signatures, e.Signatures, func(a, b Signature) bool {
			return bytes.Equal(a.Signer, b.Signer) && bytes.Equal(a.Bytes, b.Bytes)
		}) {
			return ErrOrphan
		}
	}
	if t.bytes[by]+len(raw) > trust.MaxRootHeld || t.all+len(raw) > trust.MaxRootHeldAll {
		return fmt.Errorf("root: entry %d waits for its parent: %w", e.Seq, ErrFull)
	}
	t.bytes[by] += len(raw)
	t.all += len(raw)
	t.held[e.Prev] = append(t.held[e.Prev], orphan{e, by, len(raw)})
	return ErrOrphan
}

// grow makes e a child of parent where it is valid there.
func (t *Tree) grow(parent *node, e *Entry) error {
	if len(t.nodes) > trust.MaxRootEntries {
		return fmt.Errorf("root: %d entries: %w", len(t.nodes), ErrFull)
	}
	next, common, err := t.judge(parent, e)
	if err != nil {
		return err
	}
	n := &node{hash: e.hash, entry: e, state: next, parent: parent}
	if common != nil {
		common.recovers = append(common.recovers, n)
	} else {
		i, _ := slices.BinarySearchFunc(parent.children, e.hash, func(c *node, h Hash) int { return bytes.Compare(c.entry.hash[:], h[:]) })
		parent.children = slices.Insert(parent.children, i, n)
	}
	t.nodes[e.hash] = n
	if parent.entry != nil && parent.entry.Seq%keepEvery != 0 {
		parent.state = nil
	}
	return nil
}

// judge says what follows from e after parent, and for a recovery which entry it names as common.
func (t *Tree) judge(parent *node, e *Entry) (next *State, common *node, err error) {
	before := parent.path()
	if next, err = before.after(e); err != nil {
		return nil, nil, err
	}
	if e.Kind == KindRecover {
		common, err = t.authorised(parent, e)
		return next, common, err
	}
	k, err := e.valid(before.Operators)
	if err == nil && k < before.K {
		err = &MissingError{Have: k, Need: before.K}
	}
	return next, nil, err
}

// authorised finds the entry that a recovery names as the last common one, and checks its signatures.
func (t *Tree) authorised(parent *node, e *Entry) (*node, error) {
	body, err := DecodeBody(KindRecover, e.Body)
	if err != nil {
		return nil, err
	}
	want := Hash(body.(*Recover).Common)
	common := parent
	for common != nil && common.hash != want {
		common = common.parent
	}
	if common == nil {
		return nil, fmt.Errorf("root: the recovery does not follow %s, which it names as common: %w", want.Short(), ErrChange)
	}
	have, need := 0, t.anchor.RecoveryK
	if need > 0 {
		have, err = e.recovered(t.anchor.Recovery)
	} else {
		s := common.path()
		need = s.K
		have, err = e.valid(s.Operators)
	}
	if err == nil && have < need {
		err = &MissingError{Have: have, Need: need}
	}
	return common, err
}

// derive walks from genesis along what stands.
func (t *Tree) derive() *State {
	at, resolved := t.nodes[Hash(t.anchor.Swarm)], []Fork(nil)
	for {
		forked := len(at.children) > 1
		if forked {
			resolved = append(resolved, t.evidence(at))
		}
		if forked || t.anchor.RecoveryK > 0 {
			if chosen := at.recovered(); chosen != nil {
				if forked {
					resolved[len(resolved)-1].Stands = chosen.entry.Prev
				}
				at = chosen
				continue
			}
		}
		if forked {
			return t.frozen(at, resolved)
		}
		if len(at.children) == 0 {
			s := *at.path()
			s.Forks = resolved
			return &s
		}
		at = at.children[0]
	}
}

// recovered is the recovery that counts at n: the highest round, where only one has it.
func (n *node) recovered() *node {
	var best *node
	var round uint32
	tie := false
	for _, r := range n.recovers {
		body, err := DecodeBody(KindRecover, r.entry.Body)
		if err != nil {
			continue // it was decoded when it came
		}
		switch x := body.(*Recover).Round; {
		case best == nil || x > round:
			best, round, tie = r, x, false
		case x == round:
			tie = true
		}
	}
	if tie {
		return nil
	}
	return best
}

// evidence is the fork at n: who signed more than one of its children.
func (t *Tree) evidence(n *node) Fork {
	f := Fork{Common: n.hash}
	signed := make(map[identity.DID]int)
	for _, c := range n.children {
		f.Children = append(f.Children, c.entry.hash)
		for _, s := range c.entry.Signatures {
			signed[identity.DIDFromBytes([32]byte(s.Signer))]++
		}
	}
	for did, n := range signed {
		if n > 1 {
			f.Signers = append(f.Signers, did)
		}
	}
	slices.Sort(f.Signers)
	return f
}

// frozen is the state at an unresolved fork: of its last common entry, with what any branch revokes.
func (t *Tree) frozen(at *node, forks []Fork) *State {
	s := *at.path()
	s.Forks = forks
	since := at.children[0].entry.Time
	for _, c := range at.children {
		since = min(since, c.entry.Time)
	}
	for _, below := range under(at) {
		for did, r := range below.path().Revoked {
			if old, ok := s.Revoked[did]; !ok || old.Authority > r.Authority || old.Activity > r.Activity {
				s.Revoked = revokedWith(s.Revoked, did, r)
			}
		}
	}
	if s.Frozen == nil || s.Frozen.Since > since {
		fork := forks[len(forks)-1]
		s.Frozen = &Freeze{Since: since, Cause: FrozenFork, Entry: at.hash, Detail: fmt.Sprintf(
			"%d different root entries follow entry %d, and %d operators signed more than one of them: their keys are stolen or they lie", len(fork.Children), s.Seq, len(fork.Signers))}
	}
	return &s
}

// under is every node below n, in no order that matters.
func under(n *node) []*node {
	var out []*node
	for queue := []*node{n}; len(queue) > 0; queue = queue[1:] {
		next := slices.Concat(queue[0].children, queue[0].recovers)
		out = append(out, next...)
		queue = append(queue, next...)
	}
	return out
}
