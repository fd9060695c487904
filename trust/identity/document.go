package identity

import (
	"encoding/hex"
	"math/big"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
)

// Document is the W3C DID document (DID Core 1.0) of an identity, with keys as Multikey (Controlled Identifiers 1.0). Both
// halves of the composite key are listed, and neither stands for the identity alone: what it signs carries both.
type Document struct {
	Context      []string             `json:"@context"`
	ID           string               `json:"id"`
	AlsoKnownAs  []string             `json:"alsoKnownAs"` // the libp2p peer id
	Methods      []VerificationMethod `json:"verificationMethod"`
	Assertion    []string             `json:"assertionMethod"`
	Auth         []string             `json:"authentication"`
	Service      []Service            `json:"service"`
	Name         string               `json:"name"`
	Suite        string               `json:"suite"`
	Rotation     uint32               `json:"rotation"`    // number of the key that is current
	NextKeyHash  string               `json:"nextKeyHash"` // hex: what the next key is committed to by, see NextHash
	Deactivated  bool                 `json:"deactivated,omitempty"`
	InceptionKey string               `json:"inception"` // hex of the record that ID is the hash of
}

// VerificationMethod is one public key of a Document.
type VerificationMethod struct {
	ID         string `json:"id"`
	Type       string `json:"type"` // "Multikey"
	Controller string `json:"controller"`
	Key        string `json:"publicKeyMultibase"`
}

// Service is where an identity is reached: its libp2p peer id, which names the transport key.
type Service struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Endpoint string `json:"serviceEndpoint"`
}

// Multicodec prefixes, as unsigned varints: ed25519-pub 0xed, mldsa-65-pub 0x1211, mldsa-87-pub 0x1212.
func codecEd25519() []byte { return []byte{0xed, 0x01} }
func codecMLDSA65() []byte { return []byte{0x91, 0x24} }
func codecMLDSA87() []byte { return []byte{0x92, 0x24} }

const (
	mldsa65Size = 1952
	base58      = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
)

// Document is the DID document of k now.
func (k Keys) Document() *Document {
	did := string(k.Inception.DID())
	next := k.Next()
	d := &Document{
		Context: []string{"https://www.w3.org/ns/did/v1.1", "https://w3id.org/security/multikey/v1"},
		ID:      did, Name: k.Inception.Name, Suite: k.Inception.Suite.String(), Rotation: k.Number(), NextKeyHash: hex.EncodeToString(next[:]),
		InceptionKey: hex.EncodeToString(k.Inception.Encode()),
	}
	method := func(fragment string, codec, key []byte) string {
		id := did + "#" + fragment
		d.Methods = append(d.Methods, VerificationMethod{ID: id, Type: "Multikey", Controller: did, Key: multibase(append(codec, key...))})
		return id
	}
	raw := k.Current().Bytes()
	if k.Inception.Suite == trust.SuiteCNSA && len(raw) == composite.PublicKeySize(trust.SuiteCNSA) {
		d.Assertion = []string{method("mldsa", codecMLDSA87(), raw)}
	} else {
		d.Assertion = []string{method("mldsa", codecMLDSA65(), raw[:mldsa65Size]), method("ed25519", codecEd25519(), raw[mldsa65Size:])}
	}
	d.Auth = d.Assertion
	method("transport", codecEd25519(), k.Inception.Transport[:])
	// A libp2p peer id is the identity multihash of the key's protobuf form (libp2p peer-ids specification).
	peer := base58Encode(append([]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}, k.Inception.Transport[:]...))
	d.AlsoKnownAs = []string{"p2p:" + peer}
	d.Service = []Service{{ID: did + "#libp2p", Type: "Libp2pHost", Endpoint: "p2p:" + peer}}
	return d
}

// multibase is base58btc with its prefix.
func multibase(b []byte) string { return "z" + base58Encode(b) }

// base58Encode is base58btc (draft-msporny-base58).
func base58Encode(b []byte) string {
	var out []byte
	n, radix, digit := new(big.Int).SetBytes(b), big.NewInt(58), new(big.Int)
	for n.Sign() > 0 {
		n.DivMod(n, radix, digit)
		out = append(out, base58[digit.Int64()])
	}
	for _, x := range b {
		if x != 0 {
			break
		}
		out = append(out, base58[0])
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return string(out)
}
