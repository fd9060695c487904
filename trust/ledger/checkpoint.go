package ledger

import (
	"context"
	"fmt"
	"strings"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/tlog"
)

// checkpointBody is the body of a KindCheckpoint entry. The entry covers all entries of its chain before it, and says
// where the author's other chain stood.
type checkpointBody struct {
	Root          []byte `cbor:"1,keyasint"` // of the RFC 6962 tree over the hashes of the entries before this one
	AuthoritySize uint64 `cbor:"2,keyasint"` // entries of the author's authority chain
	AuthorityRoot []byte `cbor:"3,keyasint"` // of the tree over them
}

// maxCheckpointBody bounds a checkpoint's body before it is parsed.
const maxCheckpointBody = 128

func decodeCheckpoint(body []byte) (*checkpointBody, error) {
	var b checkpointBody
	if err := canonical.Unmarshal(body, &b, maxCheckpointBody); err != nil {
		return nil, err
	}
	if len(b.Root) != len(tlog.Hash{}) || len(b.AuthorityRoot) != len(tlog.Hash{}) || b.AuthoritySize > tlog.MaxSize {
		return nil, fmt.Errorf("ledger: a checkpoint with roots of %d and %d bytes", len(b.Root), len(b.AuthorityRoot))
	}
	return &b, nil
}

// Origin is the feed's name in checkpoints: "omega/<swarm>/<52 digits of the author>/<chain>".
func (f Feed) Origin(swarm trust.SwarmID) string {
	return "omega/" + swarm.String() + "/" + strings.TrimPrefix(string(f.Author), "did:omega:") + "/" + f.Chain.String()
}

// Checkpoints are what a KindCheckpoint entry says: of its own chain up to the entry before it, and of the author's
// authority chain, as the author had it. The first holds for whoever stored the entry; the second is for the reader to
// compare with that chain.
func Checkpoints(e *Entry) (own, authority tlog.Checkpoint, err error) {
	if e.Kind != KindCheckpoint {
		return own, authority, fmt.Errorf("ledger: %s is not a checkpoint", e.Kind)
	}
	b, err := decodeCheckpoint(e.Body)
	if err != nil {
		return own, authority, err
	}
	own = tlog.Checkpoint{Origin: e.Feed().Origin(e.Swarm), Size: e.Seq, Root: tlog.Hash(b.Root)}
	authority = tlog.Checkpoint{Origin: Feed{e.Author, Authority}.Origin(e.Swarm), Size: b.AuthoritySize, Root: tlog.Hash(b.AuthorityRoot)}
	return own, authority, nil
}

// Checkpoint signs and stores a checkpoint of both of this peer's chains, as Append does.
func (l *Ledger) Checkpoint(ctx context.Context) (*Entry, error) {
	return l.Append(ctx, Activity, KindCheckpoint, nil, true)
}

// checkpointBody is the body of a checkpoint that follows tip. The caller holds the activity feed's order.
func (l *Ledger) checkpointBody(tip *state) ([]byte, error) {
	authority, _, _ := l.writers[Authority].feed.snapshot()
	root, other := tip.tree.Root(), authority.tree.Root()
	return canonical.Marshal(checkpointBody{Root: root[:], AuthoritySize: authority.count, AuthorityRoot: other[:]})
}

// Tree is the Merkle tree over the hashes of a feed's stored entries.
func (l *Ledger) Tree(f Feed) tlog.Tree {
	x := l.lookup(f)
	if x == nil {
		return tlog.Tree{}
	}
	s, _, _ := x.snapshot()
	return s.tree
}

// RootAt is the root over the first size entries of a feed; ErrNotStored where this host does not hold them. Unless that
// is where the feed stands, it reads them.
func (l *Ledger) RootAt(id Feed, size uint64) (tlog.Hash, error) {
	f := l.lookup(id)
	if f == nil {
		return tlog.Hash{}, fmt.Errorf("%s chain of %s: %w", id.Chain, id.Author.Short(), ErrNotStored)
	}
	f.mu.Lock()
	s, base := f.state, f.base
	f.mu.Unlock()
	var tree tlog.Tree
	if base != nil {
		tree = base.tree
	}
	switch {
	case s.count == size:
		return s.tree.Root(), nil
	case size < tree.Size() || size > s.count:
		return tlog.Hash{}, fmt.Errorf("%s chain of %s at %d: %w", id.Chain, id.Author.Short(), size, ErrNotStored)
	case size == tree.Size():
		return tree.Root(), nil
	}
	err := l.walk(f, tree.Size(), 256<<10, func(raw []byte) (bool, error) {
		e, err := decodeOwned(raw)
		if err != nil {
			return false, err
		}
		tree = tree.Append(tlog.Hash(e.hash))
		return tree.Size() < size, nil
	})
	return tree.Root(), err
}
