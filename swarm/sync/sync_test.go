package sync

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

func feed(n byte, c ledger.Chain) ledger.Feed {
	return ledger.Feed{Author: identity.DIDFromBytes([32]byte{n}), Chain: c}
}

func TestRequest(t *testing.T) {
	// The order of DIDs as text is not that of their bytes: digits come after letters in base32, and before in ASCII.
	var wants []Want
	for n := range 256 {
		wants = append(wants, Want{feed(byte(n), ledger.Authority), uint64(n)}, Want{feed(byte(n), ledger.Activity), 1})
	}
	slices.SortFunc(wants, func(a, b Want) int { return bytes.Compare([]byte(a.Feed.Author), []byte(b.Feed.Author)) })
	b, err := encodeRequest(kindAll, wants)
	if err != nil {
		t.Fatal(err)
	}
	kind, back, err := decodeRequest(b)
	if err != nil || kind != kindAll || len(back) != len(wants) {
		t.Fatal(kind, len(back), err)
	}
	for _, w := range wants {
		if !slices.Contains(back, w) {
			t.Errorf("lost %v", w)
		}
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"a feed twice":  func(b []byte) []byte { return append(b, b[len(b)-headSize:]...) },
		"cut short":     func(b []byte) []byte { return b[:len(b)-1] },
		"bad chain":     func(b []byte) []byte { b[33] = 9; return b },
		"bad kind":      func(b []byte) []byte { b[0] = kindRun; return b },
		"absurd number": func(b []byte) []byte { b[34] = 0xff; return b },
		"empty":         func([]byte) []byte { return nil },
	} {
		if _, _, err := decodeRequest(spoil(bytes.Clone(b))); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// store is a ledger of numbered blobs: entry k of a feed is one byte, and what the ledger would verify is not.
type store struct {
	heads []ledger.Head
	base  *ledger.Base
}

func (s *store) Heads() []ledger.Head { return s.heads }
func (s *store) Range(_ identity.DID, _ ledger.Chain, from uint64, n, _ int) ([][]byte, error) {
	var out [][]byte
	for k := from; k <= s.heads[0].Seq && len(out) < n; k++ {
		out = append(out, []byte{byte(k)})
	}
	return out, nil
}

func (s *store) Base(ledger.Feed) *ledger.Base { return s.base }

// What is served begins where the asking peer ends, and says what the asking peer has more of.
func TestServe(t *testing.T) {
	f := feed(1, ledger.Activity)
	src := &store{heads: []ledger.Head{{Author: f.Author, Chain: f.Chain, Seq: 2*RunEntries + 5}}}
	b, err := encodeRequest(kindAll, []Want{{f, 10}, {feed(2, ledger.Authority), 7}})
	if err != nil {
		t.Fatal(err)
	}
	c, s := net.Pipe()
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	result := make(chan Served, 1)
	go func() {
		served, err := Serve(context.Background(), s, src, f.Author, func() {})
		if err != nil {
			t.Error(err)
		}
		_ = s.Close()
		result <- served
	}()
	frame := append([]byte{0, 0, 0, byte(len(b))}, b...)
	if _, err := c.Write(frame); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	served := <-result
	if want := 2*RunEntries + 6 - 10; served.Sent != want || !served.Behind {
		t.Errorf("served %+v, want %d entries", served, want)
	}
	d, err := decodeDone(all[len(all)-doneSize:])
	if err != nil || d.More || !d.Behind || d.Entries != 2*RunEntries+6 {
		t.Errorf("end: %+v, %v", d, err)
	}
}

func TestOrder(t *testing.T) {
	me := identity.DIDFromBytes([32]byte{1})
	other := identity.DIDFromBytes([32]byte{2})
	heads := []ledger.Head{{Author: other, Chain: ledger.Activity}, {Author: me, Chain: ledger.Activity}, {Author: other, Chain: ledger.Authority}}
	got := order(heads, me)
	if got[0].Chain != ledger.Authority || got[1].Author != me || got[2].Author != other {
		t.Errorf("order %v", got)
	}
}

func TestFault(t *testing.T) {
	for cause, want := range map[string]bool{
		ledger.CauseMalformed: true, ledger.CauseSignature: true, ledger.CauseOversize: true, ledger.CauseSwarm: true, ledger.CauseKind: true,
		ledger.CauseRate: false, ledger.CauseFuture: false, ledger.CauseUnknownAuthor: false, ledger.CauseRevoked: false, ledger.CauseFork: false,
	} {
		if Fault(&ledger.RejectError{Cause: cause}) != want {
			t.Errorf("%s: fault is not %v", cause, want)
		}
	}
	if Fault(ledger.ErrDuplicate) {
		t.Error("a duplicate is nobody's fault")
	}
}

func FuzzRequest(f *testing.F) {
	b, _ := encodeRequest(kindOnly, []Want{{feed(1, ledger.Authority), 3}, {feed(1, ledger.Activity), 4}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, wants, err := decodeRequest(b)
		if err != nil {
			return
		}
		again, err := encodeRequest(kind, wants)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x decodes and encodes to %x, %v", b, again, err)
		}
	})
}

func FuzzRun(f *testing.F) {
	f.Add(encodeRun([][]byte{{1}, {2, 3}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		raws, err := decodeRun(b)
		if err == nil && !bytes.Equal(encodeRun(raws), b) {
			t.Errorf("%x does not encode back", b)
		}
	})
}

func FuzzDone(f *testing.F) {
	f.Add(done{More: true, Entries: 7}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDone(b)
		if err == nil && !bytes.Equal(d.encode(), b) {
			t.Errorf("%x does not encode back", b)
		}
	})
}
