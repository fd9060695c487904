package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	mstream "github.com/multiformats/go-multistream"
)

// OpenStream opens a stream of a protocol over one connection. The protocol's name travels with the first bytes written,
// so that a question and its answer take one round trip; a peer that does not speak it shows at the first read.
func OpenStream(ctx context.Context, c network.Conn, id protocol.ID) (network.Stream, error) {
	s, err := c.NewStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("host: open stream: %w", err)
	}
	if err := s.SetProtocol(id); err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("host: %s: %w", id, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(deadline); err != nil {
			_ = s.Reset()
			return nil, fmt.Errorf("host: %s: %w", id, err)
		}
	}
	return &lazyStream{Stream: s, lazy: mstream.NewMSSelect(s, id)}, nil
}

// lazyStream negotiates its protocol while it is first used.
type lazyStream struct {
	network.Stream
	lazy mstream.LazyConn
}

func (s *lazyStream) Read(b []byte) (int, error)  { return s.lazy.Read(b) }
func (s *lazyStream) Write(b []byte) (int, error) { return s.lazy.Write(b) }

// Close sends what is to be sent and closes both directions.
func (s *lazyStream) Close() error {
	return s.lazy.Close()
}

// CloseWrite ends this side's half; the name of the protocol has gone out by then.
func (s *lazyStream) CloseWrite() error {
	return errors.Join(s.lazy.Flush(), s.Stream.CloseWrite())
}

// serveDeadline bounds the negotiation of an inbound stream.
func serveDeadline() time.Time { return time.Now().Add(negotiateTimeout) }
