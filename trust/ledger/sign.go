package ledger

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

// SignEntry makes an authority entry of an identity that has no ledger of its own: an operator, in the CLI's process. seq
// and prev continue the operator's feed (0 and the zero Hash begin it). seen are the other operators' heads it has taken
// into account: what orders a grant after a revocation.
func SignEntry(op *identity.Identity, swarm trust.SwarmID, seq uint64, prev Hash, kind Kind, body []byte, now time.Time, seen ...Head) ([]byte, error) {
	e := &Entry{
		Version: entryVersion, Swarm: swarm, Chain: Authority, Seq: seq, Prev: prev, Time: now.UnixNano(), Kind: kind, Body: body,
		Seen: sortHeads(seen),
	}
	if err := e.signFull(op); err != nil {
		return nil, err
	}
	return e.raw, nil
}

func sortHeads(heads []Head) []Head {
	heads = slices.Clone(heads)
	slices.SortFunc(heads, func(a, b Head) int {
		if a.Author != b.Author {
			ab, _ := a.Author.Bytes()
			bb, _ := b.Author.Bytes()
			return strings.Compare(string(ab[:]), string(bb[:]))
		}
		return int(a.Chain) - int(b.Chain)
	})
	return heads
}

// signFull fills author, signature, raw and hash, and checks the result as a reader would.
func (e *Entry) signFull(id *identity.Identity) error { return e.signBy(id.DID(), id.Sign) }

// signBy is signFull with what a key does.
func (e *Entry) signBy(did identity.DID, sign func(context string, msg []byte) ([]byte, error)) error {
	if err := e.setAuthor(did); err != nil {
		return err
	}
	content := e.appendContent(make([]byte, 0, len(e.Body)+trust.MaxEntryOverhead))
	sig, err := sign(contextEntry, content)
	if err != nil {
		return fmt.Errorf("ledger: sign: %w", err)
	}
	return e.finish(content, sig)
}

func (e *Entry) setAuthor(did identity.DID) error {
	author, err := did.Bytes()
	if err != nil {
		return err
	}
	e.Author, e.author = did, author
	return nil
}

// finish appends sig to content and decodes the whole, so that nothing is signed that others would refuse.
func (e *Entry) finish(content, sig []byte) error {
	raw := appendBytes(content, sig)
	d, err := decodeOwned(raw)
	if err != nil {
		return fmt.Errorf("ledger: own entry: %w", err)
	}
	e.Sig, e.Full, e.raw, e.hash, e.Body, e.Seen = d.Sig, d.Full, d.raw, d.hash, d.Body, d.Seen
	return nil
}

// signEpoch is signFull with an epoch key (Ed25519ctx, RFC 8032 §5.1).
func (e *Entry) signEpoch(did identity.DID, key ed25519.PrivateKey) error {
	if err := e.setAuthor(did); err != nil {
		return err
	}
	content := e.appendContent(make([]byte, 0, len(e.Body)+512))
	sig, err := key.Sign(nil, content, &ed25519.Options{Context: contextEntry})
	if err != nil {
		return fmt.Errorf("ledger: sign: %w", err)
	}
	return e.finish(content, sig)
}
