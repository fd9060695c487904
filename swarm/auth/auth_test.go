package auth

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/wire"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

func person(t testing.TB, suite trust.Suite, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Create(filepath.Join(t.TempDir(), name), identity.Options{Name: name, Suite: suite})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Close() })
	return id
}

// side is one end of a handshake that the tests can spoil.
type side struct {
	id      *identity.Identity
	local   Local
	channel Channel
	served  bool
}

func pair(t testing.TB) (i, r *side) {
	t.Helper()
	return pairOf(t, trust.SuiteDefault)
}

func pairOf(t testing.TB, suite trust.Suite) (i, r *side) {
	t.Helper()
	a, b := person(t, suite, "a"), person(t, suite, "b")
	exporter := bytes.Repeat([]byte{7}, 32)
	members := map[identity.DID]identity.Keys{a.DID(): a.Keys(), b.DID(): b.Keys()}
	make := func(self, other *identity.Identity) *side {
		return &side{id: self, channel: Channel{Exporter: exporter, Remote: other.Inception().TransportKey()}, local: Local{
			Swarm: trust.SwarmID{1}, Self: self,
			Member: func(d identity.DID) (identity.Keys, bool) { m, ok := members[d]; return m, ok },
			Info: func() Info {
				return Info{Addrs: []string{"/ip4/10.0.0.1/tcp/1"}, Heads: []Progress{{Author: [32]byte{1}, Count: 9}}, Start: 5, Time: 7}
			},
		}}
	}
	return make(a, b), make(b, a)
}

// run does the handshake over a pipe.
func run(i, r *side) (pi, pr *Peer, erri, errr error) {
	c, s := net.Pipe()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_ = s.SetDeadline(time.Now().Add(5 * time.Second))
	done := make(chan struct{})
	go func() {
		defer close(done)
		pr, errr = Respond(s, r.channel, &r.local, func() { r.served = true })
		_ = s.Close()
	}()
	pi, erri = Initiate(c, i.channel, &i.local, func() { i.served = true })
	_ = c.Close()
	<-done
	return pi, pr, erri, errr
}

func TestMutualProof(t *testing.T) {
	for _, suite := range trust.Suites() {
		t.Run(suite.Name(), func(t *testing.T) { testMutualProof(t, suite) })
	}
}

func testMutualProof(t *testing.T, suite trust.Suite) {
	i, r := pairOf(t, suite)
	pi, pr, erri, errr := run(i, r)
	if erri != nil || errr != nil {
		t.Fatal(erri, errr)
	}
	if pi.DID != r.id.DID() || pr.DID != i.id.DID() || pi.Version != MaxVersion || !i.served || !r.served {
		t.Errorf("initiator sees %+v, responder %+v", pi, pr)
	}
	if len(pr.Info.Addrs) != 1 || len(pr.Info.Heads) != 0 || len(pi.Info.Heads) != 0 || pi.Info.Start != 5 {
		t.Errorf("info of peers that know the same: %+v, %+v", pr.Info, pi.Info)
	}
}

// TestWhoIsBehind: of heads that differ each side learns what it lacks, and peers that know the same say none.
func TestWhoIsBehind(t *testing.T) {
	i, r := pair(t)
	a, b, c := [32]byte{1}, [32]byte{2}, [32]byte{3}
	say := func(s *side, heads ...Progress) {
		s.local.Info = func() Info { return Info{Addrs: []string{"/ip4/10.0.0.1/tcp/1"}, Heads: heads} }
	}
	for name, x := range map[string]struct {
		i, r         []Progress // what they have
		toldI, toldR int        // how many heads each is told that matter to it
	}{
		"the same in another order": {[]Progress{{a, 9}, {b, 3}}, []Progress{{b, 3}, {a, 9}}, 0, 0},
		"nothing":                   {nil, nil, 0, 0},
		"I is behind":               {[]Progress{{a, 8}}, []Progress{{a, 9}, {b, 1}}, 2, 0},
		"R is behind":               {[]Progress{{a, 9}, {b, 3}}, []Progress{{b, 3}}, 0, 1},
		"both are":                  {[]Progress{{a, 9}, {b, 2}}, []Progress{{a, 8}, {b, 3}, {c, 1}}, 2, 1},
		"R has nothing":             {[]Progress{{a, 9}, {b, 2}}, nil, 0, 2},
	} {
		say(i, x.i...)
		say(r, x.r...)
		pi, pr, erri, errr := run(i, r)
		if erri != nil || errr != nil {
			t.Fatal(name, erri, errr)
		}
		lacks := (&Info{Heads: pi.Info.Heads}).ahead(x.i)
		if len(lacks) != x.toldI || len(pr.Info.Heads) != x.toldR {
			t.Errorf("%s: I hears %v, R hears %v", name, pi.Info.Heads, pr.Info.Heads)
		}
	}
}

// Each of what a proof is bound to, when it differs, ends the handshake at both sides, and neither serves the other
// unless it holds the other's proof.
func TestBinding(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(i, r *side)
		want  error // of whoever notices
	}{
		"another connection":                  {func(i, r *side) { r.channel.Exporter = bytes.Repeat([]byte{8}, 32) }, ErrProof},
		"another swarm":                       {func(i, r *side) { r.local.Swarm = trust.SwarmID{2} }, ErrProof},
		"initiator's key is not its record's": {func(i, r *side) { r.channel.Remote = r.id.Inception().TransportKey() }, ErrStranger},
		"responder's key is not its record's": {func(i, r *side) { i.channel.Remote = i.id.Inception().TransportKey() }, ErrStranger},
		"initiator is no member": {func(i, r *side) {
			r.local.Member = func(identity.DID) (identity.Keys, bool) { return identity.Keys{}, false }
		}, ErrStranger},
		"responder is no member": {func(i, r *side) {
			i.local.Member = func(identity.DID) (identity.Keys, bool) { return identity.Keys{}, false }
		}, ErrStranger},
	} {
		t.Run(name, func(t *testing.T) {
			i, r := pair(t)
			c.spoil(i, r)
			_, pr, erri, errr := run(i, r)
			if !errors.Is(erri, c.want) && !errors.Is(errr, c.want) {
				t.Errorf("got %v and %v, want %v", erri, errr, c.want)
			}
			if erri == nil || errr == nil || pr != nil || r.served {
				t.Errorf("one side accepted: %v, %v", erri, errr)
			}
		})
	}
}

// A signature of one role does not serve as the other's.
func TestNoReflection(t *testing.T) {
	i, r := pair(t)
	a, _ := i.id.DID().Bytes()
	b, _ := r.id.DID().Bytes()
	sig, err := i.id.Sign(context, message(roleResponder, i.channel.Exporter, trust.SwarmID{1}, a, b))
	if err != nil {
		t.Fatal(err)
	}
	if i.id.Inception().PublicKey().Verify(context, message(roleInitiator, i.channel.Exporter, trust.SwarmID{1}, a, b), sig) {
		t.Error("the role is not signed")
	}
}

func TestVersions(t *testing.T) {
	_, r := pair(t)
	for _, h := range []hello{{Min: 1, Max: MinVersion - 1}, {Min: MaxVersion + 1, Max: 255}} {
		h.DID = make([]byte, 32)
		var out bytes.Buffer
		b, err := canonical.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Respond(rw{bytes.NewReader(wire.Append(nil, b)), &out}, r.channel, &r.local, func() {})
		if !errors.Is(err, ErrVersion) {
			t.Errorf("versions %d to %d: %v", h.Min, h.Max, err)
		}
		if a, err := readAnswer(&out); err != nil || a.Status != statusVersion {
			t.Errorf("answer: %+v, %v", a, err)
		}
	}
}

type rw struct {
	io.Reader
	io.Writer
}

func TestIntroduction(t *testing.T) {
	i, r := pair(t)
	known := false
	member := r.local.Member
	r.local.Member = func(d identity.DID) (identity.Keys, bool) {
		if d == i.id.DID() && !known {
			return identity.Keys{}, false
		}
		return member(d)
	}
	i.local.Introduce = func() [][]byte { return [][]byte{{1, 2, 3}} }
	r.local.Introduced = func(e [][]byte) { known = len(e) == 1 && bytes.Equal(e[0], []byte{1, 2, 3}) }
	if _, _, erri, errr := run(i, r); erri != nil || errr != nil {
		t.Fatal(erri, errr)
	}
	known = false
	i.local.Introduce = nil
	if _, _, erri, errr := run(i, r); !errors.Is(erri, ErrUnknownHere) || !errors.Is(errr, ErrStranger) {
		t.Errorf("without an introduction: %v, %v", erri, errr)
	}
}

// The largest honest messages are within the bounds.
func TestBoundsFit(t *testing.T) {
	full := Info{Start: 1<<64 - 1, Time: 1<<63 - 1}
	for k := range MaxHeads {
		full.Heads = append(full.Heads, Progress{Author: [32]byte{byte(k), byte(k >> 8)}, Count: 1 << 60})
	}
	for range MaxAddrs {
		full.Addrs = append(full.Addrs, string(bytes.Repeat([]byte{'/'}, MaxAddr)))
	}
	e := full.encode()
	b, err := canonical.Marshal(proof{Signature: make([]byte, composite.MaxSignatureSize), Info: e})
	if err != nil {
		t.Fatal(err)
	}
	if _, back, digest, err := decodeProof(b); err != nil || len(back.Addrs) != MaxAddrs || digest != full.digest() {
		t.Errorf("proof of %d bytes: %v", len(b), err)
	}
	e.Heads = encodeHeads(full.Heads)
	if b, err = canonical.Marshal(e); err != nil {
		t.Fatal(err)
	}
	if back, _, err := decodeInfo(b); err != nil || len(back.Heads) != MaxHeads || back.Heads[3] != full.Heads[3] {
		t.Errorf("info of %d bytes: %v", len(b), err)
	}
	if b, err = canonical.Marshal(ahead{e.Heads}); err != nil {
		t.Fatal(err)
	}
	if back, err := decodeAhead(b); err != nil || len(back) != MaxHeads {
		t.Errorf("heads of %d bytes: %v", len(b), err)
	}
	if b, err = canonical.Marshal(proof{Signature: make([]byte, composite.MaxSignatureSize), Info: e}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := decodeProof(b); !errors.Is(err, ErrMessage) {
		t.Errorf("a proof with heads: %v", err)
	}
}

func FuzzHello(f *testing.F) {
	b, _ := canonical.Marshal(hello{Min: 1, Max: 1, DID: make([]byte, 32)})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeHello(b); err == nil && (len(m.DID) != 32 || m.Min > m.Max) {
			t.Errorf("accepted %+v", m)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	b, _ := canonical.Marshal(answer{Status: statusUnknown, Version: 1, DID: []byte{}, Signature: []byte{}})
	f.Add(b)
	b, _ = canonical.Marshal(answer{Version: 1, DID: make([]byte, 32), Signature: make([]byte, composite.MaxSignatureSize)})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeAnswer(b); err == nil && m.Status == statusOK && (len(m.DID) != 32 || !composite.IsSignatureSize(len(m.Signature))) {
			t.Errorf("accepted %+v", m)
		}
	})
}

func FuzzProof(f *testing.F) {
	i := Info{Addrs: []string{"/ip4/1.2.3.4/tcp/5"}, Heads: []Progress{{Count: 3}}}
	b, _ := canonical.Marshal(proof{Signature: make([]byte, composite.MaxSignatureSize), Info: i.encode()})
	f.Add(b)
	b, _ = canonical.Marshal(i.encode())
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, decode := range []func([]byte) (Info, error){
			func(b []byte) (Info, error) { i, _, err := decodeInfo(b); return i, err },
			func(b []byte) (Info, error) { _, i, _, err := decodeProof(b); return i, err },
			func(b []byte) (Info, error) { h, err := decodeAhead(b); return Info{Heads: h}, err },
		} {
			if m, err := decode(b); err == nil && (len(m.Addrs) > MaxAddrs || len(m.Heads) > MaxHeads) {
				t.Errorf("accepted %d addresses, %d heads", len(m.Addrs), len(m.Heads))
			}
		}
	})
}

func FuzzIntroduction(f *testing.F) {
	b, _ := canonical.Marshal(introduction{Entries: [][]byte{{1}, {2}}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeIntroduction(b); err == nil && len(m) > MaxIntroduction {
			t.Errorf("accepted %d entries", len(m))
		}
	})
}

// BenchmarkHandshake is the CPU of both ends' proofs and messages, without the TLS beneath.
func BenchmarkHandshake(b *testing.B) {
	i, r := pair(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, erri, errr := run(i, r); erri != nil || errr != nil {
			b.Fatal(erri, errr)
		}
	}
}
