package transport

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/quic-go/quic-go"

	"github.com/omega-mesh/omega/trust"
)

// ErrClassical is wrapped where a connection agreed on its keys otherwise than the swarm's suite says: without the
// post-quantum half, or with another suite's.
var ErrClassical = errors.New("key exchange is not the suite's")

// Curve is the one key exchange of a suite: X25519MLKEM768 or SecP384r1MLKEM1024 (draft-ietf-tls-ecdhe-mlkem). An unknown
// suite has none.
func Curve(s trust.Suite) (tls.CurveID, bool) {
	switch s {
	case trust.SuiteDefault:
		return tls.X25519MLKEM768, true
	case trust.SuiteCNSA:
		return tls.SecP384r1MLKEM1024, true
	}
	return 0, false
}

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

func checkState(s *tls.ConnectionState, suite trust.Suite) error {
	if curve, ok := Curve(suite); !ok || s.Version != tls.VersionTLS13 || s.CurveID != curve {
		return fmt.Errorf("transport: %s with %s: %w", tls.VersionName(s.Version), s.CurveID, ErrClassical)
	}
	return nil
}

// Check refuses a connection that is not TLS 1.3 with the key exchange of suite.
func Check(c network.Conn, suite trust.Suite) error {
	s, err := state(c)
	if err != nil {
		return err
	}
	return checkState(s, suite)
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
