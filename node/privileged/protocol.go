package privileged

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/omega-mesh/omega/bpf"
	"github.com/omega-mesh/omega/swarm/event"
)

// Version is the protocol's version. Both halves are one binary, so there is nothing to negotiate: a frame of another
// version is a fault.
const Version = 1

// Bounds of what crosses the line; each is checked on both sides.
const (
	MaxFrame     = 128 << 10 // bytes of one packet
	MaxText      = 4096      // bytes of a reason, a path, a detail
	MaxListed    = 4096      // rows of one answer
	MaxProtected = 1024      // proved addresses told at once: some 100 bytes each, so that they fit one frame
	MaxOperators = 1024      // lines of the operators' allow list
	MaxListeners = 32        // of the swarm, TCP and UDP
	MaxArguments = 4096      // bytes of a process's arguments
	maxNesting   = 8
)

// Kind says what a frame holds.
type Kind uint8

// The kinds of frame. Requests go from the unprivileged side to the other, and each is answered by
// one Reply with its number; Ready has none. Start and Drain go the other way.
const (
	KindReply Kind = iota + 1
	KindReady
	KindApply
	KindRelease
	KindActive
	KindPanic
	KindCoverage
	KindCounters
	KindProtect
	KindProcess
	KindAllow
	KindDisallow
	KindAllowed
	KindOperators
	KindMode
	KindDrain
	KindStart
	KindSelfTest
	KindContainer
	KindBaselineBegin
	KindBaselineNews
	KindBaselineCommit
	KindBaselineLook
	KindBaselineStatus
	KindBaselineDifferences
	KindBaselineRescan
	KindBaselineAccept
	KindScan
	KindScanStatus
	KindDigest
	kindEnd
)

// Errors of the protocol.
var (
	// ErrFrame is wrapped by every refusal of a frame: oversize, malformed, another version, an unknown kind.
	ErrFrame = errors.New("malformed frame")
	// ErrUnavailable says that this host has no actuator: it is not root, or the kernel refused every program.
	ErrUnavailable = errors.New("this host cannot act: no actuator")
	// ErrClosed says that the other half is gone.
	ErrClosed = errors.New("the other half of the node is gone")
)

// Frame is one packet.
type Frame struct {
	Version uint8           `cbor:"1,keyasint"`
	Kind    Kind            `cbor:"2,keyasint"`
	Number  uint64          `cbor:"3,keyasint"` // of the request; a Reply repeats it
	Error   string          `cbor:"4,keyasint,omitempty"`
	Body    cbor.RawMessage `cbor:"5,keyasint,omitempty"`
}

type applyBody struct {
	ID       string         `cbor:"1,keyasint"`
	Response event.Response `cbor:"2,keyasint"`
	Heard    uint64         `cbor:"3,keyasint"`
}

type textBody struct {
	Text string `cbor:"1,keyasint"`
}

type numberBody struct {
	Number uint64 `cbor:"1,keyasint"`
}

type listBody[T any] struct {
	Rows []T `cbor:"1,keyasint"`
}

type protectBody struct {
	Listeners []bpf.Listener `cbor:"1,keyasint"`
	Proved    []Proved       `cbor:"2,keyasint"`
}

type imageBody struct {
	PID    uint32 `cbor:"1,keyasint"`
	Path   string `cbor:"2,keyasint"`
	Inode  uint64 `cbor:"3,keyasint"`
	Device uint64 `cbor:"4,keyasint"`
	Weak   bool   `cbor:"5,keyasint,omitempty"`
}

type sumsBody struct {
	SHA256 [32]byte `cbor:"1,keyasint"`
	Weak   bool     `cbor:"2,keyasint,omitempty"`
	SHA1   [20]byte `cbor:"3,keyasint"`
	MD5    [16]byte `cbor:"4,keyasint"`
}

// Start is the first frame, from the privileged side: all the other half is told.
type Start struct {
	Config     []byte `cbor:"1,keyasint"` // JSON of config.Config
	Dir        string `cbor:"2,keyasint"`
	Version    string `cbor:"3,keyasint"`
	Passphrase []byte `cbor:"4,keyasint,omitempty"`
	RingBytes  int    `cbor:"5,keyasint"` // size of the inherited ring buffer; 0 where there is none
	Restarted  int    `cbor:"6,keyasint"` // how often the half died before
	Connector  string `cbor:"7,keyasint"` // where there is no ring: why the proc connector is not inherited; empty where it is
	// Of a key that a TPM keeps: the wrapping key, and what the TPM sealed it into.
	Wrap   []byte `cbor:"8,keyasint,omitempty"`
	Sealed []byte `cbor:"9,keyasint,omitempty"`
	// Random bytes of a device that the half does not reach: what it gave, which it is, and why it was dropped.
	Seed      []byte `cbor:"10,keyasint,omitempty"`
	SeedFrom  string `cbor:"11,keyasint,omitempty"`
	SeedFault string `cbor:"12,keyasint,omitempty"`
	// Own are the node's own files and folders.
	Own []string `cbor:"13,keyasint,omitempty"`
}

type countersBody struct {
	Counters map[string]uint64 `cbor:"1,keyasint"`
}

// codec is CTAP2 canonical on the way out and strict on the way in.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	enc, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		return codec{}, err
	}
	dec, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  maxNesting,
		MaxArrayElements: MaxListed,
		MaxMapPairs:      1024,
		UTF8:             cbor.UTF8RejectInvalid,
	}.DecMode()
	return codec{enc, dec}, err
}

func (c codec) encode(f Frame, body any) ([]byte, error) {
	f.Version = Version
	if body != nil {
		raw, err := c.enc.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrFrame, err)
		}
		f.Body = raw
	}
	raw, err := c.enc.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrFrame, err)
	}
	if len(raw) > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrFrame, len(raw), MaxFrame)
	}
	return raw, nil
}

// decode reads one packet. It bounds before it parses, and copies nothing out of raw but what it returns.
func (c codec) decode(raw []byte) (Frame, error) {
	var f Frame
	if len(raw) > MaxFrame {
		return f, fmt.Errorf("%w: %d bytes, more than %d", ErrFrame, len(raw), MaxFrame)
	}
	if err := c.dec.Unmarshal(raw, &f); err != nil {
		return Frame{}, fmt.Errorf("%w: %v", ErrFrame, err)
	}
	switch {
	case f.Version != Version:
		return Frame{}, fmt.Errorf("%w: version %d, want %d", ErrFrame, f.Version, Version)
	case f.Kind == 0 || f.Kind >= kindEnd:
		return Frame{}, fmt.Errorf("%w: kind %d", ErrFrame, f.Kind)
	case len(f.Error) > MaxText:
		return Frame{}, fmt.Errorf("%w: error text of %d bytes", ErrFrame, len(f.Error))
	}
	f.Body = bytes.Clone(f.Body)
	return f, nil
}

func (c codec) body(f Frame, into any) error {
	if len(f.Body) == 0 {
		return fmt.Errorf("%w: kind %d without a body", ErrFrame, f.Kind)
	}
	if err := c.dec.Unmarshal(f.Body, into); err != nil {
		return fmt.Errorf("%w: kind %d: %v", ErrFrame, f.Kind, err)
	}
	return nil
}

// checkResponse bounds a response that came over the line, before any guard rail looks at it.
func checkResponse(id string, r *event.Response) error {
	for _, s := range []string{id, string(r.Action), r.Target.Path, r.Target.SHA256, r.Target.Peer, r.Target.Domain, r.Target.Write, r.Reason, string(r.Authority), r.By, r.Releases} {
		if len(s) > MaxText {
			return fmt.Errorf("%w: a text of %d bytes", ErrFrame, len(s))
		}
	}
	switch {
	case !event.ValidResponseID(id):
		return fmt.Errorf("%w: response id %.40q", ErrFrame, id)
	case len(r.Scope) > 1024 || len(r.Findings) > 64:
		return fmt.Errorf("%w: %d peers in scope, %d findings", ErrFrame, len(r.Scope), len(r.Findings))
	case r.TTL <= 0:
		return fmt.Errorf("%w: a response without an end", ErrFrame)
	}
	return nil
}
