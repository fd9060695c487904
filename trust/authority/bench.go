package authority

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

// Benchmarks are the fold's figures for `omega bench`.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{
		{Name: "authority/fold_4096", Unit: "ms", Limit: 80, Measure: measureFold}, // 2 s for 100,000
		{Name: "authority/update", Unit: "us", Limit: 50, Measure: measureUpdate},
	}
}

// An author may say 4096 entries at once; of those benchMembers admit a host each, and the others grant, take back and
// exempt.
const (
	benchEntries = 4096
	benchMembers = 64
)

// benchHistory is the authority chain of one operator, as a ledger stores it.
type benchHistory struct {
	genesis *Genesis
	op      *identity.Identity
	raws    [][]byte
	last    *ledger.Entry
	members [][]byte // DIDs
}

func (h *benchHistory) says(b Body, at time.Time) error {
	body, err := b.Encode()
	if err != nil {
		return err
	}
	var prev ledger.Hash
	if h.last != nil {
		prev = h.last.Hash()
	}
	raw, err := ledger.SignEntry(h.op, h.genesis.SwarmID(), uint64(len(h.raws)), prev, b.Kind(), body, at)
	if err != nil {
		return err
	}
	if h.last, err = ledger.Decode(raw); err != nil {
		return err
	}
	h.raws = append(h.raws, raw)
	return nil
}

func newBenchHistory(dir string) (_ *benchHistory, err error) {
	h := new(benchHistory)
	if h.op, err = identity.Create(filepath.Join(dir, "operator"), identity.Options{Name: "operator"}); err != nil {
		return nil, err
	}
	if h.genesis, err = NewGenesis("bench", []*identity.Inception{h.op.Inception()}, 1, GenesisOptions{}); err != nil {
		return nil, err
	}
	start := time.Now().Add(-benchEntries * time.Millisecond)
	for i := range benchEntries {
		var b Body
		switch {
		case i < benchMembers:
			m, err := identity.Create(filepath.Join(dir, fmt.Sprint("m", i)), identity.Options{Name: fmt.Sprint("m", i)})
			if err != nil {
				return nil, err
			}
			did, err := m.DID().Bytes()
			if err != nil {
				return nil, err
			}
			h.members = append(h.members, did[:])
			b = &MemberBody{Inception: m.Inception().Encode()}
			if err := m.Close(); err != nil {
				return nil, err
			}
		case i%16 == 0:
			b = &RevokeRoleBody{Subject: h.members[i%benchMembers], Roles: []string{"decoy"}}
		case i%64 == 1:
			b = &AllowBody{Path: fmt.Sprintf("/opt/%d", i%1000)}
		default:
			b = &GrantBody{Subject: h.members[i*7%benchMembers], Roles: []string{"decoy", "sentinel"}, NotAfter: start.Unix() + int64(i) + 86400}
		}
		if err := h.says(b, start.Add(time.Duration(i)*time.Millisecond)); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// measureFold is what a start does, in milliseconds: open the ledger, read the chain from disk, fold it.
func measureFold() (float64, error) {
	dir, err := os.MkdirTemp("", "omega-bench-*")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	h, err := newBenchHistory(dir)
	if err != nil {
		return 0, err
	}
	defer h.op.Close()
	store := filepath.Join(dir, "ledger")
	led, err := ledger.Open(store, h.genesis.SwarmID(), nil, NewFold(h.genesis), ledger.Options{})
	if err != nil {
		return 0, err
	}
	for _, raw := range h.raws {
		if _, err := led.Ingest(context.Background(), raw); err != nil {
			return 0, err
		}
	}
	if err := led.Close(); err != nil {
		return 0, err
	}
	var failed error
	ns := event.PerOperation(func(b *testing.B) {
		for b.Loop() {
			if failed = foldStored(store, h.genesis); failed != nil {
				return
			}
		}
	})
	return ns / 1e6, failed
}

func foldStored(store string, g *Genesis) error {
	f := NewFold(g)
	led, err := ledger.Open(store, g.SwarmID(), nil, f, ledger.Options{})
	if err != nil {
		return err
	}
	defer led.Close()
	f.Hold()
	if err := led.Replay(f.Apply); err != nil {
		return err
	}
	f.Release()
	if n := len(f.State().Members()); n != benchMembers {
		return fmt.Errorf("authority: %d members", n)
	}
	return nil
}

// measureUpdate is one more grant on top of that, in microseconds.
func measureUpdate() (float64, error) {
	dir, err := os.MkdirTemp("", "omega-bench-*")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	h, err := newBenchHistory(dir)
	if err != nil {
		return 0, err
	}
	defer h.op.Close()
	f := NewFold(h.genesis)
	for _, raw := range h.raws {
		e, err := ledger.Decode(raw)
		if err == nil {
			err = f.Apply(e)
		}
		if err != nil {
			return 0, err
		}
	}
	var failed error
	last := h.last
	ns := event.PerOperation(func(b *testing.B) {
		for b.Loop() {
			if failed = f.Apply(last); failed != nil {
				return
			}
		}
	})
	return ns / 1e3, failed
}
