package block

import (
	"errors"
	"fmt"
)

// Bounds of the protocol; both sides share them.
const (
	// MaxBlock is the most bytes of a block.
	MaxBlock = 256 << 10
	// MaxWants is the most names of one request: 16 MiB of answer.
	MaxWants = 64

	cidSize = 36
)

// Name is what a block is called: its SHA-256, and which of the two codecs its CID has. The codec says nothing of the
// bytes; it is part of what a CID spells.
type Name struct {
	Sum  [32]byte
	Root bool // codec cbor (a manifest); otherwise raw
}

// Codecs of the CIDs there are (the multicodec table).
const (
	codecRaw  = 0x55
	codecCBOR = 0x51
)

// What an answer's frame begins with.
const (
	answerNone = 0 // the peer does not have the block
	answerHere = 1 // the block follows
	answerBusy = 2 // the peer gives nothing now: ask later, or another
)

// ErrRequest is wrapped where a peer asks for what cannot be asked.
var ErrRequest = errors.New("block: not a request")

// encodeRequest is the body of the one frame that asks: binary CIDs of version 1, one after the other.
func encodeRequest(wants []Name) []byte {
	b := make([]byte, 0, len(wants)*cidSize)
	for _, w := range wants {
		codec := byte(codecRaw)
		if w.Root {
			codec = codecCBOR
		}
		b = append(b, 0x01, codec, 0x12, 0x20)
		b = append(b, w.Sum[:]...)
	}
	return b
}

// decodeRequest reads it: 1 to MaxWants names, each once.
func decodeRequest(b []byte) ([]Name, error) {
	if len(b) == 0 || len(b)%cidSize != 0 || len(b) > MaxWants*cidSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrRequest, len(b))
	}
	out := make([]Name, 0, len(b)/cidSize)
	seen := make(map[Name]bool, len(b)/cidSize)
	for ; len(b) > 0; b = b[cidSize:] {
		if b[0] != 0x01 || b[1] != codecRaw && b[1] != codecCBOR || b[2] != 0x12 || b[3] != 0x20 {
			return nil, fmt.Errorf("%w: a name that is no CID of version 1, raw or cbor, SHA-256", ErrRequest)
		}
		n := Name{Sum: [32]byte(b[4:cidSize]), Root: b[1] == codecCBOR}
		if seen[n] {
			return nil, fmt.Errorf("%w: a name stands twice", ErrRequest)
		}
		seen[n] = true
		out = append(out, n)
	}
	return out, nil
}
