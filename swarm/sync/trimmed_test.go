package sync

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
	"github.com/omega-mesh/omega/trust/tlog"
)

// author is the only one whose entries are let in.
type author struct{ *identity.Identity }

func (a author) Key(did identity.DID) (*composite.PublicKey, bool) {
	return a.Inception().PublicKey(), did == a.DID()
}

// exchange has to pull from from, over a connection.
func exchange(t *testing.T, to, from *ledger.Ledger, asker identity.DID) Pulled {
	t.Helper()
	c, s := net.Pipe()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	done := make(chan error, 1)
	go func() {
		_, err := Serve(context.Background(), s, from, asker, func() {})
		done <- err
	}()
	p, err := Pull(context.Background(), c, to, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	_ = s.Close()
	return p
}

// TestPeersTrimmedAtDifferentPoints syncs peers of which one keeps all, one a week, one a few days, one fell behind and
// one is new, each with each: they end with the same head, without a refusal and without asking twice.
func TestPeersTrimmedAtDifferentPoints(t *testing.T) {
	id, err := identity.Create(filepath.Join(t.TempDir(), "a"), identity.Options{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = id.Close() }()
	now := time.Unix(1_800_000_000, 0)
	open := func(self *identity.Identity) *ledger.Ledger {
		l, err := ledger.Open(t.TempDir(), trust.SwarmID{1}, self, author{id}, ledger.Options{Now: func() time.Time { return now }, Backed: func(*ledger.Base) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	all := open(id)
	week, days, behind, fresh := open(nil), open(nil), open(nil), open(nil)
	f := ledger.Feed{Author: id.DID(), Chain: ledger.Activity}
	for day := range 10 {
		for i := range 3 {
			if _, err := all.Append(context.Background(), ledger.Activity, ledger.KindFinding, []byte(fmt.Sprint(day, i)), false); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(24 * time.Hour)
		e, err := all.Checkpoint(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range []*ledger.Ledger{week, days} {
			exchange(t, l, all, "")
			if err := l.Mark(f, e.Seq, []tlog.Cosignature{{Witness: string(id.DID()), Sig: make([]byte, tlog.SignatureSize)}}); err != nil {
				t.Fatal(err)
			}
		}
		if day == 0 {
			exchange(t, behind, all, "")
		}
	}
	for l, keep := range map[*ledger.Ledger]time.Duration{week: 7 * 24 * time.Hour, days: 48 * time.Hour} {
		if freed, err := l.Trim(keep, 1<<40); err != nil || freed == 0 {
			t.Fatal(freed, err)
		}
	}
	if week.Base(f).First >= days.Base(f).First {
		t.Fatal("both were trimmed at the same point")
	}
	for round := range 2 {
		for _, to := range []*ledger.Ledger{behind, fresh, week, days, all} {
			for _, from := range []*ledger.Ledger{days, week, all, behind, fresh} {
				if to == from {
					continue
				}
				p := exchange(t, to, from, "")
				if p.Refused != nil || round > 0 && (p.Stored > 0 || p.Behind) {
					t.Fatalf("round %d: %+v", round, p)
				}
			}
			if to.Tree(f).Root() != all.Tree(f).Root() {
				t.Fatalf("round %d: the trees differ", round)
			}
		}
	}
}
