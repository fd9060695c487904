package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/omega-mesh/omega/node/api"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// NextDir is the folder with the next key of the node in dir: the one asked for, or the one beside dir; or the one inside
// it, where an older version put it.
func NextDir(dir, asked string) string {
	l := Layout{dir}
	switch {
	case asked != "":
		return asked
	case exists(l.Next()) || !exists(l.NextInside()):
		return l.Next()
	}
	return l.NextInside()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Rotate implements api.Backend: from here on the node signs with key, which must be the one its identity committed to.
func (b backend) Rotate(ctx context.Context, seed []byte, next [32]byte) (uint32, string, error) {
	key, err := composite.FromSeed(b.self.Suite(), seed)
	if err != nil {
		return 0, "", fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	e, err := b.ledger.Rotate(key, next, b.parts.Passphrase)
	switch {
	case errors.Is(err, identity.ErrNextKey):
		return 0, "", fmt.Errorf("%w: %w: only the key committed to can follow", api.ErrForbidden, err)
	case err != nil:
		return 0, "", fmt.Errorf("rotate: %w", err)
	}
	b.log.Warn("this node's key was rotated", "number", e.Rotation, "entry", e.ID())
	b.changes.ring()
	b.swarm.Redial()
	b.rekey(context.WithoutCancel(ctx))
	return e.Rotation, e.ID(), nil
}

// rekey puts the keys that follow from the identity's in the place of those that followed from its last: whoever stole
// that has them, too. The rotation stands whether or not this is done at once; a start does it again.
func (n *Node) rekey(ctx context.Context) {
	key, err := namelessKey(n.self)
	if err == nil {
		n.nameless.desk.Rekey(key)
		err = n.giveKey(ctx)
	}
	if err != nil {
		n.log.Warn("the new key for anonymous reports was not given out: no report can be made before the next start", "err", err)
	}
	if err := n.witness.Rekey(ctx); err != nil {
		n.log.Warn("the new key of this witness is not certified yet; it is before it is used", "err", err)
	}
}

// Identity implements api.Backend: the public history of a member's key; of this node's own where name is empty.
func (b backend) Identity(_ context.Context, name string) (*apiv1.IdentityResponse, error) {
	keys, active := b.self.Keys(), true
	s := b.fold.State()
	if name == "" {
		name = b.DID()
	}
	var found []*authority.Member
	for _, m := range s.Members() {
		if string(m.DID) == name || m.Name == name {
			found = append(found, m)
		}
	}
	switch {
	case len(found) == 1:
		keys, active = found[0].Keys, found[0].Active(b.clock.now())
	case len(found) > 1:
		return nil, fmt.Errorf("%w: %d members are called %s; name one by its DID", api.ErrInvalid, len(found), name)
	case name != b.DID():
		return nil, fmt.Errorf("%w: no member %s", api.ErrNotFound, name)
	}
	out := &apiv1.IdentityResponse{Inception: keys.Inception.Encode(), Active: active}
	for _, r := range keys.Rotations {
		out.Rotations = append(out.Rotations, r.Encode())
	}
	return out, nil
}

// finishRotation puts into the feed a rotation that a crash kept out of it after the key files had changed.
func (n *Node) finishRotation() {
	carrier := n.self.Carrier()
	if carrier == nil {
		return
	}
	if _, err := n.ledger.Ingest(context.Background(), carrier); err != nil && !errors.Is(err, ledger.ErrDuplicate) {
		n.log.Warn("the entry of this node's own rotation is not in its feed yet; peers give what leads to it", "err", err)
	}
}

// onContest takes a second rotation of one number, and has both posted for everyone.
func (n *Node) onContest(r *identity.Rotation) {
	before, ok := n.fold.State().Member(r.DID)
	if !ok || before.Contest != nil {
		return
	}
	if err := n.fold.ApplyRotation(r); err != nil {
		n.log.Warn("a contested rotation without effect", "author", n.nameOf(r.DID), "err", err)
		return
	}
	n.changes.ring()
	if m, ok := n.fold.State().Member(r.DID); ok && len(m.Contest) == 2 {
		select {
		case n.contests <- authority.NewContest(m.Contest[0], m.Contest[1]):
		default: // every peer that sees both posts them
		}
	}
}

// onDuplicate says that one identity runs in two processes at once.
func (n *Node) onDuplicate(did identity.DID, at swarm.Twins) {
	n.health.duplicated(fmt.Sprintf("%s runs twice, at %s and %s: its state folder was copied", n.nameOf(did), at.Before, at.Last))
	f := event.Finding{
		RuleID: "omega.identity.duplicate", Rule: "duplicate-identity", Title: "Duplicate identity: one key runs in two places",
		Attack: []string{"T1552.004"}, Severity: event.SeverityHigh, Confidence: 90, // Of the member and of no address: which of the two is the owner's only the next key can tell, and the thief may well
		// be the one who was met first.
		Subject: event.Subject{Member: string(did)},
		Evidence: []event.Evidence{
			{Name: "did", Value: string(did)}, {Name: "name", Value: n.nameOf(did)},
			{Name: "address", Value: at.Before.String()}, {Name: "address", Value: at.Last.String()},
		},
	}
	select {
	case n.alarms <- f:
	default: // it is told again within the minute if it goes on
	}
}

// closeOutdated cuts connections that members proved with keys they have rotated away from.
func (n *Node) closeOutdated(s *authority.State) {
	for _, p := range n.swarm.Peers() {
		if m, ok := s.Member(p.DID); ok && m.Keys.Number() > 0 {
			n.swarm.CloseOutdated(p.DID, m.Keys.Number())
		}
	}
}

// nextKey is doctor's check of where the next key lies.
func (n *Node) nextKey() (ok bool, detail, lost string) {
	l := Layout{n.cfg.Dir}
	const media = "keep it on removable or offline media, and name it with `omega key rotate --next-key DIR`"
	switch {
	case exists(l.NextInside()):
		return false, "the pre-rotated next key lies inside the state folder, beside the current one",
			"whoever copies the state folder can rotate as well as you: move " + l.NextInside() + " away; " + media
	case exists(l.Next()):
		return true, fmt.Sprintf("in %s, on this host: a copy of %s has it not, a copy of the whole disk has; %s", l.Next(), filepath.Clean(l.Dir), media), ""
	}
	return true, "not on this host", ""
}
