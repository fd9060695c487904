package modules

import (
	"crypto/sha256"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// ID names a module by its content: the SHA-256 of its manifest. People and the network know it as a CID, version 1.
type ID [sha256.Size]byte

// codecCBOR is the multicodec of plain CBOR: the manifest links to its blocks by their hashes, not by tags.
const codecCBOR = 0x51

// ID is the name of the module that m is the manifest of.
func (m *Manifest) ID() (ID, error) {
	b, err := m.Encode()
	if err != nil {
		return ID{}, err
	}
	return sha256.Sum256(b), nil
}

// CID is the identifier as other content-addressed systems have it.
func (id ID) CID() cid.Cid { return blockCID(codecCBOR, id) }

// String is the CID in base32.
func (id ID) String() string { return id.CID().String() }

// BlockCID names a block of a payload, or a recording: raw bytes by their SHA-256.
func BlockCID(sum [sha256.Size]byte) cid.Cid { return blockCID(cid.Raw, sum) }

func blockCID(codec uint64, sum [sha256.Size]byte) cid.Cid {
	h, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		return cid.Undef // cannot be: the code and the length are right
	}
	return cid.NewCidV1(codec, h)
}

// ParseID reads a CID that names a module.
func ParseID(s string) (ID, error) {
	if len(s) > 128 {
		return ID{}, fmt.Errorf("a CID of %d characters", len(s))
	}
	c, err := cid.Decode(s)
	if err != nil {
		return ID{}, fmt.Errorf("%.80q is no CID: %w", s, err)
	}
	h, err := multihash.Decode(c.Hash())
	if err != nil || c.Version() != 1 || c.Type() != codecCBOR || h.Code != multihash.SHA2_256 || h.Length != sha256.Size {
		return ID{}, fmt.Errorf("%.80q names no module: want a CID of version 1, codec cbor, SHA-256", s)
	}
	return ID(h.Digest), nil
}
