package authority

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

const (
	tokenPrefix     = "omega1"
	tokenVersion    = 1
	tokenSum        = 4
	domainToken     = "omega/token/1"
	domainInviteKey = "omega/invite-key/1"
)

// ErrToken is wrapped where text is not a join token; the text is never part of the message.
var ErrToken = errors.New("not a join token")

// Token is what a joiner is given: one line that begins with "omega1". It holds a secret.
type Token struct {
	Swarm    trust.SwarmID
	Suite    trust.Suite // of the swarm
	NotAfter time.Time   // whole seconds
	Uses     int
	Issuer   identity.DID
	Addrs    []string // multiaddrs of peers to ask, at most trust.MaxTokenAddrs

	seed [32]byte
}

type tokenContent struct {
	Swarm    []byte   `cbor:"1,keyasint"`
	Seed     []byte   `cbor:"2,keyasint"`
	NotAfter int64    `cbor:"3,keyasint"` // Unix seconds
	Uses     uint16   `cbor:"4,keyasint"`
	Issuer   []byte   `cbor:"5,keyasint"`
	Addrs    []string `cbor:"6,keyasint"`
	// Suite is absent where it is the default one.
	Suite trust.Suite `cbor:"7,keyasint,omitempty"`
}

// InviteOptions say what an invite allows.
type InviteOptions struct {
	Roles    []string
	Uses     int       // default 1
	NotAfter time.Time // at most trust.MaxInviteLifetime after Now
	Approve  bool
	Addrs    []string
	Suite    trust.Suite // of the swarm; zero is trust.SuiteDefault
	Now      time.Time   // default time.Now
	Random   io.Reader   // default crypto/rand: only tests set it
}

// NewInvite makes a token and the body of the invite entry that the operator issuer must sign for it to work.
func NewInvite(swarm trust.SwarmID, issuer identity.DID, opt InviteOptions) (*Token, *InviteBody, error) {
	if opt.Random == nil {
		opt.Random = rand.Reader
	}
	if opt.Now.IsZero() {
		opt.Now = time.Now()
	}
	if opt.Uses == 0 {
		opt.Uses = 1
	}
	if opt.NotAfter.IsZero() {
		opt.NotAfter = opt.Now.Add(24 * time.Hour)
	}
	if life := opt.NotAfter.Sub(opt.Now); life <= 0 || life > trust.MaxInviteLifetime {
		return nil, nil, fmt.Errorf("authority: an invite lasts up to %s, not %s", trust.MaxInviteLifetime, life)
	}
	if opt.Uses < 1 || opt.Uses > trust.MaxInviteUses {
		return nil, nil, fmt.Errorf("authority: an invite has 1 to %d uses, not %d", trust.MaxInviteUses, opt.Uses)
	}
	if opt.Suite == 0 {
		opt.Suite = trust.SuiteDefault
	}
	t := &Token{Swarm: swarm, Suite: opt.Suite, NotAfter: time.Unix(opt.NotAfter.Unix(), 0).UTC(), Uses: opt.Uses, Issuer: issuer, Addrs: slices.Clone(opt.Addrs)}
	if _, err := io.ReadFull(opt.Random, t.seed[:]); err != nil {
		return nil, nil, fmt.Errorf("authority: read random: %w", err)
	}
	if _, err := t.encode(); err != nil {
		return nil, nil, err
	}
	hash, err := t.KeyHash()
	if err != nil {
		return nil, nil, err
	}
	roles := slices.Clone(opt.Roles)
	slices.Sort(roles)
	body := &InviteBody{KeyHash: hash[:], Roles: slices.Compact(roles), Uses: uint16(opt.Uses), NotAfter: opt.NotAfter.Unix(), Approve: opt.Approve}
	if err := body.check(); err != nil {
		return nil, nil, fmt.Errorf("authority: invite: %w: %w", ErrBody, err)
	}
	return t, body, nil
}

func (t *Token) content() (tokenContent, error) {
	issuer, err := t.Issuer.Bytes()
	c := tokenContent{Swarm: t.Swarm[:], Seed: t.seed[:], NotAfter: t.NotAfter.Unix(), Uses: uint16(t.Uses), Issuer: issuer[:], Addrs: t.Addrs}
	if c.Addrs == nil {
		c.Addrs = []string{}
	}
	if t.Suite != trust.SuiteDefault {
		c.Suite = t.Suite
	}
	return c, err
}

func (c *tokenContent) check() error {
	if len(c.Swarm) != 32 || len(c.Seed) != 32 || len(c.Issuer) != 32 {
		return errors.New("field sizes")
	}
	if c.Uses < 1 || c.Uses > trust.MaxInviteUses || c.NotAfter <= 0 || c.NotAfter > maxSeconds {
		return errors.New("uses or expiry")
	}
	if c.Suite == trust.SuiteDefault || c.Suite != 0 && !c.Suite.Known() { // the default has one spelling
		return fmt.Errorf("suite %d", c.Suite)
	}
	if len(c.Addrs) > trust.MaxTokenAddrs {
		return fmt.Errorf("%d addresses, at most %d", len(c.Addrs), trust.MaxTokenAddrs)
	}
	for _, a := range c.Addrs {
		if a == "" || len(a) > trust.MaxTokenAddr || !strings.HasPrefix(a, "/") || checkText("address", a, trust.MaxTokenAddr) != nil {
			return fmt.Errorf("address of %d bytes", len(a))
		}
	}
	return nil
}

func (t *Token) encode() (string, error) {
	c, err := t.content()
	if err != nil {
		return "", err
	}
	if err := c.check(); err != nil {
		return "", fmt.Errorf("authority: token: %w", err)
	}
	b, err := canonical.Marshal(c)
	if err != nil {
		return "", err
	}
	b = append([]byte{tokenVersion}, b...)
	b = append(b, tokenChecksum(b)...)
	s := tokenPrefix + tokenBase32().EncodeToString(b)
	if len(s) > trust.MaxToken {
		return "", fmt.Errorf("authority: token of %d characters, at most %d", len(s), trust.MaxToken)
	}
	return s, nil
}

func tokenBase32() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

func tokenChecksum(b []byte) []byte {
	h := sha256.New()
	h.Write([]byte(domainToken))
	h.Write([]byte{0})
	h.Write(b)
	return h.Sum(nil)[:tokenSum]
}

// ParseToken reads a token, with spaces around it allowed. A mistyped one is told from a foreign one by its checksum.
func ParseToken(s string) (*Token, error) {
	if len(s) > 2*trust.MaxToken {
		return nil, fmt.Errorf("authority: %d characters: %w", len(s), ErrToken)
	}
	s = strings.TrimSpace(s)
	digits, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok || len(s) > trust.MaxToken {
		return nil, fmt.Errorf("authority: it begins with %s and has at most %d characters: %w", tokenPrefix, trust.MaxToken, ErrToken)
	}
	enc := tokenBase32()
	b, err := enc.DecodeString(digits)
	if err != nil || len(b) <= 1+tokenSum || enc.EncodeToString(b) != digits {
		return nil, fmt.Errorf("authority: mistyped or cut short: %w", ErrToken)
	}
	b, sum := b[:len(b)-tokenSum], b[len(b)-tokenSum:]
	if string(sum) != string(tokenChecksum(b)) {
		return nil, fmt.Errorf("authority: mistyped or cut short: %w", ErrToken)
	}
	if b[0] != tokenVersion {
		return nil, fmt.Errorf("authority: token version %d, this build reads %d: %w", b[0], tokenVersion, ErrToken)
	}
	var c tokenContent
	if err := canonical.Unmarshal(b[1:], &c, trust.MaxToken); err != nil {
		return nil, fmt.Errorf("authority: contents: %w", ErrToken) // the cause might quote them
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("authority: %w: %w", ErrToken, err)
	}
	if c.Suite == 0 {
		c.Suite = trust.SuiteDefault
	}
	return &Token{
		Swarm: trust.SwarmID(c.Swarm), Suite: c.Suite, NotAfter: time.Unix(c.NotAfter, 0).UTC(), Uses: int(c.Uses),
		Issuer: identity.DIDFromBytes([32]byte(c.Issuer)), Addrs: c.Addrs, seed: [32]byte(c.Seed),
	}, nil
}

// Secret is the token's line. Show it once, to who asked for the invite; it must reach no log.
func (t *Token) Secret() string {
	s, err := t.encode()
	if err != nil {
		return "" // a Token is only made by NewInvite and ParseToken, which both checked it
	}
	return s
}

// String names the token without its secret.
func (t *Token) String() string {
	return fmt.Sprintf("%s…(swarm %s, until %s, redacted)", tokenPrefix, t.Swarm.Short(), t.NotAfter.Format(time.RFC3339))
}

// GoString is String: %#v must not show the seed either.
func (t *Token) GoString() string { return t.String() }

// Format is String for every verb, so that %+v and %x of a Token show nothing more.
func (t *Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// MarshalText keeps the secret out of JSON.
func (t *Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// LogValue keeps the secret out of the log.
func (t *Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// InviteKey derives the invite's signing key: HKDF-SHA-256 of the seed, no salt, info "omega/invite-key/1", as long as
// a seed of the suite is.
func (t *Token) InviteKey() (*composite.PrivateKey, error) {
	seed, err := hkdf.Key(sha256.New, t.seed[:], nil, domainInviteKey, composite.SeedSize(t.Suite))
	if err != nil {
		return nil, fmt.Errorf("authority: derive invite key: %w", err)
	}
	defer clear(seed)
	return composite.FromSeed(t.Suite, seed)
}

// KeyHash is the invite's name in the feeds: SHA-256("omega/invite-key/1" || 0x00 || invite public key).
func (t *Token) KeyHash() ([32]byte, error) {
	k, err := t.InviteKey()
	if err != nil {
		return [32]byte{}, err
	}
	return inviteKeyHash(k.Public().Bytes()), nil
}

func inviteKeyHash(pub []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(domainInviteKey))
	h.Write([]byte{0})
	h.Write(pub)
	return [32]byte(h.Sum(nil))
}
