package root

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
)

// Body is what a root entry of one kind carries.
type Body interface {
	Kind() Kind
	check() error
}

// Add makes a new operator. K is how many must sign from then on, more than half of the operators with it.
type Add struct {
	Inception []byte `cbor:"1,keyasint"`
	K         uint8  `cbor:"2,keyasint"`
	Node      []byte `cbor:"3,keyasint,omitempty"` // DID of its own peer, which no single operator may suspend
}

// Remove ends an operator. It names how many entries of its authority chain stand.
type Remove struct {
	Operator  []byte `cbor:"1,keyasint"`
	Authority uint64 `cbor:"2,keyasint"`
	K         uint8  `cbor:"3,keyasint"`
}

// Rotate puts a new inception in the place of an operator's: its keys are new, and its DID. K stays.
type Rotate struct {
	Operator  []byte `cbor:"1,keyasint"`
	Authority uint64 `cbor:"2,keyasint"` // entries of the old DID's chain that stand
	Inception []byte `cbor:"3,keyasint"`
	Node      []byte `cbor:"4,keyasint,omitempty"`
}

// Issuers says who may issue, and what: the whole list anew.
type Issuers struct {
	List []Issuer `cbor:"1,keyasint"` // sorted by DID
}

// Issuer is one line of Issuers.
type Issuer struct {
	DID          []byte   `cbor:"1,keyasint"`
	Capabilities []string `cbor:"2,keyasint"` // sorted; as role names
}

// Revoke puts a peer out for good. It names how many entries of its chains stand.
type Revoke struct {
	Subject   []byte `cbor:"1,keyasint"`
	Authority uint64 `cbor:"2,keyasint"`
	Activity  uint64 `cbor:"3,keyasint"`
	Why       string `cbor:"4,keyasint"`
}

// Unrevoke undoes every revocation of a peer, and every vote for one, said before.
type Unrevoke struct {
	Subject []byte `cbor:"1,keyasint"`
	Why     string `cbor:"2,keyasint"`
}

// Release names the true hash of a module or binary. A later one of the same name replaces it; no hash withdraws it.
type Release struct {
	Name    string `cbor:"1,keyasint"` // "binary/linux-amd64", "module/sigma-base"
	Version string `cbor:"2,keyasint"`
	SHA256  []byte `cbor:"3,keyasint"` // 32 bytes, or empty
}

// Policy is the response policy, Cedar text: k signatures where an operator's own policy entry takes one.
type Policy struct {
	Text string `cbor:"1,keyasint"`
}

// Retire ends the swarm in favour of another, of another suite for instance. Nothing but a recovery may follow.
type Retire struct {
	Successor []byte      `cbor:"1,keyasint"` // swarm id, 32 bytes
	Suite     trust.Suite `cbor:"2,keyasint"` // the successor's
	Why       string      `cbor:"3,keyasint"`
}

// Recover says that the chain goes on after its own predecessor, whatever else followed Common. It is signed by genesis's
// recovery keys; where genesis has none, by operators of Common, and then it counts only at a fork.
type Recover struct {
	Common []byte    `cbor:"1,keyasint"`           // hash of the last entry that is not in question; the swarm id for genesis
	Round  uint32    `cbor:"2,keyasint"`           // the highest of one Common counts; two different ones of one round are void
	Add    [][]byte  `cbor:"3,keyasint,omitempty"` // inceptions of new operators
	Remove []Removal `cbor:"4,keyasint,omitempty"` // operators that are none from here on, sorted by DID
	K      uint8     `cbor:"5,keyasint,omitempty"` // where operators change
}

// Removal is an operator that a recovery ends.
type Removal struct {
	Operator  []byte `cbor:"1,keyasint"`
	Authority uint64 `cbor:"2,keyasint"` // entries of its authority chain that stand
}

// Kind of each body.
func (*Add) Kind() Kind      { return KindAdd }
func (*Remove) Kind() Kind   { return KindRemove }
func (*Rotate) Kind() Kind   { return KindRotate }
func (*Issuers) Kind() Kind  { return KindIssuers }
func (*Revoke) Kind() Kind   { return KindRevoke }
func (*Unrevoke) Kind() Kind { return KindUnrevoke }
func (*Release) Kind() Kind  { return KindRelease }
func (*Policy) Kind() Kind   { return KindPolicy }
func (*Retire) Kind() Kind   { return KindRetire }
func (*Recover) Kind() Kind  { return KindRecover }

func emptyBody(k Kind) Body {
	switch k {
	case KindAdd:
		return new(Add)
	case KindRemove:
		return new(Remove)
	case KindRotate:
		return new(Rotate)
	case KindIssuers:
		return new(Issuers)
	case KindRevoke:
		return new(Revoke)
	case KindUnrevoke:
		return new(Unrevoke)
	case KindRelease:
		return new(Release)
	case KindPolicy:
		return new(Policy)
	case KindRetire:
		return new(Retire)
	case KindRecover:
		return new(Recover)
	}
	return nil
}

func encodeBody(b Body) ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("root: %s: %w: %w", b.Kind(), ErrEntry, err)
	}
	return canonical.Marshal(b)
}

// DecodeBody reads the body of an entry of a known kind.
func DecodeBody(k Kind, raw []byte) (Body, error) {
	b := emptyBody(k)
	if b == nil {
		return nil, fmt.Errorf("root: %s: unknown kind: %w", k, ErrEntry)
	}
	if err := canonical.Unmarshal(raw, b, trust.MaxRootBody); err != nil {
		return nil, fmt.Errorf("root: %s: %w: %w", k, ErrEntry, err)
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("root: %s: %w: %w", k, ErrEntry, err)
	}
	return b, nil
}

func (b *Add) check() error {
	return errors.Join(checkInception(b.Inception), checkNode(b.Node), checkCount(uint64(b.K)))
}

func (b *Remove) check() error {
	return errors.Join(checkHash("operator", b.Operator), checkCount(b.Authority), checkCount(uint64(b.K)))
}

func (b *Rotate) check() error {
	return errors.Join(checkHash("operator", b.Operator), checkCount(b.Authority), checkInception(b.Inception), checkNode(b.Node))
}

func (b *Issuers) check() error {
	if len(b.List) > trust.MaxIssuers {
		return fmt.Errorf("%d issuers, at most %d", len(b.List), trust.MaxIssuers)
	}
	for i, x := range b.List {
		if err := checkHash("issuer", x.DID); err != nil {
			return err
		}
		if i > 0 && bytes.Compare(b.List[i-1].DID, x.DID) >= 0 {
			return errors.New("issuers must be sorted, without repeats")
		}
		if len(x.Capabilities) < 1 || len(x.Capabilities) > trust.MaxRoles {
			return fmt.Errorf("%d capabilities: 1 to %d", len(x.Capabilities), trust.MaxRoles)
		}
		for j, c := range x.Capabilities {
			if c == "" || len(c) > trust.MaxRole || strings.Trim(c, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
				return fmt.Errorf("capability %.40q: lower-case letters, digits and '-', at most %d", c, trust.MaxRole)
			}
			if j > 0 && x.Capabilities[j-1] >= c {
				return errors.New("capabilities must be sorted, without repeats")
			}
		}
	}
	return nil
}

func (b *Revoke) check() error {
	return errors.Join(checkHash("subject", b.Subject), checkCount(b.Authority), checkCount(b.Activity), checkText("reason", b.Why, 0, trust.MaxReason))
}

func (b *Unrevoke) check() error {
	return errors.Join(checkHash("subject", b.Subject), checkText("reason", b.Why, 0, trust.MaxReason))
}

func (b *Release) check() error {
	if len(b.SHA256) != 32 && len(b.SHA256) != 0 {
		return fmt.Errorf("hash of %d bytes", len(b.SHA256))
	}
	return errors.Join(checkText("name", b.Name, 1, 128), checkText("version", b.Version, 0, 128))
}

func (b *Policy) check() error {
	if b.Text == "" || len(b.Text) > trust.MaxAuthorityBody || !utf8.ValidString(b.Text) {
		return fmt.Errorf("policy text of %d bytes, at most %d", len(b.Text), trust.MaxAuthorityBody)
	}
	return nil
}

func (b *Retire) check() error {
	return errors.Join(checkHash("successor", b.Successor), checkText("reason", b.Why, 0, trust.MaxReason))
}

func (b *Recover) check() error {
	if err := checkHash("common entry", b.Common); err != nil {
		return err
	}
	if b.Round < 1 || len(b.Add) > trust.MaxOperators || len(b.Remove) > trust.MaxOperators || (len(b.Add)+len(b.Remove) == 0) != (b.K == 0) {
		return errors.New("round, operators or k")
	}
	for i, r := range b.Remove {
		if err := errors.Join(checkHash("operator", r.Operator), checkCount(r.Authority)); err != nil {
			return err
		}
		if i > 0 && bytes.Compare(b.Remove[i-1].Operator, r.Operator) >= 0 {
			return errors.New("removed operators must be sorted, without repeats")
		}
	}
	for _, o := range b.Add {
		if err := checkInception(o); err != nil {
			return err
		}
	}
	return nil
}

func checkQuorum(k, n int) error {
	if n < 1 || n > trust.MaxOperators || k > n || 2*k <= n {
		return fmt.Errorf("%d of %d operators: k must be more than half, and n 1 to %d", k, n, trust.MaxOperators)
	}
	return nil
}

func checkInception(raw []byte) error {
	if len(raw) == 0 || len(raw) > trust.MaxInception {
		return fmt.Errorf("inception of %d bytes", len(raw))
	}
	if _, err := identity.DecodeInception(raw); err != nil {
		return err
	}
	return nil
}

func checkHash(what string, b []byte) error {
	if len(b) != 32 {
		return fmt.Errorf("%s of %d bytes", what, len(b))
	}
	return nil
}

func checkNode(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	return checkHash("node", b)
}

func checkCount(n uint64) error {
	if n > 1<<62 {
		return errors.New("count")
	}
	return nil
}

func checkText(what, s string, least, most int) error {
	if len(s) < least || len(s) > most || !utf8.ValidString(s) {
		return fmt.Errorf("%s of %d bytes, at most %d", what, len(s), most)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return fmt.Errorf("%s holds a control character", what)
		}
	}
	return nil
}
