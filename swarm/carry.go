package swarm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/omega-mesh/omega/swarm/host"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

// A sealed letter goes from member to member until one puts it into its own feed. All letters are of one size on the
// wire, so that their length tells nobody who watches what is in them, nor that two of them are one.

// MaxLetter is the longest letter, in bytes: the largest anonymous report.
const MaxLetter = trust.MaxAnonymousBody + trust.MaxRing*64 + 256

const (
	letterFrame   = 4 + MaxLetter
	letterTimeout = 10 * time.Second
	letterTaken   = 1
)

// ErrNoCarrier: nobody is connected who takes a letter.
var ErrNoCarrier = errors.New("swarm: no other member takes it")

// Hand gives a letter to one connected member, chosen at random; where that does not take it, to another, up to three. It
// returns once one has it, and does not say who.
func (s *Swarm) Hand(ctx context.Context, letter []byte) error {
	if len(letter) == 0 || len(letter) > MaxLetter {
		return fmt.Errorf("swarm: a letter of %d bytes, at most %d", len(letter), MaxLetter)
	}
	frame := make([]byte, letterFrame)
	binary.BigEndian.PutUint32(frame, uint32(len(letter)))
	copy(frame[4:], letter)
	ids := s.peers.ids()
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	var failed error
	for _, id := range ids[:min(len(ids), 3)] {
		conns := s.host.Proved(id)
		if len(conns) == 0 {
			continue
		}
		err := s.handTo(ctx, conns[0], frame)
		if err == nil {
			return nil
		}
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return fmt.Errorf("%w: %w", ErrNoCarrier, failed)
	}
	return ErrNoCarrier
}

func (s *Swarm) handTo(ctx context.Context, c network.Conn, frame []byte) error {
	ctx, cancel := context.WithTimeout(ctx, letterTimeout)
	defer cancel()
	stream, err := host.OpenStream(ctx, c, s.protocol("carry/1"))
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	if _, err := stream.Write(frame); err != nil {
		_ = stream.Reset()
		return fmt.Errorf("swarm: letter: %w", err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(stream, answer[:]); err != nil {
		_ = stream.Reset()
		return fmt.Errorf("swarm: letter: %w", err)
	}
	if answer[0] != letterTaken {
		return errors.New("swarm: letter not taken")
	}
	return nil
}

// serveCarry takes letters, one at a time: what is in them costs this peer work that a stranger to it asked for.
func (s *Swarm) serveCarry(stream network.Stream) {
	from, ok := s.didOf(stream.Conn())
	if s.cfg.Carry == nil || !ok || s.peers.blamed(stream.Conn().RemotePeer()) >= maxFaults || !s.carrying.TryLock() {
		_ = stream.Reset()
		return
	}
	defer s.carrying.Unlock()
	_ = stream.SetDeadline(time.Now().Add(letterTimeout))
	frame := make([]byte, letterFrame)
	if _, err := io.ReadFull(stream, frame); err != nil {
		_ = stream.Reset()
		return
	}
	n := binary.BigEndian.Uint32(frame)
	if n == 0 || n > MaxLetter {
		s.peers.blame(stream.Conn().RemotePeer())
		_ = stream.Reset()
		return
	}
	answer := []byte{0}
	if s.cfg.Carry(s.ctx, from, frame[4:4+n]) {
		answer[0] = letterTaken
	}
	if _, err := stream.Write(answer); err != nil {
		_ = stream.Reset()
		return
	}
	_ = stream.Close()
}

// didOf is the member at the other end of a proved connection.
func (s *Swarm) didOf(c network.Conn) (identity.DID, bool) {
	key, err := transportKey(c.RemotePeer())
	if err != nil {
		return "", false
	}
	m, ok := s.cfg.Members.ByTransport(key)
	if !ok {
		return "", false
	}
	return m.DID, true
}
