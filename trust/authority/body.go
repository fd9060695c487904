package authority

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/credential"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/root"
)

// ErrBody is wrapped where a body is not what its kind wants.
var ErrBody = errors.New("not a valid body")

// Body is what an authority entry of one kind carries. Encode refuses what Decode would.
type Body interface {
	Kind() ledger.Kind
	Encode() ([]byte, error)
}

// MemberBody: an operator admits a peer by its inception; where it names an invite, as a joiner of it, with its roles and
// at the cost of one of its uses.
type MemberBody struct {
	Inception []byte `cbor:"1,keyasint"`           // record, raw
	Invite    []byte `cbor:"2,keyasint,omitempty"` // id of the invite's entry, 16 bytes
}

// InviteBody: an operator opens an invite. Who proves to have the token's seed may be admitted by any member.
type InviteBody struct {
	KeyHash  []byte   `cbor:"1,keyasint"`           // SHA-256("omega/invite-key/1" || 0x00 || invite public key)
	Roles    []string `cbor:"2,keyasint,omitempty"` // what each joiner is granted, sorted
	Uses     uint16   `cbor:"3,keyasint"`           // different joiners, 1 to trust.MaxInviteUses
	NotAfter int64    `cbor:"4,keyasint"`           // Unix seconds
	Approve  bool     `cbor:"5,keyasint,omitempty"` // no member's admission counts: an operator's MemberBody does
}

// WithdrawBody: an operator ends an invite. Joiners that are not named no longer count as admitted on it.
type WithdrawBody struct {
	Invite []byte   `cbor:"1,keyasint"`           // id of the invite's entry, 16 bytes
	Stand  [][]byte `cbor:"2,keyasint,omitempty"` // DIDs of those admitted that stay, 32 bytes each, sorted
}

// AdmitBody: a member admits a joiner that holds an invite's key.
type AdmitBody struct {
	Inception []byte `cbor:"1,keyasint"` // the joiner's record
	InviteKey []byte `cbor:"2,keyasint"` // composite public key derived from the token's seed
	Signature []byte `cbor:"3,keyasint"` // by it, over swarm id || joiner's DID hash, context "omega/admit/1"
}

// GrantBody: an operator grants roles to a member.
type GrantBody struct {
	Subject  []byte   `cbor:"1,keyasint"`           // DID hash, 32 bytes
	Roles    []string `cbor:"2,keyasint"`           // sorted
	NotAfter int64    `cbor:"3,keyasint,omitempty"` // Unix seconds; 0 for no end
}

// RevokeRoleBody: an operator takes roles back, against every grant that does not know of it.
type RevokeRoleBody struct {
	Subject []byte   `cbor:"1,keyasint"`
	Roles   []string `cbor:"2,keyasint"` // sorted
}

// SuspendBody: one operator keeps a peer out until NotAfter, at most trust.MaxSuspension after the entry's time.
type SuspendBody struct {
	Subject  []byte `cbor:"1,keyasint"`
	NotAfter int64  `cbor:"2,keyasint"` // Unix seconds
	Why      string `cbor:"3,keyasint"`
}

// RevokeBody: operators put a peer out for ever; k of them must say so, and until then it counts as a suspension of
// trust.MaxSuspension. It names how much of the peer's chains stands.
type RevokeBody struct {
	Subject   []byte `cbor:"1,keyasint"`
	Authority uint64 `cbor:"2,keyasint"` // entries of its authority chain that stand
	Activity  uint64 `cbor:"3,keyasint"` // entries of its activity chain that stand
	Why       string `cbor:"4,keyasint"`
}

// ResponseBody: an operator orders a response, or the release of one; or a member whose credential lets it.
type ResponseBody struct {
	Response   event.Response `cbor:"1,keyasint"`
	Credential [][]byte       `cbor:"2,keyasint,omitempty"` // credential.Chain; empty for an operator
}

// AllowBody: what no response may block: an address prefix, or the path of an executable. Exactly one is set.
type AllowBody struct {
	Address netip.Prefix `cbor:"1,keyasint,omitzero"`
	Path    string       `cbor:"2,keyasint,omitempty"`
}

// DisallowBody ends an AllowBody, against every allow that does not know of it.
type DisallowBody struct {
	Address netip.Prefix `cbor:"1,keyasint,omitzero"`
	Path    string       `cbor:"2,keyasint,omitempty"`
}

// PolicyBody: the response policy (Cedar text).
type PolicyBody struct {
	Text string `cbor:"1,keyasint"`
}

// ApproveBody lets a pending response act; Response is its id, 32 hex digits.
type ApproveBody struct {
	Response string `cbor:"1,keyasint"`
}

// RejectBody refuses a pending response.
type RejectBody struct {
	Response string `cbor:"1,keyasint"`
}

// EvidenceBody carries a proof that an author equivocated. Any member may post it; it proves itself.
type EvidenceBody struct {
	Proof *ledger.Proof
}

// Kind of each body.
func (*MemberBody) Kind() ledger.Kind     { return ledger.KindMember }
func (*InviteBody) Kind() ledger.Kind     { return ledger.KindInvite }
func (*WithdrawBody) Kind() ledger.Kind   { return ledger.KindWithdraw }
func (*AdmitBody) Kind() ledger.Kind      { return ledger.KindAdmit }
func (*GrantBody) Kind() ledger.Kind      { return ledger.KindGrant }
func (*RevokeRoleBody) Kind() ledger.Kind { return ledger.KindRevokeRole }
func (*SuspendBody) Kind() ledger.Kind    { return ledger.KindSuspend }
func (*RevokeBody) Kind() ledger.Kind     { return ledger.KindRevoke }
func (*ResponseBody) Kind() ledger.Kind   { return ledger.KindResponse }
func (*AllowBody) Kind() ledger.Kind      { return ledger.KindAllow }
func (*DisallowBody) Kind() ledger.Kind   { return ledger.KindDisallow }
func (*PolicyBody) Kind() ledger.Kind     { return ledger.KindPolicy }
func (*ApproveBody) Kind() ledger.Kind    { return ledger.KindApprove }
func (*RejectBody) Kind() ledger.Kind     { return ledger.KindReject }
func (*EvidenceBody) Kind() ledger.Kind   { return ledger.KindEvidence }

// Encode gives the canonical bytes, or says which bound is broken.
func (b *MemberBody) Encode() ([]byte, error)     { return encode(b) }
func (b *InviteBody) Encode() ([]byte, error)     { return encode(b) }
func (b *WithdrawBody) Encode() ([]byte, error)   { return encode(b) }
func (b *AdmitBody) Encode() ([]byte, error)      { return encode(b) }
func (b *GrantBody) Encode() ([]byte, error)      { return encode(b) }
func (b *RevokeRoleBody) Encode() ([]byte, error) { return encode(b) }
func (b *SuspendBody) Encode() ([]byte, error)    { return encode(b) }
func (b *RevokeBody) Encode() ([]byte, error)     { return encode(b) }
func (b *ResponseBody) Encode() ([]byte, error)   { return encode(b) }
func (b *AllowBody) Encode() ([]byte, error)      { return encode(b) }
func (b *DisallowBody) Encode() ([]byte, error)   { return encode(b) }
func (b *PolicyBody) Encode() ([]byte, error)     { return encode(b) }
func (b *ApproveBody) Encode() ([]byte, error)    { return encode(b) }
func (b *RejectBody) Encode() ([]byte, error)     { return encode(b) }
func (b *EvidenceBody) Encode() ([]byte, error)   { return b.Proof.Encode() }

type checked interface {
	Body
	check() error
}

func encode(b checked) ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("authority: %s: %w: %w", b.Kind(), ErrBody, err)
	}
	raw, err := canonical.Marshal(b)
	if err != nil {
		return nil, err
	}
	if len(raw) > trust.MaxAuthorityBody {
		return nil, fmt.Errorf("authority: %s of %d bytes: %w", b.Kind(), len(raw), canonical.ErrTooLong)
	}
	return raw, nil
}

// DecodeBody reads the body of an authority entry by its kind: strict, bounded and canonical. A kind this build does not
// know gives ErrUnknownKind.
func DecodeBody(kind ledger.Kind, raw []byte) (Body, error) {
	if kind == ledger.KindEvidence {
		p, err := ledger.DecodeProof(raw)
		if err != nil {
			return nil, fmt.Errorf("authority: %s: %w: %w", kind, ErrBody, err)
		}
		return &EvidenceBody{Proof: p}, nil
	}
	switch kind {
	case ledger.KindRoot:
		e, err := root.Decode(raw)
		if err != nil {
			return nil, fmt.Errorf("authority: %s: %w: %w", kind, ErrBody, err)
		}
		return &RootBody{Entry: e}, nil
	case ledger.KindRotate:
		return decodeRotate(raw)
	case ledger.KindContest:
		return decodeContest(raw)
	}
	b := emptyBody(kind)
	if b == nil {
		return nil, fmt.Errorf("authority: %s: %w", kind, ErrUnknownKind)
	}
	if err := canonical.Unmarshal(raw, b, trust.MaxAuthorityBody); err != nil {
		return nil, fmt.Errorf("authority: %s: %w: %w", kind, ErrBody, err)
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("authority: %s: %w: %w", kind, ErrBody, err)
	}
	return b, nil
}

// ErrUnknownKind is wrapped where an entry's kind is not known to this build.
var ErrUnknownKind = errors.New("unknown kind")

func emptyBody(kind ledger.Kind) checked {
	switch kind {
	case ledger.KindMember:
		return new(MemberBody)
	case ledger.KindInvite:
		return new(InviteBody)
	case ledger.KindWithdraw:
		return new(WithdrawBody)
	case ledger.KindAdmit:
		return new(AdmitBody)
	case ledger.KindGrant:
		return new(GrantBody)
	case ledger.KindRevokeRole:
		return new(RevokeRoleBody)
	case ledger.KindSuspend:
		return new(SuspendBody)
	case ledger.KindRevoke:
		return new(RevokeBody)
	case ledger.KindResponse:
		return new(ResponseBody)
	case ledger.KindAllow:
		return new(AllowBody)
	case ledger.KindDisallow:
		return new(DisallowBody)
	case ledger.KindPolicy:
		return new(PolicyBody)
	case ledger.KindApprove:
		return new(ApproveBody)
	case ledger.KindReject:
		return new(RejectBody)
	case ledger.KindRevokeCredential:
		return new(RevokeCredentialBody)
	case ledger.KindModuleRelease:
		return new(ModuleReleaseBody)
	case ledger.KindModuleDeploy:
		return new(DeployBody)
	case ledger.KindModuleUndeploy:
		return new(UndeployBody)
	}
	return nil
}

func (b *MemberBody) check() error {
	if len(b.Invite) != 0 && len(b.Invite) != 16 {
		return fmt.Errorf("invite id of %d bytes", len(b.Invite))
	}
	return checkSize("inception", b.Inception, 1, trust.MaxInception)
}

func (b *InviteBody) check() error {
	if len(b.KeyHash) != 32 {
		return fmt.Errorf("key hash of %d bytes", len(b.KeyHash))
	}
	if b.Uses < 1 || b.Uses > trust.MaxInviteUses {
		return fmt.Errorf("%d uses: 1 to %d", b.Uses, trust.MaxInviteUses)
	}
	if b.NotAfter <= 0 || b.NotAfter > maxSeconds {
		return errors.New("no end")
	}
	if len(b.Roles) == 0 {
		return nil
	}
	return checkRoles(b.Roles)
}

func (b *WithdrawBody) check() error {
	if len(b.Invite) != 16 {
		return fmt.Errorf("invite id of %d bytes", len(b.Invite))
	}
	if len(b.Stand) > trust.MaxInviteUses {
		return fmt.Errorf("%d joiners that stand, at most %d", len(b.Stand), trust.MaxInviteUses)
	}
	for i, d := range b.Stand {
		if len(d) != 32 || i > 0 && string(b.Stand[i-1]) >= string(d) {
			return errors.New("joiners that stand must be 32 bytes each, sorted, without repeats")
		}
	}
	return nil
}

func (b *AdmitBody) check() error {
	if !slices.ContainsFunc(trust.Suites(), func(s trust.Suite) bool {
		return len(b.InviteKey) == composite.PublicKeySize(s) && len(b.Signature) == composite.SignatureSize(s)
	}) {
		return fmt.Errorf("invite key of %d bytes, signature of %d", len(b.InviteKey), len(b.Signature))
	}
	return checkSize("inception", b.Inception, 1, trust.MaxInception)
}

func (b *GrantBody) check() error {
	if err := checkSubject(b.Subject); err != nil {
		return err
	}
	if b.NotAfter < 0 || b.NotAfter > maxSeconds {
		return fmt.Errorf("not after %d", b.NotAfter)
	}
	return checkRoles(b.Roles)
}

func (b *RevokeRoleBody) check() error {
	if err := checkSubject(b.Subject); err != nil {
		return err
	}
	return checkRoles(b.Roles)
}

func (b *SuspendBody) check() error {
	if err := checkSubject(b.Subject); err != nil {
		return err
	}
	if b.NotAfter <= 0 || b.NotAfter > maxSeconds {
		return fmt.Errorf("not after %d", b.NotAfter)
	}
	return checkText("reason", b.Why, trust.MaxReason)
}

func (b *RevokeBody) check() error {
	if err := checkSubject(b.Subject); err != nil {
		return err
	}
	if b.Authority > 1<<62 || b.Activity > 1<<62 {
		return errors.New("counts")
	}
	return checkText("reason", b.Why, trust.MaxReason)
}

func (b *ResponseBody) check() error {
	if len(b.Credential) == 0 {
		return checkResponse(&b.Response, event.AuthorityOperator)
	}
	if _, err := credential.DecodeChain(b.Credential); err != nil {
		return err
	}
	for _, p := range b.Response.Scope {
		if _, err := identity.ParseDID(p); err != nil {
			return err
		}
	}
	return checkResponse(&b.Response, event.AuthorityDelegated)
}

func (b *AllowBody) check() error    { return checkAllowed(b.Address, b.Path) }
func (b *DisallowBody) check() error { return checkAllowed(b.Address, b.Path) }

func (b *PolicyBody) check() error {
	if b.Text == "" || !utf8.ValidString(b.Text) {
		return errors.New("no policy text")
	}
	return nil // its length is the body's
}

func (b *ApproveBody) check() error { return checkID(b.Response) }
func (b *RejectBody) check() error  { return checkID(b.Response) }

// maxSeconds keeps Unix seconds inside what time.Unix(s, 0).UnixNano can hold (year 2262).
const maxSeconds = (1<<63-1)/int64(time.Second) - 1

func checkSize(what string, b []byte, least, most int) error {
	if len(b) < least || len(b) > most {
		return fmt.Errorf("%s of %d bytes", what, len(b))
	}
	return nil
}

func checkSubject(b []byte) error {
	if len(b) != 32 {
		return fmt.Errorf("subject of %d bytes", len(b))
	}
	return nil
}

func checkRoles(roles []string) error {
	if len(roles) < 1 || len(roles) > trust.MaxRoles {
		return fmt.Errorf("%d roles: 1 to %d", len(roles), trust.MaxRoles)
	}
	for i, r := range roles {
		if r == "" || len(r) > trust.MaxRole || strings.Trim(r, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return fmt.Errorf("role %.40q: lower-case letters, digits and '-', at most %d", r, trust.MaxRole)
		}
		if i > 0 && roles[i-1] >= r {
			return errors.New("roles must be sorted, without repeats")
		}
	}
	return nil
}

func checkText(what, s string, most int) error {
	if len(s) > most || !utf8.ValidString(s) {
		return fmt.Errorf("%s of %d bytes, at most %d", what, len(s), most)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return fmt.Errorf("%s holds a control character", what)
		}
	}
	return nil
}

func checkID(id string) error {
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return fmt.Errorf("id %.40q: 32 hex digits", id)
	}
	return nil
}

func checkAllowed(p netip.Prefix, path string) error {
	switch {
	case p.IsValid() == (path != ""):
		return errors.New("either an address or a path")
	case path != "":
		if !strings.HasPrefix(path, "/") {
			return errors.New("a path is absolute")
		}
		return checkText("path", path, 4096)
	}
	return checkPrefix(p)
}

func checkPrefix(p netip.Prefix) error {
	if p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
		return fmt.Errorf("prefix %s is not in its plain form", p)
	}
	return nil
}

func checkResponse(r *event.Response, by event.AuthorityKind) error {
	switch r.Action {
	case event.ActionRelease:
		if err := checkID(r.Releases); err != nil {
			return fmt.Errorf("releases: %w", err)
		}
	case event.ActionDeny, event.ActionContain, event.ActionKill, event.ActionQuarantine:
		if r.TTL < time.Second || r.TTL > trust.MaxLifetime {
			return fmt.Errorf("lifetime %s: 1 s to %s", r.TTL, trust.MaxLifetime)
		}
	default:
		return fmt.Errorf("action %.20q", string(r.Action))
	}
	if r.Authority != by || r.Issued <= 0 {
		return errors.New("authority or time")
	}
	if r.Target.Address.IsValid() {
		if err := checkPrefix(r.Target.Address); err != nil {
			return err
		}
	}
	if len(r.Scope) > trust.MaxElements || len(r.Findings) > 64 {
		return errors.New("scope or findings too long")
	}
	for _, d := range r.Scope {
		if _, err := identity.ParseDID(d); err != nil {
			return err
		}
	}
	for _, id := range r.Findings {
		if err := checkID(id); err != nil {
			return err
		}
	}
	for what, s := range map[string]string{"path": r.Target.Path, "hash": r.Target.SHA256, "peer": r.Target.Peer, "domain": r.Target.Domain, "path not to be written": r.Target.Write, "author": r.By} {
		if err := checkText(what, s, 4096); err != nil {
			return err
		}
	}
	return checkText("reason", r.Reason, trust.MaxReason)
}
