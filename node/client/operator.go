package client

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/root"
)

// ErrNoOperator says that the folder holds no operator's key: what acts on other hosts needs one.
var ErrNoOperator = errors.New("no operator's key here")

// submitTries bounds how often an entry is signed anew because another client signed in between.
const submitTries = 5

// Operator signs entries with the operator's key of a state folder.
type Operator struct {
	client *Client
	self   *identity.Identity
}

// OpenOperator opens the operator's key in the client's folder. The caller closes it: while it is open, no other
// process can sign with it, so that two can never continue the feed differently.
func (c *Client) OpenOperator(ctx context.Context, passphrase []byte) (*Operator, error) {
	for {
		self, err := identity.Open(filepath.Join(c.Dir, "operator"), identity.Options{Passphrase: passphrase})
		switch {
		case err == nil:
			return &Operator{client: c, self: self}, nil
		case errors.Is(err, identity.ErrNone):
			return nil, fmt.Errorf("%w: %s has none; run this on an operator's host", ErrNoOperator, c.Dir)
		case !errors.Is(err, identity.ErrLocked):
			return nil, fmt.Errorf("open the operator's key: %w", err)
		}
		select { // another command is signing: it takes milliseconds
		case <-ctx.Done():
			return nil, fmt.Errorf("open the operator's key: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close lets go of the key.
func (o *Operator) Close() error { return o.self.Close() }

// DID is the operator's.
func (o *Operator) DID() identity.DID { return o.self.DID() }

// Suite is the cryptographic suite of the operator's key, which is its swarm's.
func (o *Operator) Suite() trust.Suite { return o.self.Suite() }

// Submit signs body as the operator's next entry and hands it to the node, which checks, keeps and spreads it.
// It returns the entry's id.
func (o *Operator) Submit(ctx context.Context, body authority.Body) (string, error) {
	raw, err := body.Encode()
	if err != nil {
		return "", err
	}
	for try := 1; ; try++ {
		head, err := o.client.Head(ctx, &apiv1.HeadRequest{Did: string(o.self.DID())})
		if err != nil {
			return "", err
		}
		genesis, err := authority.DecodeGenesis(head.Genesis)
		if err != nil {
			return "", fmt.Errorf("the node's genesis: %w", err)
		}
		var prev ledger.Hash
		if len(head.Prev) != len(prev) && head.NextSeq > 0 {
			return "", fmt.Errorf("the node's head of this operator: %d bytes of hash", len(head.Prev))
		}
		copy(prev[:], head.Prev)
		entry, err := ledger.SignEntry(o.self, genesis.SwarmID(), head.NextSeq, prev, body.Kind(), raw, time.Now())
		if err != nil {
			return "", fmt.Errorf("sign as the operator: %w", err)
		}
		answer, err := o.client.NodeClient.Submit(ctx, &apiv1.SubmitRequest{Entry: entry})
		if err == nil {
			return answer.Id, nil
		}
		// The number was taken: another entry of this operator came in between.
		taken := connect.CodeOf(err) == connect.CodeAborted || connect.CodeOf(err) == connect.CodeAlreadyExists
		if !taken || try == submitTries {
			return "", err
		}
	}
}

// SignRoot adds the operator's signature to an entry of the root chain.
func (o *Operator) SignRoot(e *root.Entry) (*root.Entry, error) { return e.SignedBy(o.self) }
