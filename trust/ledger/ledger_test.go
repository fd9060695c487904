package ledger

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testSwarm = trust.SwarmID{1, 2, 3}

// members is the KeyResolver of tests.
type members struct {
	keys map[identity.DID]*composite.PublicKey
	cuts map[Feed]uint64
}

func (m *members) Key(d identity.DID) (*composite.PublicKey, bool) { k, ok := m.keys[d]; return k, ok }
func (m *members) Cut(d identity.DID, c Chain) (uint64, bool) {
	n, ok := m.cuts[Feed{d, c}]
	return n, ok
}

func newMembers(ids ...*identity.Identity) *members {
	m := &members{keys: make(map[identity.DID]*composite.PublicKey), cuts: make(map[Feed]uint64)}
	for _, i := range ids {
		m.keys[i.DID()] = i.Inception().PublicKey()
	}
	return m
}

func newIdentity(t testing.TB, name string) *identity.Identity {
	t.Helper()
	id, err := identity.Create(filepath.Join(t.TempDir(), name), identity.Options{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Close() })
	return id
}

func openAt(t testing.TB, dir string, self *identity.Identity, keys KeyResolver, opt Options) *Ledger {
	t.Helper()
	l, err := Open(dir, testSwarm, self, keys, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustAppend(t testing.TB, l *Ledger, chain Chain, kind Kind, body string) *Entry {
	t.Helper()
	e, err := l.Append(context.Background(), chain, kind, []byte(body), false)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// pull gives everything from that to lacks, as sync does.
func pull(t testing.TB, to, from *Ledger) {
	t.Helper()
	for _, h := range from.Heads() {
		for n := to.Count(h.Author, h.Chain); n <= h.Seq; n = to.Count(h.Author, h.Chain) {
			raws, err := from.Range(h.Author, h.Chain, n, 100, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := to.IngestBatch(context.Background(), raws); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func wantCause(t testing.TB, err error, cause string) {
	t.Helper()
	var r *RejectError
	if !errors.As(err, &r) || r.Cause != cause {
		t.Fatalf("got %v, want refused for %s", err, cause)
	}
}

func TestAppendReplicateReopen(t *testing.T) {
	a, b := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(a, b)
	dir := t.TempDir()
	var order []string
	var through uint64
	opt := Options{
		OnEntry:  func(e *Entry) { order = append(order, fmt.Sprintf("%s/%d", e.Chain, e.Seq)) },
		OnSealed: func(f Feed, n uint64) { through = n },
	}
	la := openAt(t, dir, a, keys, opt)
	mustAppend(t, la, Authority, KindGrant, "grant")
	for i := range 3 {
		e := mustAppend(t, la, Activity, KindFinding, fmt.Sprint("finding ", i))
		if e.Sealed() {
			t.Fatal("an entry signed by the epoch key alone says it is sealed")
		}
	}
	if got := strings.Join(order, " "); got != "authority/0 activity/0 activity/1 activity/2 activity/3" {
		t.Fatalf("handed out %s", got)
	}
	if through != 0 || la.SealedThrough(a.DID(), Activity) != 1 {
		t.Fatalf("sealed through %d and %d before any seal", through, la.SealedThrough(a.DID(), Activity))
	}
	mustAppend(t, la, Activity, KindSeal, "")
	if through != 4 || la.SealedThrough(a.DID(), Activity) != 5 {
		t.Fatalf("sealed through %d and %d after the seal", through, la.SealedThrough(a.DID(), Activity))
	}
	lb := openAt(t, t.TempDir(), b, keys, Options{})
	pull(t, lb, la)
	if fmt.Sprint(lb.Heads()) != fmt.Sprint(la.Heads()) {
		t.Fatalf("heads differ: %v, %v", lb.Heads(), la.Heads())
	}
	if err := la.Close(); err != nil {
		t.Fatal(err)
	}
	again := openAt(t, dir, a, keys, Options{})
	if fmt.Sprint(lb.Heads()) != fmt.Sprint(again.Heads()) {
		t.Fatal("heads changed by reopening")
	}
	e := mustAppend(t, again, Activity, KindFinding, "after")
	if e.BootEpoch != 2 || e.Seq != 6 { // 5 is the new epoch certificate
		t.Fatalf("boot epoch %d, number %d", e.BootEpoch, e.Seq)
	}
	var kinds []string
	if err := again.Replay(func(e *Entry) error { kinds = append(kinds, e.Kind.String()); return nil }); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(kinds, " "); got != "grant epoch finding finding finding seal epoch finding" {
		t.Fatalf("replayed %s", got)
	}
}

func TestSealEvery64(t *testing.T) {
	a := newIdentity(t, "a")
	l := openAt(t, t.TempDir(), a, newMembers(a), Options{})
	for range trust.SealEvery {
		mustAppend(t, l, Activity, KindFinding, "x")
	}
	// Epoch certificate, 64 findings, and the seal that the 64th brought.
	if n := l.Count(a.DID(), Activity); n != trust.SealEvery+2 || l.SealedThrough(a.DID(), Activity) != n {
		t.Fatalf("%d entries, %d sealed", n, l.SealedThrough(a.DID(), Activity))
	}
}

func TestConcurrentAppendersShareSyncs(t *testing.T) {
	a := newIdentity(t, "a")
	d := newMemDisk()
	l, err := open(d, testSwarm, a, newMembers(a), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	// The first sync lasts until many wait.
	d.syncing = sync.OnceFunc(func() {
		for waiting := 0; waiting < 100; runtime.Gosched() {
			l.queue.mu.Lock()
			waiting = len(l.queue.next.entries)
			l.queue.mu.Unlock()
		}
	})
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { mustAppend(t, l, Activity, KindFinding, "x") })
	}
	wg.Wait()
	n := l.Count(a.DID(), Activity)
	if n < 200 {
		t.Fatalf("%d entries", n)
	}
	if s := d.syncs(); s >= 200 {
		t.Fatalf("%d syncs for 200 appends", s)
	}
}

func TestRefusals(t *testing.T) {
	a, b, stranger := newIdentity(t, "a"), newIdentity(t, "b"), newIdentity(t, "s")
	keys := newMembers(a, b)
	l := openAt(t, t.TempDir(), b, keys, Options{})
	ctx := context.Background()
	now := time.Now()
	sign := func(id *identity.Identity, swarm trust.SwarmID, seq uint64, prev Hash, kind Kind, body []byte, at time.Time) []byte {
		raw, err := SignEntry(id, swarm, seq, prev, kind, body, at)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	good := sign(a, testSwarm, 0, Hash{}, KindGrant, []byte("x"), now)
	spoilt := append([]byte(nil), good...)
	spoilt[len(spoilt)-1] ^= 1
	for cause, raw := range map[string][]byte{
		CauseMalformed:     good[:len(good)-1],
		CauseOversize:      make([]byte, trust.MaxEntry+1),
		CauseSignature:     spoilt,
		CauseUnknownAuthor: sign(stranger, testSwarm, 0, Hash{}, KindGrant, nil, now),
		CauseFuture:        sign(a, testSwarm, 0, Hash{}, KindGrant, nil, now.Add(trust.MaxClockSkew+time.Minute)),
		CauseSwarm:         sign(a, trust.SwarmID{9}, 0, Hash{}, KindGrant, nil, now),
	} {
		_, err := l.Check(raw)
		wantCause(t, err, cause)
		_, err = l.Ingest(ctx, raw)
		wantCause(t, err, cause)
		if n := l.Rejected()[cause]; n != 2 {
			t.Errorf("%s counted %d times, want 2", cause, n)
		}
	}
	if _, err := SignEntry(a, testSwarm, 0, Hash{}, KindFinding, nil, now); err == nil {
		t.Error("a finding was signed into the authority chain")
	}
	if _, err := l.Check(good); err != nil {
		t.Fatal(err)
	}
	first, err := l.Ingest(ctx, good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Ingest(ctx, good); !errors.Is(err, ErrDuplicate) {
		t.Errorf("twice: %v", err)
	}
	var gap *GapError
	if _, err := l.Ingest(ctx, sign(a, testSwarm, 5, first.Hash(), KindGrant, nil, now)); !errors.As(err, &gap) || gap.Have != 1 || gap.Got != 5 {
		t.Errorf("gap: %v", err)
	}
	_, err = l.Ingest(ctx, sign(a, testSwarm, 1, first.Hash(), KindGrant, nil, now.Add(-time.Hour)))
	wantCause(t, err, CauseChain)
	keys.cuts[Feed{a.DID(), Authority}] = 1
	_, err = l.Ingest(ctx, sign(a, testSwarm, 1, first.Hash(), KindGrant, nil, now))
	wantCause(t, err, CauseRevoked)
}

func TestSubmitStale(t *testing.T) {
	op, a := newIdentity(t, "op"), newIdentity(t, "a")
	l := openAt(t, t.TempDir(), a, newMembers(a, op), Options{})
	ctx := context.Background()
	one, _ := SignEntry(op, testSwarm, 0, Hash{}, KindGrant, []byte("1"), time.Now())
	two, _ := SignEntry(op, testSwarm, 0, Hash{}, KindGrant, []byte("2"), time.Now())
	if _, err := l.Submit(ctx, one); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Submit(ctx, two); !errors.Is(err, ErrStale) {
		t.Fatalf("two entries of one number were submitted: %v", err)
	}
	if len(l.Evidence()) != 0 {
		t.Error("evidence was kept of an entry that never left the host")
	}
}

func TestEquivocation(t *testing.T) {
	a, b := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(a, b)
	ctx := context.Background()
	for name, fork := range map[string]func(l, evil *Ledger) []byte{
		"same number": func(l, evil *Ledger) []byte {
			raws, _ := evil.Range(a.DID(), Activity, 2, 1, 1<<20)
			return raws[0]
		},
		"link to another": func(l, evil *Ledger) []byte {
			raws, _ := evil.Range(a.DID(), Activity, 3, 1, 1<<20)
			return raws[0]
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			honest := openAt(t, dir, a, keys, Options{})
			mustAppend(t, honest, Activity, KindFinding, "shared")
			evil := openAt(t, t.TempDir(), nil, keys, Options{})
			pull(t, evil, honest)
			// The same identity signs on from the copy: the fork of a cloned host. Its epoch key is the shared one.
			evil.self, evil.writers = a, map[Chain]*writer{}
			for c, w := range honest.writers {
				f, err := evil.feedOf(w.feed.id)
				if err != nil {
					t.Fatal(err)
				}
				f.own = true
				evil.writers[c] = &writer{feed: f, tip: f.state, key: w.key, number: w.number, notAfter: w.notAfter}
			}
			mustAppend(t, honest, Activity, KindFinding, "one story")
			mustAppend(t, evil, Activity, KindFinding, "another story")
			mustAppend(t, evil, Activity, KindFinding, "and on")

			var told *Proof
			dirB := t.TempDir()
			l := openAt(t, dirB, b, keys, Options{OnEquivocation: func(p *Proof) { told = p }})
			pull(t, l, honest)
			raw := fork(honest, evil)
			if _, err := l.Check(raw); err != nil {
				t.Fatalf("the contradiction must travel: %v", err)
			}
			_, err := l.Ingest(ctx, raw)
			var eq *EquivocationError
			if !errors.As(err, &eq) || told == nil {
				t.Fatalf("got %v", err)
			}
			enc, err := eq.Proof.Encode()
			if err != nil {
				t.Fatal(err)
			}
			p, err := DecodeProof(enc)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Verify(a.Inception().PublicKey()); err != nil {
				t.Fatal(err)
			}
			if p.Verify(b.Inception().PublicKey()) == nil {
				t.Fatal("the proof convicts someone else")
			}
			_, err = l.Ingest(ctx, raw)
			wantCause(t, err, CauseFork)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			again := openAt(t, dirB, b, keys, Options{})
			if len(again.Evidence()) != 1 {
				t.Fatal("the proof was not kept")
			}
			_, err = again.Ingest(ctx, raw)
			wantCause(t, err, CauseFork)
		})
	}
}

func TestRestoredSnapshotHeals(t *testing.T) {
	a, b := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(a, b)
	dir, snapshot := t.TempDir(), t.TempDir()
	la := openAt(t, dir, a, keys, Options{})
	lb := openAt(t, t.TempDir(), b, keys, Options{})
	mustAppend(t, la, Activity, KindFinding, "1")
	if err := os.CopyFS(filepath.Join(snapshot, "l"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, la, Activity, KindFinding, "2")
	mustAppend(t, la, Authority, KindGrant, "3")
	pull(t, lb, la)
	boot := la.boot.Load()
	_ = la.Close()

	restored := openAt(t, filepath.Join(snapshot, "l"), a, keys, Options{Hold: true})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := restored.Append(ctx, Activity, KindFinding, []byte("4"), false)
		done <- err
	}()
	pull(t, restored, lb)
	restored.Ready()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	cancel()
	pull(t, lb, restored)
	if len(lb.Evidence()) != 0 {
		t.Fatal("an honest peer equivocated")
	}
	h, _ := lb.Head(a.DID(), Activity)
	e, err := lb.Entry(a.DID(), Activity, h.Seq)
	if err != nil || e.BootEpoch <= boot {
		t.Fatalf("boot epoch %d after %d: %v", e.BootEpoch, boot, err)
	}
}

func TestHoldRespectsContext(t *testing.T) {
	a := newIdentity(t, "a")
	l := openAt(t, t.TempDir(), a, newMembers(a), Options{Hold: true})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Append(ctx, Activity, KindFinding, nil, false); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestQuotaFreezesAndRefills(t *testing.T) {
	a, b := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(a, b)
	clock := time.Now()
	l := openAt(t, t.TempDir(), b, keys, Options{Now: func() time.Time { return clock }})
	f, err := l.feedOf(Feed{a.DID(), Authority})
	if err != nil {
		t.Fatal(err)
	}
	// As if the burst had just been spent at this very time.
	for range trust.AuthorityBurst {
		f.quota, _ = f.quota.after(Authority, clock.UnixNano(), clock.UnixNano(), 0)
	}
	raw, err := SignEntry(a, testSwarm, 0, Hash{}, KindGrant, nil, clock)
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Check(raw)
	wantCause(t, err, CauseRate)
	_, err = l.Ingest(context.Background(), raw)
	wantCause(t, err, CauseRate)
	_, err = l.IngestBatch(context.Background(), [][]byte{raw})
	wantCause(t, err, CauseRate)
	clock = clock.Add(2 * time.Second / trust.AuthorityRate)
	if _, err := l.Ingest(context.Background(), raw); err != nil {
		t.Fatalf("after the quota refilled: %v", err)
	}
}

func TestOwnQuotaIsKept(t *testing.T) {
	a := newIdentity(t, "a")
	clock := time.Now()
	l := openAt(t, t.TempDir(), a, newMembers(a), Options{Now: func() time.Time { return clock }})
	w := l.writers[Activity]
	for range trust.ActivityBurst {
		w.feed.quota, _ = w.feed.quota.after(Activity, clock.UnixNano(), clock.UnixNano(), 0)
	}
	_, err := l.Append(context.Background(), Activity, KindFinding, nil, false)
	wantCause(t, err, CauseRate)
	clock = clock.Add(time.Second)
	mustAppend(t, l, Activity, KindFinding, "later")
}

func TestIngestBatchRejectsASpoiltRun(t *testing.T) {
	a, b := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(a, b)
	la := openAt(t, t.TempDir(), a, keys, Options{})
	for range 10 {
		mustAppend(t, la, Activity, KindFinding, "x")
	}
	mustAppend(t, la, Activity, KindSeal, "")
	raws, err := la.Range(a.DID(), Activity, 0, 100, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raws {
		lb := openAt(t, t.TempDir(), b, keys, Options{})
		bad := append([][]byte(nil), raws...)
		bad[i] = append([]byte(nil), raws[i]...)
		bad[i][len(bad[i])-80] ^= 1 // body or signature, by kind
		n, err := lb.IngestBatch(context.Background(), bad)
		if i == 0 && n != 0 {
			t.Fatalf("stored %d with a spoilt certificate", n)
		}
		if err == nil {
			t.Fatalf("a run with entry %d spoilt was taken", i)
		}
		_ = lb.Close()
	}
}

func TestRangeEndsAtASeal(t *testing.T) {
	a := newIdentity(t, "a")
	l := openAt(t, t.TempDir(), a, newMembers(a), Options{})
	for range 3 * trust.SealEvery {
		mustAppend(t, l, Activity, KindFinding, "x")
	}
	raws, err := l.Range(a.DID(), Activity, 0, 100, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	last, err := Decode(raws[len(raws)-1])
	if err != nil || last.Full == nil {
		t.Fatalf("%d entries, the last is no seal", len(raws))
	}
	if got, err := VerifyRun(raws, a.Inception().PublicKey()); err != nil || got.Seq != last.Seq {
		t.Fatal(err)
	}
	if raws, _ := l.Range(a.DID(), Activity, 0, 1, 1); len(raws) != 1 {
		t.Fatal("no progress under a tiny budget")
	}
}

func TestLockedAndReadOnly(t *testing.T) {
	a := newIdentity(t, "a")
	dir := t.TempDir()
	openAt(t, dir, a, newMembers(a), Options{})
	if _, err := Open(dir, testSwarm, a, newMembers(a), Options{}); !errors.Is(err, ErrLocked) {
		t.Fatalf("opened twice: %v", err)
	}
	ro := openAt(t, t.TempDir(), nil, newMembers(a), Options{})
	if _, err := ro.Append(context.Background(), Activity, KindFinding, nil, false); !errors.Is(err, ErrReadOnly) {
		t.Fatal(err)
	}
}

func TestBenchmarksRun(t *testing.T) {
	if testing.Short() {
		t.Skip("measures")
	}
	for _, b := range Benchmarks() {
		v, err := b.Measure()
		if err != nil || v <= 0 {
			t.Errorf("%s: %v %v", b.Name, v, err)
		}
		t.Logf("%s: %.1f %s (limit %.0f)", b.Name, v, b.Unit, b.Limit)
	}
}

func TestFindingsAndReceipts(t *testing.T) {
	a := newIdentity(t, "a")
	l := openAt(t, t.TempDir(), a, newMembers(a), Options{})
	f := event.Finding{
		Time: 5, Boot: 6, RuleID: "omega.decoy.touch", Title: "touch\x1b[2J", Attack: []string{"T1595"}, Severity: event.SeverityHigh, Confidence: 90,
		Subject:  event.Subject{Address: netip.MustParseAddr("::ffff:10.77.0.9"), Port: 2323, Process: &event.ProcessRef{Key: event.ProcessKey{PID: 1}, Exe: "/x"}},
		Evidence: []event.Evidence{{Name: "n", Value: "a\nb"}}, Handshake: true, Decoy: "tcp/2323",
	}
	body, err := EncodeFinding(&f)
	if err != nil {
		t.Fatal(err)
	}
	e, err := l.Append(context.Background(), Activity, KindFinding, body, true)
	if err != nil || !e.Sealed() {
		t.Fatal("a finding with a composite signature is sealed at once", err)
	}
	got, err := DecodeFinding(e)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != e.ID() || len(got.ID) != 32 || got.Peer != string(a.DID()) || got.Title != "touch\ufffd[2J" || got.Evidence[0].Value != "a\ufffdb" ||
		got.Subject.Address != netip.MustParseAddr("10.77.0.9") || got.Subject.Process.Exe != "/x" || !got.Handshake {
		t.Fatalf("%+v", got)
	}
	if _, err := DecodeReceipt(e); err == nil {
		t.Error("a finding was read as a receipt")
	}
	body, err = EncodeReceipt(&event.Receipt{Response: "r", Outcome: event.OutcomeDone, Heard: 1, Acted: 2, Means: []string{"xdp"}})
	if err != nil {
		t.Fatal(err)
	}
	e, err = l.Append(context.Background(), Activity, KindReceipt, body, false)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := DecodeReceipt(e); err != nil || r.Outcome != event.OutcomeDone || r.Acted != 2 || r.ID != e.ID() {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := EncodeFinding(&event.Finding{Title: strings.Repeat("x", trust.MaxActivityBody)}); err == nil {
		t.Error("a finding longer than a body")
	}
	big, err := EncodeFinding(&event.Finding{Confidence: 101})
	if err != nil {
		t.Fatal(err)
	}
	e, err = l.Append(context.Background(), Activity, KindFinding, big, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeFinding(e); err == nil {
		t.Error("a confidence of 101")
	}
}

func TestWhatIsFarAheadIsPulledNotPassedOn(t *testing.T) {
	a, b := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(a, b)
	l := openAt(t, t.TempDir(), b, keys, Options{})
	sign := func(seq uint64, body string) []byte {
		prev := Hash{1}
		if seq == 0 {
			prev = Hash{}
		}
		raw, err := SignEntry(a, testSwarm, seq, prev, KindGrant, []byte(body), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	if _, err := l.Ingest(context.Background(), sign(0, "")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Check(sign(3, "")); err != nil {
		t.Fatalf("reordered by two: %v", err)
	}
	var gap *GapError
	if _, err := l.Check(sign(trust.MaxAhead+2, "")); !errors.As(err, &gap) {
		t.Fatalf("far ahead: %v", err)
	}
	l.lookup(Feed{a.DID(), Authority}).ahead = trust.MaxAheadPasses
	if _, err := l.Check(sign(3, "again")); !errors.As(err, &gap) {
		t.Fatalf("a flood of what does not link: %v", err)
	}
}

func TestClockThatStepsBackIsTold(t *testing.T) {
	a := newIdentity(t, "a")
	clock := time.Now().Add(24 * time.Hour)
	l := openAt(t, t.TempDir(), a, newMembers(a), Options{Now: func() time.Time { return clock }})
	mustAppend(t, l, Activity, KindFinding, "tomorrow")
	clock = clock.Add(-24 * time.Hour)
	if f := l.Faults(); len(f) != 1 || !strings.Contains(f[0].Detail, "clock") {
		t.Fatalf("faults %v", f)
	}
	if e := mustAppend(t, l, Activity, KindFinding, "today"); e.Seq != 2 {
		t.Fatalf("entry %d", e.Seq)
	}
}
