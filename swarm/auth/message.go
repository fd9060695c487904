package auth

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Versions of the swarm's protocols that this build speaks. The higher of the common ones is used.
const (
	MinVersion = 2
	MaxVersion = 2
)

// Bounds of a handshake.
const (
	// MaxAddrs and MaxAddr bound the listen addresses of an Info.
	MaxAddrs = 8
	MaxAddr  = 128
	// MaxHeads bounds the authority heads of one message; who lacks more learns that when it pulls.
	MaxHeads = 256
	// MaxIntroduction and MaxIntroductionBytes bound the entries with which a member that the other does not know yet
	// shows its admission.
	MaxIntroduction      = 64
	MaxIntroductionBytes = 512 << 10

	// digestSize is what of a SHA-256 tells two sets of heads apart. A peer that wanted to could say it has ours anyway.
	digestSize = 16

	maxHello  = 64
	maxAnswer = composite.MaxSignatureSize + 128
	maxInfo   = MaxAddrs*(MaxAddr+3) + MaxHeads*48 + 64 + digestSize
	maxAhead  = MaxHeads*48 + 16
	maxProof  = composite.MaxSignatureSize + maxInfo + 64
)

// Statuses of an answer.
const (
	statusOK      = 0
	statusUnknown = 1 // "I do not know you": the initiator may introduce itself
	statusVersion = 2 // no common version
)

// ErrMessage is wrapped where bytes are not the message that belongs there.
var ErrMessage = errors.New("not a handshake message")

// hello is what the initiator says first: nothing but who it claims to be and what it speaks.
type hello struct {
	Min uint8  `cbor:"1,keyasint"`
	Max uint8  `cbor:"2,keyasint"`
	DID []byte `cbor:"3,keyasint"`
	// Rotation is how often it has rotated its key; absent where never.
	Rotation uint32 `cbor:"4,keyasint,omitempty"`
}

// answer is what the responder says, once it knows the claimed peer as a member whose transport key TLS has proved.
type answer struct {
	Status    uint8  `cbor:"1,keyasint"`
	Version   uint8  `cbor:"2,keyasint"`
	DID       []byte `cbor:"3,keyasint"`
	Signature []byte `cbor:"4,keyasint"`
}

// proof ends the initiator's part; the responder's Info, as info, ends the handshake.
type proof struct {
	Signature []byte `cbor:"1,keyasint"`
	Info      info   `cbor:"2,keyasint"`
}

// info is what proved members tell each other at once.
type info struct {
	Addrs  []string `cbor:"1,keyasint"`
	Heads  [][]byte `cbor:"2,keyasint"` // 40 bytes each: author, number of entries (big-endian); none from I, nor where both digests are one
	Start  uint64   `cbor:"3,keyasint"`
	Time   int64    `cbor:"4,keyasint"`
	Digest []byte   `cbor:"5,keyasint"` // of all heads of the sender
}

// ahead is what I says last where the digests differ: in what it is ahead of R.
type ahead struct {
	Heads [][]byte `cbor:"1,keyasint"`
}

// introduction is the way of a member that was admitted while the other was not listening.
type introduction struct {
	Entries [][]byte `cbor:"1,keyasint"`
}

// Progress is how many entries of an author's authority chain a peer has.
type Progress struct {
	Author [32]byte
	Count  uint64
}

// Info is what proved members tell each other at once: where they listen, and how much authority they know, so that who
// is behind catches up before anything else. Of the other side Heads are only those that can matter here.
type Info struct {
	Addrs []string
	Heads []Progress // of different authors
	Start uint64     // chosen at random when the process started: connections of an earlier one are dead, and can be closed
	Time  int64      // Unix nanoseconds by the sender's clock, when it sent this
}

// digest tells apart what two peers know of authority: of two that know the same it is one.
func (i *Info) digest() (d [digestSize]byte) {
	heads := slices.Clone(i.Heads)
	slices.SortFunc(heads, func(a, b Progress) int { return bytes.Compare(a.Author[:], b.Author[:]) })
	sum := sha256.New()
	for _, h := range heads {
		b := h.encode()
		sum.Write(b[:])
	}
	copy(d[:], sum.Sum(nil))
	return d
}

func (h *Progress) encode() (b [40]byte) {
	copy(b[:], h.Author[:])
	binary.BigEndian.PutUint64(b[32:], h.Count)
	return b
}

func encodeHeads(heads []Progress) [][]byte {
	out := [][]byte{}
	for _, h := range heads[:min(len(heads), MaxHeads)] {
		b := h.encode()
		out = append(out, b[:])
	}
	return out
}

func decodeHeads(raw [][]byte) ([]Progress, error) {
	if len(raw) > MaxHeads {
		return nil, fmt.Errorf("auth: %d heads: %w", len(raw), ErrMessage)
	}
	var out []Progress
	for _, b := range raw {
		if len(b) != 40 {
			return nil, fmt.Errorf("auth: head of %d bytes: %w", len(b), ErrMessage)
		}
		out = append(out, Progress{Author: [32]byte(b), Count: binary.BigEndian.Uint64(b[32:])})
	}
	return out, nil
}

// ahead are the heads in which i's owner has more than others say they have.
func (i *Info) ahead(others []Progress) []Progress {
	theirs := make(map[[32]byte]uint64, len(others))
	for _, h := range others {
		theirs[h.Author] = max(theirs[h.Author], h.Count)
	}
	var out []Progress
	for _, h := range i.Heads {
		if h.Count > theirs[h.Author] {
			out = append(out, h)
		}
	}
	return out
}

// encode is the message without heads.
func (i *Info) encode() info {
	d := i.digest()
	out := info{Addrs: []string{}, Heads: [][]byte{}, Start: i.Start, Time: i.Time, Digest: d[:]}
	for _, a := range i.Addrs[:min(len(i.Addrs), MaxAddrs)] {
		if len(a) <= MaxAddr {
			out.Addrs = append(out.Addrs, a)
		}
	}
	return out
}

// decode gives the info and the digest of the sender's heads.
func (i *info) decode() (out Info, digest [digestSize]byte, err error) {
	if len(i.Addrs) > MaxAddrs || len(i.Digest) != digestSize {
		return out, digest, fmt.Errorf("auth: %d addresses, digest of %d bytes: %w", len(i.Addrs), len(i.Digest), ErrMessage)
	}
	out = Info{Addrs: i.Addrs, Start: i.Start, Time: i.Time}
	for _, a := range i.Addrs {
		if a == "" || len(a) > MaxAddr {
			return Info{}, digest, fmt.Errorf("auth: address of %d bytes: %w", len(a), ErrMessage)
		}
	}
	out.Heads, err = decodeHeads(i.Heads)
	return out, [digestSize]byte(i.Digest), err
}

func decodeHello(b []byte) (*hello, error) {
	var m hello
	if err := canonical.Unmarshal(b, &m, maxHello); err != nil {
		return nil, fmt.Errorf("auth: hello: %w: %w", ErrMessage, err)
	}
	if len(m.DID) != 32 || m.Min == 0 || m.Min > m.Max || m.Rotation > trust.MaxRotations {
		return nil, fmt.Errorf("auth: hello: %w", ErrMessage)
	}
	return &m, nil
}

func decodeAnswer(b []byte) (*answer, error) {
	var m answer
	if err := canonical.Unmarshal(b, &m, maxAnswer); err != nil {
		return nil, fmt.Errorf("auth: answer: %w: %w", ErrMessage, err)
	}
	whole := len(m.DID) == 32 && composite.IsSignatureSize(len(m.Signature))
	empty := len(m.DID) == 0 && len(m.Signature) == 0
	if m.Status > statusVersion || (m.Status == statusOK) != whole || (m.Status != statusOK) != empty {
		return nil, fmt.Errorf("auth: answer: %w", ErrMessage)
	}
	return &m, nil
}

func decodeProof(b []byte) (sig []byte, i Info, digest [digestSize]byte, err error) {
	var m proof
	if err := canonical.Unmarshal(b, &m, maxProof); err != nil {
		return nil, i, digest, fmt.Errorf("auth: proof: %w: %w", ErrMessage, err)
	}
	if !composite.IsSignatureSize(len(m.Signature)) {
		return nil, i, digest, fmt.Errorf("auth: proof: signature of %d bytes: %w", len(m.Signature), ErrMessage)
	}
	if len(m.Info.Heads) > 0 {
		return nil, i, digest, fmt.Errorf("auth: proof: heads before they are asked for: %w", ErrMessage)
	}
	i, digest, err = m.Info.decode()
	return m.Signature, i, digest, err
}

func decodeInfo(b []byte) (i Info, digest [digestSize]byte, err error) {
	var m info
	if err := canonical.Unmarshal(b, &m, maxInfo); err != nil {
		return i, digest, fmt.Errorf("auth: info: %w: %w", ErrMessage, err)
	}
	return m.decode()
}

func decodeAhead(b []byte) ([]Progress, error) {
	var m ahead
	if err := canonical.Unmarshal(b, &m, maxAhead); err != nil {
		return nil, fmt.Errorf("auth: heads: %w: %w", ErrMessage, err)
	}
	return decodeHeads(m.Heads)
}

func decodeIntroduction(b []byte) ([][]byte, error) {
	var m introduction
	if err := canonical.Unmarshal(b, &m, MaxIntroductionBytes); err != nil {
		return nil, fmt.Errorf("auth: introduction: %w: %w", ErrMessage, err)
	}
	if len(m.Entries) > MaxIntroduction {
		return nil, fmt.Errorf("auth: introduction of %d entries: %w", len(m.Entries), ErrMessage)
	}
	for _, e := range m.Entries {
		if len(e) > trust.MaxEntry {
			return nil, fmt.Errorf("auth: introduction: entry of %d bytes: %w", len(e), ErrMessage)
		}
	}
	return m.Entries, nil
}

// AuthorityHeads are all authority heads of a ledger.
func AuthorityHeads(heads []ledger.Head) []Progress {
	var out []Progress
	for _, h := range heads {
		if id, err := h.Author.Bytes(); err == nil && h.Chain == ledger.Authority {
			out = append(out, Progress{Author: id, Count: h.Seq + 1})
		}
	}
	return out
}
