package witness

import (
	"errors"
	"fmt"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/tlog"
)

// ErrBody is wrapped where an entry's body is not what its kind asks for.
var ErrBody = errors.New("not a witness's entry")

// maxBody bounds both bodies before they are parsed: a cosignature is 2,420 bytes.
const maxBody = 4 << 10

// keyBody is the body of a KindWitness entry: the composite signature of the entry certifies the key.
type keyBody struct {
	Key []byte `cbor:"1,keyasint"` // ML-DSA-44 public key
}

func encodeKey(public []byte) ([]byte, error) { return canonical.Marshal(keyBody{public}) }

// DecodeKey reads the key that a KindWitness entry certifies.
func DecodeKey(e *ledger.Entry) (*tlog.VerifyKey, error) {
	var b keyBody
	if e.Kind != ledger.KindWitness {
		return nil, fmt.Errorf("witness: %s: %w", e.Kind, ErrBody)
	}
	if err := canonical.Unmarshal(e.Body, &b, maxBody); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBody, err)
	}
	k, err := tlog.ParseKey(b.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBody, err)
	}
	return k, nil
}

// Cosigned is what a KindCosign entry says: that its author cosigned that size of that feed.
type Cosigned struct {
	Feed ledger.Feed
	Size uint64
	Root tlog.Hash
	By   tlog.Cosignature
}

type cosignBody struct {
	Author []byte `cbor:"1,keyasint"`
	Chain  uint8  `cbor:"2,keyasint"`
	Size   uint64 `cbor:"3,keyasint"`
	Root   []byte `cbor:"4,keyasint"`
	Time   uint64 `cbor:"5,keyasint"` // Unix seconds
	Sig    []byte `cbor:"6,keyasint"`
}

func (c *Cosigned) encode() ([]byte, error) {
	author, err := c.Feed.Author.Bytes()
	if err != nil {
		return nil, err
	}
	return canonical.Marshal(cosignBody{author[:], uint8(c.Feed.Chain), c.Size, c.Root[:], c.By.Time, c.By.Sig})
}

// DecodeCosigned reads a KindCosign entry. It verifies nothing: see Registry.Check.
func DecodeCosigned(e *ledger.Entry) (*Cosigned, error) {
	var b cosignBody
	if e.Kind != ledger.KindCosign {
		return nil, fmt.Errorf("witness: %s: %w", e.Kind, ErrBody)
	}
	if err := canonical.Unmarshal(e.Body, &b, maxBody); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBody, err)
	}
	chain := ledger.Chain(b.Chain)
	if len(b.Author) != 32 || !chain.Valid() || b.Size == 0 || b.Size > tlog.MaxSize || len(b.Root) != len(tlog.Hash{}) || len(b.Sig) != tlog.SignatureSize {
		return nil, fmt.Errorf("witness: a cosignature of size %d in %d bytes: %w", b.Size, len(b.Sig), ErrBody)
	}
	return &Cosigned{
		Feed: ledger.Feed{Author: identity.DIDFromBytes([32]byte(b.Author)), Chain: chain}, Size: b.Size, Root: tlog.Hash(b.Root),
		By: tlog.Cosignature{Witness: string(e.Author), Time: b.Time, Sig: b.Sig},
	}, nil
}

// Checkpoint is what was cosigned.
func (c *Cosigned) Checkpoint(swarm trust.SwarmID) tlog.Checkpoint {
	return tlog.Checkpoint{Origin: c.Feed.Origin(swarm), Size: c.Size, Root: c.Root}
}
