package auth

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"

	"github.com/omega-mesh/omega/swarm/wire"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
)

// Label is the exporter label (RFC 8446 §7.5) of the keying material that a proof is bound to.
const Label = "EXPORTER-omega-auth-1"

// context separates the signatures of this protocol from all others.
const context = "omega/auth/1"

// Roles in a handshake; the role is signed, so that a proof cannot be reflected.
const (
	roleInitiator = 1
	roleResponder = 2
)

// Refusals of a handshake.
var (
	// ErrStranger: the other side is no active member, or not with this transport key.
	ErrStranger = errors.New("auth: the other side is not an active member")
	// ErrProof: its signature does not verify on this connection.
	ErrProof = errors.New("auth: the proof does not verify")
	// ErrVersion: there is no protocol version that both speak.
	ErrVersion = errors.New("auth: no common protocol version")
	// ErrUnknownHere: the other side does not know this peer (yet), even after an introduction.
	ErrUnknownHere = errors.New("auth: the other side does not know this peer")
)

// Channel is the connection that a proof is bound to.
type Channel struct {
	Exporter []byte            // 32 bytes of its keying material
	Remote   ed25519.PublicKey // the transport key that TLS proved of the other side
}

// Signer is this peer's identity.
type Signer interface {
	DID() identity.DID
	Sign(context string, msg []byte) ([]byte, error)
}

// Local is this peer's side of every handshake.
type Local struct {
	Swarm trust.SwarmID
	Self  Signer
	// Member gives the keys of an active member; ok is false for everybody else.
	Member func(identity.DID) (identity.Keys, bool)
	// Rotation is how often this peer has rotated its key; nil means never.
	Rotation func() uint32
	// Info is what a proved peer is told.
	Info func() Info
	// Introduce gives raw authority entries that lead to this peer's own admission, the last of them the admission.
	// May be nil.
	Introduce func() [][]byte
	// Introduced takes such entries from a peer that is not known. It must check each, and bound how often it is asked.
	// May be nil.
	Introduced func(entries [][]byte)
}

// Peer is who the other side proved to be.
type Peer struct {
	DID      identity.DID
	Version  int
	Info     Info
	Rotation uint32 // number of the key that it proved
}

// message is what is signed: role, keying material, swarm, initiator, responder. 129 bytes.
func message(role byte, exporter []byte, swarm trust.SwarmID, initiator, responder [32]byte) []byte {
	m := make([]byte, 0, 1+len(exporter)+32*3)
	m = append(m, role)
	m = append(m, exporter...)
	m = append(m, swarm[:]...)
	m = append(m, initiator[:]...)
	return append(m, responder[:]...)
}

func send(w io.Writer, m any) error {
	b, err := canonical.Marshal(m)
	if err != nil {
		return err
	}
	return wire.Write(w, b)
}

// member finds the active member with that DID, and only if its transport key is the one that TLS proved.
func (l *Local) member(id [32]byte, c Channel) (identity.Keys, bool) {
	keys, ok := l.Member(identity.DIDFromBytes(id))
	if !ok || !keys.Inception.TransportKey().Equal(c.Remote) || keys.Inception.DID() == l.Self.DID() {
		return identity.Keys{}, false
	}
	return keys, true
}

// Initiate is the dialling side's part. verified is called when the other side has proved itself and before this side
// does: from then on it may open streams. The caller bounds the time by a deadline on rw.
func Initiate(rw io.ReadWriter, c Channel, l *Local, verified func()) (*Peer, error) {
	self, err := l.Self.DID().Bytes()
	if err != nil {
		return nil, err
	}
	first := hello{Min: MinVersion, Max: MaxVersion, DID: self[:]}
	if l.Rotation != nil {
		first.Rotation = l.Rotation()
	}
	if err := send(rw, first); err != nil {
		return nil, err
	}
	a, err := readAnswer(rw)
	if err != nil {
		return nil, err
	}
	if a.Status == statusUnknown {
		if a, err = l.introduce(rw); err != nil {
			return nil, err
		}
	}
	switch {
	case a.Status == statusVersion || a.Status == statusOK && (a.Version < MinVersion || a.Version > MaxVersion):
		return nil, ErrVersion
	case a.Status != statusOK:
		return nil, ErrUnknownHere
	}
	remote := [32]byte(a.DID)
	keys, ok := l.member(remote, c)
	if !ok {
		return nil, fmt.Errorf("%w: claims %s", ErrStranger, identity.DIDFromBytes(remote).Short())
	}
	if !keys.Current().Verify(context, message(roleResponder, c.Exporter, l.Swarm, self, remote), a.Signature) {
		return nil, fmt.Errorf("%w: of %s", ErrProof, keys.Inception.Name)
	}
	sig, err := l.Self.Sign(context, message(roleInitiator, c.Exporter, l.Swarm, self, remote))
	if err != nil {
		return nil, fmt.Errorf("auth: sign: %w", err)
	}
	verified()
	mine := l.Info()
	if err := send(rw, proof{Signature: sig, Info: mine.encode()}); err != nil {
		return nil, err
	}
	b, err := wire.Read(rw, maxInfo)
	if err != nil {
		return nil, fmt.Errorf("auth: refused after the proof: %w", err)
	}
	theirs, digest, err := decodeInfo(b)
	if err != nil {
		return nil, err
	}
	switch same := digest == mine.digest(); {
	case same && len(theirs.Heads) > 0:
		return nil, fmt.Errorf("auth: heads that nobody lacks: %w", ErrMessage)
	case !same:
		if err := send(rw, ahead{encodeHeads(mine.ahead(theirs.Heads))}); err != nil {
			return nil, err
		}
	}
	return &Peer{DID: keys.Inception.DID(), Version: int(a.Version), Info: theirs, Rotation: keys.Number()}, nil
}

func readAnswer(r io.Reader) (*answer, error) {
	b, err := wire.Read(r, maxAnswer)
	if err != nil {
		return nil, fmt.Errorf("auth: no answer: %w", err)
	}
	return decodeAnswer(b)
}

func (l *Local) introduce(rw io.ReadWriter) (*answer, error) {
	m := introduction{Entries: [][]byte{}}
	if l.Introduce != nil {
		size := 0
		for _, e := range l.Introduce() {
			if size += len(e) + 8; len(m.Entries) == MaxIntroduction || size > MaxIntroductionBytes-64 {
				break
			}
			m.Entries = append(m.Entries, e)
		}
	}
	if len(m.Entries) == 0 {
		return nil, ErrUnknownHere
	}
	if err := send(rw, m); err != nil {
		return nil, err
	}
	a, err := readAnswer(rw)
	if err != nil { // it hangs up on strangers
		return nil, fmt.Errorf("%w: %w", ErrUnknownHere, err)
	}
	return a, nil
}

// Respond is the accepting side's part. verified is called when the other side has proved itself, before it is told so.
func Respond(rw io.ReadWriter, c Channel, l *Local, verified func()) (*Peer, error) {
	self, err := l.Self.DID().Bytes()
	if err != nil {
		return nil, err
	}
	b, err := wire.Read(rw, maxHello)
	if err != nil {
		return nil, fmt.Errorf("auth: no hello: %w", err)
	}
	h, err := decodeHello(b)
	if err != nil {
		return nil, err
	}
	version := min(h.Max, MaxVersion)
	if version < max(h.Min, MinVersion) {
		return nil, errors.Join(ErrVersion, send(rw, answer{Status: statusVersion, Version: MaxVersion, DID: []byte{}, Signature: []byte{}}))
	}
	remote := [32]byte(h.DID)
	keys, ok := l.member(remote, c)
	if !ok || h.Rotation > keys.Number() { // it has rotated, and this peer has not heard
		if keys, ok, err = l.meet(rw, remote, c); err != nil {
			return nil, err
		}
	}
	if !ok {
		return nil, fmt.Errorf("%w: claims %s", ErrStranger, identity.DIDFromBytes(remote).Short())
	}
	sig, err := l.Self.Sign(context, message(roleResponder, c.Exporter, l.Swarm, remote, self))
	if err != nil {
		return nil, fmt.Errorf("auth: sign: %w", err)
	}
	if err := send(rw, answer{Status: statusOK, Version: version, DID: self[:], Signature: sig}); err != nil {
		return nil, err
	}
	if b, err = wire.Read(rw, maxProof); err != nil {
		return nil, fmt.Errorf("auth: no proof: %w", err)
	}
	sig, theirs, digest, err := decodeProof(b)
	if err != nil {
		return nil, err
	}
	if !keys.Current().Verify(context, message(roleInitiator, c.Exporter, l.Swarm, remote, self), sig) {
		return nil, fmt.Errorf("%w: of %s", ErrProof, keys.Inception.Name)
	}
	verified()
	mine := l.Info()
	last, same := mine.encode(), digest == mine.digest()
	if !same {
		last.Heads = encodeHeads(mine.Heads)
	}
	if err := send(rw, last); err != nil {
		return nil, err
	}
	if !same {
		if b, err = wire.Read(rw, maxAhead); err != nil {
			return nil, fmt.Errorf("auth: no heads: %w", err)
		}
		if theirs.Heads, err = decodeAhead(b); err != nil {
			return nil, err
		}
	}
	return &Peer{DID: keys.Inception.DID(), Version: int(version), Info: theirs, Rotation: keys.Number()}, nil
}

// meet gives a peer that is not known, or whose key is not, one chance to show how it became a member and which rotations
// it has made: so a frozen member brings the rotation that thaws it. Who is revoked, or comes with another
// transport key than its record certifies, gets the same chance, and it does not help: so a stranger cannot find out by
// asking which DIDs are members.
func (l *Local) meet(rw io.ReadWriter, remote [32]byte, c Channel) (identity.Keys, bool, error) {
	if l.Introduced == nil {
		return identity.Keys{}, false, nil
	}
	if err := send(rw, answer{Status: statusUnknown, Version: MaxVersion, DID: []byte{}, Signature: []byte{}}); err != nil {
		return identity.Keys{}, false, err
	}
	b, err := wire.Read(rw, MaxIntroductionBytes)
	if err != nil {
		return identity.Keys{}, false, fmt.Errorf("%w: no introduction: %w", ErrStranger, err)
	}
	entries, err := decodeIntroduction(b)
	if err != nil {
		return identity.Keys{}, false, err
	}
	l.Introduced(entries)
	keys, ok := l.member(remote, c)
	return keys, ok, nil
}
