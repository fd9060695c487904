package auth

import (
	"errors"
	"fmt"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Versions of the swarm's protocols that this build speaks. The higher of the common ones is used.
const (
	MinVersion = 1
	MaxVersion = 1
)

// Bounds of a handshake.
const (
	// MaxAddrs and MaxAddr bound the listen addresses of an Info.
	MaxAddrs = 8
	MaxAddr  = 128
	// MaxHeads bounds the authority heads of an Info: operators and members that admitted somebody; the newest go in.
	MaxHeads = 256
	// MaxIntroduction and MaxIntroductionBytes bound the entries with which a member that the other does not know yet
	// shows its admission.
	MaxIntroduction      = 64
	MaxIntroductionBytes = 512 << 10

	maxHello  = 64
	maxAnswer = composite.MaxSignatureSize + 128
	maxInfo   = MaxAddrs*(MaxAddr+3) + MaxHeads*48 + 64
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
	Addrs []string `cbor:"1,keyasint"`
	Heads [][]byte `cbor:"2,keyasint"` // 40 bytes each: author, number of entries (big-endian)
	Start uint64   `cbor:"3,keyasint"`
	Time  int64    `cbor:"4,keyasint"`
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
// is behind catches up before anything else.
type Info struct {
	Addrs []string
	Heads []Progress
	Start uint64 // chosen at random when the process started: connections of an earlier one are dead, and can be closed
	Time  int64  // Unix nanoseconds by the sender's clock, when it sent this
}

func (i *Info) encode() info {
	out := info{Addrs: []string{}, Heads: [][]byte{}, Start: i.Start, Time: i.Time}
	for _, a := range i.Addrs[:min(len(i.Addrs), MaxAddrs)] {
		if len(a) <= MaxAddr {
			out.Addrs = append(out.Addrs, a)
		}
	}
	for _, h := range i.Heads[:min(len(i.Heads), MaxHeads)] {
		b := make([]byte, 40)
		copy(b, h.Author[:])
		for k := range 8 {
			b[32+k] = byte(h.Count >> (56 - 8*k))
		}
		out.Heads = append(out.Heads, b)
	}
	return out
}

func (i *info) decode() (Info, error) {
	if len(i.Addrs) > MaxAddrs || len(i.Heads) > MaxHeads {
		return Info{}, fmt.Errorf("auth: %d addresses, %d heads: %w", len(i.Addrs), len(i.Heads), ErrMessage)
	}
	out := Info{Addrs: i.Addrs, Start: i.Start, Time: i.Time}
	for _, a := range i.Addrs {
		if a == "" || len(a) > MaxAddr {
			return Info{}, fmt.Errorf("auth: address of %d bytes: %w", len(a), ErrMessage)
		}
	}
	for _, b := range i.Heads {
		if len(b) != 40 {
			return Info{}, fmt.Errorf("auth: head of %d bytes: %w", len(b), ErrMessage)
		}
		h := Progress{Author: [32]byte(b[:32])}
		for _, x := range b[32:] {
			h.Count = h.Count<<8 | uint64(x)
		}
		out.Heads = append(out.Heads, h)
	}
	return out, nil
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

func decodeProof(b []byte) ([]byte, Info, error) {
	var m proof
	if err := canonical.Unmarshal(b, &m, maxProof); err != nil {
		return nil, Info{}, fmt.Errorf("auth: proof: %w: %w", ErrMessage, err)
	}
	if !composite.IsSignatureSize(len(m.Signature)) {
		return nil, Info{}, fmt.Errorf("auth: proof: signature of %d bytes: %w", len(m.Signature), ErrMessage)
	}
	i, err := m.Info.decode()
	return m.Signature, i, err
}

func decodeInfo(b []byte) (Info, error) {
	var m info
	if err := canonical.Unmarshal(b, &m, maxInfo); err != nil {
		return Info{}, fmt.Errorf("auth: info: %w: %w", ErrMessage, err)
	}
	return m.decode()
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

// AuthorityHeads are the authority heads of a ledger as an Info carries them.
func AuthorityHeads(heads []ledger.Head) []Progress {
	var out []Progress
	for _, h := range heads {
		if id, err := h.Author.Bytes(); err == nil && h.Chain == ledger.Authority && len(out) < MaxHeads {
			out = append(out, Progress{Author: id, Count: h.Seq + 1})
		}
	}
	return out
}
