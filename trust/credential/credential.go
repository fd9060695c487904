// Package credential is the short-lived word of who may act beyond its own host: an operator, or an issuer that the root
// names, signs for a subject what it may do, on which hosts, and until when, at most a day. A holder may pass part of it
// on, never more, three times at most. A host that is asked to act checks the chain of such words by itself, offline,
// back to an operator or issuer; what its own policy makes of it comes afterwards (trust/policy).
//
// A credential is canonical CBOR in the shape of COSE_Sign1 (RFC 9052 §4.2, untagged). Composite signatures have no COSE
// algorithm yet, so the number is one of the private range.
package credential

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

const (
	version = 1
	// context separates these signatures from all others; it is also the external_aad of the Sig_structure.
	context = "omega/credential/1"
	// domainID is the hash domain of a credential's identity.
	domainID = "omega/credential-id/1"
	// algorithm and contentType are what the protected header says: a private-use number (RFC 9052 §11.2), since the
	// composite algorithms have none yet.
	algorithm   = -70001
	contentType = "application/omega-credential+cbor"
)

// Refusals. Each wraps ErrCredential, and names what a person could put right.
var (
	// ErrCredential is wrapped by every refusal.
	ErrCredential = errors.New("credential refused")
	// ErrExpired: outside its time.
	ErrExpired = fmt.Errorf("%w: outside its time", ErrCredential)
	// ErrWider: a delegation gives more than its holder has.
	ErrWider = fmt.Errorf("%w: wider than what it rests on", ErrCredential)
	// ErrIssuer: the chain does not begin with an operator or issuer.
	ErrIssuer = fmt.Errorf("%w: not from an operator or issuer", ErrCredential)
	// ErrSignature: a signature does not verify.
	ErrSignature = fmt.Errorf("%w: signature", ErrCredential)
	// ErrRevoked: the credential, or someone in its chain, was revoked.
	ErrRevoked = fmt.Errorf("%w: revoked", ErrCredential)
)

// Capability is one thing that a subject may do.
type Capability struct {
	Action string         // a verb, as respond-deny, hunt, module-deploy; at most trust.MaxAction bytes
	Peers  []identity.DID // hosts it may be done to, sorted; empty for every host
	MaxTTL time.Duration  // the longest its effect may last, whole seconds; 0 where nothing lasts
}

// Content is what a credential says.
type Content struct {
	Swarm        trust.SwarmID
	Issuer       identity.DID
	Subject      identity.DID
	Serial       [16]byte // what a revocation names, beside the DID
	NotBefore    time.Time
	NotAfter     time.Time // whole seconds; at most trust.MaxCredentialLifetime after NotBefore
	Roles        []string  // the subject's, sorted
	Capabilities []Capability
	RootSeq      uint64   // how much of the root chain the issuer knew; who knows less syncs before it believes
	RootHead     [32]byte // its hash then
	Depth        uint8    // how often it may be passed on yet, at most trust.MaxDelegation
	Parent       [32]byte // ID of what it was delegated from; zero where the issuer is an operator or issuer
	Measurement  [32]byte // SHA-256 of the subject's binary as the issuer saw it; zero where unknown
}

type capabilityWire struct {
	Action string   `cbor:"1,keyasint"`
	Peers  [][]byte `cbor:"2,keyasint,omitempty"`
	MaxTTL uint32   `cbor:"3,keyasint,omitempty"`
}

type contentWire struct {
	Swarm        []byte           `cbor:"1,keyasint"`
	Issuer       []byte           `cbor:"2,keyasint"`
	Subject      []byte           `cbor:"3,keyasint"`
	Serial       []byte           `cbor:"4,keyasint"`
	NotBefore    int64            `cbor:"5,keyasint"`
	NotAfter     int64            `cbor:"6,keyasint"`
	Roles        []string         `cbor:"7,keyasint,omitempty"`
	Capabilities []capabilityWire `cbor:"8,keyasint,omitempty"`
	RootSeq      uint64           `cbor:"9,keyasint"`
	RootHead     []byte           `cbor:"10,keyasint"`
	Depth        uint8            `cbor:"11,keyasint,omitempty"`
	Parent       []byte           `cbor:"12,keyasint,omitempty"`
	Measurement  []byte           `cbor:"13,keyasint,omitempty"`
}

type protectedHeader struct {
	Algorithm   int64  `cbor:"1,keyasint"`
	ContentType string `cbor:"3,keyasint"`
}

// sign1 is COSE_Sign1: an array of four.
type sign1 struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte
	Unprotected struct{}
	Payload     []byte
	Signature   []byte
}

// toSign is the Sig_structure of RFC 9052 §4.4.
type toSign struct {
	_           struct{} `cbor:",toarray"`
	Context     string
	Protected   []byte
	ExternalAAD []byte
	Payload     []byte
}

// Credential is a signed Content. It is immutable once made.
type Credential struct {
	Content
	raw       []byte
	signed    []byte
	signature []byte
	id        [32]byte
}

// Signer is who issues or delegates.
type Signer interface {
	DID() identity.DID
	Sign(context string, msg []byte) ([]byte, error)
}

// Issue signs c, whose Issuer becomes the signer and whose Serial is chosen here.
func Issue(s Signer, c Content) (*Credential, error) {
	c.Issuer = s.DID()
	if _, err := io.ReadFull(rand.Reader, c.Serial[:]); err != nil {
		return nil, fmt.Errorf("credential: read random: %w", err)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	payload, err := c.encode()
	if err != nil {
		return nil, err
	}
	protected, err := canonical.Marshal(protectedHeader{algorithm, contentType})
	if err != nil {
		return nil, err
	}
	signed, err := canonical.Marshal(toSign{Context: "Signature1", Protected: protected, ExternalAAD: []byte(context), Payload: payload})
	if err != nil {
		return nil, err
	}
	signature, err := s.Sign(context, signed)
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	raw, err := canonical.Marshal(sign1{Protected: protected, Payload: payload, Signature: signature})
	if err != nil {
		return nil, err
	}
	return Decode(append([]byte{version}, raw...))
}

// Decode reads a credential of at most trust.MaxCredential bytes: version byte, COSE_Sign1. It verifies no signature.
func Decode(raw []byte) (*Credential, error) {
	if len(raw) < 1 || len(raw) > trust.MaxCredential || raw[0] != version {
		return nil, fmt.Errorf("%w: %d bytes", ErrCredential, len(raw))
	}
	var s sign1
	if err := canonical.Unmarshal(raw[1:], &s, trust.MaxCredential); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	var h protectedHeader
	if err := canonical.Unmarshal(s.Protected, &h, 128); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrCredential, err)
	}
	if h != (protectedHeader{algorithm, contentType}) || !composite.IsSignatureSize(len(s.Signature)) {
		return nil, fmt.Errorf("%w: algorithm %d, signature of %d bytes", ErrCredential, h.Algorithm, len(s.Signature))
	}
	var w contentWire
	if err := canonical.Unmarshal(s.Payload, &w, trust.MaxCredential); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	c, err := w.content()
	if err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	signed, err := canonical.Marshal(toSign{Context: "Signature1", Protected: s.Protected, ExternalAAD: []byte(context), Payload: s.Payload})
	if err != nil {
		return nil, err
	}
	out := &Credential{Content: c, raw: slices.Clone(raw), signed: signed, signature: s.Signature}
	sum := sha256.New()
	sum.Write([]byte(domainID))
	sum.Write([]byte{0})
	sum.Write(s.Payload) // not the signature, of which many may be valid: what was revoked stays revoked
	out.id = [32]byte(sum.Sum(nil))
	return out, nil
}

// Encode is the credential as it travels. The caller must not change it.
func (c *Credential) Encode() []byte { return c.raw }

// ID is H("omega/credential-id/1", payload): what a delegation names as its parent.
func (c *Credential) ID() [32]byte { return c.id }

// SerialText is the serial as people write it, 32 hex digits.
func (c *Content) SerialText() string { return hex.EncodeToString(c.Serial[:]) }

// Verify reports whether key signed it.
func (c *Credential) Verify(key *composite.PublicKey) bool {
	return key.Verify(context, c.signed, c.signature)
}

func (c *Content) encode() ([]byte, error) {
	issuer, err := c.Issuer.Bytes()
	if err != nil {
		return nil, err
	}
	subject, err := c.Subject.Bytes()
	if err != nil {
		return nil, err
	}
	w := contentWire{
		Swarm: c.Swarm[:], Issuer: issuer[:], Subject: subject[:], Serial: c.Serial[:], NotBefore: c.NotBefore.Unix(), NotAfter: c.NotAfter.Unix(),
		Roles: c.Roles, RootSeq: c.RootSeq, RootHead: c.RootHead[:], Depth: c.Depth, Parent: unlessZero(c.Parent), Measurement: unlessZero(c.Measurement),
	}
	for _, x := range c.Capabilities {
		one := capabilityWire{Action: x.Action, MaxTTL: uint32(x.MaxTTL / time.Second)}
		for _, p := range x.Peers {
			did, err := p.Bytes()
			if err != nil {
				return nil, err
			}
			one.Peers = append(one.Peers, did[:])
		}
		w.Capabilities = append(w.Capabilities, one)
	}
	return canonical.Marshal(w)
}

func unlessZero(h [32]byte) []byte {
	if h == [32]byte{} {
		return nil
	}
	return h[:]
}

func (w *contentWire) content() (Content, error) {
	var c Content
	whole := len(w.Swarm) == 32 && len(w.Issuer) == 32 && len(w.Subject) == 32 && len(w.Serial) == 16 && len(w.RootHead) == 32 &&
		(len(w.Parent) == 0 || len(w.Parent) == 32) && (len(w.Measurement) == 0 || len(w.Measurement) == 32)
	if !whole || w.NotBefore < 0 || w.NotAfter > maxSeconds || w.NotBefore > maxSeconds {
		return c, fmt.Errorf("%w: a field has not its size", ErrCredential)
	}
	c = Content{
		Swarm: trust.SwarmID(w.Swarm), Issuer: identity.DIDFromBytes([32]byte(w.Issuer)), Subject: identity.DIDFromBytes([32]byte(w.Subject)),
		Serial: [16]byte(w.Serial), NotBefore: time.Unix(w.NotBefore, 0).UTC(), NotAfter: time.Unix(w.NotAfter, 0).UTC(), Roles: w.Roles,
		RootSeq: w.RootSeq, RootHead: [32]byte(w.RootHead), Depth: w.Depth,
	}
	copy(c.Parent[:], w.Parent)
	copy(c.Measurement[:], w.Measurement)
	for _, x := range w.Capabilities {
		one := Capability{Action: x.Action, MaxTTL: time.Duration(x.MaxTTL) * time.Second}
		for _, p := range x.Peers {
			if len(p) != 32 {
				return c, fmt.Errorf("%w: a peer of %d bytes", ErrCredential, len(p))
			}
			one.Peers = append(one.Peers, identity.DIDFromBytes([32]byte(p)))
		}
		c.Capabilities = append(c.Capabilities, one)
	}
	return c, nil
}

// maxSeconds keeps times inside what UnixNano can hold.
const maxSeconds = (1<<63-1)/int64(time.Second) - 1

// check holds what a credential says to its bounds.
func (c *Content) check() error {
	life := c.NotAfter.Sub(c.NotBefore)
	switch {
	case life <= 0 || life > trust.MaxCredentialLifetime:
		return fmt.Errorf("%w: lifetime %s, at most %s", ErrCredential, life, trust.MaxCredentialLifetime)
	case c.Depth > trust.MaxDelegation:
		return fmt.Errorf("%w: to be passed on %d times, at most %d", ErrCredential, c.Depth, trust.MaxDelegation)
	case len(c.Capabilities) > trust.MaxCapabilities || len(c.Roles) > trust.MaxRoles:
		return fmt.Errorf("%w: %d capabilities, %d roles", ErrCredential, len(c.Capabilities), len(c.Roles))
	case !slices.IsSorted(c.Roles) || len(slices.Compact(slices.Clone(c.Roles))) != len(c.Roles):
		return fmt.Errorf("%w: roles must be sorted, without repeats", ErrCredential)
	case c.Issuer == c.Subject:
		return fmt.Errorf("%w: nobody vouches for itself", ErrCredential)
	}
	for _, r := range c.Roles {
		if !plain(r, trust.MaxRole) {
			return fmt.Errorf("%w: role %.40q", ErrCredential, r)
		}
	}
	for _, x := range c.Capabilities {
		if !plain(x.Action, trust.MaxAction) {
			return fmt.Errorf("%w: action %.40q", ErrCredential, x.Action)
		}
		if len(x.Peers) > trust.MaxCapabilityPeers || !slices.IsSorted(x.Peers) || len(slices.Compact(slices.Clone(x.Peers))) != len(x.Peers) {
			return fmt.Errorf("%w: %s: at most %d peers, sorted, without repeats", ErrCredential, x.Action, trust.MaxCapabilityPeers)
		}
		if x.MaxTTL < 0 || x.MaxTTL > trust.MaxLifetime || x.MaxTTL%time.Second != 0 {
			return fmt.Errorf("%w: %s: lifetime %s", ErrCredential, x.Action, x.MaxTTL)
		}
	}
	return nil
}

// plain reports whether s is 1 to most of a-z 0-9 . - .
func plain(s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return true
}
