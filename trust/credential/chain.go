package credential

import (
	"fmt"
	"slices"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

// Chain is a credential and what it rests on: an operator's or issuer's first, the holder's last.
type Chain []*Credential

// DecodeChain reads a chain of at most trust.MaxDelegation+1 credentials. It verifies no signature.
func DecodeChain(raws [][]byte) (Chain, error) {
	if len(raws) == 0 || len(raws) > trust.MaxDelegation+1 {
		return nil, fmt.Errorf("%w: a chain of %d, want 1 to %d", ErrCredential, len(raws), trust.MaxDelegation+1)
	}
	var c Chain
	for _, raw := range raws {
		one, err := Decode(raw)
		if err != nil {
			return nil, err
		}
		c = append(c, one)
	}
	return c, nil
}

// Encode is the chain as it travels.
func (c Chain) Encode() [][]byte {
	out := make([][]byte, len(c))
	for i, x := range c {
		out[i] = x.Encode()
	}
	return out
}

// Authority is what a verifier knows of the swarm: the fold, as far as a chain asks it.
type Authority interface {
	// Key is the composite key of a member or operator.
	Key(identity.DID) (*composite.PublicKey, bool)
	// Signed reports whether key signed link i of a chain (Credential.Verify); it may remember.
	Signed(i int, c *Credential, key *composite.PublicKey) bool
	// May reports what a DID may issue: an operator everything (all true), an issuer what the root names.
	May(identity.DID) (capabilities []string, all bool)
	// Out reports whether a DID is suspended or revoked, or a serial was revoked.
	Out(did identity.DID, serial [16]byte) bool
	// Root is how many entries of the root chain are known, and the hash of entry seq-1 where it is known.
	Root(seq uint64) (known uint64, head [32]byte, ok bool)
}

// BehindError: the chain rests on more of the root than this peer knows. It should sync, and ask again.
type BehindError struct{ Want, Have uint64 }

// Error says how far behind.
func (e *BehindError) Error() string {
	return fmt.Sprintf("credential rests on entry %d of the root chain, this peer knows %d: it must sync first", e.Want, e.Have)
}

// Verify checks the whole chain at now for holder, and gives the last credential's content: every signature, every window,
// that each link is no wider than the one before, that the first is by one who may, and that nobody in it is out.
func (c Chain) Verify(swarm trust.SwarmID, holder identity.DID, now time.Time, a Authority) (*Content, error) {
	if len(c) == 0 || len(c) > trust.MaxDelegation+1 {
		return nil, fmt.Errorf("%w: a chain of %d", ErrCredential, len(c))
	}
	for i, x := range c {
		if x.Swarm != swarm {
			return nil, fmt.Errorf("%w: of another swarm", ErrCredential)
		}
		if now.Before(x.NotBefore) || !now.Before(x.NotAfter) {
			return nil, fmt.Errorf("%w: %s to %s", ErrExpired, x.NotBefore.Format(time.RFC3339), x.NotAfter.Format(time.RFC3339))
		}
		if a.Out(x.Subject, x.Serial) || a.Out(x.Issuer, [16]byte{}) {
			return nil, fmt.Errorf("%w: serial %s of %s", ErrRevoked, x.SerialText(), x.Subject.Short())
		}
		if err := c.pinned(x, a); err != nil {
			return nil, err
		}
		if i == 0 {
			if err := first(x, a); err != nil {
				return nil, err
			}
		} else if err := narrower(c[i-1], x); err != nil {
			return nil, err
		}
		// Last, because it costs the most.
		key, ok := a.Key(x.Issuer)
		if !ok || !a.Signed(i, x, key) {
			return nil, fmt.Errorf("%w of %s", ErrSignature, x.Issuer.Short())
		}
	}
	last := c[len(c)-1]
	if last.Subject != holder {
		return nil, fmt.Errorf("%w: it is %s's, not %s's", ErrCredential, last.Subject.Short(), holder.Short())
	}
	return &last.Content, nil
}

// pinned holds the head of the root chain that the issuer named against this peer's own.
func (c Chain) pinned(x *Credential, a Authority) error {
	have, head, ok := a.Root(x.RootSeq)
	switch {
	case x.RootSeq > have:
		return &BehindError{Want: x.RootSeq, Have: have}
	case ok && head != x.RootHead:
		return fmt.Errorf("%w: its issuer knew another root at entry %d", ErrCredential, x.RootSeq)
	}
	return nil
}

// first holds a chain's first link to what its issuer may issue.
func first(x *Credential, a Authority) error {
	if x.Parent != [32]byte{} {
		return fmt.Errorf("%w: the chain's beginning is missing", ErrIssuer)
	}
	may, all := a.May(x.Issuer)
	if all {
		return nil
	}
	if len(may) == 0 {
		return fmt.Errorf("%w: %s", ErrIssuer, x.Issuer.Short())
	}
	for _, k := range x.Capabilities {
		if !slices.Contains(may, k.Action) {
			return fmt.Errorf("%w: %s may not issue %s", ErrIssuer, x.Issuer.Short(), k.Action)
		}
	}
	return nil
}

// narrower reports why child is more than parent lets it be.
func narrower(parent, child *Credential) error {
	switch {
	case child.Parent != parent.id:
		return fmt.Errorf("%w: a link does not rest on the one before it", ErrCredential)
	case child.Issuer != parent.Subject:
		return fmt.Errorf("%w: passed on by %s, who does not hold it", ErrCredential, child.Issuer.Short())
	case parent.Depth == 0 || child.Depth >= parent.Depth:
		return fmt.Errorf("%w: passed on more often than allowed", ErrWider)
	case child.NotBefore.Before(parent.NotBefore) || child.NotAfter.After(parent.NotAfter):
		return fmt.Errorf("%w: its time", ErrWider)
	}
	for _, r := range child.Roles {
		if !slices.Contains(parent.Roles, r) {
			return fmt.Errorf("%w: role %s", ErrWider, r)
		}
	}
	for _, k := range child.Capabilities {
		if !slices.ContainsFunc(parent.Capabilities, func(p Capability) bool { return p.covers(k) }) {
			return fmt.Errorf("%w: %s", ErrWider, k.Action)
		}
	}
	return nil
}

// covers reports whether k is no more than p.
func (p Capability) covers(k Capability) bool {
	if p.Action != k.Action || k.MaxTTL > p.MaxTTL {
		return false
	}
	if len(p.Peers) == 0 {
		return true
	}
	return len(k.Peers) > 0 && !slices.ContainsFunc(k.Peers, func(d identity.DID) bool {
		_, ok := slices.BinarySearch(p.Peers, d)
		return !ok
	})
}

// Allows reports whether c lets its subject do action to every one of peers (none: to all hosts) for ttl.
func (c *Content) Allows(action string, peers []identity.DID, ttl time.Duration) bool {
	want := Capability{Action: action, Peers: peers, MaxTTL: ttl}
	return slices.ContainsFunc(c.Capabilities, func(k Capability) bool { return k.covers(want) })
}

// Delegate passes part of the chain's last credential on to subject. What is left empty is the holder's own; NotAfter is cut
// to the holder's.
func (c Chain) Delegate(s Signer, subject identity.DID, part Content) (Chain, error) {
	if len(c) == 0 {
		return nil, fmt.Errorf("%w: nothing to pass on", ErrCredential)
	}
	last := c[len(c)-1]
	if last.Depth == 0 {
		return nil, fmt.Errorf("%w: it may not be passed on", ErrWider)
	}
	next := part
	next.Swarm, next.Subject, next.Parent = last.Swarm, subject, last.id
	next.RootSeq, next.RootHead = last.RootSeq, last.RootHead
	next.Depth = min(part.Depth, last.Depth-1)
	if next.NotBefore.Before(last.NotBefore) {
		next.NotBefore = last.NotBefore
	}
	if next.NotAfter.IsZero() || next.NotAfter.After(last.NotAfter) {
		next.NotAfter = last.NotAfter
	}
	if next.Capabilities == nil {
		next.Capabilities = last.Capabilities
	}
	x, err := Issue(s, next)
	if err != nil {
		return nil, err
	}
	if err := narrower(last, x); err != nil {
		return nil, err
	}
	return append(slices.Clone(c), x), nil
}

// Renew is when a credential should be renewed: at half its life, moved by up to a tenth of it either way by share (0 to
// 1, chosen at random), so that those issued together do not come back together.
func (c *Content) Renew(share float64) time.Time {
	life := c.NotAfter.Sub(c.NotBefore)
	return c.NotBefore.Add(life/2 + time.Duration((share-0.5)*0.2*float64(life)))
}
