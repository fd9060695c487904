package transport

import (
	"crypto/tls"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// RTT is the smoothed round-trip time of a connection as the kernel (TCP) or QUIC measures it; 0 where unknown.
func RTT(c network.Conn) time.Duration {
	var q *quic.Conn
	if c.As(&q) {
		return q.ConnectionStats().SmoothedRTT
	}
	var t *tls.Conn
	if !c.As(&t) {
		return 0
	}
	s, ok := t.NetConn().(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0
	}
	var rtt time.Duration
	if err := raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			rtt = time.Duration(info.Rtt) * time.Microsecond
		}
	}); err != nil {
		return 0
	}
	return rtt
}
