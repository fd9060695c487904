package authority

import (
	"fmt"
	"net/netip"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
)

// JoinRequest is the body of a KindJoinRequest entry: a joiner has proved to hold an invite that asks for an operator's
// approval, and the member it asked passes that on. It grants nothing. What approves it is a MemberBody.
type JoinRequest struct {
	Inception []byte     `cbor:"1,keyasint"`          // the joiner's record
	Invite    []byte     `cbor:"2,keyasint"`          // id of the invite's entry, 16 bytes
	Address   netip.Addr `cbor:"3,keyasint,omitzero"` // where it called from
}

// Encode gives the canonical bytes, or says which bound is broken.
func (r *JoinRequest) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return canonical.Marshal(r)
}

// DecodeJoinRequest reads a body of at most trust.MaxActivityBody bytes, and the inception in it, whose signatures have
// been verified when it returns without error.
func DecodeJoinRequest(raw []byte) (*JoinRequest, *identity.Inception, error) {
	var r JoinRequest
	if err := canonical.Unmarshal(raw, &r, trust.MaxActivityBody); err != nil {
		return nil, nil, fmt.Errorf("authority: join request: %w: %w", ErrBody, err)
	}
	if err := r.check(); err != nil {
		return nil, nil, err
	}
	i, err := identity.DecodeInception(r.Inception)
	if err != nil {
		return nil, nil, fmt.Errorf("authority: join request: %w: %w", ErrBody, err)
	}
	i.PublicKey().Compact()
	return &r, i, nil
}

func (r *JoinRequest) check() error {
	if len(r.Invite) != 16 || len(r.Inception) == 0 || len(r.Inception) > trust.MaxInception {
		return fmt.Errorf("authority: join request: invite id of %d bytes, inception of %d: %w", len(r.Invite), len(r.Inception), ErrBody)
	}
	return nil
}
