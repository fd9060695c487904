package sync

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Bounds of the protocol.
const (
	// MaxHeads is the most feeds of one vector: both chains of every member and operator there may be.
	MaxHeads = 2 * (trust.MaxMembers + trust.MaxOperators)
	// headSize is author, chain, number of entries.
	headSize = 32 + 1 + 8
	// MaxRequest bounds a request: its kind and its vector.
	MaxRequest = 1 + MaxHeads*headSize
	// RunBytes is about how much of one feed goes into one frame, RunEntries how many entries at most.
	RunBytes   = 256 << 10
	RunEntries = 1024
	// MaxRun bounds a frame: a run and one entry more, since at least one is sent.
	MaxRun = RunBytes + trust.MaxEntry + RunEntries*4 + headSize + 16
	// SessionBytes bounds what one request is answered with; the rest takes another.
	SessionBytes = 64 << 20
)

// Kinds of frame.
const (
	kindAll  = 1 // request: everything that I lack
	kindOnly = 2 // request: of these feeds alone
	kindRun  = 3 // answer: consecutive entries of one feed
	kindDone = 4 // answer: the end, and what the responder has
	kindBase = 5 // answer: where the responder begins a feed of which it no longer has what comes next
)

// ErrMessage is wrapped where bytes are not the message that belongs there.
var ErrMessage = errors.New("not a sync message")

// Want is a feed and how many of its entries the asking peer has.
type Want struct {
	Feed ledger.Feed
	Have uint64
}

// encodeRequest makes kind, then the vector: 32 bytes of author, one of chain, 8 of the number of entries
// (big-endian) a feed, sorted by these bytes. (By the text of the DIDs the order would be another.)
func encodeRequest(kind byte, wants []Want) ([]byte, error) {
	heads := make([][headSize]byte, len(wants))
	for i, w := range wants {
		id, err := w.Feed.Author.Bytes()
		if err != nil {
			return nil, err
		}
		copy(heads[i][:], id[:])
		heads[i][32] = byte(w.Feed.Chain)
		binary.BigEndian.PutUint64(heads[i][33:], w.Have)
	}
	slices.SortFunc(heads, func(a, b [headSize]byte) int { return bytes.Compare(a[:], b[:]) })
	b := append(make([]byte, 0, 1+len(wants)*headSize), kind)
	for i := range heads {
		b = append(b, heads[i][:]...)
	}
	return b, nil
}

// decodeRequest reads a request; feeds come in strictly rising order, so that none is asked for twice.
func decodeRequest(b []byte) (kind byte, wants []Want, err error) {
	if len(b) < 1 || len(b) > MaxRequest || (len(b)-1)%headSize != 0 || b[0] != kindAll && b[0] != kindOnly {
		return 0, nil, fmt.Errorf("sync: request of %d bytes: %w", len(b), ErrMessage)
	}
	wants, err = decodeWants(b[1:])
	return b[0], wants, err
}

func decodeWants(b []byte) ([]Want, error) {
	wants := make([]Want, 0, len(b)/headSize)
	var last []byte
	for ; len(b) > 0; b = b[headSize:] {
		key, have := b[:33], binary.BigEndian.Uint64(b[33:headSize])
		chain := ledger.Chain(key[32])
		if !chain.Valid() || have > 1<<62 || bytes.Compare(last, key) >= 0 {
			return nil, fmt.Errorf("sync: vector: %w", ErrMessage)
		}
		last = key
		wants = append(wants, Want{Feed: ledger.Feed{Author: identity.DIDFromBytes([32]byte(key[:32])), Chain: chain}, Have: have})
	}
	return wants, nil
}

// encodeRun makes kind, then each entry with its length before it (4 bytes, big-endian).
func encodeRun(raws [][]byte) []byte {
	size := 1
	for _, r := range raws {
		size += 4 + len(r)
	}
	b := append(make([]byte, 0, size), kindRun)
	for _, r := range raws {
		b = binary.BigEndian.AppendUint32(b, uint32(len(r)))
		b = append(b, r...)
	}
	return b
}

func decodeRun(b []byte) ([][]byte, error) {
	if len(b) < 1 || len(b) > MaxRun || b[0] != kindRun {
		return nil, fmt.Errorf("sync: run of %d bytes: %w", len(b), ErrMessage)
	}
	b = b[1:]
	var raws [][]byte
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, fmt.Errorf("sync: run: %w", ErrMessage)
		}
		n := binary.BigEndian.Uint32(b)
		b = b[4:]
		if n == 0 || n > trust.MaxEntry || uint64(n) > uint64(len(b)) || len(raws) == RunEntries {
			return nil, fmt.Errorf("sync: run: entry of %d bytes: %w", n, ErrMessage)
		}
		raws = append(raws, b[:n:n])
		b = b[n:]
	}
	if len(raws) == 0 {
		return nil, fmt.Errorf("sync: empty run: %w", ErrMessage)
	}
	return raws, nil
}

// done ends an answer.
type done struct {
	More    bool   // the responder stopped at its bound: ask again
	Entries uint64 // how many entries it has, of all feeds
	Behind  bool   // the asking peer has some that it lacks
}

const doneSize = 1 + 1 + 8

func (d done) encode() []byte {
	var flags byte
	if d.More {
		flags |= 1
	}
	if d.Behind {
		flags |= 2
	}
	return binary.BigEndian.AppendUint64([]byte{kindDone, flags}, d.Entries)
}

func decodeDone(b []byte) (done, error) {
	if len(b) != doneSize || b[0] != kindDone || b[1] > 3 {
		return done{}, fmt.Errorf("sync: end of %d bytes: %w", len(b), ErrMessage)
	}
	return done{More: b[1]&1 != 0, Behind: b[1]&2 != 0, Entries: binary.BigEndian.Uint64(b[2:])}, nil
}
