package authority

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/credential"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// A member with a credential may order a response as far as that goes. The order is a fact like any other; whether its
// credential stands is derived with each state, since somebody in its chain may be put out later: then what it ordered ends.

// CapabilityFor is what a credential must allow for a response of an action: "respond-deny".
func CapabilityFor(a event.Action) string { return "respond-" + string(a) }

// RevokeCredentialBody: an operator revokes one credential by its serial, before its time is over.
type RevokeCredentialBody struct {
	Serial []byte `cbor:"1,keyasint"` // 16 bytes
	Why    string `cbor:"2,keyasint"`
}

// Kind implements Body.
func (*RevokeCredentialBody) Kind() ledger.Kind { return ledger.KindRevokeCredential }

// Encode implements Body.
func (b *RevokeCredentialBody) Encode() ([]byte, error) { return encode(b) }

func (b *RevokeCredentialBody) check() error {
	if len(b.Serial) != 16 {
		return fmt.Errorf("serial of %d bytes", len(b.Serial))
	}
	return checkText("reason", b.Why, trust.MaxReason)
}

// delegatedFact is an order under a credential.
type delegatedFact struct {
	fact
	response event.Response
	chain    credential.Chain
	proved   *proved
}

// proved remembers which key was found to have signed each link, so that a signature is verified once.
type proved struct {
	mu   sync.Mutex
	keys []*composite.PublicKey
}

type serialFact struct {
	fact
	serial [16]byte
}

func (f *Fold) applyDelegated(e *ledger.Entry, b *ResponseBody) error {
	if b.Response.TTL > f.genesis.LongestLife {
		return f.void(e, fmt.Sprintf("lifetime %s, this swarm's longest is %s", b.Response.TTL, f.genesis.LongestLife))
	}
	chain, err := credential.DecodeChain(b.Credential)
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	r := b.Response
	r.ID, r.By, r.Authority, r.Issued = e.ID(), string(e.Author), event.AuthorityDelegated, e.Time
	x := delegatedFact{factOf(e), r, chain, &proved{keys: make([]*composite.PublicKey, len(chain))}}
	f.delegated = insert(f.delegated, x, func(x delegatedFact) fact { return x.fact })
	f.delegated = f.delegated[max(0, len(f.delegated)-trust.MaxDelegated):]
	f.publishOrders()
	if err := f.State().permits(x); err != nil {
		return fmt.Errorf("authority: %s %s of %s: %w: %w", e.Kind, e.ID(), e.Author.Short(), err, ErrVoid)
	}
	return nil
}

func (f *Fold) applyRevokeCredential(e *ledger.Entry, b *RevokeCredentialBody) {
	f.serials = insert(f.serials, serialFact{factOf(e), [16]byte(b.Serial)}, func(x serialFact) fact { return x.fact })
	f.publishOrders()
}

func (f *Fold) fillDelegated(s *State) {
	s.delegated = &delegated{facts: f.delegated, serials: f.serials, frost: f.frost}
	f.fillReleased(s) // rests on credentials as well
	f.fillDeployed(s)
}

// delegated is what members ordered under credentials: facts, and what follows from them in one state.
type delegated struct {
	facts   []delegatedFact
	serials []serialFact
	frost   *frost

	once      sync.Once
	responses []event.Response // the operators' too, oldest first
}

// responsesOf derives all responses of s.
func (s *State) responsesOf() []event.Response {
	d := s.delegated
	d.once.Do(func() {
		d.responses = s.orders.made().responses
		if len(d.facts) == 0 {
			return
		}
		ordered := make(map[string]bool, len(d.responses))
		for _, r := range d.responses {
			ordered[r.ID] = true
		}
		d.responses = slices.Clone(d.responses)
		for _, x := range d.facts {
			// What an operator ordered, an operator ends: a delegate that turned bad must not lift every block.
			if s.permits(x) == nil && !ordered[x.response.Releases] {
				d.responses = append(d.responses, x.response)
			}
		}
		slices.SortStableFunc(d.responses, func(a, b event.Response) int {
			switch {
			case a.Issued < b.Issued || a.Issued == b.Issued && a.ID < b.ID:
				return -1
			case a.Issued == b.Issued && a.ID == b.ID:
				return 0
			}
			return 1
		})
	})
	return d.responses
}

// vouched gives what a chain of credentials allowed its holder when it spoke, or says why nothing now.
func (s *State) vouched(x fact, chain credential.Chain, p *proved) (*credential.Content, error) {
	if s.delegated.frost.voids(x) {
		return nil, fmt.Errorf("%w: what its author may do is void", credential.ErrRevoked)
	}
	if s.credentialOut(x.by, [16]byte{}) {
		return nil, fmt.Errorf("%w: %s", credential.ErrRevoked, x.by.Short())
	}
	if m, ok := s.Member(x.by); ok && m.Keys.NumberAt(true, x.seq) != x.key {
		return nil, fmt.Errorf("%w: its author's rotation set the entry aside", credential.ErrRevoked)
	}
	return chain.Verify(s.genesis.SwarmID(), x.by, time.Unix(0, x.time), credentialAuthority{s, p})
}

// permits says why an order under a credential does not count.
func (s *State) permits(x delegatedFact) error {
	c, err := s.vouched(x.fact, x.chain, x.proved)
	if err != nil {
		return err
	}
	var scope []identity.DID
	for _, p := range x.response.Scope {
		scope = append(scope, identity.DID(p))
	}
	if want := CapabilityFor(x.response.Action); !c.Allows(want, scope, x.response.TTL.Round(time.Second)) {
		return fmt.Errorf("%w: it does not allow %s for %s there", credential.ErrCredential, want, x.response.TTL)
	}
	return nil
}

// VerifyCredential checks a chain for holder at now against s, and gives what it allows.
func (s *State) VerifyCredential(c credential.Chain, holder identity.DID, now time.Time) (*credential.Content, error) {
	return c.Verify(s.genesis.SwarmID(), holder, now, credentialAuthority{s, &proved{keys: make([]*composite.PublicKey, len(c))}})
}

// credentialOut reports whether somebody is out of the swarm, or a serial revoked.
func (s *State) credentialOut(did identity.DID, serial [16]byte) bool {
	if _, op := s.root.Operator(did); op {
		return s.serialRevoked(serial)
	}
	m, ok := s.Member(did)
	return !ok || m.Revoked || m.Forked || s.serialRevoked(serial)
}

func (s *State) serialRevoked(serial [16]byte) bool {
	return serial != [16]byte{} && slices.ContainsFunc(s.delegated.serials, func(x serialFact) bool {
		return x.serial == serial && s.delegated.frost.counts(x.by, x.seq)
	})
}

// credentialAuthority is a state as credentials ask it.
type credentialAuthority struct {
	*State
	proved *proved
}

// Key implements credential.Authority.
func (a credentialAuthority) Key(did identity.DID) (*composite.PublicKey, bool) {
	if o, ok := a.root.Operator(did); ok {
		return o.Inception.PublicKey(), true
	}
	if m, ok := a.Member(did); ok {
		return m.Keys.Current(), true // what an older key delegated ends with it
	}
	return nil, false
}

// Signed implements credential.Authority: each link's signature is verified once a key.
func (a credentialAuthority) Signed(i int, c *credential.Credential, key *composite.PublicKey) bool {
	a.proved.mu.Lock()
	defer a.proved.mu.Unlock()
	if old := a.proved.keys[i]; old != nil && old.Equal(key) {
		return true
	}
	if !c.Verify(key) {
		return false
	}
	key.Compact()
	a.proved.keys[i] = key
	return true
}

// May implements credential.Authority.
func (a credentialAuthority) May(did identity.DID) ([]string, bool) {
	if _, ok := a.root.Operator(did); ok {
		return nil, true
	}
	return a.root.Issuers[did], false
}

// Out implements credential.Authority.
func (a credentialAuthority) Out(did identity.DID, serial [16]byte) bool {
	return a.credentialOut(did, serial)
}

// Root implements credential.Authority.
func (a credentialAuthority) Root(seq uint64) (uint64, [32]byte, bool) {
	return a.root.Seq, a.root.Head, seq == a.root.Seq
}
