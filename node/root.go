package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/omega-mesh/omega/node/api"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/root"
)

// Root implements api.Backend.
func (b backend) Root(_ context.Context, at string) (*apiv1.RootResponse, error) {
	s := b.fold.State().Root()
	if at != "" {
		h, err := hex.DecodeString(at)
		if err != nil || len(h) != len(root.Hash{}) {
			return nil, fmt.Errorf("%w: %.80q is no hash of a root entry", api.ErrInvalid, at)
		}
		var ok bool
		if s, ok = b.fold.RootAt(root.Hash(h)); !ok {
			return nil, fmt.Errorf("%w: no root entry %s", api.ErrNotFound, at)
		}
	}
	out := &apiv1.RootResponse{
		Swarm: s.Swarm[:], Head: s.Head[:], Seq: s.Seq, Time: s.Time, K: uint32(s.K), RecoveryK: uint32(b.genesis.RecoveryK),
		RecoveryKeys: uint32(len(b.genesis.Recovery)), Releases: make(map[string]string),
	}
	for _, o := range s.Operators {
		out.Operators = append(out.Operators, &apiv1.RootOperator{Did: string(o.DID), Name: o.Inception.Name, Since: o.Since, Node: string(o.Node), Entries: b.entriesOf(o.DID)})
	}
	for did, f := range s.Former {
		out.Operators = append(out.Operators, &apiv1.RootOperator{Did: string(did), Name: f.Inception.Name, Former: true, Stands: f.Stands, Entries: b.entriesOf(did)})
	}
	slices.SortFunc(out.Operators, func(x, y *apiv1.RootOperator) int {
		switch {
		case x.Former != y.Former && y.Former, x.Former == y.Former && x.Did < y.Did:
			return -1
		}
		return 1
	})
	for name, r := range s.Releases {
		out.Releases[name] = hex.EncodeToString(r.SHA256)
	}
	for did := range s.Revoked {
		out.Revoked = append(out.Revoked, string(did))
	}
	for did := range s.Issuers {
		out.Issuers = append(out.Issuers, string(did))
	}
	slices.Sort(out.Revoked)
	slices.Sort(out.Issuers)
	if s.Successor != nil {
		out.Successor = hex.EncodeToString(s.Successor.Successor)
	}
	if s.Frozen != nil {
		out.Frozen, out.FrozenDetail = string(s.Frozen.Cause), s.Frozen.Detail
	}
	for _, f := range s.Forks {
		row := &apiv1.RootFork{Common: f.Common.String()}
		for _, h := range f.Children {
			if e, ok := b.fold.RootEntry(h); ok {
				row.Children = append(row.Children, rootEntry(e))
			}
		}
		for _, did := range f.Signers {
			row.Signers = append(row.Signers, string(did))
		}
		if f.Stands != (root.Hash{}) {
			row.Stands = f.Stands.String()
		}
		out.Forks = append(out.Forks, row)
	}
	if at == "" {
		for _, e := range b.fold.RootEntries() {
			out.Chain = append(out.Chain, rootEntry(e))
		}
	}
	return out, nil
}

// entriesOf is how many entries of an author's authority chain this node has.
func (b backend) entriesOf(did identity.DID) uint64 {
	if h, ok := b.ledger.Head(did, ledger.Authority); ok {
		return h.Seq + 1
	}
	return 0
}

func rootEntry(e *root.Entry) *apiv1.RootEntry {
	out := &apiv1.RootEntry{
		Hash: e.Hash().String(), Prev: e.Prev.String(), Seq: e.Seq, Kind: e.Kind.String(), Time: timestamppb.New(time.Unix(0, e.Time)),
	}
	if raw, err := e.Encode(); err == nil {
		out.Raw = raw
	}
	for _, s := range e.Signatures {
		if e.Kind == root.KindRecover {
			out.Signers = append(out.Signers, hex.EncodeToString(s.Signer))
			continue
		}
		out.Signers = append(out.Signers, string(identity.DIDFromBytes([32]byte(s.Signer))))
	}
	if body, err := root.DecodeBody(e.Kind, e.Body); err == nil {
		if raw, err := json.Marshal(body); err == nil {
			out.BodyJson = string(raw)
		}
	}
	return out
}

// SubmitRoot implements api.Backend: the entry proves itself, so this node may carry it whoever hands it in.
func (b backend) SubmitRoot(ctx context.Context, raw []byte) (*apiv1.SubmitRootResponse, error) {
	e, err := root.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	out := &apiv1.SubmitRootResponse{Hash: e.Hash().String(), Have: uint32(len(e.Signatures)), Need: uint32(len(e.Signatures))}
	if _, known := b.fold.RootEntry(e.Hash()); known {
		return out, nil
	}
	if !b.synced.Load() {
		return nil, fmt.Errorf("%w: this node does not know yet where the root stands", api.ErrBusy)
	}
	var missing *root.MissingError
	switch err := b.fold.CheckRoot(e); {
	case err == nil:
	case errors.As(err, &missing):
		out.Have, out.Need = uint32(missing.Have), uint32(missing.Need)
		return out, nil
	case errors.Is(err, root.ErrUnsigned):
		return nil, fmt.Errorf("%w: %w", api.ErrForbidden, err)
	default:
		return nil, fmt.Errorf("%w: %w; propose it anew on the root as it stands", api.ErrState, err)
	}
	body, err := (&authority.RootBody{Entry: e}).Encode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	carried, err := b.append(ctx, ledger.KindRoot, body, true)
	if err != nil {
		return nil, err
	}
	out.Id = carried.ID()
	return out, nil
}

// checkSuspension refuses an operator's suspension that would have no effect, before it is kept for ever.
func (b backend) checkSuspension(e *ledger.Entry) error {
	if e.Kind != ledger.KindSuspend {
		return nil
	}
	body, err := authority.DecodeBody(e.Kind, e.Body)
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	s, ok := body.(*authority.SuspendBody)
	if !ok {
		return nil
	}
	until := min(s.NotAfter*int64(time.Second), e.Time+int64(trust.MaxSuspension))
	subject := identity.DIDFromBytes([32]byte(s.Subject))
	if err := b.fold.CheckSuspend(e.Author, e.Seq, subject, time.Unix(0, e.Time), time.Unix(0, until)); err != nil {
		return fmt.Errorf("%w: %w", api.ErrForbidden, err)
	}
	return nil
}
