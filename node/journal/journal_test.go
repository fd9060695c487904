package journal

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/fields"
	"pgregory.net/rapid"
)

func life(i int) *event.Event { return processLife(i, &event.Event{}) }

func connection(i int) *event.Event {
	e := life(i)
	e.Class, e.Activity = event.ClassNetwork, event.ActivityConnect
	e.Network = event.Network{Protocol: 6, Local: netip.MustParseAddrPort("10.0.0.1:5000"), Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 443), Name: "x.example"}
	return e
}

func open(t *testing.T, dir string, opt Options) (j *Journal, stop func()) {
	t.Helper()
	j, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return j, stop
}

// appendAll appends without a drop: it flushes before the blocks in memory run out.
func appendAll(t *testing.T, j *Journal, n int, make func(int) *event.Event) {
	t.Helper()
	for i := range n {
		j.Append(make(i))
		if i%maxEvents == maxEvents-1 {
			if err := j.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func read(t *testing.T, j *Journal, q Query) (out []*event.Event) {
	t.Helper()
	if err := j.Read(t.Context(), q, func(e *event.Event) error { out = append(out, e.Clone()); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// fill sets every field of v to something, or leaves it.
func fill(rt *rapid.T, v reflect.Value, name string) {
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(address(rt, name)))
		return
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.AddrPortFrom(address(rt, name), rapid.Uint16().Draw(rt, name))))
		return
	}
	if v.Kind() != reflect.Struct && rapid.Bool().Draw(rt, name+" empty") {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(rt, v.Field(i), v.Type().Field(i).Name)
		}
	case reflect.String:
		v.SetString(string(rapid.SliceOfN(rapid.Byte(), 0, 6).Draw(rt, name)))
	case reflect.Int32, reflect.Int64:
		v.SetInt(rapid.Int64Range(-1<<31, 1<<31-1).Draw(rt, name))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rapid.Uint64Max(1<<v.Type().Bits()-1).Draw(rt, name))
	case reflect.Bool:
		v.SetBool(true)
	default:
		rt.Fatalf("a field of kind %v: tell the test how to fill it", v.Kind())
	}
}

func address(rt *rapid.T, name string) netip.Addr {
	return rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:1.2.3.4"), netip.MustParseAddr("fe80::1%eth0")}).Draw(rt, name)
}

// TestRoundTrip: events of any content come back from a block as they were and in their order.
func TestRoundTrip(t *testing.T) {
	var p packer
	u, err := newUnpacker()
	if err != nil {
		t.Fatal(err)
	}
	defer u.close()
	b := newBuilder()
	rapid.Check(t, func(rt *rapid.T) {
		b.reset()
		var in []*event.Event
		for range rapid.IntRange(1, 6).Draw(rt, "events") {
			e := &event.Event{}
			fill(rt, reflect.ValueOf(e).Elem(), "event")
			e.Class = rapid.SampledFrom(event.Classes()).Draw(rt, "class")
			in = append(in, e)
			b.add(e)
		}
		block, err := p.pack(b)
		if err != nil {
			rt.Fatal(err)
		}
		h, err := parseHeader(block)
		if err != nil || checkBlock(block) != nil {
			rt.Fatal(err)
		}
		start := headerLen + h.filterLen()
		if err := u.dictionary(block[start:][:h.dict], h.dictRaw); err != nil {
			rt.Fatal(err)
		}
		if err := u.table(block[start+int(h.dict):], h.colsRaw); err != nil {
			rt.Fatal(err)
		}
		i := 0
		if err := u.each(h.events, func(e *event.Event) error {
			if !reflect.DeepEqual(e, in[i]) {
				rt.Fatalf("event %d came back as\n%+v\nnot\n%+v", i, e, in[i])
			}
			i++
			return nil
		}); err != nil || i != len(in) {
			rt.Fatal(i, err)
		}
	})
}

// TestStays: what was appended is there after an end and a new beginning, in its order.
func TestStays(t *testing.T) {
	dir := t.TempDir()
	j, stop := open(t, dir, Options{})
	const n = 10_000
	appendAll(t, j, n, life)
	stop()
	j, _ = open(t, dir, Options{})
	got := read(t, j, Query{})
	if len(got) != n {
		t.Fatalf("%d of %d events", len(got), n)
	}
	for i, e := range got {
		if !reflect.DeepEqual(e, life(i)) {
			t.Fatalf("event %d came back as\n%+v\nnot\n%+v", i, e, life(i))
		}
	}
	if s := j.Stats(); s.Events != n || s.Torn != 0 || len(s.Dropped) != 0 {
		t.Errorf("%+v", s)
	}
	if per := float64(j.Stats().Bytes) / n; per >= 60 {
		t.Errorf("%.1f bytes an event of a process-heavy load, the budget is 60", per)
	} else {
		t.Logf("%.1f bytes an event", per)
	}
}

// TestTorn: whatever a power cut leaves of the last block goes, and every block before it stays.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir, Options{})
	for range 3 {
		for i := range 100 {
			j.Append(life(i))
		}
		if err := j.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	paths, _, err := listSegments(dir)
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	whole, err := os.ReadFile(paths[0]) // not sealed: as a power cut finds it
	if err != nil {
		t.Fatal(err)
	}
	h, err := parseHeader(whole)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
		events int
	}{
		{"nothing", func(b []byte) []byte { return b }, 300},
		{"one byte short", func(b []byte) []byte { return b[:len(b)-1] }, 200},
		{"within a header", func(b []byte) []byte { return b[:int(h.length)+10] }, 100},
		{"a bit of the last", func(b []byte) []byte { b[len(b)-7] ^= 4; return b }, 200},
		{"zeros behind", func(b []byte) []byte { return append(b, make([]byte, 4096)...) }, 300},
		{"the first", func(b []byte) []byte { b[9] ^= 1; return b }, 0},
		{"empty", func([]byte) []byte { return nil }, 0},
	} {
		other := t.TempDir()
		if err := os.WriteFile(filepath.Join(other, filepath.Base(paths[0])), c.change(append([]byte(nil), whole...)), 0o600); err != nil {
			t.Fatal(err)
		}
		j, stop := open(t, other, Options{})
		if got := read(t, j, Query{}); len(got) != c.events {
			t.Errorf("%s: %d events, want %d", c.name, len(got), c.events)
		}
		j.Append(life(0))
		if got := read(t, j, Query{}); len(got) != c.events+1 {
			t.Errorf("%s: %d events after one more", c.name, len(got))
		}
		stop()
	}
}

// TestBudget: the oldest goes first, and what went is counted.
func TestBudget(t *testing.T) {
	j, _ := open(t, t.TempDir(), Options{Budget: minBudget})
	n := 0
	for ; j.Stats().Evicted == 0 && n < 3_000_000; n++ {
		e := life(n)
		e.Process.CWD = fmt.Sprintf("/%x/%x/%x", uint64(n)*0x9e3779b97f4a7c15, uint64(n)*0xbf58476d1ce4e5b9, uint64(n)*0x94d049bb133111eb)
		j.Append(e)
		if n%maxEvents == maxEvents-1 {
			if err := j.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, first := 0, int64(0)
	if err := j.Read(t.Context(), Query{}, func(e *event.Event) error {
		if got++; first == 0 {
			first = e.Time
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s := j.Stats()
	if uint64(got)+s.Evicted != uint64(n) || s.Bytes > minBudget || first != life(int(s.Evicted)).Time || s.Evicted == 0 {
		t.Errorf("%d there, %d evicted of %d; %d bytes; the oldest is of %d", got, s.Evicted, n, s.Bytes, first)
	}
}

// TestDrops: where nobody writes, events are counted by class and nobody waits; nothing is lost twice.
func TestDrops(t *testing.T) {
	j, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	const n = builders*maxEvents + 5000
	for i := range n {
		j.Append(connection(i))
	}
	j.Append(life(0))
	s := j.Stats()
	if s.Appended+s.Dropped["network"] != n || s.Dropped["network"] == 0 || s.Dropped["process"] != 1 {
		t.Errorf("%+v", s)
	}
}

// TestPassesBy: blocks that cannot hold what is asked for are not read, and none that holds it is passed by.
func TestPassesBy(t *testing.T) {
	j, _ := open(t, t.TempDir(), Options{})
	const blocks = 20
	odd := life(0)
	odd.Process.Key.PID, odd.Process.Exe, odd.Process.Args = 4_000_123, "/tmp/.odd", "odd\x00--steal it\x00now"
	odd.Network.Remote = netip.MustParseAddrPort("[::ffff:203.0.113.9]:4444")
	for b := range blocks {
		for i := range 300 {
			j.Append(life(b*300 + i))
		}
		if b == 7 {
			j.Append(odd)
		}
		if err := j.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	field := func(name string) *fields.Field { f, _ := fields.Find(name); return f }
	for name, c := range map[string]struct {
		needs fields.Needs
		most  int // blocks looked at
		found bool
	}{
		"pid":             {fields.Needs{{{Field: field("pid"), Number: 4_000_123}}}, 3, true},
		"exe":             {fields.Needs{{{Field: field("exe"), Text: "/tmp/.odd"}}}, 3, true},
		"part of exe":     {fields.Needs{{{Field: field("exe"), Op: fields.Contains, Text: "/.o"}}}, 1, true},
		"spaced args":     {fields.Needs{{{Field: field("args"), Op: fields.Contains, Text: "odd --steal"}}}, 1, true},
		"address":         {fields.Needs{{{Field: field("remote"), Address: netip.MustParseAddr("203.0.113.9")}}}, 3, true},
		"other class":     {fields.Needs{{{Field: field("class"), Text: "dns"}}}, 0, false},
		"other activity":  {fields.Needs{{{Field: field("activity"), Text: "mount"}}}, 0, false},
		"either":          {fields.Needs{{{Field: field("pid"), Number: 4_000_123}, {Field: field("exe"), Text: "/no/such"}}}, 4, true},
		"both":            {fields.Needs{{{Field: field("pid"), Number: 4_000_123}}, {{Field: field("exe"), Text: "/no/such"}}}, 2, false},
		"what is nowhere": {fields.Needs{{{Field: field("file"), Text: ""}}}, blocks, true},
		"not prunable":    {fields.Needs{{{Field: field("uid"), Number: 1}}}, blocks, true},
	} {
		found, looked := false, 0
		if err := j.Read(t.Context(), Query{Needs: c.needs, Counts: func(all, passed int) { looked = all - passed }}, func(e *event.Event) error {
			found = found || e.Process.Key.PID == 4_000_123
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if found != c.found || looked > c.most {
			t.Errorf("%s: found %v in %d blocks, want %v in at most %d", name, found, looked, c.found, c.most)
		}
	}
}

// TestFollow: who follows gets what was there and what comes, once and in order.
func TestFollow(t *testing.T) {
	j, _ := open(t, t.TempDir(), Options{Budget: minBudget})
	for i := range 10 {
		j.Append(life(i))
	}
	enough := errors.New("enough")
	next := 0
	err := j.Read(t.Context(), Query{Follow: true}, func(e *event.Event) error {
		if e.Time != life(next).Time {
			t.Fatalf("event %d is of %d", next, e.Time)
		}
		if next++; next >= 10 && next < 30 {
			j.Append(life(next))
		}
		if next == 30 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
}

// TestDamagedBlock: a block that rots is passed over; what is around it is told, and that something is missing.
func TestDamagedBlock(t *testing.T) {
	dir := t.TempDir()
	j, stop := open(t, dir, Options{})
	for range 3 {
		for i := range 100 {
			j.Append(life(i))
		}
		if err := j.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	paths, _, _ := listSegments(dir)
	b, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	h, _ := parseHeader(b)
	b[int(h.length)+int(h.length)-20] ^= 1
	if err := os.WriteFile(paths[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	j, _ = open(t, dir, Options{})
	n := 0
	if err := j.Read(t.Context(), Query{}, func(*event.Event) error { n++; return nil }); !errors.Is(err, ErrDamaged) || n != 200 {
		t.Fatalf("%d events, %v", n, err)
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	b := newBuilder()
	events := make([]*event.Event, 512)
	for i := range events {
		events[i] = connection(i)
	}
	round := func() {
		b.reset()
		for _, e := range events {
			b.add(e)
		}
	}
	round()
	if n := testing.AllocsPerRun(20, round); n != 0 {
		t.Fatalf("%v allocations for %d events", n, len(events))
	}
}

func BenchmarkAppend(b *testing.B) {
	j, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	events := make([]*event.Event, 3*4096)
	for i := range events {
		events[i] = life(i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		j.Append(events[i%len(events)])
		if i++; i%maxEvents == 0 {
			if err := j.Flush(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
	cancel()
	<-done
	s := j.Stats()
	b.ReportMetric(float64(s.Bytes)/float64(max(1, s.Events)), "B/event")
}
