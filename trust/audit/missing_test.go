package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// cut writes an export anew as a liar would: of one feed only the first keep entries, with checksums, counts and digest
// that agree. With none left its announcement goes, too.
func cut(t testing.TB, raw []byte, feed string, keep uint64) []byte {
	t.Helper()
	var e ending
	var out *writer
	return forgeWith(t, raw, func(w *writer) { out = w }, func(kind record, payload []byte) [][]byte {
		switch kind {
		case recordFeed:
			h, f, _, err := decodeFeedHead(payload)
			if err != nil {
				t.Fatal(err)
			}
			if name(f) == feed {
				h.Count = min(h.Count, keep)
				if keep == 0 {
					return nil
				}
				if payload, err = canonical.Marshal(h); err != nil {
					t.Fatal(err)
				}
			}
			e.Feeds++
		case recordEntry:
			x, err := ledger.Decode(payload)
			if err != nil {
				t.Fatal(err)
			}
			if name(x.Feed()) == feed && x.Seq >= keep {
				return nil
			}
			e.Entries++
		case recordEvidence:
			e.Evidence++
		case recordEnd:
			e.Digest = out.sum.Sum(nil)
			end, err := canonical.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			return [][]byte{end}
		}
		return [][]byte{payload}
	})
}

func (r *Result) missing(feed string) *Fault {
	for i, f := range r.Faults {
		if f.Feed == feed && f.Cause == CauseMissing && f.Record == recordFeed.String() {
			return &r.Faults[i]
		}
	}
	return nil
}

// TestEveryFeedLeftOutIsFound leaves out each feed of an export in turn, and the end of each, behind checksums that agree:
// what others have seen, cosigned and posted as checkpoints names what is not there.
func TestEveryFeedLeftOutIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("slow under the race detector, and what runs beside each other here TestExportVerifies runs too")
	}
	w := newWorld(t, 4)
	w.live()
	raw := w.export()
	if r := w.verify(cut(t, raw, "none", 0)); !r.OK {
		t.Fatalf("written anew and not changed: %+v", r.Faults)
	}
	counts := map[string]uint64{}
	for _, m := range marks(t, raw) {
		if m.kind == recordEntry {
			counts[m.feed]++
		}
	}
	if len(counts) != 9 {
		t.Fatalf("%d feeds", len(counts))
	}
	for feed, n := range counts {
		f := w.verify(cut(t, raw, feed, 0)).missing(feed)
		if f == nil || f.Seq != 0 || f.Entry == "" || !strings.Contains(f.Detail, "not in the file") {
			t.Errorf("%s left out: %+v", feed, f)
		}
		if n < 3 {
			continue
		}
		if f := w.verify(cut(t, raw, feed, n/2)).missing(feed); f == nil || f.Seq != n/2 {
			t.Errorf("%s, all after entry %d left out: %+v", feed, n/2, f)
		}
	}
}

// TestWhatNobodyNamedIsNotMissed holds what cannot be told: what an author said last, and nobody has answered, can be cut
// off, and of a member that nobody heard nothing proves that it spoke. That is no fault; it is noted where it can be.
func TestWhatNobodyNamedIsNotMissed(t *testing.T) {
	if testing.Short() {
		t.Skip("slow under the race detector, and what runs beside each other here TestExportVerifies runs too")
	}
	w := newWorld(t, 4)
	w.live()
	author := string(w.peers[0].id.DID())
	n := w.peers[0].ledger.Count(w.peers[0].id.DID(), ledger.Activity)
	if r := w.verify(cut(t, w.export(), author+"/activity", n-3)); !r.OK {
		t.Fatalf("three entries that nobody has seen: %+v", r.Faults)
	}
	quiet := newWorld(t, 2)
	quiet.peers[0].say(t, 3)
	r := quiet.verify(quiet.export())
	silent := func(x Note) bool { return strings.HasPrefix(x.Feed, string(quiet.peers[1].id.DID())) }
	if !r.OK || !slices.ContainsFunc(r.Notes, silent) {
		t.Fatalf("a member that said nothing: %+v", r)
	}
}

// TestLiarNamesWhatIsNot: a member that names entries of another that never were spoils an export, and is named in the
// fault; once it is revoked its word about others counts no more.
func TestLiarNamesWhatIsNot(t *testing.T) {
	w := newWorld(t, 3)
	liar, victim := w.peers[1], w.peers[2].id.DID()
	ctx := context.Background()
	lie := ledger.Head{Author: victim, Chain: ledger.Activity, Seq: 1 << 40, Hash: ledger.Hash{1}}
	raw, err := ledger.SignEntry(liar.id, w.genesis.SwarmID(), 0, ledger.Hash{}, ledger.Kind(0x8fff), []byte{0xa0}, time.Now(), lie)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.peers[0].ledger.Ingest(ctx, raw); err != nil {
		t.Fatal(err)
	}
	f := w.verify(w.export()).missing(string(victim) + "/activity")
	if f == nil || !strings.Contains(f.Detail, fmt.Sprintf("entry 0 of %s/authority has seen", liar.id.DID())) {
		t.Fatalf("%+v", f)
	}
	subject, err := liar.id.DID().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	revoke, err := (&authority.RevokeBody{Subject: subject[:], Authority: 1, Why: "it lies"}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	head, _ := w.peers[0].ledger.Head(w.op.DID(), ledger.Authority)
	if raw, err = ledger.SignEntry(w.op, w.genesis.SwarmID(), head.Seq+1, head.Hash, ledger.KindRevoke, revoke, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.peers[0].ledger.Ingest(ctx, raw); err != nil {
		t.Fatal(err)
	}
	r := w.verify(w.export())
	if !r.OK || !slices.ContainsFunc(r.Notes, func(x Note) bool {
		return x.Feed == string(victim)+"/activity" && strings.Contains(x.Detail, "proves nothing")
	}) {
		t.Fatalf("%+v", r)
	}
}

// TestRotationAnswersWhatItSuperseded: whoever saw the branch that a rotation superseded names entries that no longer
// stand. That is no fault; what is named by who saw the rotation is.
func TestRotationAnswersWhatItSuperseded(t *testing.T) {
	w := newWorld(t, 3)
	robbed, witness := w.peers[2], w.peers[1]
	robbed.say(t, 3)
	step, err := identity.Succeed(robbed.home, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = step.Close() }()
	rotation, err := robbed.ledger.Rotate(step.Key, step.Next, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := step.Done(); err != nil {
		t.Fatal(err)
	}
	w.mix()
	ctx, did := context.Background(), robbed.id.DID()
	var next uint64
	var prev ledger.Hash
	says := func(seen ...ledger.Head) {
		t.Helper()
		raw, err := ledger.SignEntry(witness.id, w.genesis.SwarmID(), next, prev, ledger.Kind(0x8fff), []byte{0xa0}, time.Now(), seen...)
		if err != nil {
			t.Fatal(err)
		}
		e, err := w.peers[0].ledger.Ingest(ctx, raw)
		if err != nil {
			t.Fatal(err)
		}
		next, prev = e.Seq+1, e.Hash()
	}
	// The two branches parted before where the rotation says that the owner's stands to.
	says(ledger.Head{Author: did, Chain: ledger.Activity, Seq: 1, Hash: ledger.Hash{9}})
	if r := w.verify(w.export()); !r.OK {
		t.Fatalf("%+v", r)
	}
	// The thief's: the number of the rotation and others behind it, and as much of the activity.
	says(ledger.Head{Author: did, Chain: ledger.Authority, Seq: rotation.Seq, Hash: ledger.Hash{7}}, ledger.Head{Author: did, Chain: ledger.Activity, Seq: 1000, Hash: ledger.Hash{8}})
	if r := w.verify(w.export()); !r.OK || len(r.Notes) == 0 {
		t.Fatalf("%+v", r)
	}
	says(rotation.Head(), ledger.Head{Author: did, Chain: ledger.Activity, Seq: 1000, Hash: ledger.Hash{8}})
	if f := w.verify(w.export()).missing(string(did) + "/activity"); f == nil {
		t.Error("who saw the rotation names entries that are not there")
	}
}
