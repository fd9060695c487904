package swarm

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/omega-mesh/omega/swarm/block"
	"github.com/omega-mesh/omega/swarm/host"
)

// blockTimeout is how long one frame of blocks may take.
const blockTimeout = 8 * time.Second

// Fetch brings blocks by their names from connected members, whoever has them, and gives each to take as soon as it was
// held against its name; take may be called by several goroutines. block.ErrNowhere where nobody connected has the rest.
func (s *Swarm) Fetch(ctx context.Context, names []block.Name, take func(block.Name, []byte) error) error {
	f := &block.Fetcher{
		Peers: func() []string {
			ids := s.peers.ids()
			rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			out := make([]string, 0, len(ids))
			for _, id := range ids {
				if s.peers.blamed(id) < maxFaults {
					out = append(out, string(id))
				}
			}
			return out
		},
		Open: func(ctx context.Context, to string) (block.Stream, error) {
			conns := s.host.Proved(peer.ID(to))
			if len(conns) == 0 {
				return nil, host.ErrNotProved
			}
			return host.OpenStream(ctx, conns[0], s.protocol("block/1"))
		},
		Forged: func(from string, err error) {
			s.peers.blame(peer.ID(from))
			s.cfg.Log.Warn("a member gave what is not what was asked for", "peer", peer.ID(from), "err", err)
		},
	}
	return f.Fetch(ctx, names, take)
}

// serveBlock answers one request for blocks.
func (s *Swarm) serveBlock(stream network.Stream) {
	from := stream.Conn().RemotePeer()
	if s.blocks == nil || s.peers.blamed(from) >= maxFaults {
		_ = stream.Reset()
		return
	}
	err := s.blocks.Serve(stream, string(from), func() { _ = stream.SetDeadline(time.Now().Add(blockTimeout)) })
	if err == nil {
		_ = stream.Close()
		return
	}
	if errors.Is(err, block.ErrRequest) {
		s.peers.blame(from)
	}
	_ = stream.Reset()
}
