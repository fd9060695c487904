// Package join is the answer to a join request: a header with the genesis, then the authority entries, each a frame. The
// request itself is the join proof of trust/authority, one frame, bound to the connection by the exporter of Label.
package join

import (
	"errors"
	"fmt"
	"io"

	"github.com/omega-mesh/omega/swarm/wire"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
)

// Label is the exporter label (RFC 8446 §7.5) of the keying material that a join proof is bound to.
const Label = "EXPORTER-omega-join-1"

// Bounds of a reply.
const (
	MaxAddrs   = 64
	MaxAddr    = 256
	MaxEntries = 1 << 17
	MaxBytes   = 64 << 20 // of entries

	maxHeader = trust.MaxGenesis + MaxAddrs*(MaxAddr+3) + 256
)

// Errors of a reply.
var (
	// ErrRefused: the member does not admit the joiner, and does not say why.
	ErrRefused = errors.New("join refused")
	// ErrWaiting: an operator must approve the joiner first; asking again later with the same identity tells.
	ErrWaiting = errors.New("join waits for an operator's approval")
	// ErrMessage is wrapped where bytes are not the message that belongs there.
	ErrMessage = errors.New("not a join reply")
)

// Reply is what a joiner is given. It is as believable as the member that sent it: the genesis must be the token's, and
// the entries must stand in a ledger of it.
type Reply struct {
	Genesis []byte
	By      identity.DID
	Addrs   []string
	Entries [][]byte
}

type header struct {
	Admitted bool     `cbor:"1,keyasint"`
	Genesis  []byte   `cbor:"2,keyasint"`
	By       []byte   `cbor:"3,keyasint"`
	Addrs    []string `cbor:"4,keyasint"`
	Entries  uint32   `cbor:"5,keyasint"`
	Waiting  bool     `cbor:"6,keyasint,omitempty"` // not admitted yet, and not refused
}

// Refuse says no.
func Refuse(w io.Writer) error { return answer(w, false) }

// Wait says that a person is asked.
func Wait(w io.Writer) error { return answer(w, true) }

func answer(w io.Writer, waiting bool) error {
	b, err := canonical.Marshal(header{Genesis: []byte{}, By: []byte{}, Addrs: []string{}, Waiting: waiting})
	if err != nil {
		return err
	}
	return wire.Write(w, b)
}

// Grant sends a reply.
func Grant(w io.Writer, r *Reply) error {
	by, err := r.By.Bytes()
	if err != nil {
		return err
	}
	h := header{Admitted: true, Genesis: r.Genesis, By: by[:], Addrs: []string{}, Entries: uint32(min(len(r.Entries), MaxEntries))}
	for _, a := range r.Addrs {
		if len(h.Addrs) < MaxAddrs && len(a) <= MaxAddr {
			h.Addrs = append(h.Addrs, a)
		}
	}
	b, err := canonical.Marshal(h)
	if err != nil {
		return err
	}
	if err := wire.Write(w, b); err != nil {
		return err
	}
	for _, e := range r.Entries[:h.Entries] {
		if err := wire.Write(w, e); err != nil {
			return err
		}
	}
	return nil
}

func decodeHeader(b []byte) (*header, error) {
	var h header
	if err := canonical.Unmarshal(b, &h, maxHeader); err != nil {
		return nil, fmt.Errorf("join: %w: %w", ErrMessage, err)
	}
	switch {
	case !h.Admitted && h.Waiting:
		return nil, ErrWaiting
	case !h.Admitted:
		return nil, ErrRefused
	case h.Waiting:
		return nil, fmt.Errorf("join: admitted and waiting: %w", ErrMessage)
	}
	if len(h.By) != 32 || len(h.Addrs) > MaxAddrs || h.Entries > MaxEntries {
		return nil, fmt.Errorf("join: header: %w", ErrMessage)
	}
	for _, a := range h.Addrs {
		if len(a) > MaxAddr {
			return nil, fmt.Errorf("join: address of %d bytes: %w", len(a), ErrMessage)
		}
	}
	return &h, nil
}

// Receive reads a reply.
func Receive(r io.Reader) (*Reply, error) {
	b, err := wire.Read(r, maxHeader)
	if err != nil {
		return nil, err
	}
	h, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	out := &Reply{Genesis: h.Genesis, By: identity.DIDFromBytes([32]byte(h.By)), Addrs: h.Addrs}
	for size := 0; len(out.Entries) < int(h.Entries); {
		e, err := wire.Read(r, trust.MaxEntry)
		if err != nil {
			return nil, fmt.Errorf("join: entry %d of %d: %w", len(out.Entries), h.Entries, err)
		}
		if size += len(e); size > MaxBytes {
			return nil, fmt.Errorf("join: entries of more than %d bytes: %w", MaxBytes, ErrMessage)
		}
		out.Entries = append(out.Entries, e)
	}
	return out, nil
}
