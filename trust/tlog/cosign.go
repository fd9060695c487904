package tlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
)

// Sizes of ML-DSA-44 (FIPS 204).
const (
	PublicKeySize = mldsa44.PublicKeySize
	SignatureSize = mldsa44.SignatureSize
	SeedSize      = mldsa44.SeedSize
)

// typeMLDSA44 is the signature type of a signed note's key (C2SP tlog-cosignature).
const typeMLDSA44 = 0x06

// label begins every cosigned message (C2SP tlog-cosignature).
const label = "subtree/v1\n\x00"

// ErrCosignature says that a cosignature is not its witness's over that checkpoint.
var ErrCosignature = errors.New("cosignature does not verify")

// Checkpoint is one size of a log and its root there.
type Checkpoint struct {
	Origin string // names the log: 1 to 255 bytes of printable ASCII without spaces or '+'
	Size   uint64
	Root   Hash
}

// Text is the body of the checkpoint (C2SP tlog-checkpoint): origin, size and root, a line each.
func (c Checkpoint) Text() string {
	return c.Origin + "\n" + strconv.FormatUint(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// Cosignature is a witness's word that a checkpoint is consistent with every other of that log it cosigned.
type Cosignature struct {
	Witness string // its name, as origins are written
	Time    uint64 // Unix seconds by the witness's clock
	Sig     []byte // ML-DSA-44, SignatureSize bytes
}

// message is the cosigned_message of C2SP tlog-cosignature for the whole tree.
func (c Checkpoint) message(witness string, time uint64) ([]byte, error) {
	if len(witness) == 0 || len(witness) > 255 || len(c.Origin) == 0 || len(c.Origin) > 255 {
		return nil, fmt.Errorf("tlog: names of %d and %d bytes", len(witness), len(c.Origin))
	}
	b := make([]byte, 0, len(label)+1+len(witness)+8+1+len(c.Origin)+16+len(c.Root))
	b = append(b, label...)
	b = append(append(b, byte(len(witness))), witness...)
	b = binary.BigEndian.AppendUint64(b, time)
	b = append(append(b, byte(len(c.Origin))), c.Origin...)
	b = binary.BigEndian.AppendUint64(b, 0)
	b = binary.BigEndian.AppendUint64(b, c.Size)
	return append(b, c.Root[:]...), nil
}

// Key cosigns. It is safe for concurrent use.
type Key struct {
	public  []byte
	private *mldsa44.PrivateKey
}

// NewKey makes the key of a seed.
func NewKey(seed [SeedSize]byte) *Key {
	pub, private := mldsa44.NewKeyFromSeed(&seed)
	return &Key{public: pub.Bytes(), private: private}
}

// Public is the public key, PublicKeySize bytes.
func (k *Key) Public() []byte { return append([]byte(nil), k.public...) }

// Cosign signs c as the witness of that name at time (Unix seconds). The caller holds the rule of a witness: nothing
// that does not extend what it cosigned before.
func (k *Key) Cosign(c Checkpoint, witness string, time uint64) (Cosignature, error) {
	msg, err := c.message(witness, time)
	if err != nil {
		return Cosignature{}, err
	}
	sig := make([]byte, SignatureSize)
	if err := mldsa44.SignTo(k.private, msg, nil, true, sig); err != nil {
		return Cosignature{}, fmt.Errorf("tlog: cosign: %w", err)
	}
	return Cosignature{Witness: witness, Time: time, Sig: sig}, nil
}

// VerifyKey is a witness's public key, expanded.
type VerifyKey struct {
	raw [PublicKeySize]byte
	key mldsa44.PublicKey
}

// ParseKey reads a public key.
func ParseKey(raw []byte) (*VerifyKey, error) {
	if len(raw) != PublicKeySize {
		return nil, fmt.Errorf("tlog: a witness's key of %d bytes", len(raw))
	}
	v := &VerifyKey{raw: [PublicKeySize]byte(raw)}
	if err := v.key.UnmarshalBinary(raw); err != nil {
		return nil, fmt.Errorf("tlog: a witness's key: %w", err)
	}
	return v, nil
}

// Is says whether v is the public half of k.
func (v *VerifyKey) Is(k *Key) bool { return bytes.Equal(v.raw[:], k.public) }

// Verify says whether s is this key's over c; ErrCosignature where it is not.
func (v *VerifyKey) Verify(c Checkpoint, s Cosignature) error {
	msg, err := c.message(s.Witness, s.Time)
	if err != nil || len(s.Sig) != SignatureSize || !mldsa44.Verify(&v.key, msg, nil, s.Sig) {
		return fmt.Errorf("tlog: by %.80q of size %d: %w", s.Witness, c.Size, ErrCosignature)
	}
	return nil
}

// NoteLine is s as a signed note carries it below a checkpoint's text and an empty line:
// "— name base64(key id || time || signature)".
func (v *VerifyKey) NoteLine(s Cosignature) string {
	h := sha256.New()
	h.Write([]byte(s.Witness + "\n"))
	h.Write([]byte{typeMLDSA44})
	h.Write(v.raw[:])
	b := h.Sum(nil)[:4]
	b = binary.BigEndian.AppendUint64(b, s.Time)
	return "— " + s.Witness + " " + base64.StdEncoding.EncodeToString(append(b, s.Sig...)) + "\n"
}

// Note is the checkpoint with its cosignatures, as C2SP tools read it.
func (c Checkpoint) Note(lines ...string) string { return c.Text() + "\n" + strings.Join(lines, "") }
