package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/omega-mesh/omega/trust/identity"
)

func openMem(t testing.TB, d *memDisk, self *identity.Identity, keys KeyResolver) *Ledger {
	t.Helper()
	l, err := open(d, testSwarm, self, keys, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// TestKillAtAnyByte writes a batch of entries over a store of acknowledged ones, crashes with every number of its bytes
// on the disk, and looks whether every acknowledged entry is there and the feed goes on.
func TestKillAtAnyByte(t *testing.T) {
	a := newIdentity(t, "a")
	keys := newMembers(a)
	d := newMemDisk()
	l := openMem(t, d, a, keys)
	for i := range 3 {
		mustAppend(t, l, Activity, KindFinding, fmt.Sprint("acknowledged ", i))
	}
	want := l.Count(a.DID(), Activity)
	f := l.writers[Activity].feed
	// Two entries written and not synced, as if the power went between write and fdatasync.
	group := []signed{}
	f.order.Lock()
	for range 2 {
		s, err := l.signOne(l.writers[Activity], KindFinding, []byte("torn"), l.writers[Activity].tip.time, false)
		if err != nil {
			t.Fatal(err)
		}
		group = append(group, s)
	}
	f.order.Unlock()
	var buf []byte
	for _, s := range group {
		buf = appendRecord(buf, s.entry.raw, want)
	}
	h, err := l.files.get(f.last().name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.WriteAt(buf, f.last().size); err != nil {
		t.Fatal(err)
	}
	l.files.put(h, false)
	for keep := 0; keep <= len(buf); keep++ {
		after := openMem(t, d.crash(keep), a, keys)
		if n := after.Count(a.DID(), Activity); n < want || n > want+2 {
			t.Fatalf("%d bytes on the disk: %d entries, %d were acknowledged", keep, n, want)
		}
		if faults := after.Faults(); len(faults) != 0 {
			t.Fatalf("%d bytes on the disk: a torn write is called damage: %v", keep, faults)
		}
		if keep%97 == 0 { // signing costs more than scanning
			mustAppend(t, after, Activity, KindFinding, "goes on")
		}
		_ = after.Close()
	}
	// The second entry's record is whole, the first is spoilt: sectors reached the disk out of order.
	reordered := d.crash(len(buf))
	rf := reordered.files[f.last().name]
	rf.data[f.last().size+100] ^= 0xff
	after := openMem(t, reordered, a, keys)
	if n := after.Count(a.DID(), Activity); n != want || len(after.Faults()) != 0 {
		t.Fatalf("reordered write: %d entries, want %d; faults %v", n, want, after.Faults())
	}
}

func TestDamageStopsSigningUntilHealed(t *testing.T) {
	a, b := newIdentity(t, "a"), newIdentity(t, "b")
	keys := newMembers(a, b)
	d := newMemDisk()
	l := openMem(t, d, a, keys)
	peer := openMem(t, newMemDisk(), b, keys)
	for i := range 10 {
		mustAppend(t, l, Activity, KindFinding, fmt.Sprint("entry ", i))
	}
	pull(t, peer, l)
	_ = l.Close()
	name := feedFile(Feed{a.DID(), Activity})
	for _, at := range []int64{20, headerSize + 30, 5000} { // header, first record, one in the middle
		broken := d.crash(0)
		broken.files[name].data[at] ^= 0xff
		hurt := openMem(t, broken, a, keys)
		faults := hurt.Faults()
		if len(faults) != 1 || !faults[0].Own {
			t.Fatalf("damage at %d: faults %v", at, faults)
		}
		if _, err := hurt.Append(context.Background(), Activity, KindFinding, nil, false); !errors.Is(err, ErrDamaged) {
			t.Fatalf("damage at %d: a peer signed over entries it lost: %v", at, err)
		}
		pull(t, hurt, peer)
		if len(hurt.Faults()) != 0 {
			t.Fatalf("damage at %d: healed, and still %v", at, hurt.Faults())
		}
		mustAppend(t, hurt, Activity, KindFinding, "healed")
		if _, ok := broken.plain[name+".damaged"]; !ok {
			t.Errorf("damage at %d: the damaged bytes were not set aside", at)
		}
	}
}

func TestFullDisk(t *testing.T) {
	a := newIdentity(t, "a")
	keys := newMembers(a)
	d := newMemDisk()
	l := openMem(t, d, a, keys)
	mustAppend(t, l, Activity, KindFinding, "fits")
	want := l.Count(a.DID(), Activity)
	for _, room := range []int{0, 10, 300} {
		d.mu.Lock()
		d.room = room
		d.mu.Unlock()
		if _, err := l.Append(context.Background(), Activity, KindFinding, make([]byte, 600), false); !errors.Is(err, ErrStorage) {
			t.Fatalf("full disk: %v", err)
		}
		if n := l.Count(a.DID(), Activity); n != want || len(l.Faults()) != 1 {
			t.Fatalf("full disk: %d entries, want %d; faults %v", n, want, l.Faults())
		}
	}
	d.mu.Lock()
	d.room = -1
	d.mu.Unlock()
	mustAppend(t, l, Activity, KindFinding, "room again")
	if len(l.Faults()) != 0 {
		t.Errorf("still %v", l.Faults())
	}
	again := openMem(t, d.crash(0), a, keys)
	if n := again.Count(a.DID(), Activity); n != want+1 {
		t.Fatalf("%d entries after reopening, want %d", n, want+1)
	}
}

func TestFailedSyncIsFinal(t *testing.T) {
	a := newIdentity(t, "a")
	d := newMemDisk()
	l := openMem(t, d, a, newMembers(a))
	mustAppend(t, l, Activity, KindFinding, "fine")
	d.mu.Lock()
	d.failing = errors.New("input/output error")
	d.mu.Unlock()
	if _, err := l.Append(context.Background(), Activity, KindFinding, nil, false); !errors.Is(err, ErrStorage) {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.failing = nil
	d.mu.Unlock()
	if _, err := l.Append(context.Background(), Activity, KindFinding, nil, false); !errors.Is(err, ErrStorage) {
		t.Fatalf("appended after a failed fdatasync: %v", err)
	}
}

// TestBusyFeedLinks has appenders that come and go, so that the feed is now idle and now not, and reads back what they
// made: a tip that fell back would have signed a number twice.
func TestBusyFeedLinks(t *testing.T) {
	a := newIdentity(t, "a")
	keys := newMembers(a)
	d := newMemDisk()
	l := openMem(t, d, a, keys)
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for range 200 {
				if _, err := l.Append(context.Background(), Activity, KindFinding, []byte{byte(i)}, false); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	want := l.Count(a.DID(), Activity)
	_ = l.Close()
	again := openMem(t, d.crash(0), a, keys)
	if n := again.Count(a.DID(), Activity); n != want || n < 800 || len(again.Faults()) != 0 {
		t.Fatalf("%d entries read back of %d; faults %v", n, want, again.Faults())
	}
}
