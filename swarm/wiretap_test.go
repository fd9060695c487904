package swarm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A wiretap is a packet capture of the loopback device, and as much of TCP, QUIC and TLS as it takes to read what a
// handshake agreed on: the tests trust what is on the wire more than what a library says of it.

// packet is one IPv4 packet of TCP or UDP.
type packet struct {
	raw      []byte // from the IP header on
	proto    byte
	src, dst uint16
	seq      uint32 // of TCP
	payload  []byte
}

// tap records all packets of lo to or from a port while it is open.
type tap struct {
	fd      int
	packets []packet
}

// newTap begins to capture; it needs CAP_NET_RAW.
func newTap(t *testing.T) *tap {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a packet capture needs root")
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_IP)))
	check(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	check(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
	check(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: 1}))
	return &tap{fd: fd}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// read takes what has been captured so far of a port.
func (c *tap) read(port uint16) error {
	b := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(c.fd, b, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		// lo shows every packet twice, as sent and as received.
		if l, ok := from.(*unix.SockaddrLinklayer); !ok || l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if p, ok := parseIPv4(bytes.Clone(b[:n])); ok && (p.src == port || p.dst == port) {
			c.packets = append(c.packets, p)
		}
	}
}

func parseIPv4(b []byte) (p packet, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return p, false
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < 20 || total > len(b) || total < header+20 {
		return p, false
	}
	p = packet{raw: b[:total], proto: b[9]}
	l := b[header:total]
	p.src, p.dst = binary.BigEndian.Uint16(l), binary.BigEndian.Uint16(l[2:])
	switch p.proto {
	case unix.IPPROTO_UDP:
		p.payload = l[8:]
	case unix.IPPROTO_TCP:
		offset := int(l[12]>>4) * 4
		if offset < 20 || offset > len(l) {
			return p, false
		}
		p.seq, p.payload = binary.BigEndian.Uint32(l[4:]), l[offset:]
	default:
		return p, false
	}
	return p, true
}

// pcap is the capture as a file of LINKTYPE_RAW, for other programs.
func (c *tap) pcap() []byte {
	out := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	out = append(out, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	out = binary.LittleEndian.AppendUint32(out, 1<<16)
	out = binary.LittleEndian.AppendUint32(out, 101)
	now := time.Now()
	for k, p := range c.packets {
		at := now.Add(time.Duration(k) * time.Microsecond)
		out = binary.LittleEndian.AppendUint32(out, uint32(at.Unix()))
		out = binary.LittleEndian.AppendUint32(out, uint32(at.Nanosecond()/1000))
		out = binary.LittleEndian.AppendUint32(out, uint32(len(p.raw)))
		out = binary.LittleEndian.AppendUint32(out, uint32(len(p.raw)))
		out = append(out, p.raw...)
	}
	return out
}

// tcpStream is what one direction of the first connection to or from a port said.
func (c *tap) tcpStream(port uint16, toPort bool) []byte {
	var other uint16
	pieces := make(map[uint32][]byte)
	var first uint32
	for _, p := range c.packets {
		peer, inward := p.src, p.dst == port
		if !inward {
			peer = p.dst
		}
		if p.proto != unix.IPPROTO_TCP || inward != toPort || len(p.payload) == 0 || other != 0 && peer != other {
			continue
		}
		if other == 0 {
			other, first = peer, p.seq
		}
		if len(p.payload) > len(pieces[p.seq]) {
			pieces[p.seq] = p.payload
		}
	}
	var out []byte
	for len(pieces) > 0 {
		p, ok := pieces[first]
		if !ok {
			break
		}
		delete(pieces, first)
		out = append(out, p...)
		first += uint32(len(p))
	}
	return out
}

// tlsMessage finds the first handshake message of a kind in a TCP stream that begins with multistream-select.
func tlsMessage(stream []byte, kind byte) ([]byte, error) {
	for i := 0; i+9 < len(stream); i++ {
		if stream[i] != 22 || stream[i+1] != 3 || stream[i+2] > 3 || stream[i+5] != kind || stream[i+6] != 0 {
			continue
		}
		var body []byte
		for at := i; at+5 <= len(stream) && stream[at] == 22; {
			n := int(binary.BigEndian.Uint16(stream[at+3:]))
			if at+5+n > len(stream) {
				break
			}
			body = append(body, stream[at+5:at+5+n]...)
			at += 5 + n
		}
		if m, ok := handshakeMessage(body, kind); ok {
			return m, nil
		}
	}
	return nil, fmt.Errorf("no TLS handshake message %d in %d bytes", kind, len(stream))
}

func handshakeMessage(b []byte, kind byte) ([]byte, bool) {
	if len(b) < 4 || b[0] != kind {
		return nil, false
	}
	n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	if len(b) < 4+n {
		return nil, false
	}
	return b[4 : 4+n], true
}

const (
	clientHello         = 1
	serverHello         = 2
	extSupportedGroups  = 10
	extKeyShare         = 51
	quicInitialSaltV1   = "\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a" // RFC 9001 §5.2
	quicVersion1        = 1
	quicLongInitialMask = 0xf0
	quicLongInitial     = 0xc0
)

// cursor reads big-endian fields; past the end it gives zeros and stays failed.
type cursor struct {
	b    []byte
	fail bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.fail, c.b = true, nil
		return make([]byte, max(0, min(n, 8)))
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}
func (c *cursor) u8() int  { return int(c.take(1)[0]) }
func (c *cursor) u16() int { return int(binary.BigEndian.Uint16(c.take(2))) }
func (c *cursor) varint() int { // RFC 9000 §16
	first := c.u8()
	v := first & 0x3f
	for range 1<<(first>>6) - 1 {
		v = v<<8 | c.u8()
	}
	return v
}

// groups reads from a hello which key exchanges it names: supported_groups, and those it sends a key share for.
func groups(hello []byte, kind byte) (supported, shares []uint16, err error) {
	c := &cursor{b: hello}
	c.take(2 + 32)
	c.take(c.u8()) // session id
	if kind == clientHello {
		c.take(c.u16())
		c.take(c.u8())
	} else {
		c.take(3)
	}
	ext := &cursor{b: c.take(c.u16())}
	for len(ext.b) > 0 {
		id := ext.u16()
		body := &cursor{b: ext.take(ext.u16())}
		switch id {
		case extSupportedGroups:
			for list := (&cursor{b: body.take(body.u16())}); len(list.b) > 0; {
				supported = append(supported, uint16(list.u16()))
			}
		case extKeyShare:
			list := body
			if kind == clientHello {
				list = &cursor{b: body.take(body.u16())}
			}
			for len(list.b) > 0 {
				shares = append(shares, uint16(list.u16()))
				list.take(list.u16())
			}
		}
	}
	if c.fail || ext.fail || len(shares) == 0 {
		return nil, nil, errors.New("not a whole hello")
	}
	return supported, shares, nil
}

// quicHello is the TLS message of a kind in the Initial packets of the first QUIC connection to a port. Their keys follow
// from the client's first destination id (RFC 9001 §5.2), so anybody on the way can read them.
func (c *tap) quicHello(port uint16, kind byte) ([]byte, error) {
	var keys *initialKeys
	pieces := make(map[int][]byte)
	for _, p := range c.packets {
		if p.proto != unix.IPPROTO_UDP {
			continue
		}
		for rest := p.payload; len(rest) > 0; {
			one, initial, next := splitQUIC(rest)
			rest = next
			if !initial {
				continue
			}
			if keys == nil { // of this direction; the first Initial is the client's
				label := "client in"
				if kind == serverHello {
					label = "server in"
				}
				var err error
				if keys, err = newInitialKeys(one.dcid, label); err != nil {
					return nil, err
				}
			}
			if (p.dst == port) != (kind == clientHello) {
				continue
			}
			frames, err := keys.open(one)
			if err != nil {
				continue // of another connection
			}
			cryptoFrames(frames, pieces)
		}
	}
	var stream []byte
	for at := 0; ; {
		i := slices.IndexFunc(offsets(pieces), func(o int) bool { return o <= at && o+len(pieces[o]) > at })
		if i < 0 {
			break
		}
		o := offsets(pieces)[i]
		stream = append(stream, pieces[o][at-o:]...)
		at = o + len(pieces[o])
	}
	if m, ok := handshakeMessage(stream, kind); ok {
		return m, nil
	}
	return nil, fmt.Errorf("no TLS handshake message %d in QUIC's Initial packets: %d bytes", kind, len(stream))
}

func offsets(pieces map[int][]byte) []int {
	var out []int
	for o := range pieces {
		out = append(out, o)
	}
	slices.Sort(out)
	return out
}

// initialPacket is an Initial as it travels: whole from the first byte, the packet number still hidden.
type initialPacket struct {
	dcid   []byte
	whole  []byte
	number int // where the packet number is
}

// splitQUIC takes the first packet of a datagram; what is not an Initial of QUIC 1 is skipped as far as its length says.
func splitQUIC(b []byte) (p initialPacket, initial bool, rest []byte) {
	if b[0]&0x80 == 0 {
		return p, false, nil // a short header fills the datagram
	}
	c := &cursor{b: b}
	first := c.u8()
	version := binary.BigEndian.Uint32(c.take(4))
	p.dcid = c.take(c.u8())
	c.take(c.u8())
	if first&quicLongInitialMask&^0x40 == quicLongInitial&^0x40 {
		c.take(c.varint()) // token
		initial = true
	}
	n := c.varint()
	p.number = len(b) - len(c.b)
	if c.fail || version != quicVersion1 || p.number+n > len(b) || n < 20 {
		return p, false, nil
	}
	p.whole = b[:p.number+n]
	return p, initial, b[p.number+n:]
}

type initialKeys struct {
	aead   cipher.AEAD
	iv     []byte
	header cipher.Block
}

func newInitialKeys(dcid []byte, label string) (*initialKeys, error) {
	secret, err := hkdf.Extract(sha256.New, dcid, []byte(quicInitialSaltV1))
	if err != nil {
		return nil, err
	}
	expand := func(secret []byte, label string, n int) []byte { // HKDF-Expand-Label of RFC 8446, no context
		full := "tls13 " + label
		info := string([]byte{0, byte(n), byte(len(full))}) + full + "\x00"
		out, xerr := hkdf.Expand(sha256.New, secret, info, n)
		err = errors.Join(err, xerr)
		return out
	}
	secret = expand(secret, label, 32)
	block, berr := aes.NewCipher(expand(secret, "quic key", 16))
	header, herr := aes.NewCipher(expand(secret, "quic hp", 16))
	k := &initialKeys{iv: expand(secret, "quic iv", 12), header: header}
	if err = errors.Join(err, berr, herr); err != nil {
		return nil, err
	}
	k.aead, err = cipher.NewGCM(block)
	return k, err
}

// open removes header protection and decrypts (RFC 9001 §5.3, §5.4).
func (k *initialKeys) open(p initialPacket) ([]byte, error) {
	b := bytes.Clone(p.whole)
	if len(b) < p.number+20 {
		return nil, errors.New("short packet")
	}
	mask := make([]byte, aes.BlockSize)
	k.header.Encrypt(mask, b[p.number+4:p.number+20])
	b[0] ^= mask[0] & 0x0f
	size := int(b[0]&3) + 1
	nonce := bytes.Clone(k.iv)
	for i := range size {
		b[p.number+i] ^= mask[1+i]
		nonce[len(nonce)-size+i] ^= b[p.number+i]
	}
	return k.aead.Open(nil, nonce, b[p.number+size:], b[:p.number+size])
}

// cryptoFrames keeps the CRYPTO frames of a packet by offset; PADDING, PING and ACK are all else that an Initial has here.
func cryptoFrames(b []byte, into map[int][]byte) {
	for c := (&cursor{b: b}); len(c.b) > 0; {
		switch c.varint() {
		case 0, 1: // PADDING, PING
		case 2: // ACK
			c.varint()
			c.varint()
			ranges := c.varint()
			c.varint()
			for range 2 * ranges {
				c.varint()
			}
		case 6: // CRYPTO
			at := c.varint()
			into[at] = bytes.Clone(c.take(c.varint()))
		default:
			return
		}
	}
}
