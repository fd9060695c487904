package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/omega-mesh/omega/trust"
)

// ID is the security protocol's name in multistream-select. It is not libp2p's own /tls/1.0.0, so a stock libp2p program
// is refused before a handshake.
const ID protocol.ID = "/omega/tls/1"

// TLS is the security transport for TCP: libp2p's TLS certificates (a self-signed one that carries the peer's public key
// and its signature), with the suite's as the only key exchange, and the stream multiplexer chosen by ALPN.
type TLS struct {
	identity *libp2ptls.Identity
	local    peer.ID
	suite    trust.Suite
	curves   []tls.CurveID
}

// NewTLS makes the transport of a host's key in a swarm of that suite.
func NewTLS(key crypto.PrivKey, suite trust.Suite) (*TLS, error) {
	curve, ok := Curve(suite)
	if !ok {
		return nil, fmt.Errorf("transport: suite %d has no key exchange", suite)
	}
	local, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("transport: peer id: %w", err)
	}
	identity, err := libp2ptls.NewIdentity(key)
	if err != nil {
		return nil, fmt.Errorf("transport: certificate: %w", err)
	}
	return &TLS{identity: identity, local: local, suite: suite, curves: []tls.CurveID{curve}}, nil
}

// ID is the protocol's name.
func (t *TLS) ID() protocol.ID { return ID }

// SecureInbound is the server's side; p is empty where any peer may call.
func (t *TLS) SecureInbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return t.secure(ctx, c, p, tls.Server)
}

// SecureOutbound is the client's side. As the client's certificate is the last message of TLS 1.3, a server that refuses
// it is only noticed at the first read.
func (t *TLS) SecureOutbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return t.secure(ctx, c, p, tls.Client)
}

func (t *TLS) secure(ctx context.Context, c net.Conn, p peer.ID, side func(net.Conn, *tls.Config) *tls.Conn) (sec.SecureConn, error) {
	config, remote := t.identity.ConfigForPeer(p)
	config.MinVersion = tls.VersionTLS13
	config.CurvePreferences = t.curves
	config.NextProtos = []string{yamux.ID}
	conn := side(c, config)
	s, err := t.handshake(ctx, conn, remote)
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("transport: tls: %w", err)
	}
	return s, nil
}

func (t *TLS) handshake(ctx context.Context, conn *tls.Conn, remote <-chan crypto.PubKey) (*secureConn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	state := conn.ConnectionState()
	if err := checkState(&state, t.suite); err != nil {
		return nil, err
	}
	if state.NegotiatedProtocol != yamux.ID {
		return nil, errors.New("no stream multiplexer agreed")
	}
	var key crypto.PubKey
	select { // filled by the handshake's certificate check
	case key = <-remote:
	default:
	}
	if key == nil {
		return nil, errors.New("no certificate seen")
	}
	id, err := peer.IDFromPublicKey(key)
	if err != nil {
		return nil, err
	}
	return &secureConn{Conn: conn, local: t.local, remote: id, key: key}, nil
}

// secureConn is a TLS connection with the peer's key.
type secureConn struct {
	*tls.Conn
	local, remote peer.ID
	key           crypto.PubKey
}

func (c *secureConn) LocalPeer() peer.ID             { return c.local }
func (c *secureConn) RemotePeer() peer.ID            { return c.remote }
func (c *secureConn) RemotePublicKey() crypto.PubKey { return c.key }
func (c *secureConn) ConnState() network.ConnectionState {
	return network.ConnectionState{Security: ID, StreamMultiplexer: yamux.ID, UsedEarlyMuxerNegotiation: true, Transport: "tcp"}
}

// Muxer is yamux that lets network.Conn.As reach the TLS connection beneath, which yamux's own does not.
type Muxer struct{}

// NewConn multiplexes a connection.
func (Muxer) NewConn(c net.Conn, server bool, scope network.PeerScope) (network.MuxedConn, error) {
	m, err := yamux.DefaultTransport.NewConn(c, server, scope)
	if err != nil {
		return nil, fmt.Errorf("transport: yamux: %w", err)
	}
	return &muxedConn{MuxedConn: m, beneath: c}, nil
}

type muxedConn struct {
	network.MuxedConn
	beneath net.Conn
}

// As finds the TLS connection for a **tls.Conn, and leaves the rest to yamux.
func (m *muxedConn) As(target any) bool {
	if t, ok := target.(**tls.Conn); ok {
		s, secure := m.beneath.(*secureConn)
		if secure {
			*t = s.Conn
		}
		return secure
	}
	return m.MuxedConn.As(target)
}
