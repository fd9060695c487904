package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"

	"github.com/omega-mesh/omega/trust"
)

func newTLS(t testing.TB) *TLS {
	t.Helper()
	return newTLSOf(t, trust.SuiteDefault)
}

func newTLSOf(t testing.TB, suite trust.Suite) *TLS {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewTLS(key, suite)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shake does a handshake over a pipe, and a byte each way, because the client learns of a refusal at its first read.
func shake(t testing.TB, client, server *TLS, want peer.ID) (c, s sec.SecureConn, errc, errs error) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s, errs = server.SecureInbound(ctx, b, ""); errs == nil {
			_, errs = s.Write([]byte{1})
		}
	}()
	if c, errc = client.SecureOutbound(ctx, a, want); errc == nil {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, errc = c.Read(make([]byte, 1))
	}
	if errc != nil {
		_ = a.Close()
	}
	<-done
	return c, s, errc, errs
}

func TestHandshake(t *testing.T) {
	for suite, curve := range map[trust.Suite]tls.CurveID{trust.SuiteDefault: tls.X25519MLKEM768, trust.SuiteCNSA: tls.SecP384r1MLKEM1024} {
		t.Run(suite.Name(), func(t *testing.T) { testHandshake(t, suite, curve) })
	}
	if _, err := NewTLS(nil, 3); err == nil {
		t.Error("a transport of no suite")
	}
}

func testHandshake(t *testing.T, suite trust.Suite, curve tls.CurveID) {
	client, server := newTLSOf(t, suite), newTLSOf(t, suite)
	c, s, errc, errs := shake(t, client, server, server.local)
	if errc != nil || errs != nil {
		t.Fatal(errc, errs)
	}
	if c.RemotePeer() != server.local || s.RemotePeer() != client.local || !c.RemotePublicKey().Equals(peerKey(t, server.local)) {
		t.Error("the peers do not know each other's keys")
	}
	x, y := c.(*secureConn).ConnectionState(), s.(*secureConn).ConnectionState()
	if x.CurveID != curve || x.Version != tls.VersionTLS13 {
		t.Errorf("agreed on %s, %s", x.CurveID, tls.VersionName(x.Version))
	}
	kx, err := x.ExportKeyingMaterial("EXPORTER-test", nil, ExporterSize)
	if err != nil {
		t.Fatal(err)
	}
	ky, err := y.ExportKeyingMaterial("EXPORTER-test", nil, ExporterSize)
	if err != nil || !bytes.Equal(kx, ky) {
		t.Errorf("the ends export different keys: %v", err)
	}
}

func peerKey(t testing.TB, p peer.ID) crypto.PubKey {
	t.Helper()
	k, err := p.ExtractPublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWrongPeer(t *testing.T) {
	client, server := newTLS(t), newTLS(t)
	if _, _, err, _ := shake(t, client, server, newTLS(t).local); err == nil {
		t.Error("connected to another peer than was asked for")
	}
}

// A peer that only has classical key exchange is refused, whichever side it is on.
func TestClassicalRefused(t *testing.T) {
	for _, c := range []struct {
		suite  trust.Suite
		curves []tls.CurveID
	}{
		{trust.SuiteDefault, []tls.CurveID{tls.X25519}}, {trust.SuiteDefault, []tls.CurveID{tls.CurveP256}},
		{trust.SuiteDefault, []tls.CurveID{tls.X25519, tls.CurveP384}}, {trust.SuiteDefault, []tls.CurveID{tls.SecP384r1MLKEM1024}},
		{trust.SuiteCNSA, []tls.CurveID{tls.CurveP384}}, {trust.SuiteCNSA, []tls.CurveID{tls.X25519MLKEM768, tls.X25519}},
	} {
		curves := c.curves
		good, bad := newTLSOf(t, c.suite), newTLSOf(t, c.suite)
		bad.curves = curves
		if _, _, errc, errs := shake(t, bad, good, good.local); errc == nil || errs == nil {
			t.Errorf("a client with %v: %v, %v", curves, errc, errs)
		}
		if _, _, errc, errs := shake(t, good, bad, bad.local); errc == nil || errs == nil {
			t.Errorf("a server with %v: %v, %v", curves, errc, errs)
		}
	}
	// One that offers both gets the hybrid.
	good, both := newTLS(t), newTLS(t)
	both.curves = []tls.CurveID{tls.X25519, tls.X25519MLKEM768}
	if c, _, errc, errs := shake(t, both, good, good.local); errc != nil || errs != nil || c.(*secureConn).ConnectionState().CurveID != tls.X25519MLKEM768 {
		t.Errorf("a client with both: %v, %v", errc, errs)
	}
	for _, state := range []tls.ConnectionState{
		{Version: tls.VersionTLS13, CurveID: tls.X25519}, {Version: tls.VersionTLS12, CurveID: tls.X25519MLKEM768}, {},
	} {
		for _, suite := range append(trust.Suites(), 0) {
			if checkState(&state, suite) == nil {
				t.Errorf("%s accepted %s with %s", suite.Name(), tls.VersionName(state.Version), state.CurveID)
			}
		}
	}
}

// BenchmarkTLS is the CPU of both ends.
func BenchmarkTLS(b *testing.B) {
	client, server := newTLS(b), newTLS(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, errc, errs := shake(b, client, server, server.local); errc != nil || errs != nil {
			b.Fatal(errc, errs)
		}
	}
}

// A certificate is only as good as the proof of its key: who shows another's is refused, on either side, and so is what
// holds no transport key.
func TestCertificateOfAnother(t *testing.T) {
	victim, good := newTLS(t), newTLS(t)
	thief := newTLS(t)
	thief.certificate.Certificate = victim.certificate.Certificate
	if _, _, errc, errs := shake(t, thief, good, good.local); errc == nil || errs == nil {
		t.Errorf("a client with another's certificate: %v, %v", errc, errs)
	}
	if _, _, errc, errs := shake(t, good, thief, victim.local); errc == nil || errs == nil {
		t.Errorf("a server with another's certificate: %v, %v", errc, errs)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	other := newTLS(t)
	other.certificate = tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
	if _, _, errc, errs := shake(t, other, good, good.local); errc == nil || errs == nil {
		t.Errorf("a client with a P-256 key: %v, %v", errc, errs)
	}
	own := good.certificate.Certificate[0]
	for name, chain := range map[string][][]byte{"none": nil, "two": {own, own}, "cut": {own[:len(own)-1]}} {
		if _, _, err := peerOf(chain); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzPeerOf(f *testing.F) {
	f.Add(newTLS(f).certificate.Certificate[0])
	f.Fuzz(func(t *testing.T, raw []byte) {
		id, key, err := peerOf([][]byte{raw})
		if err == nil && !id.MatchesPublicKey(key) {
			t.Error("a peer of another key")
		}
	})
}
