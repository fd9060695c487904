package ledger

import (
	"fmt"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/tlog"
)

// Base is where an activity feed begins for whoever does not hold it from its first entry: a checkpoint, the Merkle tree
// of what came before it, and the cosignatures of those who held that. It stands for the entries that were thrown away.
type Base struct {
	Feed       Feed
	First      uint64   // number of the checkpoint, the first entry that is kept
	Frontier   [][]byte // of the tree over the First entries before it
	Checkpoint []byte   // that entry, raw
	Cosigned   []tlog.Cosignature

	entry *Entry
	tree  tlog.Tree
}

type baseWire struct {
	Version    uint8        `cbor:"1,keyasint"`
	Frontier   [][]byte     `cbor:"2,keyasint"`
	Checkpoint []byte       `cbor:"3,keyasint"`
	Cosigned   []cosignWire `cbor:"4,keyasint"`
}

type cosignWire struct {
	Witness []byte `cbor:"1,keyasint"` // DID, 32 bytes
	Time    uint64 `cbor:"2,keyasint"`
	Sig     []byte `cbor:"3,keyasint"`
}

// NewBase makes the base at a checkpoint entry. tree is that of the entries before it.
func NewBase(checkpoint []byte, tree tlog.Tree, cosigned []tlog.Cosignature) (*Base, error) {
	b := &Base{Frontier: tree.Frontier(), Checkpoint: checkpoint, Cosigned: cosigned, tree: tree}
	return b, b.check()
}

// check holds what can be seen without any key: that the entry is a checkpoint of just this tree.
func (b *Base) check() error {
	e, err := Decode(b.Checkpoint)
	if err != nil {
		return fmt.Errorf("ledger: base: %w", err)
	}
	own, _, err := Checkpoints(e)
	if err != nil {
		return fmt.Errorf("ledger: base: %w", err)
	}
	if own.Size != b.tree.Size() || own.Root != b.tree.Root() || e.Seq == 0 {
		return reject(CauseChain, e.Author, "base: the checkpoint %d is not of that tree", e.Seq)
	}
	if len(b.Cosigned) > trust.MaxCosigners {
		return reject(CauseOversize, e.Author, "base: %d cosignatures", len(b.Cosigned))
	}
	b.Feed, b.First, b.entry = e.Feed(), e.Seq, e
	return nil
}

// Entry is the checkpoint.
func (b *Base) Entry() *Entry { return b.entry }

// Signed is what the cosignatures are over.
func (b *Base) Signed() tlog.Checkpoint {
	return tlog.Checkpoint{Origin: b.Feed.Origin(b.entry.Swarm), Size: b.First, Root: b.tree.Root()}
}

// Verify checks the author's own signature of the checkpoint. Who cosigned, and whether that is enough, is for the
// package witness.
func (b *Base) Verify(swarm trust.SwarmID, key *composite.PublicKey) error {
	if b.entry.Swarm != swarm {
		return reject(CauseSwarm, b.Feed.Author, "base of swarm %s", b.entry.Swarm.Short())
	}
	return b.entry.verifyFull(key)
}

// start is the state of a feed that begins here, before the checkpoint itself is linked.
func (b *Base) start() state {
	return state{count: b.First, head: b.entry.Prev, sealed: b.First, tree: b.tree}
}

// Encode is the base as it travels and is stored: at most trust.MaxBase bytes.
func (b *Base) Encode() ([]byte, error) {
	w := baseWire{Version: 1, Frontier: b.Frontier, Checkpoint: b.Checkpoint, Cosigned: []cosignWire{}}
	for _, c := range b.Cosigned {
		did, err := identity.DID(c.Witness).Bytes()
		if err != nil {
			return nil, fmt.Errorf("ledger: base: %w", err)
		}
		w.Cosigned = append(w.Cosigned, cosignWire{did[:], c.Time, c.Sig})
	}
	raw, err := canonical.Marshal(w)
	if err == nil && len(raw) > trust.MaxBase {
		err = fmt.Errorf("ledger: base of %d bytes: %w", len(raw), canonical.ErrTooLong)
	}
	return raw, err
}

// DecodeBase reads a base; it verifies no signature.
func DecodeBase(raw []byte) (*Base, error) {
	var w baseWire
	if err := canonical.Unmarshal(raw, &w, trust.MaxBase); err != nil {
		return nil, reject(CauseMalformed, "", "base: %v", err)
	}
	if w.Version != 1 || len(w.Cosigned) > trust.MaxCosigners {
		return nil, reject(CauseMalformed, "", "base of version %d with %d cosignatures", w.Version, len(w.Cosigned))
	}
	b := &Base{Frontier: w.Frontier, Checkpoint: w.Checkpoint}
	for _, c := range w.Cosigned {
		if len(c.Witness) != 32 || len(c.Sig) != tlog.SignatureSize {
			return nil, reject(CauseMalformed, "", "base: a cosignature of %d bytes", len(c.Sig))
		}
		b.Cosigned = append(b.Cosigned, tlog.Cosignature{Witness: string(identity.DIDFromBytes([32]byte(c.Witness))), Time: c.Time, Sig: c.Sig})
	}
	e, err := Decode(w.Checkpoint)
	if err != nil {
		return nil, err
	}
	if b.tree, err = tlog.FromFrontier(e.Seq, w.Frontier); err != nil {
		return nil, reject(CauseMalformed, e.Author, "base: %v", err)
	}
	return b, b.check()
}
