package ledger

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
)

func FuzzDecode(f *testing.F) {
	a := newIdentity(f, "a")
	l := openAt(f, f.TempDir(), a, newMembers(a), Options{})
	mustAppend(f, l, Activity, KindFinding, "finding")
	for _, h := range l.Heads() {
		raws, err := l.Range(h.Author, h.Chain, 0, 10, 1<<20)
		if err != nil {
			f.Fatal(err)
		}
		for _, raw := range raws {
			f.Add(raw)
		}
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := Decode(raw)
		if err != nil {
			var r *RejectError
			if !errors.As(err, &r) {
				t.Fatalf("untyped refusal: %v", err)
			}
			return
		}
		if !bytes.Equal(e.Raw(), raw) {
			t.Fatal("decoded to something else")
		}
		// One encoding only: what was read must come out again byte for byte.
		again := appendBytes(e.appendContent(nil), append(bytes.Clone(e.Sig), e.Full...))
		if !bytes.Equal(again, raw) {
			t.Fatalf("two encodings of one entry:\n%x\n%x", raw, again)
		}
	})
}

func FuzzProof(f *testing.F) {
	a := newIdentity(f, "a")
	one, _ := SignEntry(a, testSwarm, 0, Hash{}, KindGrant, []byte("1"), time.Unix(1, 0))
	two, _ := SignEntry(a, testSwarm, 0, Hash{}, KindGrant, []byte("2"), time.Unix(1, 0))
	p, err := NewProof(one, two)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := p.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := DecodeProof(raw)
		if err != nil {
			return
		}
		_ = p.Verify(a.Inception().PublicKey())
		again, err := p.Encode()
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("two encodings of one proof: %v", err)
		}
	})
}

// FuzzScan opens a feed file of any bytes: it must open, and what it then holds must link.
func FuzzScan(f *testing.F) {
	a := newIdentity(f, "a")
	keys := newMembers(a)
	d := newMemDisk()
	l := openMem(f, d, a, keys)
	mustAppend(f, l, Activity, KindFinding, "1")
	mustAppend(f, l, Activity, KindFinding, "2")
	name := feedFile(Feed{a.DID(), Activity})
	f.Add(d.crash(0).files[name].data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newMemDisk()
		d.files[name] = &memFile{d: d, data: data}
		l, err := open(d, testSwarm, nil, keys, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		n := uint64(0)
		if err := l.Replay(func(e *Entry) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		if n != l.Count(a.DID(), Activity) {
			t.Fatal("count and content differ")
		}
	})
}

// FuzzFeedName: names in the ledger's folder are not trusted either.
func FuzzFeedName(f *testing.F) {
	f.Add(feedFile(Feed{identity.DIDFromBytes([32]byte{1}), Authority}))
	f.Fuzz(func(t *testing.T, name string) {
		if id, first, ok := parseFeedFile(name, suffixFeed); ok && segmentFile(id, first) != name {
			t.Fatalf("two names of one feed: %q", name)
		}
	})
}

// run makes n consecutive activity entries with bodies of size bytes and a seal over each trust.SealEvery of them.
func run(tb testing.TB, n, size int) ([][]byte, *identity.Identity) {
	tb.Helper()
	a := newIdentity(tb, "a")
	d := newMemDisk()
	l := openMem(tb, d, a, newMembers(a))
	ctx := context.Background()
	for range n {
		if _, err := l.Append(ctx, Activity, KindFinding, make([]byte, size), false); err != nil {
			tb.Fatal(err)
		}
	}
	raws, err := l.Range(a.DID(), Activity, 1, trust.MaxRangeEntries, trust.MaxRangeBytes)
	if err != nil {
		tb.Fatal(err)
	}
	return raws, a
}

func BenchmarkAppend(b *testing.B) {
	l, done, err := benchLedger(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer done()
	body := make([]byte, 200)
	b.ReportAllocs()
	b.SetParallelism(64)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := l.Append(context.Background(), Activity, KindFinding, body, false); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkAppendAlone(b *testing.B) {
	l, done, err := benchLedger(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer done()
	body := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Append(context.Background(), Activity, KindFinding, body, false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyRun(b *testing.B) {
	raws, a := run(b, trust.SealEvery, 100)
	key := a.Inception().PublicKey()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := VerifyRun(raws, key); err != nil {
			b.Fatal(err)
		}
		n += len(raws)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkCheck(b *testing.B) {
	a := newIdentity(b, "a")
	keys := newMembers(a)
	l, src := openMem(b, newMemDisk(), nil, keys), openMem(b, newMemDisk(), a, keys)
	mustAppend(b, src, Activity, KindFinding, "brings the epoch certificate")
	pull(b, l, src)
	next, err := src.Append(context.Background(), Activity, KindFinding, make([]byte, 200), false)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Check(next.Raw()); err != nil {
			b.Fatal(err)
		}
	}
}
