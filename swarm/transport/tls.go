package transport

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"

	"github.com/omega-mesh/omega/trust"
)

// ID is the security protocol's name in multistream-select. It is not libp2p's own /tls/1.0.0, so a stock libp2p program
// is refused before a handshake.
const ID protocol.ID = "/omega/tls/2"

// TLS is the security transport for TCP: TLS 1.3 with the peer's transport key as its certificate's, the suite's key
// exchange and no other, and the stream multiplexer chosen by ALPN. A certificate says nothing but the key, whose possession
// TLS itself proves; libp2p's, which has another key and the peer's signature of it, costs three more signatures to check
// and 220 bytes at each end.
type TLS struct {
	certificate tls.Certificate
	local       peer.ID
	suite       trust.Suite
	curves      []tls.CurveID
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
	certificate, err := selfSigned(key)
	if err != nil {
		return nil, fmt.Errorf("transport: certificate: %w", err)
	}
	return &TLS{certificate: certificate, local: local, suite: suite, curves: []tls.CurveID{curve}}, nil
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
	conn := side(c, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       t.curves,
		NextProtos:             []string{yamux.ID},
		Certificates:           []tls.Certificate{t.certificate},
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true, // every connection proves its keys
		// No authority signed the certificate and no name is in it: the key is all there is, and is checked here.
		InsecureSkipVerify: true,
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			got, _, err := peerOf(raw)
			if err == nil && p != "" && got != p {
				err = sec.ErrPeerIDMismatch{Expected: p, Actual: got}
			}
			return err
		},
	})
	s, err := t.handshake(ctx, conn)
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("transport: tls: %w", err)
	}
	return s, nil
}

func (t *TLS) handshake(ctx context.Context, conn *tls.Conn) (*secureConn, error) {
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
	raw := make([][]byte, len(state.PeerCertificates))
	for i, c := range state.PeerCertificates {
		raw[i] = c.Raw
	}
	id, key, err := peerOf(raw)
	if err != nil {
		return nil, err
	}
	return &secureConn{Conn: conn, local: t.local, remote: id, key: key}, nil
}

// selfSigned is the certificate of a transport key: the same whenever it is made, and as short as X.509 allows.
func selfSigned(key crypto.PrivKey) (tls.Certificate, error) {
	std, err := crypto.PrivKeyToStdKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	private, ok := std.(*ed25519.PrivateKey)
	if !ok {
		return tls.Certificate{}, errors.New("not an Ed25519 key")
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Date(2049, 12, 31, 0, 0, 0, 0, time.UTC)}
	raw, err := x509.CreateCertificate(nil, template, template, private.Public(), *private)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: *private}, err
}

// peerOf reads who the other side is from its certificate. That it holds the key is proved by the handshake's signature,
// which crypto/tls checks.
func peerOf(raw [][]byte) (peer.ID, crypto.PubKey, error) {
	if len(raw) != 1 {
		return "", nil, fmt.Errorf("%d certificates, want one", len(raw))
	}
	certificate, err := x509.ParseCertificate(raw[0])
	if err != nil {
		return "", nil, fmt.Errorf("certificate: %w", err)
	}
	public, ok := certificate.PublicKey.(ed25519.PublicKey)
	if !ok {
		return "", nil, fmt.Errorf("certificate with a key of %s", certificate.PublicKeyAlgorithm)
	}
	key, err := crypto.UnmarshalEd25519PublicKey(public)
	if err != nil {
		return "", nil, err
	}
	id, err := peer.IDFromPublicKey(key)
	return id, key, err
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
