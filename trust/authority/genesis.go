package authority

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
)

const (
	contextGenesis = "omega/genesis/1"
	genesisVersion = 1
	// recoveryKeySize is the size of an SLH-DSA-SHA2-128s public key (FIPS 205).
	recoveryKeySize = 32
)

// ErrGenesis is wrapped by every refusal of a genesis record.
var ErrGenesis = errors.New("not a valid genesis record")

// Genesis is the record a swarm begins with. It is immutable once made.
type Genesis struct {
	Version       uint8
	Suite         trust.Suite
	Draft         uint16 // revision of draft-ietf-lamps-pq-composite-sigs; 0 where Suite has no composite
	Name          string
	Operators     []*identity.Inception // in the order given; no two alike
	Threshold     int                   // k: how many operators a change of the root takes; more than half of them
	Recovery      [][]byte              // SLH-DSA-SHA2-128s public keys, 32 bytes each; none in a lab
	RecoveryK     int                   // how many of Recovery must sign; more than half of them
	PolicyHash    [32]byte              // SHA-256 of the first response policy; zero for the built-in one
	LongestLife   time.Duration         // the longest any response may last, whole seconds
	Created       time.Time
	nonce         [16]byte
	raw           []byte
	id            trust.SwarmID
	operatorByDID map[identity.DID]*identity.Inception
}

type genesisContent struct {
	Suite       trust.Suite `cbor:"1,keyasint"`
	Draft       uint16      `cbor:"2,keyasint"`
	Name        string      `cbor:"3,keyasint"`
	Operators   [][]byte    `cbor:"4,keyasint"`
	Threshold   uint8       `cbor:"5,keyasint"`
	Recovery    [][]byte    `cbor:"6,keyasint"`
	RecoveryK   uint8       `cbor:"7,keyasint"`
	PolicyHash  []byte      `cbor:"8,keyasint"`
	LongestLife uint32      `cbor:"9,keyasint"`  // seconds
	Created     int64       `cbor:"10,keyasint"` // Unix nanoseconds
	Nonce       []byte      `cbor:"11,keyasint"` // 16 bytes: two swarms of one name and operator differ
}

// GenesisOptions are what a founder may choose beyond name, operators and k.
type GenesisOptions struct {
	Recovery    [][]byte
	RecoveryK   int
	PolicyHash  [32]byte
	LongestLife time.Duration // default 24 h, at most trust.MaxLifetime
	Now         time.Time     // default time.Now
	Random      io.Reader     // default crypto/rand: only tests set it
}

// NewGenesis founds a swarm: operators are the inceptions of those who govern it, k how many of them a change of the
// root takes (more than half). The operators' suite, one for all, becomes the swarm's, for good.
func NewGenesis(name string, operators []*identity.Inception, k int, opt GenesisOptions) (*Genesis, error) {
	if opt.LongestLife == 0 {
		opt.LongestLife = 24 * time.Hour
	}
	if opt.Now.IsZero() {
		opt.Now = time.Now()
	}
	if opt.Random == nil {
		opt.Random = rand.Reader
	}
	nonce := make([]byte, 16)
	if _, err := io.ReadFull(opt.Random, nonce); err != nil {
		return nil, fmt.Errorf("authority: read random: %w", err)
	}
	suite := trust.SuiteDefault
	if len(operators) > 0 {
		suite = operators[0].Suite
	}
	c := genesisContent{
		Suite: suite, Draft: suite.Draft(), Name: name, Operators: [][]byte{}, Threshold: uint8(min(max(k, 0), 255)),
		Recovery: [][]byte{}, RecoveryK: uint8(min(max(opt.RecoveryK, 0), 255)), PolicyHash: opt.PolicyHash[:],
		LongestLife: uint32(min(opt.LongestLife, trust.MaxLifetime+time.Second) / time.Second), Created: opt.Now.UnixNano(), Nonce: nonce,
	}
	for _, o := range operators {
		c.Operators = append(c.Operators, o.Encode())
	}
	c.Recovery = append(c.Recovery, opt.Recovery...)
	content, err := canonical.Marshal(c)
	if err != nil {
		return nil, err
	}
	return DecodeGenesis(append([]byte{genesisVersion}, content...))
}

// DecodeGenesis reads a genesis record of at most trust.MaxGenesis bytes: version byte, canonical CBOR. It is not signed:
// its hash is the swarm's name, and whoever joins has the name from someone it trusts.
func DecodeGenesis(raw []byte) (*Genesis, error) {
	if len(raw) < 1 || len(raw) > trust.MaxGenesis {
		return nil, fmt.Errorf("authority: %d bytes: %w", len(raw), ErrGenesis)
	}
	if raw[0] != genesisVersion {
		return nil, fmt.Errorf("authority: version %d: %w", raw[0], ErrGenesis)
	}
	var c genesisContent
	if err := canonical.Unmarshal(raw[1:], &c, trust.MaxGenesis); err != nil {
		return nil, fmt.Errorf("authority: %w: %w", ErrGenesis, err)
	}
	g := &Genesis{
		Version: genesisVersion, Suite: c.Suite, Draft: c.Draft, Name: c.Name, Threshold: int(c.Threshold), Recovery: c.Recovery,
		RecoveryK: int(c.RecoveryK), LongestLife: time.Duration(c.LongestLife) * time.Second, Created: time.Unix(0, c.Created).UTC(),
		raw: append([]byte(nil), raw...), operatorByDID: make(map[identity.DID]*identity.Inception),
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("authority: %w: %w", ErrGenesis, err)
	}
	g.PolicyHash, g.nonce = [32]byte(c.PolicyHash), [16]byte(c.Nonce)
	for _, o := range c.Operators {
		inc, err := identity.DecodeInception(o)
		if err != nil {
			return nil, fmt.Errorf("authority: operator: %w: %w", ErrGenesis, err)
		}
		if inc.Suite != g.Suite {
			return nil, fmt.Errorf("authority: operator %s has keys of suite %s: %w: %w", inc.DID().Short(), inc.Suite.Name(), ErrGenesis, ErrSuite)
		}
		if _, twice := g.operatorByDID[inc.DID()]; twice {
			return nil, fmt.Errorf("authority: operator %s twice: %w", inc.DID().Short(), ErrGenesis)
		}
		g.Operators = append(g.Operators, inc)
		g.operatorByDID[inc.DID()] = inc
	}
	h := sha256.New()
	h.Write([]byte(contextGenesis))
	h.Write([]byte{0})
	h.Write(raw)
	g.id = trust.SwarmID(h.Sum(nil))
	return g, nil
}

func (c *genesisContent) check() error {
	if !c.Suite.Known() || c.Draft != c.Suite.Draft() {
		return fmt.Errorf("suite %d by draft %d is none of this build's", c.Suite, c.Draft)
	}
	if err := identity.CheckName(c.Name); err != nil {
		return err
	}
	n, k := len(c.Operators), int(c.Threshold)
	if n < 1 || n > trust.MaxOperators || k > n || 2*k <= n {
		return fmt.Errorf("%d of %d operators: k must be more than half, and n at most %d", k, n, trust.MaxOperators)
	}
	n, k = len(c.Recovery), int(c.RecoveryK)
	if n > trust.MaxRecoveryKeys || k > n || n > 0 && 2*k <= n || n == 0 && k != 0 {
		return fmt.Errorf("%d of %d recovery keys", k, n)
	}
	for _, r := range c.Recovery {
		if len(r) != recoveryKeySize {
			return fmt.Errorf("recovery key of %d bytes", len(r))
		}
	}
	if len(c.PolicyHash) != 32 || len(c.Nonce) != 16 || c.Created <= 0 {
		return errors.New("policy hash, nonce or time")
	}
	if life := time.Duration(c.LongestLife) * time.Second; life < time.Second || life > trust.MaxLifetime {
		return fmt.Errorf("longest lifetime %s: 1 s to %s", life, trust.MaxLifetime)
	}
	return nil
}

// Encode is the record as it travels. The caller must not change it.
func (g *Genesis) Encode() []byte { return g.raw }

// SwarmID is SHA-256("omega/genesis/1" || 0x00 || record).
func (g *Genesis) SwarmID() trust.SwarmID { return g.id }

// Operator is the inception of an operator.
func (g *Genesis) Operator(did identity.DID) (*identity.Inception, bool) {
	i, ok := g.operatorByDID[did]
	return i, ok
}
