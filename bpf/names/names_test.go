package names

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"testing"
)

// answer is a response for WWW.evil.example: an alias, and one address of each family, all by compressed names.
func answer() []byte {
	b := []byte{0x12, 0x34, 0x81, 0x80, 0, 1, 0, 3, 0, 0, 0, 0,
		3, 'W', 'W', 'W', 4, 'e', 'v', 'i', 'l', 7, 'e', 'x', 'a', 'm', 'p', 'l', 'e', 0, 0, 1, 0, 1}
	b = append(b, 0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, 'a', 0xc0, 16)
	b = append(b, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 9)
	return append(b, append([]byte{0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16, 0x20, 1, 0xd, 0xb8}, make([]byte, 12)...)...)
}

func TestDNS(t *testing.T) {
	var d DNS
	if err := d.Parse(answer()); err != nil {
		t.Fatal(err)
	}
	if string(d.Name) != "www.evil.example" || d.ID != 0x1234 || !d.Response || d.Type != 1 || d.Partial {
		t.Errorf("%+v", d)
	}
	if string(d.Text) != "a.evil.example\x00203.0.113.9\x002001:db8::" {
		t.Errorf("%q", d.Text)
	}
	if len(d.Addresses) != 2 || d.Addresses[0] != (Address{netip.MustParseAddr("203.0.113.9"), 60}) {
		t.Errorf("%v", d.Addresses)
	}
	for n := range len(answer()) { // cut anywhere: an error or Partial, never a whole answer
		if err := d.Parse(answer()[:n]); err == nil && !d.Partial {
			t.Errorf("%d bytes were taken for a whole message", n)
		}
	}
	loop := append([]byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0xc0, 12, 0, 1, 0, 1)
	if d.Parse(loop) == nil {
		t.Error("a pointer to itself was followed")
	}
	message := answer()
	if n := testing.AllocsPerRun(100, func() { _ = d.Parse(message) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// hello is what the standard library's client sends first.
func hello(t testing.TB, name string) []byte {
	client, server := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, &tls.Config{ServerName: name}).HandshakeContext(ctx)
	}()
	b := make([]byte, 4096)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	client.Close()
	server.Close()
	<-done
	return b[:n]
}

func TestServerName(t *testing.T) {
	h := hello(t, "www.evil.example")
	if got, ok := ServerName(nil, h); !ok || string(got) != "www.evil.example" {
		t.Errorf("%q %v", got, ok)
	}
	for n := range len(h) {
		if got, ok := ServerName(nil, h[:n]); ok && string(got) != "www.evil.example" {
			t.Errorf("of %d bytes: %q", n, got)
		}
	}
	two := slices.Concat([]byte{22, 3, 1, 0, 50}, h[5:55], []byte{22, 3, 1, byte((len(h) - 55) >> 8), byte(len(h) - 55)}, h[55:])
	if got, ok := ServerName(nil, two); !ok || string(got) != "www.evil.example" {
		t.Errorf("over two records: %q %v", got, ok)
	}
	room := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { ServerName(room, two) }); n != 0 {
		t.Errorf("%v allocations over two records", n)
	}
	if n := testing.AllocsPerRun(100, func() { ServerName(room, h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDNS(f *testing.F) {
	f.Add(answer())
	f.Fuzz(func(t *testing.T, b []byte) {
		var d DNS
		if d.Parse(b) != nil {
			return
		}
		if len(d.Name) > MaxName || len(d.Text) > MaxText || len(d.Addresses) > MaxAnswers || bytes.ContainsFunc(d.Name, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("out of bounds: %+v", d)
		}
	})
}

func FuzzServerName(f *testing.F) {
	f.Add(hello(f, "a.example"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, ok := ServerName(nil, b); ok && (len(got) == 0 || len(got) > MaxName) {
			t.Errorf("%q", got)
		}
	})
}

// Whatever a ClientHello is cut into, in order or sent twice, gives what it gives whole.
func FuzzHello(f *testing.F) {
	f.Add(hello(f, "a.example"), uint16(1), uint16(70))
	f.Fuzz(func(t *testing.T, b []byte, x, y uint16) {
		b = b[:min(len(b), MaxHello)]
		first, second := min(int(x), len(b)), min(int(y), len(b))
		if first > second {
			first, second = second, first
		}
		var h Hello
		h.Add(0, b[:first])
		h.Add(second, b[second:]) // too early: left out, or nothing is missing before it
		h.Add(0, b[:second])
		h.Add(second, b[second:])
		want, wantOK := ServerName(nil, b)
		if got, ok := h.ServerName(nil); ok != wantOK || !bytes.Equal(got, want) {
			t.Errorf("in pieces %q %v, whole %q %v", got, ok, want, wantOK)
		}
	})
}
