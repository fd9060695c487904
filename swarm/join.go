package swarm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/omega-mesh/omega/swarm/host"
	"github.com/omega-mesh/omega/swarm/join"
	"github.com/omega-mesh/omega/swarm/transport"
	"github.com/omega-mesh/omega/swarm/wire"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
)

// joinProtocol has no swarm in its name: who joins proves by the token which one it means.
const joinProtocol protocol.ID = "/omega/join/1"

// joinStagger is how long one peer of the token has before the next is asked, too.
const joinStagger = 700 * time.Millisecond

// maxJoinAddrs is how many addresses a joiner is given.
const maxJoinAddrs = 32

// JoinConfig is what Join needs.
type JoinConfig struct {
	Token    *authority.Token
	Identity *identity.Identity // of the joiner
	Addrs    []string           // tried after the token's own; may be empty
}

// Errors of Join that a caller may decide on.
var (
	// ErrUnreachable: no address of the token answered.
	ErrUnreachable = errors.New("no peer of the swarm could be reached")
	// ErrRefused: every peer that answered refused: the token is unknown, spent, withdrawn or expired. They do not say
	// which to someone who is not a member.
	ErrRefused = errors.New("the swarm refused the token")
	// ErrWaiting: the token is good, and an operator must approve the joiner. Admit returns it, Join passes it on: asking
	// again with the same identity tells when that is done.
	ErrWaiting = errors.New("the swarm waits for an operator's approval")
)

// serveJoin answers the join protocol, for anybody.
func (s *Swarm) serveJoin(stream network.Stream) {
	defer func() { _ = stream.Close() }()
	c := stream.Conn()
	addr, ok := remoteIP(c)
	if !ok || s.cfg.Admit == nil || !s.joins.allow(addr) {
		s.count("join_rate")
		_ = stream.Reset()
		return
	}
	select {
	case s.joining <- struct{}{}:
		defer func() { <-s.joining }()
	default:
		s.count("join_busy")
		_ = stream.Reset()
		return
	}
	x := s.session(c)
	s.mu.Lock()
	x.joining = true
	s.mu.Unlock()
	if err := s.admit(stream, c, JoinRequest{Remote: addr}); err != nil {
		s.count("join")
		s.cfg.Log.Info("join refused", "addr", addr, "err", err)
	}
}

func (s *Swarm) admit(stream network.Stream, c network.Conn, req JoinRequest) error {
	ctx, cancel := context.WithTimeout(s.ctx, joinTimeout)
	defer cancel()
	err := stream.SetDeadline(time.Now().Add(authTimeout))
	if err == nil {
		if req.Proof, err = wire.Read(stream, trust.MaxJoinProof); err == nil {
			req.Exporter, err = transport.Exporter(c, join.Label)
		}
	}
	if err != nil {
		_ = stream.Reset()
		return err
	}
	reply, err := s.cfg.Admit(ctx, req)
	if derr := stream.SetDeadline(time.Now().Add(joinTimeout)); derr != nil {
		return derr
	}
	if errors.Is(err, ErrWaiting) {
		return join.Wait(stream)
	}
	if err != nil {
		return errors.Join(err, join.Refuse(stream))
	}
	reply.Addrs = s.known()
	return join.Grant(stream, &join.Reply{Genesis: reply.Genesis, By: reply.By, Addrs: reply.Addrs, Entries: reply.Entries})
}

// known are the addresses that a joiner is given: this peer's own first.
func (s *Swarm) known() []string {
	out := s.Addrs()
	for _, p := range s.book.All() {
		for _, a := range p.Addrs {
			if len(out) >= maxJoinAddrs {
				return out
			}
			out = append(out, a.String()+"/p2p/"+p.ID.String())
		}
	}
	return out[:min(len(out), maxJoinAddrs)]
}

// Join presents a token to the peers it names, one after another and without waiting long for any, until one admits this
// identity. Doing it again with the same identity is harmless and gives the same answer.
func Join(ctx context.Context, cfg JoinConfig) (*JoinReply, error) {
	if cfg.Token == nil || cfg.Identity == nil {
		return nil, fmt.Errorf("%w: a token and an identity are needed to join", ErrConfig)
	}
	h, err := host.New(host.Config{
		Key: cfg.Identity.Transport(), Suite: cfg.Token.Suite, Log: slog.New(slog.DiscardHandler),
		Connected: func(context.Context, network.Conn) {},
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = h.Close() }()
	return joinBy(ctx, h, cfg)
}

func joinBy(ctx context.Context, h *host.Host, cfg JoinConfig) (*JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	type outcome struct {
		reply *JoinReply
		err   error
	}
	targets := joinTargets(cfg)
	results := make(chan outcome, len(targets))
	started, pending := 0, 0
	start := func() {
		t := targets[started]
		started++
		pending++
		go func() { // ends with ctx; results never blocks
			reply, err := joinAt(ctx, h, t, cfg)
			results <- outcome{reply, err}
		}()
	}
	// Every goroutine is waited for: the host is closed after this.
	defer func() {
		cancel()
		for ; pending > 0; pending-- {
			<-results
		}
	}()
	var refused, unreachable error
	timer := time.NewTimer(0)
	defer timer.Stop()
	for started < len(targets) || pending > 0 {
		select {
		case <-timer.C:
			if started < len(targets) {
				start()
				timer.Reset(joinStagger)
			}
			continue
		case r := <-results:
			pending--
			switch {
			case r.err == nil:
				return r.reply, nil
			case errors.Is(r.err, ErrWaiting):
				return nil, r.err // one that asks a person is enough
			case errors.Is(r.err, ErrRefused):
				refused = r.err
			default:
				unreachable = r.err
			}
			timer.Reset(0)
		}
	}
	switch {
	case refused != nil:
		return nil, refused
	case unreachable != nil:
		return nil, fmt.Errorf("swarm: join: %w: %w", ErrUnreachable, unreachable)
	}
	return nil, fmt.Errorf("swarm: join: %w: the token names no address", ErrUnreachable)
}

// joinTargets are the peers to ask, the token's own first, each once with all its addresses.
func joinTargets(cfg JoinConfig) []peer.AddrInfo {
	var out []peer.AddrInfo
	at := make(map[peer.ID]int)
	for _, text := range append(append([]string(nil), cfg.Token.Addrs...), cfg.Addrs...) {
		p, err := peer.AddrInfoFromString(text)
		if err != nil {
			continue
		}
		if i, ok := at[p.ID]; ok {
			out[i].Addrs = append(out[i].Addrs, p.Addrs...)
			continue
		}
		if len(out) == maxJoinAddrs {
			break
		}
		at[p.ID] = len(out)
		out = append(out, *p)
	}
	return out
}

func joinAt(ctx context.Context, h *host.Host, at peer.AddrInfo, cfg JoinConfig) (*JoinReply, error) {
	c, err := h.Dial(ctx, at)
	if err != nil {
		return nil, err
	}
	stream, err := host.OpenStream(ctx, c, joinProtocol)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Reset() }()
	exporter, err := transport.Exporter(c, join.Label)
	if err != nil {
		return nil, err
	}
	proof, err := authority.ProveJoin(cfg.Token, cfg.Identity, exporter)
	if err != nil {
		return nil, fmt.Errorf("swarm: join: %w", err)
	}
	if err := wire.Write(stream, proof); err != nil {
		return nil, err
	}
	r, err := join.Receive(stream)
	switch {
	case errors.Is(err, join.ErrWaiting):
		return nil, fmt.Errorf("swarm: join: %w: asked %s", ErrWaiting, at.ID)
	case errors.Is(err, join.ErrRefused):
		return nil, fmt.Errorf("swarm: join: %w by %s", ErrRefused, at.ID)
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("swarm: join: %s closed the stream", at.ID)
	case err != nil:
		return nil, err
	}
	g, err := authority.DecodeGenesis(r.Genesis)
	if err != nil {
		return nil, fmt.Errorf("swarm: join: %w", err)
	}
	if g.SwarmID() != cfg.Token.Swarm {
		return nil, fmt.Errorf("swarm: join: %s answered for another swarm (%s)", at.ID, g.SwarmID().Short())
	}
	return &JoinReply{Genesis: r.Genesis, By: r.By, Entries: r.Entries, Addrs: r.Addrs}, nil
}
