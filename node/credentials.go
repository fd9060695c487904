package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/omega-mesh/omega/node/api"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/credential"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// lent says what an issuer lends to the holders of a role, as far as the root lets it: what they need on watch when no
// operator is there, of blocks no more than an hour, and rules of their own.
func lent(role string) []credential.Capability {
	if role != "analyst" {
		return nil
	}
	return []credential.Capability{
		{Action: authority.CapabilityFor(event.ActionDeny), MaxTTL: time.Hour},
		{Action: authority.CapabilityFor(event.ActionRelease), MaxTTL: time.Hour},
		{Action: authority.CapabilityModuleDeploy},
		{Action: authority.CapabilityModuleRelease},
	}
}

// Times and bounds of issuing.
const (
	issueEvery     = time.Minute // how often an issuer looks who needs a credential
	credentialLife = trust.MaxCredentialLifetime / 2
	maxCredentials = trust.MaxMembers
)

// credentials are those that issuers published, the latest to end of each subject. It is safe for concurrent use.
type credentials struct {
	mu        sync.Mutex
	bySubject map[identity.DID]held
}

type held struct {
	chain credential.Chain
	renew time.Time // when an issuer makes the next one
}

func newCredentials() *credentials { return &credentials{bySubject: map[identity.DID]held{}} }

// take notes the credential of an entry. Whether it stands is asked when it is used.
func (c *credentials) take(e *ledger.Entry) error {
	one, err := credential.Decode(e.Body)
	if err != nil {
		return err
	}
	if one.Issuer != e.Author {
		return fmt.Errorf("%s published a credential of %s's", e.Author.Short(), one.Issuer.Short())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old, known := c.bySubject[one.Subject]
	if !known && len(c.bySubject) >= maxCredentials || known && !one.NotAfter.After(old.chain[0].NotAfter) {
		return nil
	}
	c.bySubject[one.Subject] = held{credential.Chain{one}, one.Renew(rand.Float64())}
	return nil
}

// of is the credential of a subject, and when it should be renewed.
func (c *credentials) of(did identity.DID) (held, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.bySubject[did]
	return h, ok
}

// all are the credentials known, by subject.
func (c *credentials) all() []credential.Chain {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]credential.Chain, 0, len(c.bySubject))
	for _, h := range c.bySubject {
		out = append(out, h.chain)
	}
	slices.SortFunc(out, func(a, b credential.Chain) int { return slices.Compare([]byte(a[0].Subject), []byte(b[0].Subject)) })
	return out
}

// issue renews the credentials of others for as long as the root names this peer an issuer.
func (n *Node) issue(ctx context.Context) error {
	changes := n.changes.listen(ctx)
	tick := time.NewTicker(issueEvery)
	defer tick.Stop()
	for {
		if n.synced.Load() {
			n.issueDue(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changes:
		case <-tick.C:
		}
	}
}

// issueDue gives each holder of a role that lends something its next credential, where the one it has is past half its
// life, does not stand any more, or is less than the root lets this issuer lend by now.
func (n *Node) issueDue(ctx context.Context) {
	s, now := n.fold.State(), n.clock.now()
	may := s.Root().Issuers[n.self.DID()]
	if len(may) == 0 || !s.Root().Grants(now.UnixNano()) {
		return
	}
	for _, m := range s.Members() {
		if m.DID == n.self.DID() || !m.Active(now) || ctx.Err() != nil {
			continue
		}
		roles := s.Roles(m.DID, now)
		var capabilities []credential.Capability
		for _, role := range roles {
			for _, k := range lent(role) {
				if slices.Contains(may, k.Action) {
					capabilities = append(capabilities, k)
				}
			}
		}
		if len(capabilities) == 0 {
			continue
		}
		if h, ok := n.credentials.of(m.DID); ok && now.Before(h.renew) {
			// Of another issuer's it is not for this one to say that it is too little: the two would take turns.
			if held, err := s.VerifyCredential(h.chain, m.DID, now); err == nil && (h.chain[0].Issuer != n.self.DID() || lends(held, capabilities)) {
				continue
			}
		}
		one, err := credential.Issue(n.self, credential.Content{
			Swarm: n.genesis.SwarmID(), Subject: m.DID, NotBefore: now.Add(-trust.MaxClockSkew).Truncate(time.Second), NotAfter: now.Add(credentialLife).Truncate(time.Second),
			Roles: roles, Capabilities: capabilities, RootSeq: s.Root().Seq, RootHead: s.Root().Head,
		})
		if err == nil {
			_, err = n.append(ctx, ledger.KindCredential, one.Encode(), true)
		}
		if err != nil && ctx.Err() == nil {
			n.log.Warn("credential not issued", "subject", m.Name, "err", err)
		}
	}
}

// ownCredential is what this member may do beyond its host, as it stands now.
func (n *Node) ownCredential() (held, *credential.Content, error) {
	h, ok := n.credentials.of(n.self.DID())
	if !ok {
		return h, nil, fmt.Errorf("%w: this host holds no credential to act on others: an operator's key is needed (`omega credential list`)", api.ErrForbidden)
	}
	content, err := n.fold.State().VerifyCredential(h.chain, n.self.DID(), n.clock.now())
	if err != nil {
		return h, nil, fmt.Errorf("%w: this host's credential: %w", api.ErrForbidden, err)
	}
	return h, content, nil
}

// lends says whether a credential allows all of what would be lent now.
func lends(c *credential.Content, all []credential.Capability) bool {
	return !slices.ContainsFunc(all, func(k credential.Capability) bool { return !c.Allows(k.Action, k.Peers, k.MaxTTL) })
}

// Order implements api.Backend: this member orders a response of others, as far as its credential goes. The order is an
// entry of its own authority chain; every host checks the credential for itself.
func (b backend) Order(ctx context.Context, r event.Response) (string, error) {
	h, content, err := b.ownCredential()
	if err != nil {
		return "", err
	}
	now := b.clock.now()
	r.Authority, r.By, r.Issued = event.AuthorityDelegated, b.DID(), now.UnixNano()
	var scope []identity.DID
	for _, p := range r.Scope {
		did, err := identity.ParseDID(p)
		if err != nil {
			return "", fmt.Errorf("%w: %w", api.ErrInvalid, err)
		}
		scope = append(scope, did)
	}
	if want := authority.CapabilityFor(r.Action); !content.Allows(want, scope, r.TTL.Round(time.Second)) {
		return "", fmt.Errorf("%w: this host's credential does not allow %s for %s there", api.ErrForbidden, want, r.TTL)
	}
	body, err := (&authority.ResponseBody{Response: r, Credential: h.chain.Encode()}).Encode()
	if err != nil {
		return "", fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	e, err := b.append(ctx, ledger.KindResponse, body, true)
	if err != nil {
		return "", err
	}
	return e.ID(), nil
}

// OrderModule implements api.Backend: this member releases, deploys or undeploys a module, as far as its credential goes. Like
// an order it is an entry of its own authority chain, and every host checks the credential for itself.
func (b backend) OrderModule(ctx context.Context, kind uint32, raw []byte) (string, error) {
	k := ledger.Kind(kind)
	if uint32(k) != kind || k != ledger.KindModuleRelease && k != ledger.KindModuleDeploy && k != ledger.KindModuleUndeploy {
		return "", fmt.Errorf("%w: kind %#x says nothing of a module", api.ErrInvalid, kind)
	}
	body, err := authority.DecodeBody(k, raw)
	if err != nil {
		return "", fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	h, content, err := b.ownCredential()
	if err != nil {
		return "", err
	}
	action, allowed := authority.CapabilityModuleDeploy, false
	switch x := body.(type) {
	case *authority.ModuleReleaseBody:
		x.Credential, action = h.chain.Encode(), authority.CapabilityModuleRelease
		allowed = content.Allows(action, nil, 0)
	case *authority.DeployBody:
		if err := b.checkReleased(x); err != nil {
			return "", err
		}
		x.Credential = h.chain.Encode()
		allowed = content.Allows(action, x.Named(), 0)
	case *authority.UndeployBody: // who may deploy somewhere may take its own word back
		x.Credential = h.chain.Encode()
		allowed = slices.ContainsFunc(content.Capabilities, func(k credential.Capability) bool { return k.Action == action })
	}
	if !allowed {
		return "", fmt.Errorf("%w: this host's credential does not allow %s there", api.ErrForbidden, action)
	}
	encoded, err := body.Encode()
	if err != nil {
		return "", fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	e, err := b.append(ctx, k, encoded, true)
	if err != nil {
		return "", err
	}
	return e.ID(), nil
}
