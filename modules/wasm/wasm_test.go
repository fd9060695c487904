package wasm

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/wasm/meter"
	"github.com/omega-mesh/omega/swarm/event"
)

// surroundings is a host in small: it keeps what a module says and remembers.
type surroundings struct {
	lines []string
	state *modules.State
}

func (s *surroundings) Log(_ modules.LogLevel, text string) { s.lines = append(s.lines, text) }
func (s *surroundings) Now() int64                          { return 0 }
func (s *surroundings) Get(key string) ([]byte, bool)       { return s.state.Get(key, 0) }
func (s *surroundings) Put(key string, value []byte, ttl time.Duration) error {
	return s.state.Put(key, value, 0, ttl)
}
func (s *surroundings) Indicator(kind, value string) (string, bool) {
	return "test", kind == "ipv4-addr" && value == "203.0.113.9"
}
func (s *surroundings) Reputation(netip.Addr) uint32 { return 7 }

func newSurroundings() *surroundings { return &surroundings{state: modules.NewState(64 << 10)} }

func engine(t testing.TB) *Engine {
	t.Helper()
	e, err := New(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func guest(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "guests", name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func manifest(payload []byte, capabilities ...modules.Capability) *modules.Manifest {
	return &modules.Manifest{Name: "test", Version: "1.0.0", Kind: modules.KindWASM, ABI: 1, Capabilities: capabilities, Size: uint32(len(payload))}
}

func started(n int) []*event.Event {
	batch := make([]*event.Event, n)
	for i := range batch {
		batch[i] = &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: 5e9 + int64(i), Boot: 7,
			Process: event.Process{Key: event.ProcessKey{PID: uint32(i + 1), Start: 3}, UID: 1000, Exe: "/usr/bin/curl", Comm: "curl", Args: "curl\x00-s\x00https://example.org/", CWD: "/home/user"}}
	}
	return batch
}

func TestGuestFindsWhatItWasGiven(t *testing.T) {
	ctx := context.Background()
	code := guest(t, "exec")
	p, err := engine(t).Compile(ctx, manifest(code), code)
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Detector(ctx, newSurroundings())
	if err != nil {
		t.Fatal(err)
	}
	batch := started(700) // more than one call holds
	batch[3].Activity = event.ActivityExit
	batch[4].Class = event.ClassNetwork
	var found []event.Finding
	if err := d.Detect(ctx, batch[:60], func(f event.Finding) { found = append(found, f) }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 58 {
		t.Fatalf("%d findings", len(found))
	}
	f := found[3]
	if f.RuleID != "module.test.exec" || f.Rule != "started" || f.Title != "A program started" || len(f.Attack) != 1 || f.Attack[0] != "T1059" ||
		f.Severity != event.SeverityMedium || f.Confidence != 80 || f.Subject.Process == nil || f.Subject.Process.Key.PID != 6 || f.Subject.Process.Exe != "/usr/bin/curl" || f.Boot != 7 {
		t.Fatalf("%+v %+v", f, f.Subject.Process)
	}
}

// What does not fit in one call goes with the next: nothing is left out, nothing comes twice.
func TestBatchLargerThanTheBuffer(t *testing.T) {
	ctx := context.Background()
	code := guest(t, "exec")
	p, err := engine(t).Compile(ctx, manifest(code), code)
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Detector(ctx, newSurroundings())
	if err != nil {
		t.Fatal(err)
	}
	batch := started(40)
	for _, e := range batch {
		e.Process.Args = strings.Repeat("a", 4096)
	}
	batch[7].Process.Args = strings.Repeat("b", 1<<20)
	seen := map[uint32]int{}
	if err := d.Detect(ctx, batch, func(f event.Finding) { seen[f.Subject.Process.Key.PID]++ }); err != nil {
		t.Fatal(err)
	}
	for pid := uint32(1); pid <= 40; pid++ {
		if seen[pid] != 1 {
			t.Errorf("event %d came %d times", pid, seen[pid])
		}
	}
}

// Every evil guest is stopped, and says why; the next call of the same instance still answers.
func TestEvilGuests(t *testing.T) {
	for _, c := range []struct {
		name    string
		refused bool  // it never starts
		want    error // what a call ends with
		fuel    bool
		grant   []modules.Capability
	}{
		{name: "loop", want: ErrFuel},
		{name: "tight", want: ErrFuel},
		{name: "recurse", want: ErrTrap},
		{name: "tree", want: ErrFuel},
		{name: "trap", want: ErrTrap},
		{name: "divide", want: ErrTrap},
		{name: "memory", want: ErrFuel},
		{name: "fill", want: ErrFuel},
		{name: "pointer", want: ErrOutput},
		{name: "gigabyte", want: ErrOutput},
		{name: "count", want: ErrOutput},
		{name: "event", want: ErrOutput},
		{name: "host", want: ErrFuel, grant: []modules.Capability{modules.CapabilityLog}},
		{name: "state", want: ErrFuel, grant: []modules.Capability{modules.CapabilityState}},
		{name: "exit", want: ErrTrap},
		{name: "open"},
		{name: "counter"},
		{name: "grant", refused: true},
		{name: "import", refused: true},
		{name: "start", refused: true},
		{name: "big", refused: true},
		{name: "alloc", refused: true},
		{name: "shape", refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := context.Background()
			code := guest(t, "evil_"+c.name)
			s := newSurroundings()
			p, err := engine(t).Compile(ctx, manifest(code, c.grant...), code)
			var d modules.Detector
			if err == nil {
				d, err = p.Detector(ctx, s)
			}
			if c.refused {
				if !errors.Is(err, modules.ErrRefused) {
					t.Fatalf("it runs: %v", err)
				}
				t.Log(err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				err = d.Detect(ctx, started(3), func(event.Finding) { t.Error("a finding") })
				if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
					t.Fatalf("%v, want %v", err, c.want)
				}
			}
			t.Log(err)
			if len(s.lines) > 3*maxLines {
				t.Errorf("%d lines logged", len(s.lines))
			}
			if used := s.state.Used(); used > 64<<10 {
				t.Errorf("%d bytes of state", used)
			}
			if i := d.(*instance); i.memory.Size() > modules.DefaultMemory {
				t.Errorf("%d bytes of memory", i.memory.Size())
			}
		})
	}
}

// A guest that was stopped in its midst gets its stack pointer back.
func TestGlobalsComeBackAfterATrap(t *testing.T) {
	ctx := context.Background()
	code := guest(t, "exec")
	m := manifest(code)
	m.Limits.Fuel = 300
	p, err := engine(t).Compile(ctx, m, code)
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Detector(ctx, newSurroundings())
	if err != nil {
		t.Fatal(err)
	}
	i := d.(*instance)
	before := i.globals[0].Get()
	if err := d.Detect(ctx, started(60), func(event.Finding) {}); !errors.Is(err, ErrFuel) {
		t.Fatal(err)
	}
	if got := i.globals[0].Get(); got != before {
		t.Fatalf("the stack pointer was %d and is %d", before, got)
	}
	n := 0
	if err := d.Detect(ctx, started(1), func(event.Finding) { n++ }); err != nil || n != 1 {
		t.Fatalf("it does not go on: %v, %d findings", err, n)
	}
}

// The guest's code cannot name the counter: neither by its number nor by an export.
func TestCounterIsOutOfReach(t *testing.T) {
	code := guest(t, "evil_counter")
	i := bytes.Index(code, []byte{0x42, 0xe3, 0x00, 0x24, 0x00}) // i64.const 99, global.set 0
	if i < 0 {
		t.Fatal("the guest is not what it was")
	}
	forged := bytes.Clone(code)
	forged[i+4] = 1
	if _, err := meter.Rewrite(forged, meter.Options{Memory: 64}); !errors.Is(err, meter.ErrModule) {
		t.Fatalf("a guest that sets global 1 of 1 is taken: %v", err)
	}
	forged = bytes.Replace(code, []byte("\x0comega_detect"), []byte("\x0c\x00omega fuel1"), 1)
	if _, err := meter.Rewrite(forged, meter.Options{Memory: 64}); !errors.Is(err, meter.ErrModule) {
		t.Fatalf("a guest that exports the host's name is taken: %v", err)
	}
}

// Fuel is counted the same whatever the machine does.
func TestFuelIsDeterministic(t *testing.T) {
	ctx := context.Background()
	code := guest(t, "exec")
	p, err := engine(t).Compile(ctx, manifest(code), code)
	if err != nil {
		t.Fatal(err)
	}
	var spent []uint64
	for range 3 {
		d, err := p.Detector(ctx, newSurroundings())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := d.Detect(ctx, started(9), func(event.Finding) {}); err != nil {
				t.Fatal(err)
			}
			spent = append(spent, modules.DefaultFuel-d.(*instance).fuel.Get())
		}
	}
	for _, s := range spent {
		if s != spent[0] || s == 0 {
			t.Fatalf("%v", spent)
		}
	}
}
