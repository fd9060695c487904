package anonymous

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// ErrTelling is wrapped where a finding says what would name its author's host.
var ErrTelling = errors.New("anonymous: the finding would name its author")

// Threshold is what everybody in a ring must be, and so its author is.
type Threshold struct {
	Standing uint32 // full hours of membership when the report's epoch began
	Role     string // held then; empty: none asked for
}

// Meets reports whether a member may be one of the ring of a report of that epoch, at now.
func (t Threshold) Meets(s *authority.State, did identity.DID, epoch Epoch, now time.Time) bool {
	m, ok := s.Member(did)
	if !ok || !m.Active(now) {
		return false
	}
	began := time.Unix(int64(min(epoch, 1<<40))*int64(trust.AnonymousEpoch/time.Second), 0)
	if t.Standing > 0 && m.Admitted.After(began.Add(-time.Duration(t.Standing)*time.Hour)) {
		return false
	}
	if t.Role == "" {
		return true
	}
	g, ok := m.Roles[t.Role]
	return ok && (g.NotAfter.IsZero() || began.Before(g.NotAfter))
}

// claimBody is the body of a Report: what is said, and by whom at least.
type claimBody struct {
	Standing uint32 `cbor:"1,keyasint,omitempty"`
	Role     string `cbor:"2,keyasint,omitempty"`
	Finding  []byte `cbor:"3,keyasint"` // as in a KindFinding entry
}

// EncodeClaim is what to sign. Errors: ErrTelling, ErrBody.
func EncodeClaim(t Threshold, f *event.Finding) ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	if err := untold(f); err != nil {
		return nil, err
	}
	raw, err := ledger.EncodeFinding(f)
	if err != nil {
		return nil, err
	}
	return canonical.Marshal(claimBody{t.Standing, t.Role, raw})
}

// DecodeClaim reads what a report says. The finding has no author, and its ID is not of an entry but of what was said, so
// that it is the same whoever carried it.
func DecodeClaim(swarm trust.SwarmID, r *Report) (t Threshold, f event.Finding, err error) {
	var b claimBody
	if err := canonical.Unmarshal(r.Body, &b, trust.MaxAnonymousBody); err != nil {
		return t, f, fmt.Errorf("%w: %w", ErrBody, err)
	}
	t = Threshold{b.Standing, b.Role}
	if err := t.check(); err != nil {
		return t, f, err
	}
	if f, err = ledger.ReadFinding(b.Finding); err != nil {
		return t, f, fmt.Errorf("%w: %w", ErrBody, err)
	}
	if err := untold(&f); err != nil {
		return t, f, err
	}
	f.ID = r.ID(swarm)
	f.Anonymous = &event.Anonymity{Ring: len(r.Ring), Standing: time.Duration(t.Standing) * time.Hour, Role: t.Role}
	return t, f, nil
}

// ID names what a report says, 32 hex digits: the same whatever the ring, the signature and the carrier.
func (r *Report) ID(swarm trust.SwarmID) string {
	said := r.said(swarm)
	return hex.EncodeToString(said[:16])
}

func (t Threshold) check() error {
	if t.Standing > trust.MaxStanding || len(t.Role) > trust.MaxRole || strings.Trim(t.Role, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("standing of %d hours, role %.40q: %w", t.Standing, t.Role, ErrBody)
	}
	return nil
}

// untold refuses what only one host would say: its boot's clock, its processes, its decoys, its clock to the nanosecond.
func untold(f *event.Finding) error {
	for what, told := range map[string]bool{
		"time since boot": f.Boot != 0, "a process": f.Subject.Process != nil, "a decoy": f.Decoy != "" || f.Handshake,
		"an exact time": f.Time%int64(trust.AnonymousGrain) != 0,
	} {
		if told {
			return fmt.Errorf("%s: %w", what, ErrTelling)
		}
	}
	return nil
}
