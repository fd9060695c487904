package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/tlog"
	"github.com/omega-mesh/omega/trust/witness"
)

// peer is a member with its store.
type peer struct {
	home    string // of its identity
	id      *identity.Identity
	fold    *authority.Fold
	ledger  *ledger.Ledger
	witness *witness.Witness
}

// world is a swarm of one operator and some members, in one process and without a network.
type world struct {
	t       testing.TB
	now     time.Time
	genesis *authority.Genesis
	op      *identity.Identity
	peers   []*peer
}

func newIdentity(t testing.TB, name string) (id *identity.Identity, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), name)
	id, err := identity.Create(dir, identity.Options{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Close() })
	return id, dir
}

func newWorld(t testing.TB, members int) *world {
	t.Helper()
	op, _ := newIdentity(t, "op")
	g, err := authority.NewGenesis("audit", []*identity.Inception{op.Inception()}, 1, authority.GenesisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, genesis: g, op: op, now: time.Now()}
	var raws [][]byte
	var prev ledger.Hash
	var ids []*identity.Identity
	var homes []string
	for i := range members {
		id, home := newIdentity(t, fmt.Sprint("m", i))
		ids, homes = append(ids, id), append(homes, home)
		body, err := (&authority.MemberBody{Inception: id.Inception().Encode()}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := ledger.SignEntry(op, g.SwarmID(), uint64(i), prev, ledger.KindMember, body, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		e, err := ledger.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		prev = e.Hash()
		raws = append(raws, raw)
	}
	for i, id := range ids {
		p := &peer{id: id, home: homes[i], fold: authority.NewFold(g)}
		p.ledger, err = ledger.Open(t.TempDir(), g.SwarmID(), id, p.fold, ledger.Options{Now: func() time.Time { return w.now }, Backed: func(b *ledger.Base) error { return p.witness.Backed(b) }, OnEntry: func(e *ledger.Entry) {
			_ = p.fold.Apply(e)
			if p.witness != nil {
				p.witness.Observe(e, true)
			}
		}, OnEquivocation: func(x *ledger.Proof) { _ = p.fold.ApplyProof(x) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.ledger.Close() })
		if p.witness, err = witness.New(witness.Options{Self: id, Ledger: p.ledger, Swarm: g.SwarmID(), State: p.fold.State, Now: func() time.Time { return w.now }}); err != nil {
			t.Fatal(err)
		}
		for _, raw := range raws {
			if _, err := p.ledger.Ingest(context.Background(), raw); err != nil {
				t.Fatal(err)
			}
		}
		w.peers = append(w.peers, p)
	}
	return w
}

// mix gives everybody what everybody has.
func (w *world) mix() {
	w.t.Helper()
	for _, chain := range []ledger.Chain{ledger.Authority, ledger.Activity} {
		for _, to := range w.peers {
			for _, from := range w.peers {
				for _, h := range from.ledger.Heads() {
					for n := to.ledger.Count(h.Author, chain); h.Chain == chain && n <= h.Seq; n = to.ledger.Count(h.Author, chain) {
						raws, err := from.ledger.Range(h.Author, chain, n, 1000, 1<<20)
						if err != nil {
							w.t.Fatal(err)
						}
						if _, err := to.ledger.IngestBatch(context.Background(), raws); err != nil {
							w.t.Fatal(err)
						}
					}
				}
			}
		}
	}
}

func (p *peer) say(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		if _, err := p.ledger.Append(context.Background(), ledger.Activity, ledger.KindFinding, []byte(fmt.Sprint("finding ", i)), false); err != nil {
			t.Fatal(err)
		}
	}
}

// live has findings, checkpoints, cosignatures and seen heads in the feeds of every peer.
func (w *world) live() {
	w.t.Helper()
	ctx := context.Background()
	for range 2 {
		for _, p := range w.peers {
			p.say(w.t, 12)
		}
		w.mix()
		for _, p := range w.peers {
			e, err := p.ledger.Checkpoint(ctx)
			if err != nil {
				w.t.Fatal(err)
			}
			w.mix()
			for _, q := range w.peers {
				if q != p {
					if err := q.witness.Cosign(ctx, e); err != nil {
						w.t.Fatal(err)
					}
				}
			}
			w.mix()
		}
	}
	w.peers[0].say(w.t, 3) // left unsealed
	w.mix()
}

func (w *world) export() []byte {
	w.t.Helper()
	var b bytes.Buffer
	if _, err := Export(context.Background(), &b, w.genesis, w.peers[0].ledger, nil); err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes()
}

func (w *world) verify(raw []byte) *Result {
	w.t.Helper()
	id := w.genesis.SwarmID()
	r, err := Verify(context.Background(), bytes.NewReader(raw), Options{Swarm: &id})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// mark is where a record of an export lies.
type mark struct {
	kind     record
	from, to int64
	feed     string
	seq      uint64
}

func marks(t testing.TB, raw []byte) []mark {
	t.Helper()
	in := newReader(bytes.NewReader(raw))
	if err := in.magic(); err != nil {
		t.Fatal(err)
	}
	var out []mark
	for {
		kind, payload, at, err := in.next()
		if err != nil {
			return out
		}
		m := mark{kind: kind, from: at, to: at + int64(recordHead+len(payload))}
		if kind == recordEntry {
			e, err := ledger.Decode(payload)
			if err != nil {
				t.Fatal(err)
			}
			m.feed, m.seq = name(e.Feed()), e.Seq
		}
		out = append(out, m)
	}
}

func TestExportVerifies(t *testing.T) {
	w := newWorld(t, 4)
	w.live()
	raw := w.export()
	r := w.verify(raw)
	if !r.OK || r.Feeds != 9 || r.Checkpoints != 8 || r.Cosignatures < 24 || r.Seals == 0 {
		t.Fatalf("%+v", r)
	}
	other := trust.SwarmID{1}
	if r, err := Verify(context.Background(), bytes.NewReader(raw), Options{Swarm: &other}); err != nil || r.OK || r.Faults[0].Cause != CauseGenesis {
		t.Fatalf("of another swarm: %+v, %v", r, err)
	}
}

// TestEveryFlipIsFound flips a thousand bytes, one at a time, and wants each named by its place.
func TestEveryFlipIsFound(t *testing.T) {
	w := newWorld(t, 2)
	w.live()
	raw := w.export()
	if r := w.verify(raw); !r.OK {
		t.Fatalf("%+v", r)
	}
	flips := 1000
	if testing.Short() {
		flips = 50
	}
	all := marks(t, raw)
	random := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range flips {
		at := random.Int64N(int64(len(raw)))
		bad := bytes.Clone(raw)
		bad[at] ^= byte(1 + random.IntN(255))
		r := w.verify(bad)
		if r.OK || len(r.Faults) == 0 {
			t.Errorf("byte %d: not found", at)
			continue
		}
		f := r.Faults[0]
		if at < int64(len(magic)) {
			if f.Record != "header" {
				t.Errorf("byte %d of the header: %+v", at, f)
			}
			found++
			continue
		}
		i := 0
		for all[i].to <= at {
			i++
		}
		m := all[i]
		if f.Record != m.kind.String() || f.Offset != m.from || m.kind == recordEntry && (f.Feed != m.feed || f.Seq != m.seq) {
			t.Errorf("byte %d of %s %s/%d at %d: told as %+v", at, m.kind, m.feed, m.seq, m.from, f)
			continue
		}
		found++
	}
	t.Logf("%d flips in %d bytes, %d found and placed", flips, len(raw), found)
}

func TestTruncatedAndTrailing(t *testing.T) {
	if testing.Short() {
		t.Skip("slow under the race detector, and what runs beside each other here TestExportVerifies runs too")
	}
	w := newWorld(t, 2)
	w.live()
	raw := w.export()
	for i, m := range marks(t, raw) {
		for _, cut := range []int64{m.from, m.from + 3, m.to - 1}[i%3:] {
			if r := w.verify(raw[:cut]); r.OK {
				t.Fatalf("cut at %d of %d: ok", cut, len(raw))
			}
		}
	}
	for _, tail := range []string{"x", strings.Repeat("tail", 100)} {
		if r := w.verify(append(bytes.Clone(raw), tail...)); r.OK || r.Faults[0].Cause != CauseTrailing {
			t.Fatalf("with a tail: %+v", r)
		}
	}
	if r := w.verify(nil); r.OK {
		t.Fatal("nothing at all verifies")
	}
}

// forge writes an export anew, with checksums and digest that agree, after change had its way with the entries.
func forge(t testing.TB, raw []byte, change func(kind record, payload []byte) [][]byte) []byte {
	t.Helper()
	return forgeWith(t, raw, func(*writer) {}, change)
}

// forgeWith is forge that hands out what it writes with.
func forgeWith(t testing.TB, raw []byte, begin func(*writer), change func(kind record, payload []byte) [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	out, err := newWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	begin(out)
	in := newReader(bytes.NewReader(raw))
	if err := in.magic(); err != nil {
		t.Fatal(err)
	}
	for {
		kind, payload, _, err := in.next()
		if err != nil {
			break
		}
		for _, p := range change(kind, bytes.Clone(payload)) {
			if err := out.record(kind, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := out.w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestForgeriesAreFound changes entries behind checksums that agree: what is left to find it is the signatures.
func TestForgeriesAreFound(t *testing.T) {
	w := newWorld(t, 3)
	w.live()
	raw := w.export()
	victim := w.peers[1].id.DID()
	for name, c := range map[string]struct {
		cause string
		want  func(e *ledger.Entry) bool
		do    func(payload []byte, e *ledger.Entry) [][]byte
	}{
		"a finding reworded": {ledger.CauseChain, func(e *ledger.Entry) bool { return e.Kind == ledger.KindFinding && e.Seq == 5 }, func(p []byte, e *ledger.Entry) [][]byte {
			return [][]byte{bytes.Replace(p, []byte("finding"), []byte("FINDING"), 1)}
		}},
		"an entry left out": {CauseMissing, func(e *ledger.Entry) bool { return e.Kind == ledger.KindFinding && e.Seq == 5 }, func([]byte, *ledger.Entry) [][]byte { return nil }},
		"a seal unsigned": {ledger.CauseSignature, func(e *ledger.Entry) bool { return e.Kind == ledger.KindCheckpoint }, func(p []byte, _ *ledger.Entry) [][]byte {
			p[len(p)-1] ^= 1
			return [][]byte{p}
		}},
		"an entry twice": {CauseMissing, func(e *ledger.Entry) bool { return e.Seq == 3 }, func(p []byte, _ *ledger.Entry) [][]byte { return [][]byte{p, p} }},
	} {
		done := false
		bad := forge(t, raw, func(kind record, payload []byte) [][]byte {
			if kind == recordEntry && !done {
				if e, err := ledger.Decode(payload); err == nil && e.Author == victim && e.Chain == ledger.Activity && c.want(e) {
					done = true
					return c.do(payload, e)
				}
			}
			return [][]byte{payload}
		})
		r := w.verify(bad)
		if !done || r.OK || r.Faults[0].Cause != c.cause || !strings.HasPrefix(r.Faults[0].Feed, string(victim)) {
			t.Errorf("%s: %+v", name, r.Faults)
		}
	}
}

func TestStoppedByContext(t *testing.T) {
	w := newWorld(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Verify(ctx, bytes.NewReader(w.export()), Options{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func FuzzVerify(f *testing.F) {
	w := newWorld(f, 1)
	w.live()
	raw := w.export()
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Verify(context.Background(), bytes.NewReader(raw), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if r.OK != (len(r.Faults) == 0) {
			t.Fatalf("%+v", r)
		}
	})
}

// TestTrimmedExportVerifies: an export of a peer that threw old entries away verifies from its base, and not from one
// that too few cosigned.
func TestTrimmedExportVerifies(t *testing.T) {
	w := newWorld(t, 4)
	ctx := context.Background()
	author, holder := w.peers[0], w.peers[1]
	for range 4 {
		author.say(t, 3)
		w.now = w.now.Add(24 * time.Hour)
		e, err := author.ledger.Checkpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		w.mix()
		for _, p := range w.peers[1:] {
			if err := p.witness.Cosign(ctx, e); err != nil {
				t.Fatal(err)
			}
		}
		w.mix()
		var by []tlog.Cosignature
		if err := holder.ledger.Replay(func(x *ledger.Entry) error {
			if c, err := witness.DecodeCosigned(x); err == nil && c.Feed == e.Feed() && c.Size == e.Seq {
				by = append(by, c.By)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := holder.ledger.Mark(e.Feed(), e.Seq, by); err != nil {
			t.Fatal(err)
		}
	}
	if freed, err := holder.ledger.Trim(48*time.Hour, 1<<40); err != nil || freed == 0 {
		t.Fatal(freed, err)
	}
	verify := func(src Source) *Result {
		var b bytes.Buffer
		if _, err := Export(ctx, &b, w.genesis, src, nil); err != nil {
			t.Fatal(err)
		}
		return w.verify(b.Bytes())
	}
	if r := verify(holder.ledger); !r.OK || r.Cosignatures == 0 {
		t.Fatalf("%+v", r)
	}
	if r := verify(fewer{holder.ledger}); r.OK || r.Faults[0].Cause != CauseBase {
		t.Fatalf("a base of too few: %+v", r)
	}
}

// fewer is a ledger whose bases lack witnesses.
type fewer struct{ *ledger.Ledger }

func (f fewer) Base(of ledger.Feed) *ledger.Base {
	b := f.Ledger.Base(of)
	if b == nil {
		return nil
	}
	short := *b
	short.Cosigned = b.Cosigned[:trust.WitnessFaults]
	return &short
}
