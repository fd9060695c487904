package audit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Benchmarks are this package's figures for `omega bench`.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{
		// 1,000,000 entries in 10 s.
		{Name: "audit/verify_export", Unit: "entries/s", Limit: 100_000, HigherIsBetter: true, Measure: measureVerify},
	}
}

// measureVerify gives the entries of an export that are verified in a second of processor time.
func measureVerify() (float64, error) {
	var b bytes.Buffer
	g, err := generate(&b, 10_000)
	if err != nil {
		return 0, fmt.Errorf("bench: %w", err)
	}
	id := g.SwarmID()
	best := 0.0
	for range 5 { // the least disturbed: other processes on the host only ever add
		before, err := processorTime()
		if err != nil {
			return 0, err
		}
		r, err := Verify(context.Background(), bytes.NewReader(b.Bytes()), Options{Swarm: &id})
		if err != nil {
			return 0, err
		}
		if !r.OK {
			return 0, fmt.Errorf("bench: %+v", r.Faults[0])
		}
		after, err := processorTime()
		if err != nil {
			return 0, err
		}
		best = max(best, float64(r.Entries)/(after-before).Seconds())
	}
	return best, nil
}

// processorTime is what this process has used so far, user and system.
func processorTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("bench: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// generate writes the export of a new swarm of one operator and one member that has signed that many findings of 200
// bytes, as an honest member does, with a checkpoint for every trust.CheckpointEntries.
func generate(w io.Writer, entries int) (*authority.Genesis, error) {
	dir, err := os.MkdirTemp("/dev/shm", "omega-bench-*")
	if err != nil {
		dir, err = os.MkdirTemp("", "omega-bench-*")
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	op, err := identity.Create(filepath.Join(dir, "operator"), identity.Options{Name: "operator"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = op.Close() }()
	self, err := identity.Create(filepath.Join(dir, "member"), identity.Options{Name: "member"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = self.Close() }()
	g, err := authority.NewGenesis("bench", []*identity.Inception{op.Inception()}, 1, authority.GenesisOptions{})
	if err != nil {
		return nil, err
	}
	body, err := (&authority.MemberBody{Inception: self.Inception().Encode()}).Encode()
	if err != nil {
		return nil, err
	}
	admitted, err := ledger.SignEntry(op, g.SwarmID(), 0, ledger.Hash{}, ledger.KindMember, body, time.Now())
	if err != nil {
		return nil, err
	}
	// The clock moves on as the author's quota refills, so that the quota is not what is measured.
	var calls atomic.Int64
	start := time.Now().UnixNano()
	clock := func() time.Time {
		return time.Unix(0, start+calls.Add(1)*2*int64(time.Second)/trust.ActivityRate) // twice, for the seals
	}
	fold := authority.NewFold(g)
	l, err := ledger.Open(filepath.Join(dir, "ledger"), g.SwarmID(), self, fold, ledger.Options{Now: clock, OnEntry: func(e *ledger.Entry) { _ = fold.Apply(e) }})
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	ctx := context.Background()
	if _, err := l.Ingest(ctx, admitted); err != nil {
		return nil, err
	}
	for entries > 0 {
		n := min(entries, trust.CheckpointEntries)
		entries -= n
		if err := appendAll(ctx, l, n); err != nil {
			return nil, err
		}
		if _, err := l.Checkpoint(ctx); err != nil {
			return nil, err
		}
	}
	_, err = Export(ctx, w, g, l, nil)
	return g, err
}

// appendAll appends n findings from many goroutines, which then share the fdatasyncs.
func appendAll(ctx context.Context, l *ledger.Ledger, n int) error {
	var left atomic.Int64
	var failed atomic.Pointer[error]
	var group sync.WaitGroup
	left.Store(int64(n))
	for range 128 {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := l.Append(ctx, ledger.Activity, ledger.KindFinding, make([]byte, 200), false); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
