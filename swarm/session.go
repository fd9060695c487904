package swarm

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/omega-mesh/omega/swarm/auth"
	"github.com/omega-mesh/omega/swarm/host"
	"github.com/omega-mesh/omega/swarm/transport"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

const (
	// authTimeout is how long a connection may live before it is proved.
	authTimeout = 5 * time.Second
	// joinTimeout is how long one on which somebody joins may.
	joinTimeout = 30 * time.Second
	// catchUpTimeout bounds how long a proved peer is kept waiting while this one takes authority entries from it.
	catchUpTimeout = 2 * time.Second
)

// session is one connection until it is proved.
type session struct {
	started bool // an inbound handshake began: there is one to a connection
	joining bool
	proved  chan *auth.Peer // gets the outcome of an inbound handshake; nil for a refusal
}

// session is c's; of a closed connection none is kept, because nobody would remove it.
func (s *Swarm) session(c network.Conn) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[c.ID()]
	if x == nil {
		x = &session{proved: make(chan *auth.Peer, 1)}
		if !c.IsClosed() {
			s.sessions[c.ID()] = x
		}
	}
	return x
}

// connected is the life of one connection, in a goroutine of its own; ctx ends with it.
func (s *Swarm) connected(ctx context.Context, c network.Conn) {
	x := s.session(c)
	defer func() {
		s.mu.Lock()
		delete(s.sessions, c.ID())
		s.mu.Unlock()
		_ = c.Close()
	}()
	var p *auth.Peer
	if c.Stat().Direction == network.DirOutbound {
		p = s.initiate(ctx, c)
	} else {
		p = s.awaited(ctx, x)
	}
	if p == nil || !s.catchUp(ctx, c, p) {
		return
	}
	s.live(ctx, c, p)
}

// awaited waits for the other side to prove itself by the auth protocol, or to be through with joining.
func (s *Swarm) awaited(ctx context.Context, x *session) *auth.Peer {
	timer := time.NewTimer(authTimeout)
	defer timer.Stop()
	extended := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-x.proved:
			return p
		case <-timer.C:
			s.mu.Lock()
			joining := x.joining
			s.mu.Unlock()
			if !joining || extended {
				s.count("silent")
				return nil
			}
			extended = true
			timer.Reset(joinTimeout - authTimeout)
		}
	}
}

func (s *Swarm) channel(c network.Conn) (auth.Channel, error) {
	exporter, err := transport.Exporter(c, auth.Label)
	if err != nil {
		return auth.Channel{}, err
	}
	key, err := transportKey(c.RemotePeer())
	if err != nil {
		return auth.Channel{}, err
	}
	return auth.Channel{Exporter: exporter, Remote: key}, nil
}

// transportKey is the Ed25519 key in a peer id.
func transportKey(p peer.ID) (ed25519.PublicKey, error) {
	key, err := p.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("swarm: peer %s: %w", p, err)
	}
	raw, err := key.Raw()
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("swarm: peer %s has no Ed25519 key", p)
	}
	return raw, nil
}

func (s *Swarm) initiate(ctx context.Context, c network.Conn) *auth.Peer {
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	stream, err := host.OpenStream(ctx, c, s.protocol("auth/1"))
	if err != nil {
		return s.failed(c, err)
	}
	defer func() { _ = stream.Close() }()
	channel, err := s.channel(c)
	if err != nil {
		return s.failed(c, err)
	}
	p, err := auth.Initiate(stream, channel, s.local, func() { s.host.Serve(c) })
	if err != nil {
		return s.failed(c, err)
	}
	return p
}

// respond answers the auth protocol.
func (s *Swarm) respond(stream network.Stream) {
	defer func() { _ = stream.Close() }()
	c := stream.Conn()
	x := s.session(c)
	s.mu.Lock()
	again := x.started || c.Stat().Direction != network.DirInbound
	x.started = true
	s.mu.Unlock()
	if again || stream.SetDeadline(time.Now().Add(authTimeout)) != nil {
		_ = stream.Reset()
		return
	}
	channel, err := s.channel(c)
	if err == nil {
		local := *s.local
		local.Introduced = func(entries [][]byte) { s.introduced(c, entries) }
		var p *auth.Peer
		if p, err = auth.Respond(stream, channel, &local, func() { s.host.Serve(c) }); err == nil {
			x.proved <- p
			return
		}
	}
	_ = stream.Reset()
	x.proved <- s.failed(c, err)
}

// failed counts why a handshake came to nothing.
func (s *Swarm) failed(c network.Conn, err error) *auth.Peer {
	cause := "handshake"
	switch {
	case errors.Is(err, auth.ErrStranger):
		cause = "stranger"
	case errors.Is(err, auth.ErrProof):
		cause = "proof"
	case errors.Is(err, auth.ErrVersion):
		cause = "version"
	case errors.Is(err, auth.ErrUnknownHere):
		cause = "unknown_here"
	case errors.Is(err, auth.ErrMessage):
		cause = "malformed_handshake"
	}
	s.count(cause)
	s.cfg.Log.Debug("handshake", "peer", c.RemotePeer(), "addr", c.RemoteMultiaddr(), "cause", cause, "err", err)
	return nil
}

// member finds an active member by DID, for handshakes.
func (s *Swarm) member(did identity.DID) (identity.Keys, bool) {
	m, ok := s.cfg.Members.Member(did)
	if !ok || !m.Active(s.cfg.Now()) || s.cfg.Members.Revoked(did) {
		return identity.Keys{}, false
	}
	return m.Keys, true
}

// refuse is true of transport keys that belong to members whom operators keep out. One that only signed twice is heard in
// the handshake: it may bring the rotation that proves its next key.
func (s *Swarm) refuse(p peer.ID) bool {
	key, err := transportKey(p)
	if err != nil {
		return true // no peer of this swarm has another kind of key
	}
	m, ok := s.cfg.Members.ByTransport(key)
	return ok && m.Barred(s.cfg.Now())
}

// info is what a proved peer is told.
func (s *Swarm) info() auth.Info {
	i := auth.Info{Heads: auth.AuthorityHeads(s.cfg.Ledger.Heads()), Start: s.start, Time: s.cfg.Now().UnixNano()}
	for _, a := range s.host.ListenAddrs() {
		i.Addrs = append(i.Addrs, a.String())
	}
	return i
}

// introduce gives the end of the chain in which this peer was admitted.
func (s *Swarm) introduce() [][]byte {
	self, ok := s.cfg.Members.Member(s.cfg.Self.DID())
	if !ok {
		return nil
	}
	h, ok := s.cfg.Ledger.Head(self.AdmittedBy, ledger.Authority)
	if !ok {
		return nil
	}
	from := uint64(0)
	if h.Seq >= auth.MaxIntroduction {
		from = h.Seq + 1 - auth.MaxIntroduction
	}
	raws, err := s.cfg.Ledger.Range(self.AdmittedBy, ledger.Authority, from, auth.MaxIntroduction, auth.MaxIntroductionBytes)
	if err != nil {
		return nil
	}
	if s.cfg.Self.Keys().Number() == 0 {
		return raws
	}
	return append(raws[max(0, len(raws)-auth.MaxIntroduction/2):], s.ownRotations()...)
}

// ownRotations are the last entries of this peer's own authority chain, its rotations among them.
func (s *Swarm) ownRotations() [][]byte {
	h, ok := s.cfg.Ledger.Head(s.cfg.Self.DID(), ledger.Authority)
	if !ok {
		return nil
	}
	const most = auth.MaxIntroduction / 2
	from := uint64(0)
	if keys := s.cfg.Self.Keys(); keys.Number() > 0 {
		from = keys.Rotations[keys.Number()-1].Authority // who lacks what is before pulls it from another
	}
	from -= min(from, most/2)
	raws, err := s.cfg.Ledger.Range(h.Author, ledger.Authority, from, most, auth.MaxIntroductionBytes/2)
	if err != nil {
		return nil
	}
	return raws
}

// introduced takes the entries by which an unknown peer says it was admitted. Each is verified as any other; how many a
// stranger may make this peer verify is bounded by its address.
func (s *Swarm) introduced(c network.Conn, entries [][]byte) {
	addr, ok := remoteIP(c)
	if !ok || !s.introductions.allow(addr) {
		s.count("introduction_rate")
		return
	}
	for _, raw := range entries {
		_, err := s.cfg.Ledger.Ingest(s.ctx, raw)
		if err == nil || errors.Is(err, ledger.ErrDuplicate) {
			continue
		}
		s.cfg.Log.Debug("introduction", "peer", c.RemotePeer(), "err", err)
		var refused *ledger.RejectError
		if !errors.As(err, &refused) || refused.Cause != ledger.CauseFork { // a rotation may follow, and open the feed
			return
		}
	}
}

// catchUp takes what authority the peer knows and this one lacks, before anything else is done with it: it may say that
// the peer is out.
func (s *Swarm) catchUp(ctx context.Context, c network.Conn, p *auth.Peer) bool {
	for lacking := s.lacking(p); lacking > 0; {
		short, cancel := context.WithTimeout(ctx, catchUpTimeout)
		whole := s.pullFrom(short, c)
		cancel()
		if whole {
			break // what is still lacking was refused
		}
		left := s.lacking(p)
		if left >= lacking {
			s.count("behind") // nothing is done with a peer that knows more than it gives
			return false
		}
		lacking = left
	}
	if _, ok := s.member(p.DID); !ok {
		s.count("revoked")
		return false
	}
	return true
}

// lacking is how many authority entries the peer has that this one has not, by what it said of itself.
func (s *Swarm) lacking(p *auth.Peer) uint64 {
	var n uint64
	for _, h := range p.Info.Heads {
		mine := uint64(0)
		if head, ok := s.cfg.Ledger.Head(identity.DIDFromBytes(h.Author), ledger.Authority); ok {
			mine = head.Seq + 1
		}
		if h.Count > mine {
			n += h.Count - mine
		}
	}
	return n
}

// live is a proved connection: entries are pushed over it until it ends.
func (s *Swarm) live(ctx context.Context, c network.Conn, p *auth.Peer) {
	dead, twin := s.peers.add(p.DID, p.Info.Start, p.Rotation, c)
	for _, d := range dead {
		_ = d.Close()
	}
	if twin != nil && s.cfg.Duplicate != nil {
		s.cfg.Duplicate(p.DID, *twin)
	}
	id := c.RemotePeer()
	defer func() {
		if s.peers.remove(c) {
			s.cfg.Log.Info("peer left", "did", p.DID)
			s.dialer.left(id)
		}
	}()
	s.learn(c, p)
	attached, freed := s.push.Attach(c) // before the sync, so that no entry falls between the two
	if !s.host.Prove(c) {
		if attached {
			s.push.Detach(c)
		}
		return
	}
	s.dialer.met(id)
	if s.cfg.Heard != nil {
		s.cfg.Heard(p.DID, p.Info.Time)
	}
	s.mu.Lock()
	s.met[id] = true
	s.mu.Unlock()
	s.cfg.Log.Info("peer proved", "did", p.DID, "addr", c.RemoteMultiaddr(), "version", p.Version)
	s.pulls.want(id)
	for {
		if attached {
			s.push.Drain(ctx, c)
			if !wait(ctx, time.Second) { // the stream failed but not the connection
				return
			}
		} else {
			select {
			case <-ctx.Done():
				return
			case <-freed:
			}
		}
		attached, freed = s.push.Attach(c)
	}
}

// learn keeps where a proved peer can be reached.
func (s *Swarm) learn(c network.Conn, p *auth.Peer) {
	id, now := c.RemotePeer(), time.Now()
	var addrs []ma.Multiaddr
	for _, text := range p.Info.Addrs {
		if a, err := ma.NewMultiaddr(text); err == nil && s.host.CanDial(a) {
			addrs = append(addrs, a)
		}
	}
	if c.Stat().Direction == network.DirOutbound {
		addrs = append(addrs, c.RemoteMultiaddr())
	}
	s.host.Peerstore().AddAddrs(id, addrs, peerstore.PermanentAddrTTL)
	for _, a := range addrs {
		s.book.Worked(id, a, now)
	}
	s.saveSoon()
}

// Disconnect closes all connections of a member; it is not dialled again while Membership says that it is out.
func (s *Swarm) Disconnect(did identity.DID) {
	m, ok := s.cfg.Members.Member(did)
	if !ok {
		return
	}
	id, err := peerID(m)
	if err != nil {
		return
	}
	if !m.Active(s.cfg.Now()) || s.cfg.Members.Revoked(did) {
		s.book.Forget(id)
	}
	if err := s.host.ClosePeer(id); err != nil {
		s.cfg.Log.Debug("disconnect", "did", did, "err", err)
	}
}

// peerID is the libp2p name of a member's transport key.
func peerID(m *authority.Member) (peer.ID, error) {
	return peerOf(m.Inception.TransportKey())
}
