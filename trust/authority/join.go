package authority

import (
	"errors"
	"fmt"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

const (
	contextAdmit  = "omega/admit/1"
	contextJoin   = "omega/join/1"
	contextJoiner = "omega/joiner/1"
	joinVersion   = 1
	// exporterSize is how much keying material of the TLS connection a join proof is bound to.
	exporterSize = 32
)

// Refusals of VerifyJoin.
var (
	ErrJoinProof       = errors.New("join proof does not verify")
	ErrInviteUnknown   = errors.New("no such invite in this swarm")
	ErrInviteExpired   = errors.New("the invite has expired")
	ErrInviteWithdrawn = errors.New("the invite was withdrawn")
	ErrRevokedJoiner   = errors.New("this identity was revoked")
	// ErrSuite: an identity has keys of another suite than the swarm it would take part in.
	ErrSuite = errors.New("its cryptographic suite is not the swarm's")
)

// InviteSpentError: the token is used up, and another key presents it. That is an alarm: the token leaked, or its holder
// lost the identity it joined with.
type InviteSpentError struct {
	Invite  string         // id of the invite's entry
	Joiner  identity.DID   // who presents it now
	Name    string         // what it calls itself
	Joiners []identity.DID // who used it
}

// Error names the invite.
func (e *InviteSpentError) Error() string {
	return fmt.Sprintf("invite %s is used up, and %s (%s) presents its token again", e.Invite, e.Name, e.Joiner.Short())
}

// Join is a proved wish to join.
type Join struct {
	Inception *identity.Inception
	Invite    *Invite
	Body      *AdmitBody // what the admitting member appends as KindAdmit
	Already   bool       // this joiner was admitted before: nothing need be appended
}

type joinContent struct {
	Inception []byte `cbor:"1,keyasint"`
	InviteKey []byte `cbor:"2,keyasint"`
	Admit     []byte `cbor:"3,keyasint"` // by the invite key: swarm id || DID hash, context "omega/admit/1"
	Channel   []byte `cbor:"4,keyasint"` // by the invite key: swarm id || DID hash || exporter, context "omega/join/1"
	Joiner    []byte `cbor:"5,keyasint"` // by the joiner: swarm id || invite key hash || exporter, context "omega/joiner/1"
}

func joinMessage(swarm trust.SwarmID, parts ...[]byte) []byte {
	m := append([]byte(nil), swarm[:]...)
	for _, p := range parts { // each is 32 bytes: the layout is fixed
		m = append(m, p...)
	}
	return m
}

// ProveJoin makes what a joiner sends: proof that it holds the token and its own key, on this very connection. exporter
// is 32 bytes of TLS keying material (RFC 8446 §7.5) under a label of the join protocol.
func ProveJoin(t *Token, self *identity.Identity, exporter []byte) ([]byte, error) {
	if len(exporter) != exporterSize {
		return nil, fmt.Errorf("authority: exporter of %d bytes, want %d", len(exporter), exporterSize)
	}
	if self.Suite() != t.Suite {
		return nil, fmt.Errorf("authority: own keys are of suite %s, the token's swarm has %s: %w", self.Suite().Name(), t.Suite.Name(), ErrSuite)
	}
	key, err := t.InviteKey()
	if err != nil {
		return nil, err
	}
	did, err := self.DID().Bytes()
	if err != nil {
		return nil, err
	}
	pub := key.Public().Bytes()
	hash := inviteKeyHash(pub)
	c := joinContent{Inception: self.Inception().Encode(), InviteKey: pub}
	if c.Admit, err = key.Sign(contextAdmit, joinMessage(t.Swarm, did[:])); err != nil {
		return nil, err
	}
	if c.Channel, err = key.Sign(contextJoin, joinMessage(t.Swarm, did[:], exporter)); err != nil {
		return nil, err
	}
	if c.Joiner, err = self.Sign(contextJoiner, joinMessage(t.Swarm, hash[:], exporter)); err != nil {
		return nil, err
	}
	b, err := canonical.Marshal(c)
	if err != nil {
		return nil, err
	}
	return append([]byte{joinVersion}, b...), nil
}

// decodeJoin reads a join proof of at most trust.MaxJoinProof bytes; it verifies the inception only.
func decodeJoin(raw []byte) (*joinContent, *identity.Inception, error) {
	if len(raw) < 1 || len(raw) > trust.MaxJoinProof || raw[0] != joinVersion {
		return nil, nil, fmt.Errorf("authority: %d bytes: %w", len(raw), ErrJoinProof)
	}
	var c joinContent
	if err := canonical.Unmarshal(raw[1:], &c, trust.MaxJoinProof); err != nil {
		return nil, nil, fmt.Errorf("authority: %w: %w", ErrJoinProof, err)
	}
	inception, err := identity.DecodeInception(c.Inception)
	if err != nil {
		return nil, nil, fmt.Errorf("authority: %w: %w", ErrJoinProof, err)
	}
	return &c, inception, nil
}

// VerifyJoin checks a join proof against the swarm's state and this connection's exporter. The signatures are checked
// only once the invite is found to exist, so that a stranger without a token costs a hash. A joiner that was admitted
// before gets Already; another key on a spent invite gets *InviteSpentError.
func VerifyJoin(s *State, raw, exporter []byte, now time.Time) (*Join, error) {
	if len(exporter) != exporterSize {
		return nil, fmt.Errorf("authority: exporter of %d bytes, want %d", len(exporter), exporterSize)
	}
	if len(raw) < 1 || len(raw) > trust.MaxJoinProof || raw[0] != joinVersion {
		return nil, fmt.Errorf("authority: %d bytes: %w", len(raw), ErrJoinProof)
	}
	var peek joinContent
	if err := canonical.Unmarshal(raw[1:], &peek, trust.MaxJoinProof); err != nil {
		return nil, fmt.Errorf("authority: %w: %w", ErrJoinProof, err)
	}
	hash := inviteKeyHash(peek.InviteKey)
	invite, ok := s.InviteByKey(hash)
	if !ok {
		return nil, fmt.Errorf("authority: %w", ErrInviteUnknown)
	}
	c, inception, err := decodeJoin(raw)
	if err != nil {
		return nil, err
	}
	if inception.Suite != s.Genesis().Suite {
		return nil, fmt.Errorf("authority: the joiner's keys are of suite %s: %w", inception.Suite.Name(), ErrSuite)
	}
	key, err := composite.ParsePublicKey(s.Genesis().Suite, c.InviteKey)
	if err != nil {
		return nil, fmt.Errorf("authority: %w: %w", ErrJoinProof, err)
	}
	swarm := s.Genesis().SwarmID()
	did, err := inception.DID().Bytes()
	if err != nil {
		return nil, err
	}
	if !key.Verify(contextAdmit, joinMessage(swarm, did[:]), c.Admit) ||
		!key.Verify(contextJoin, joinMessage(swarm, did[:], exporter), c.Channel) ||
		!inception.PublicKey().Verify(contextJoiner, joinMessage(swarm, hash[:], exporter), c.Joiner) {
		return nil, fmt.Errorf("authority: %w", ErrJoinProof)
	}
	j := &Join{Inception: inception, Invite: invite, Body: &AdmitBody{Inception: c.Inception, InviteKey: c.InviteKey, Signature: c.Admit}}
	if s.Revoked(inception.DID()) {
		return nil, fmt.Errorf("authority: %s: %w", inception.DID().Short(), ErrRevokedJoiner)
	}
	if _, member := s.Member(inception.DID()); member {
		j.Already = true
		return j, nil
	}
	switch {
	case invite.Withdrawn:
		return nil, fmt.Errorf("authority: invite %s: %w", invite.ID, ErrInviteWithdrawn)
	case len(invite.Joiners) >= invite.Uses:
		return nil, &InviteSpentError{Invite: invite.ID, Joiner: inception.DID(), Name: inception.Name, Joiners: invite.Joiners}
	case !now.Before(invite.NotAfter):
		return nil, fmt.Errorf("authority: invite %s: %w", invite.ID, ErrInviteExpired)
	}
	return j, nil
}
