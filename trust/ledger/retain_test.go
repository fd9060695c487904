package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/tlog"
)

// calendar is a clock that is moved by hand.
type calendar struct{ now time.Time }

func (c *calendar) days(n int) { c.now = c.now.Add(time.Duration(n) * 24 * time.Hour) }

func (c *calendar) open(t testing.TB, d *memDisk, self *identity.Identity, keys KeyResolver) *Ledger {
	t.Helper()
	l, err := open(d, testSwarm, self, keys, Options{Now: func() time.Time { return c.now }, Backed: func(b *Base) error {
		if len(b.Cosigned) == 0 {
			return errors.New("nobody cosigned")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// week has l's own peer say something on each of some days, ended by a checkpoint that a witness cosigns.
func (c *calendar) week(t testing.TB, l *Ledger, days int) (starts []uint64) {
	t.Helper()
	for day := range days {
		for i := range 5 {
			mustAppend(t, l, Activity, KindFinding, fmt.Sprint("day ", day, " finding ", i))
		}
		c.days(1)
		e, err := l.Checkpoint(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Mark(e.Feed(), e.Seq, []tlog.Cosignature{{Witness: string(e.Author), Sig: make([]byte, tlog.SignatureSize)}}); err != nil {
			t.Fatal(err)
		}
		starts = append(starts, e.Seq)
	}
	mustAppend(t, l, Activity, KindFinding, "today")
	mustAppend(t, l, Activity, KindSeal, "")
	return starts
}

func encodeBase(t testing.TB, b *Base) []byte {
	t.Helper()
	raw, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// catchUp is pull, from a peer that may be trimmed.
func catchUp(t testing.TB, to, from *Ledger, f Feed) {
	t.Helper()
	if b := from.Base(f); b != nil && to.Count(f.Author, f.Chain) < b.First {
		if _, err := to.IngestBase(context.Background(), encodeBase(t, b)); err != nil {
			t.Fatal(err)
		}
	}
	pull(t, to, from)
}

func TestTrimmedFeedGoesOn(t *testing.T) {
	a, b := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(a, b)
	c := &calendar{now: time.Unix(1_800_000_000, 0)}
	d := newMemDisk()
	l := c.open(t, d, a, keys)
	f := Feed{a.DID(), Activity}
	untrimmed, behind := c.open(t, newMemDisk(), b, keys), c.open(t, newMemDisk(), b, keys)
	mustAppend(t, l, Activity, KindSeal, "")
	pull(t, behind, l)
	starts := c.week(t, l, 6)
	pull(t, untrimmed, l)
	want := l.Heads()
	freed, err := l.Trim(48*time.Hour, 1<<40)
	if err != nil || freed == 0 {
		t.Fatal(freed, err)
	}
	base := l.Base(f)
	if base == nil || base.First != starts[3] { // of the fourth day's end: two days ago
		t.Fatalf("base %+v, checkpoints %v", base, starts)
	}
	if raws, err := l.Range(f.Author, f.Chain, 0, 10, 1<<20); err != nil || len(raws) != 0 {
		t.Fatalf("%d trimmed entries given, %v", len(raws), err)
	}
	if _, err := l.Entry(f.Author, f.Chain, 1); !errors.Is(err, ErrNotStored) {
		t.Fatalf("a trimmed entry: %v", err)
	}
	old, err := untrimmed.Range(f.Author, f.Chain, 0, 3, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Ingest(context.Background(), old[1]); !errors.Is(err, ErrDuplicate) {
		t.Fatalf("a trimmed entry that comes again: %v", err)
	}
	if _, err := l.Check(old[1]); !errors.Is(err, ErrDuplicate) {
		t.Fatalf("a trimmed entry that comes again by gossip: %v", err)
	}
	// Whoever joins late, whoever fell behind the base, and whoever has all, end with the same.
	late := c.open(t, newMemDisk(), b, keys)
	for name, peer := range map[string]*Ledger{"late": late, "behind": behind, "untrimmed": untrimmed} {
		catchUp(t, peer, l, f)
		if fmt.Sprint(peer.Heads()) != fmt.Sprint(want) || len(peer.Faults()) != 0 {
			t.Errorf("%s: %v, want %v; faults %v", name, peer.Heads(), want, peer.Faults())
		}
	}
	if late.Tree(f).Root() != untrimmed.Tree(f).Root() {
		t.Error("the Merkle trees differ")
	}
	pull(t, l, untrimmed) // nothing, and no complaint
	// Reopened, each goes on where it was.
	_ = l.Close()
	again := c.open(t, d, a, keys)
	if fmt.Sprint(again.Heads()) != fmt.Sprint(want) || again.Base(f) == nil || len(again.Faults()) != 0 {
		t.Fatalf("reopened: %v, faults %v", again.Heads(), again.Faults())
	}
	seen := 0
	if err := again.Replay(func(e *Entry) error {
		if seen++; e.Seq < base.First {
			return fmt.Errorf("replayed %d", e.Seq)
		}
		return nil
	}); err != nil || seen != int(want[0].Seq+1-base.First) {
		t.Fatal(seen, err)
	}
	mustAppend(t, again, Activity, KindFinding, "after")
	mustAppend(t, again, Activity, KindSeal, "")
	pull(t, untrimmed, again)
	pull(t, late, again)
	if untrimmed.Tree(f).Root() != late.Tree(f).Root() || late.Count(f.Author, f.Chain) != again.Count(f.Author, f.Chain) {
		t.Error("they part after the base")
	}
}

func TestTrimKeepsWhatIsYoung(t *testing.T) {
	a := newIdentity(t, "a")
	c := &calendar{now: time.Unix(1_800_000_000, 0)}
	l := c.open(t, newMemDisk(), a, newMembers(a))
	starts := c.week(t, l, 4)
	if _, err := l.Trim(365*24*time.Hour, 1); err != nil { // by bytes, as far as it may
		t.Fatal(err)
	}
	if b := l.Base(Feed{a.DID(), Activity}); b == nil || b.First != starts[2] {
		t.Fatalf("base %+v, checkpoints %v", b, starts)
	}
}

// TestCrashWhileTrimming takes the power at every step of trimming and of taking a base.
func TestCrashWhileTrimming(t *testing.T) {
	a, b := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(a, b)
	c := &calendar{now: time.Unix(1_800_000_000, 0)}
	d := newMemDisk()
	l := c.open(t, d, a, keys)
	behindDisk := newMemDisk()
	behind := c.open(t, behindDisk, b, keys)
	mustAppend(t, l, Activity, KindSeal, "")
	pull(t, behind, l)
	if err := behind.files.sync(); err != nil {
		t.Fatal(err)
	}
	c.week(t, l, 5)
	f := Feed{a.DID(), Activity}
	want := fmt.Sprint(l.Heads())
	var cut []*memDisk
	d.before = func() { cut = append(cut, d.crash(0)) }
	if _, err := l.Trim(48*time.Hour, 1<<40); err != nil {
		t.Fatal(err)
	}
	d.before = nil
	if len(cut) < 5 {
		t.Fatalf("trimming took %d steps", len(cut))
	}
	for i, after := range cut {
		again := c.open(t, after, a, keys)
		if fmt.Sprint(again.Heads()) != want || len(again.Faults()) != 0 {
			t.Fatalf("after step %d: %v, want %v; faults %v", i, again.Heads(), want, again.Faults())
		}
		if _, err := again.Trim(48*time.Hour, 1<<40); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, again, Activity, KindFinding, "goes on")
		names, _ := after.List()
		for _, name := range names {
			if id, first, ok := parseFeedFile(name, suffixFeed); ok && id == f && first < again.Base(f).First {
				t.Fatalf("after step %d: %s was left", i, name)
			}
		}
	}
	cut = nil
	behindDisk.before = func() { cut = append(cut, behindDisk.crash(0)) }
	if _, err := behind.IngestBase(context.Background(), encodeBase(t, l.Base(f))); err != nil {
		t.Fatal(err)
	}
	behindDisk.before = nil
	for i, after := range append(cut, behindDisk.crash(0)) {
		again := c.open(t, after, b, keys)
		catchUp(t, again, l, f)
		if fmt.Sprint(again.Heads()) != want || len(again.Faults()) != 0 {
			t.Fatalf("taking a base, after step %d: %v, want %v; faults %v", i, again.Heads(), want, again.Faults())
		}
	}
}

func TestBaseRefused(t *testing.T) {
	a, b := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(a, b)
	c := &calendar{now: time.Unix(1_800_000_000, 0)}
	l := c.open(t, newMemDisk(), a, keys)
	c.week(t, l, 4)
	if _, err := l.Trim(48*time.Hour, 1<<40); err != nil {
		t.Fatal(err)
	}
	good := l.Base(Feed{a.DID(), Activity})
	other := c.open(t, newMemDisk(), b, keys)
	ctx := context.Background()
	change := func(do func(b *Base)) []byte {
		x := *good
		do(&x)
		return encodeBase(t, &x)
	}
	if _, err := other.IngestBase(ctx, change(func(b *Base) { b.Cosigned = nil })); !errors.Is(err, ErrBase) {
		t.Errorf("without witnesses: %v", err)
	}
	_, err := other.IngestBase(ctx, change(func(b *Base) {
		b.Frontier = append([][]byte{make([]byte, 32)}, b.Frontier[1:]...)
	}))
	wantCause(t, err, CauseChain)
	_, err = other.IngestBase(ctx, change(func(b *Base) {
		b.Checkpoint = bytes.Clone(b.Checkpoint)
		b.Checkpoint[len(b.Checkpoint)-1] ^= 1
	}))
	wantCause(t, err, CauseSignature)
	alone := c.open(t, newMemDisk(), b, keys)
	alone.opt.Backed = nil
	if _, err := alone.IngestBase(ctx, encodeBase(t, good)); !errors.Is(err, ErrBase) {
		t.Errorf("where nobody judges: %v", err)
	}
	_, err = c.open(t, newMemDisk(), b, newMembers(b)).IngestBase(ctx, encodeBase(t, good))
	wantCause(t, err, CauseUnknownAuthor)
	now := c.now
	c.now = time.Unix(0, good.Entry().Time).Add(trust.MinRetention / 2)
	if _, err := other.IngestBase(ctx, encodeBase(t, good)); !errors.Is(err, ErrBase) {
		t.Errorf("a young one: %v", err)
	}
	c.now = now
	if _, err := other.IngestBase(ctx, encodeBase(t, good)); err != nil {
		t.Error(err)
	}
	if _, err := other.IngestBase(ctx, encodeBase(t, good)); !errors.Is(err, ErrDuplicate) {
		t.Errorf("a second time: %v", err)
	}
}

// TestCheckpointOfAnotherHistory: whoever names a root that is not that of its entries is refused by every reader.
func TestCheckpointOfAnotherHistory(t *testing.T) {
	a, b := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(a, b)
	l, peer := openMem(t, newMemDisk(), a, keys), openMem(t, newMemDisk(), b, keys)
	mustAppend(t, l, Activity, KindFinding, "one")
	w := l.writers[Activity]
	body, err := (func() ([]byte, error) {
		tip := w.tip
		tip.tree = tip.tree.Append(tlog.Hash{1})
		return l.checkpointBody(&tip)
	})()
	if err != nil {
		t.Fatal(err)
	}
	e := &Entry{Version: entryVersion, Swarm: testSwarm, Chain: Activity, Seq: w.tip.count, Prev: w.tip.head, BootEpoch: w.tip.boot, Time: w.tip.time, Kind: KindCheckpoint, Body: body}
	if err := e.signFull(a); err != nil {
		t.Fatal(err)
	}
	pull(t, peer, l)
	_, err = peer.Ingest(context.Background(), e.raw)
	wantCause(t, err, CauseChain)
	if _, err := l.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, Activity, KindFinding, "two")
	pull(t, peer, l)
	if peer.Count(a.DID(), Activity) != l.Count(a.DID(), Activity) {
		t.Fatal("the true one was not taken")
	}
}

func FuzzDecodeBase(f *testing.F) {
	a := newIdentity(f, "a")
	c := &calendar{now: time.Unix(1_800_000_000, 0)}
	l := c.open(f, newMemDisk(), a, newMembers(a))
	c.week(f, l, 3)
	if _, err := l.Trim(24*time.Hour, 1<<40); err != nil {
		f.Fatal(err)
	}
	f.Add(encodeBase(f, l.Base(Feed{a.DID(), Activity})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := DecodeBase(raw)
		if err != nil {
			return
		}
		if again := encodeBase(t, b); !bytes.Equal(again, raw) {
			t.Fatalf("%x encodes as %x", raw, again)
		}
	})
}
