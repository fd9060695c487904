package swarm

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/quic-go/quic-go"
)

// QUIC's TLS is not ours to configure: what negotiated a classical exchange is closed before a stream of it is answered.
func TestClassicalQUICIsClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pa, pb := w.member("a"), w.member("b")
	a := pa.up()
	// b is a member, so nothing but the curve speaks against it.
	key, err := crypto.UnmarshalEd25519PrivateKey(pb.id.Transport())
	check(t, err)
	id, err := libp2ptls.NewIdentity(key)
	check(t, err)
	target := only(t, a.swarm.Addrs(), "/quic-v1")
	addr, err := manet.ToNetAddr(target.Addrs[0].Decapsulate(ma.StringCast("/quic-v1")))
	check(t, err)
	for curve, want := range map[tls.CurveID]bool{tls.X25519: false, tls.X25519MLKEM768: true} {
		config, _ := id.ConfigForPeer(target.ID)
		config.CurvePreferences = []tls.CurveID{curve}
		udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		check(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		c, err := quic.Dial(ctx, udp, addr, config, nil)
		check(t, err)
		answered := false
		if s, err := c.OpenStreamSync(ctx); err == nil {
			_ = s.SetDeadline(time.Now().Add(soon))
			_, _ = s.Write([]byte("\x13/multistream/1.0.0\n"))
			n, _ := s.Read(make([]byte, 1))
			answered = n > 0
		}
		if answered != want {
			t.Errorf("%s: answered is %v", curve, answered)
		}
		_ = c.CloseWithError(0, "")
		_ = udp.Close()
		cancel()
	}
	if a.swarm.Rejected()["classical"] == 0 {
		t.Errorf("not counted: %v", a.swarm.Rejected())
	}
}
