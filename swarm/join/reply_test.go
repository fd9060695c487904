package join

import (
	"bytes"
	"errors"
	"testing"

	"github.com/omega-mesh/omega/swarm/wire"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
)

func reply() *Reply {
	return &Reply{Genesis: []byte("genesis"), By: identity.DIDFromBytes([32]byte{1}), Addrs: []string{"/ip4/1.2.3.4/tcp/5"}, Entries: [][]byte{{1}, {2, 3}}}
}

func TestReply(t *testing.T) {
	var b bytes.Buffer
	if err := Grant(&b, reply()); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(b.Bytes())
	got, err := Receive(&b)
	if err != nil || string(got.Genesis) != "genesis" || got.By != reply().By || len(got.Entries) != 2 || !bytes.Equal(got.Entries[1], []byte{2, 3}) || got.Addrs[0] != reply().Addrs[0] {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range whole {
		if _, err := Receive(bytes.NewReader(whole[:n])); err == nil {
			t.Fatalf("accepted %d of %d bytes", n, len(whole))
		}
	}
}

func TestRefusal(t *testing.T) {
	var b bytes.Buffer
	if err := Refuse(&b); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 64 {
		t.Errorf("a refusal of %d bytes", b.Len())
	}
	if _, err := Receive(&b); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

func TestWaiting(t *testing.T) {
	var b bytes.Buffer
	if err := Wait(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := Receive(&b); !errors.Is(err, ErrWaiting) {
		t.Error(err)
	}
}

func TestBounds(t *testing.T) {
	for name, h := range map[string]header{
		"too many entries":   {Admitted: true, By: make([]byte, 32), Entries: MaxEntries + 1},
		"too many addresses": {Admitted: true, By: make([]byte, 32), Addrs: make([]string, MaxAddrs+1)},
		"long address":       {Admitted: true, By: make([]byte, 32), Addrs: []string{string(make([]byte, MaxAddr+1))}},
		"short DID":          {Admitted: true, By: make([]byte, 31)},
		"both at once":       {Admitted: true, Waiting: true, By: make([]byte, 32)},
	} {
		if h.Genesis = []byte{}; h.Addrs == nil {
			h.Addrs = []string{}
		}
		b, err := canonical.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Receive(bytes.NewReader(wire.Append(nil, b))); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An entry past its bound ends the reply.
	var b bytes.Buffer
	r := reply()
	r.Entries = [][]byte{make([]byte, trust.MaxEntry+1)}
	if err := Grant(&b, r); err != nil {
		t.Fatal(err)
	}
	if _, err := Receive(&b); !errors.Is(err, wire.ErrTooLong) {
		t.Error(err)
	}
}

func FuzzReply(f *testing.F) {
	var b bytes.Buffer
	if err := Grant(&b, reply()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Receive(bytes.NewReader(b))
		if err == nil && (len(r.Addrs) > MaxAddrs || len(r.Entries) > MaxEntries) {
			t.Errorf("accepted %d addresses, %d entries", len(r.Addrs), len(r.Entries))
		}
	})
}
