package privileged

import (
	"net/netip"
	"testing"
)

func TestSurroundings(t *testing.T) {
	for _, c := range []struct {
		parse func(string) (netip.Addr, bool)
		line  string
		want  string
	}{
		{gateway4, "eth0\t00000000\t0100400A\t0003\t0\t0\t0\t00000000\t0\t0\t0", "10.64.0.1"},
		{gateway4, "Iface\tDestination\tGateway \tFlags", ""},
		{gateway4, "eth0 0 zz", ""},
		{gateway6, "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth0", "fe80::1"},
		{gateway6, "short", ""},
		{resolver, "nameserver 9.9.9.9", "9.9.9.9"},
		{resolver, "nameserver fe80::1%eth0", "fe80::1"},
		{resolver, "search example.org", ""},
		{resolver, "# nameserver 1.1.1.1", ""},
	} {
		a, ok := c.parse(c.line)
		if got := a.String(); ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%q: %s, %v; want %q", c.line, got, ok, c.want)
		}
	}
}
