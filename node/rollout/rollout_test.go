package rollout

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	"github.com/omega-mesh/omega/modules/store"
	"github.com/omega-mesh/omega/swarm/block"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is one host of a swarm whose operator the test is.
type host struct {
	t       *testing.T
	dir     string
	op      *identity.Identity
	genesis *authority.Genesis
	fold    *authority.Fold
	seq     uint64
	prev    ledger.Hash
	at      time.Time
	others  *store.Store // what the rest of the swarm has
	*Rollout
	told   []event.Finding // that it published
	found  []string        // rules its modules found
	forbid modules.Capability
	minute int64
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir(), at: time.Now().Add(-time.Minute)}
	var err error
	if h.op, err = identity.Create(filepath.Join(h.dir, "op"), identity.Options{Name: "op"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.op.Close() })
	if h.genesis, err = authority.NewGenesis("lab", []*identity.Inception{h.op.Inception()}, 1, authority.GenesisOptions{}); err != nil {
		t.Fatal(err)
	}
	h.fold = authority.NewFold(h.genesis)
	if h.others, err = store.Open(filepath.Join(h.dir, "others"), 64<<20, nil); err != nil {
		t.Fatal(err)
	}
	h.start()
	t.Cleanup(h.end)
	return h
}

// start begins as a node does, on what is on its disk.
func (h *host) start() {
	s, err := store.Open(filepath.Join(h.dir, "modules"), 64<<20, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Rollout, err = New(Options{
		Self: h.op.DID(), Labels: []string{"web"}, Releasers: 1, State: h.fold.State, Roles: func() []string { return []string{"sentinel"} },
		Store: s, Failures: filepath.Join(h.dir, "failures.json"),
		Fetch: func(_ context.Context, names []block.Name, take func(block.Name, []byte) error) error {
			for _, n := range names {
				data, err := h.others.Get(n.Sum)
				if err != nil {
					return block.ErrNowhere
				}
				if err := take(n, data); err != nil {
					return err
				}
			}
			return nil
		},
		Permit: func(_ *modules.Manifest, c modules.Capability) error {
			if c == h.forbid {
				return errors.New("forbidden by a policy")
			}
			return nil
		},
		Publish: func(_ context.Context, f event.Finding) error { h.told = append(h.told, f); return nil },
		Now:     time.Now,
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) say(b authority.Body) {
	h.t.Helper()
	raw, err := b.Encode()
	if err != nil {
		h.t.Fatal(err)
	}
	h.at = h.at.Add(time.Second)
	signed, err := ledger.SignEntry(h.op, h.genesis.SwarmID(), h.seq, h.prev, b.Kind(), raw, h.at)
	if err != nil {
		h.t.Fatal(err)
	}
	e, err := ledger.Decode(signed)
	if err != nil {
		h.t.Fatal(err)
	}
	h.seq, h.prev = h.seq+1, e.Hash()
	if err := h.fold.Apply(e); err != nil {
		h.t.Fatal(err)
	}
}

// step does what Run would, until nothing is left to do.
func (h *host) step() {
	var wg sync.WaitGroup
	for range 4 {
		h.judge()
		h.reconcile(h.t.Context(), &wg)
		wg.Wait()
		for len(h.fetched) > 0 {
			h.arrived(<-h.fetched)
		}
	}
}

// lua publishes a module of one function, on the others' disks only, and releases it.
func (h *host) lua(name, version, body string, edit ...func(*modules.Manifest)) modules.ID {
	h.t.Helper()
	return h.release(modules.KindLua, name, version, "function detect(e) "+body+" end", edit...)
}

// release publishes a module on the others' disks only, and releases it.
func (h *host) release(kind modules.Kind, name, version, payload string, edit ...func(*modules.Manifest)) modules.ID {
	h.t.Helper()
	m := modules.Manifest{Name: name, Version: version, Kind: kind, ABI: 1, Author: string(h.op.DID())}
	for _, f := range edit {
		f(&m)
	}
	b, err := bundle.New(m, []byte(payload), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	id, err := h.others.Add(b)
	if err != nil {
		h.t.Fatal(err)
	}
	h.say(&authority.ModuleReleaseBody{Module: id[:], Name: name, Version: version})
	return id
}

// sees gives the host n events, a new minute each time, and says what its modules found in them.
func (h *host) sees(n int) string {
	h.t.Helper()
	h.minute++
	h.found = nil
	for i := range n {
		e := &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: h.minute * int64(time.Minute), Process: event.Process{Key: event.ProcessKey{PID: uint32(i + 1)}, Exe: "/usr/bin/curl"}}
		if err := h.Detector().Detect(h.t.Context(), []*event.Event{e}, func(f event.Finding) { h.found = append(h.found, strings.TrimPrefix(f.RuleID, "module.")) }); err != nil {
			h.t.Fatal(err)
		}
	}
	return strings.Join(h.found, " ")
}

func (h *host) expect(when, want string, n int) {
	h.t.Helper()
	if got := h.sees(n); got != want {
		h.t.Errorf("%s: found %q, want %q", when, got, want)
	}
}

func (h *host) stopped(when string, words ...string) {
	h.t.Helper()
	if len(h.told) == 0 {
		h.t.Errorf("%s: nothing was said", when)
		return
	}
	text := fmt.Sprintf("%+v", h.told[len(h.told)-1])
	for _, w := range append(words, ruleStopped, string(h.op.DID())) {
		if !strings.Contains(text, w) {
			h.t.Errorf("%s: the finding does not say %q: %s", when, w, text)
		}
	}
	h.told = nil
}

// TestDeployed is the life of modules on one host: fetched, run, replaced, undeployed, withdrawn, back after a restart.
func TestDeployed(t *testing.T) {
	h := newHost(t)
	one := h.lua("x", "1.0.0", "return {rule = 'one'}")
	h.step()
	h.expect("released, not deployed", "", 1)
	h.say(&authority.DeployBody{Module: one[:], Labels: []string{"db"}})
	h.step()
	h.expect("for others", "", 1)
	if m := h.Modules(); len(m) != 1 || m[0].State != StateKept || m[0].Manifest.Name != "x" || len(m[0].Deployments) != 1 {
		t.Errorf("%+v", m)
	}
	h.say(&authority.DeployBody{Module: one[:], Labels: []string{"web"}})
	h.step()
	h.expect("for this host", "x.one", 1)
	two := h.lua("x", "2.0.0", "return {rule = 'two'}")
	h.say(&authority.DeployBody{Module: two[:]})
	other := h.lua("y", "1.0.0", "return {rule = 'other'}")
	h.say(&authority.DeployBody{Module: other[:], Roles: []string{"sentinel"}})
	h.step()
	h.expect("a later version, and another module", "y.other x.two", 1)
	if h.Modules()[1].State != StateRunning || h.Modules()[1].Counts.Events != 1 {
		t.Errorf("%+v", h.Modules()[1])
	}
	h.say(&authority.UndeployBody{Module: other[:]})
	h.say(&authority.UndeployBody{Module: two[:]})
	h.step()
	h.expect("undeployed: the version before is back", "x.one", 1)
	h.end()
	h.others = nil // nobody is there to ask
	h.start()
	h.step()
	h.expect("after a restart, alone", "x.one", 1)
	h.say(&authority.ModuleReleaseBody{Module: one[:], Withdraw: true})
	h.step()
	h.expect("withdrawn", "", 1)
	if len(h.told) != 0 || h.opt.Store.Pinned(one) || !h.opt.Store.Pinned(two) {
		t.Errorf("%v; pinned %v %v", h.told, h.opt.Store.Pinned(one), h.opt.Store.Pinned(two))
	}
}

// TestFailingModuleIsTakenOut: what traps, floods or is refused ends, its author is named, what ran before goes on, and a
// restart does not bring it back.
func TestFailingModuleIsTakenOut(t *testing.T) {
	h := newHost(t)
	good := h.lua("x", "1.0.0", "return {rule = 'good'}")
	h.say(&authority.DeployBody{Module: good[:]})
	bad := h.lua("x", "2.0.0", "error('no')")
	h.say(&authority.DeployBody{Module: bad[:]})
	h.step()
	h.expect("three traps", "", 5)
	h.step()
	h.stopped("three traps", "x 2.0.0", bad.String(), "no")
	h.expect("the version before is back", "x.good", 1)

	flood := h.lua("x", "3.0.0", "return {rule = 'flood'}", func(m *modules.Manifest) { m.Limits.FindingRate = 2 })
	h.say(&authority.DeployBody{Module: flood[:]})
	h.step()
	h.expect("what floods is held to its rate", "x.flood x.flood", 9)
	h.step()
	h.expect("and goes on, where it is no canary", "x.flood x.flood", 9)
	share := uint8(99)
	d := authority.Deployment{Module: flood, Share: int(share)}
	if !d.Matches(h.op.DID(), nil, nil) {
		t.Skip("this DID is the one in a hundred that is in no canary")
	}
	h.say(&authority.DeployBody{Module: flood[:], Share: share})
	h.step()
	h.step()
	h.stopped("a canary that floods", "floods", "x 3.0.0")
	h.expect("rolled back", "x.good", 1)

	h.forbid = modules.CapabilityState
	asks := h.lua("x", "4.0.0", "return {rule = 'asks'}", func(m *modules.Manifest) { m.Capabilities = []modules.Capability{modules.CapabilityState} })
	h.say(&authority.DeployBody{Module: asks[:]})
	h.step()
	h.stopped("asks for what policy forbids", `asks for "state"`, "forbidden by a policy")
	broken := h.lua("z", "1.0.0", "return (")
	h.say(&authority.DeployBody{Module: broken[:]})
	h.step()
	h.stopped("does not compile", "z 1.0.0")
	h.expect("none of them runs", "x.good", 1)
	states := map[string]State{}
	for _, m := range h.Modules() {
		_, v := m.Name()
		states[v] = m.State
		if m.State == StateStopped && m.Why == "" {
			t.Errorf("%s is stopped, and nobody says why", v)
		}
	}
	if states["2.0.0"] != StateStopped || states["4.0.0"] != StateStopped {
		t.Errorf("%v", states)
	}
	h.end()
	h.start()
	h.step()
	h.expect("after a restart", "x.good", 1)
	if len(h.told) != 0 {
		t.Errorf("it is said again: %v", h.told)
	}
	h.say(&authority.DeployBody{Module: bad[:]}) // a person wants it again
	h.step()
	h.expect("deployed anew", "", 5)
	h.step()
	h.stopped("three traps again", "x 2.0.0")
}

// TestShadow: a shadow's findings are counted against what runs under its name, and not told.
func TestShadow(t *testing.T) {
	h := newHost(t)
	live := h.lua("x", "1.0.0", "return {rule = 'a'}")
	h.say(&authority.DeployBody{Module: live[:]})
	next := h.lua("x", "2.0.0", "if e.pid == 1 then return {rule = 'a'} elseif e.pid == 2 then return {rule = 'b'} end")
	h.say(&authority.DeployBody{Module: next[:], Shadow: true})
	h.step()
	h.expect("a shadow beside it", "x.a x.a x.a", 3)
	var seen bool
	for _, m := range h.Modules() {
		if m.ID != next {
			continue
		}
		seen = true
		if d := m.Difference; m.State != StateShadow || d == nil || d.Both != 1 || d.Shadow != 1 || d.Live != 2 || len(d.Examples) != 3 {
			t.Errorf("%s %+v", m.State, m.Difference)
		}
	}
	if !seen {
		t.Error("it is not listed")
	}
	h.say(&authority.DeployBody{Module: next[:]})
	h.step()
	h.expect("and then it runs", "x.a x.b", 3)
}

// TestFetchIsTriedAgain: what nobody has is asked for later; a bad disk's module is fetched again.
func TestFetchIsTriedAgain(t *testing.T) {
	h := newHost(t)
	id := h.lua("x", "1.0.0", "return {rule = 'one'}")
	h.say(&authority.DeployBody{Module: id[:]})
	there := h.others
	empty, err := store.Open(t.TempDir(), 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.others = empty
	h.step()
	if m := h.Modules(); m[0].State != StateFetching || m[0].Why == "" {
		t.Errorf("%+v", m[0])
	}
	h.others = there
	var wg sync.WaitGroup
	if again := h.reconcile(t.Context(), &wg); again <= 0 || again > retryMax {
		t.Errorf("looked for again in %s", again)
	}
	h.pending[id].next = time.Time{} // that time has passed
	h.step()
	h.expect("somebody has it", "x.one", 1)
}

// TestExchangeLosesNoEvent: while versions are exchanged as fast as they can be, each event is seen by one of them, once.
func TestExchangeLosesNoEvent(t *testing.T) {
	h := newHost(t)
	for i, v := range []string{"1.0.0", "2.0.0"} {
		id := h.lua("x", v, fmt.Sprintf("return {rule = 'v%d'}", i+1), func(m *modules.Manifest) { m.Limits.FindingRate = modules.MaxFindingRate })
		h.say(&authority.DeployBody{Module: id[:], Labels: []string{"web"}})
		h.step()
	}
	byVersion := map[string]*running{}
	for _, d := range h.fold.State().Deployments() {
		x, err := h.load(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		byVersion[x.module.Manifest.Version] = x
	}
	one, two := []*running{byVersion["1.0.0"]}, []*running{byVersion["2.0.0"]}
	set := h.set
	if err := set.exchange(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	exchanges := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, next := range [][]*running{two, one} {
				if err := set.exchange(ctx, next); err != nil {
					return
				}
				exchanges++
			}
		}
	})
	seen := map[string]int{}
	const events = 30_000
	for i := range events {
		e := &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: int64(i/500) * int64(time.Minute), Process: event.Process{Exe: "/bin/x"}}
		n := 0
		if err := set.Detect(ctx, []*event.Event{e}, func(f event.Finding) { n++; seen[f.RuleID]++ }); err != nil {
			t.Fatal(err)
		}
		if n != 1 {
			t.Fatalf("event %d was seen %d times", i, n)
		}
	}
	cancel()
	wg.Wait()
	if seen["module.x.v1"] == 0 || seen["module.x.v2"] == 0 || seen["module.x.v1"]+seen["module.x.v2"] != events {
		t.Errorf("%v in %d exchanges", seen, exchanges)
	}
	sum := uint64(0)
	for _, x := range byVersion {
		sum += x.module.Counts().Events
	}
	if sum != events {
		t.Errorf("the modules count %d events", sum)
	}
}

// TestBenchmarksMeasure runs each figure once: one that cannot be measured is no figure.
func TestBenchmarksMeasure(t *testing.T) {
	if ms, err := measureExchange(3, 2000); err != nil || ms <= 0 {
		t.Errorf("%v, %v", ms, err)
	}
}

// What runs nothing costs an event nothing, and what runs costs it no allocation of ours.
func TestDetectAllocatesNothing(t *testing.T) {
	set := NewSet()
	batch := []*event.Event{{Class: event.ClassProcess, Activity: event.ActivityExec}}
	emit := func(event.Finding) {}
	if n := testing.AllocsPerRun(100, func() { _ = set.Detect(t.Context(), batch, emit) }); n != 0 {
		t.Errorf("empty: %v allocations an event", n)
	}
	h := newHost(t)
	id := h.lua("x", "1.0.0", "", func(m *modules.Manifest) { m.Wants = []modules.Want{{Class: event.ClassDNS}} })
	h.say(&authority.DeployBody{Module: id[:]})
	h.step()
	if n := testing.AllocsPerRun(100, func() { _ = h.set.Detect(t.Context(), batch, emit) }); n != 0 {
		t.Errorf("a module that does not want it: %v allocations an event", n)
	}
}
