package transport

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/quic-go/quic-go"
)

// ErrClassical is wrapped where a connection agreed on its keys without the post-quantum half.
var ErrClassical = errors.New("key exchange is not X25519MLKEM768")

// ExporterSize is how much keying material a proof is bound to, in bytes.
const ExporterSize = 32

// state is the TLS state of a connection of either transport.
func state(c network.Conn) (*tls.ConnectionState, error) {
	var q *quic.Conn
	if c.As(&q) {
		s := q.ConnectionState().TLS
		return &s, nil
	}
	var t *tls.Conn
	if c.As(&t) {
		s := t.ConnectionState()
		return &s, nil
	}
	return nil, fmt.Errorf("transport: %s shows no TLS state", c.RemoteMultiaddr())
}

func checkState(s *tls.ConnectionState) error {
	if s.Version != tls.VersionTLS13 || s.CurveID != tls.X25519MLKEM768 {
		return fmt.Errorf("transport: %s with %s: %w", tls.VersionName(s.Version), s.CurveID, ErrClassical)
	}
	return nil
}

// Check refuses a connection that is not TLS 1.3 with X25519MLKEM768.
func Check(c network.Conn) error {
	s, err := state(c)
	if err != nil {
		return err
	}
	return checkState(s)
}

// Exporter is ExporterSize bytes of keying material (RFC 8446 §7.5) that only the two ends of c know, under a label and
// with no context. Both ends get the same; another connection gets another.
func Exporter(c network.Conn, label string) ([]byte, error) {
	s, err := state(c)
	if err != nil {
		return nil, err
	}
	b, err := s.ExportKeyingMaterial(label, nil, ExporterSize)
	if err != nil {
		return nil, fmt.Errorf("transport: exporter: %w", err)
	}
	return b, nil
}

// SecureExporter is Exporter for a connection of TLS before it is multiplexed.
func SecureExporter(c sec.SecureConn, label string) ([]byte, error) {
	s, ok := c.(*secureConn)
	if !ok {
		return nil, fmt.Errorf("transport: %T is not of this transport", c)
	}
	state := s.ConnectionState()
	b, err := state.ExportKeyingMaterial(label, nil, ExporterSize)
	if err != nil {
		return nil, fmt.Errorf("transport: exporter: %w", err)
	}
	return b, nil
}
