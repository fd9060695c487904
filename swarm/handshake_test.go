package swarm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	mstream "github.com/multiformats/go-multistream"

	"github.com/omega-mesh/omega/swarm/transport"
	"github.com/omega-mesh/omega/trust"
)

// What two peers agree on, as a packet capture shows it: the suite's key exchange on both transports, and over TCP not even
// an offer of anything else.
func TestHandshakeOnTheWire(t *testing.T) {
	for _, c := range []struct {
		suite trust.Suite
		proto string
		group tls.CurveID
	}{
		{trust.SuiteDefault, "tcp", tls.X25519MLKEM768}, {trust.SuiteDefault, "udp", tls.X25519MLKEM768}, {trust.SuiteCNSA, "tcp", tls.SecP384r1MLKEM1024},
	} {
		t.Run(c.suite.Name()+" "+c.proto, func(t *testing.T) {
			tap := newTap(t)
			w := newWorldOf(t, c.suite)
			pa, pb := w.member("a"), w.member("b")
			listen := map[string]string{"tcp": "/ip4/127.0.0.1/tcp/0", "udp": "/ip4/127.0.0.1/udp/0/quic-v1"}[c.proto]
			a := pa.up(listenOn(listen))
			b := pb.up(listenOn(), bootstrap(a))
			a.meets(1, soon)
			b.meets(1, soon)
			port := portOf(t, a)
			check(t, tap.read(port))
			hello := func(kind byte) ([]byte, error) {
				if c.proto == "udp" {
					return tap.quicHello(port, kind)
				}
				return tlsMessage(tap.tcpStream(port, kind == clientHello), kind)
			}
			raw, err := hello(clientHello)
			check(t, err)
			supported, shares, err := groups(raw, clientHello)
			check(t, err)
			raw, err = hello(serverHello)
			check(t, err)
			_, chosen, err := groups(raw, serverHello)
			check(t, err)
			t.Logf("supported groups %v, key shares %v, chosen %v", supported, shares, chosen)
			if !slices.Equal(chosen, []uint16{uint16(c.group)}) {
				t.Errorf("agreed on %v, want %d", chosen, c.group)
			}
			if c.proto == "tcp" && (!slices.Equal(shares, chosen) || !slices.Equal(supported, chosen)) {
				t.Errorf("offered %v with key shares for %v", supported, shares)
			}
			if c.proto == "udp" && (len(shares) == 0 || shares[0] != uint16(c.group)) {
				t.Errorf("key shares for %v: the hybrid is not the first", shares)
			}
			tshark(t, tap, c.proto, port, c.group)
		})
	}
}

func portOf(t *testing.T, n *node) uint16 {
	t.Helper()
	a, err := ma.NewMultiaddr(n.swarm.Addrs()[0])
	check(t, err)
	addr, err := manet.ToNetAddr(first(a))
	check(t, err)
	if u, ok := addr.(*net.UDPAddr); ok {
		return uint16(u.Port)
	}
	return uint16(addr.(*net.TCPAddr).Port)
}

// first is the IP and port of an address.
func first(a ma.Multiaddr) ma.Multiaddr { return a[:2] }

// tshark is a second opinion, where it is installed.
func tshark(t *testing.T, tap *tap, proto string, port uint16, want tls.CurveID) {
	t.Helper()
	path, err := exec.LookPath("tshark")
	if err != nil {
		t.Log("tshark is not installed: the capture was read by this test alone")
		return
	}
	file := filepath.Join(t.TempDir(), "handshake.pcap")
	check(t, os.WriteFile(file, tap.pcap(), 0o600))
	decode := fmt.Sprintf("udp.port==%d,quic", port)
	if proto == "tcp" {
		decode = fmt.Sprintf("tcp.port==%d,tls", port)
	}
	out, err := exec.CommandContext(t.Context(), path, "-r", file, "-d", decode, "-Y", "tls.handshake.type == 2", "-T", "fields", "-e", "tls.handshake.extensions_key_share_selected_group", "-e", "tls.handshake.extensions_key_share_group").Output()
	check(t, err)
	if got := strings.Join(strings.Fields(string(out)), " "); got != fmt.Sprint(int(want)) && got != fmt.Sprintf("0x%04x", int(want)) {
		t.Errorf("tshark reads the group %q from the server's hello, want %d", got, want)
	}
}

// Who offers only X25519 over TCP gets an alert in place of a hello; who offers Noise gets nothing at all. (Over QUIC:
// TestClassicalQUICIsClosed.)
func TestClassicalTCPIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pa, pb := w.member("a"), w.member("b")
	a := pa.up(listenOn("/ip4/127.0.0.1/tcp/0"))
	target := only(t, a.swarm.Addrs(), "/tcp/")
	key, err := crypto.UnmarshalEd25519PrivateKey(pb.id.Transport())
	check(t, err)
	raw, err := x509.CreateCertificate(nil, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, pb.id.Transport().Public(), pb.id.Transport())
	check(t, err)
	for curve, want := range map[tls.CurveID]bool{tls.X25519: false, tls.X25519MLKEM768: true} {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", portOf(t, a)))
		check(t, err)
		check(t, c.SetDeadline(time.Now().Add(soon)))
		check(t, mstream.SelectProtoOrFail(transport.ID, c))
		config := &tls.Config{
			InsecureSkipVerify: true, NextProtos: []string{"/yamux/1.0.0"}, CurvePreferences: []tls.CurveID{curve},
			Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: pb.id.Transport()}},
		}
		if err := tls.Client(c, config).Handshake(); (err == nil) != want {
			t.Errorf("%s: %v", curve, err)
		}
		_ = c.Close()
	}
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.Identity(key), libp2p.Security(noise.ID, noise.New))
	check(t, err)
	defer func() { _ = h.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if err := h.Connect(ctx, target); err == nil {
		t.Error("connected by Noise")
	}
}
