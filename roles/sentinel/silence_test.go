package sentinel

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omega-mesh/omega/roles"
	"github.com/omega-mesh/omega/roles/rolestest"
	"github.com/omega-mesh/omega/swarm/event"
)

// mesh is what one peer sees of n-1 others, moved by hand a second at a time.
type mesh struct {
	t      *testing.T
	now    uint64
	self   string
	s      *silence
	sights []roles.Sight
}

func newMesh(t *testing.T, self string, others int) *mesh {
	m := &mesh{t: t, now: uint64(time.Hour), self: self, s: newSilence(SilentAfter)}
	for i := range others {
		m.sights = append(m.sights, roles.Sight{DID: fmt.Sprint("p", i), Name: fmt.Sprint("p", i), Sentinel: true, Connected: true})
	}
	if got := m.run(time.Second); len(got) != 0 {
		t.Fatalf("claims at rest: %+v", got)
	}
	return m
}

func (m *mesh) run(d time.Duration) (out []claim) {
	for range d / time.Second {
		out = append(out, m.s.look(m.self, m.now, m.sights)...)
		m.now += uint64(time.Second)
	}
	return out
}

func TestSilenceIsToldOnceAndTakenBack(t *testing.T) {
	m := newMesh(t, "self", 4)
	m.sights[1].Connected = false
	if got := m.run(SilentAfter - time.Second); len(got) != 0 {
		t.Fatalf("told too early: %+v", got)
	}
	got := m.run(2 * time.Minute)
	if len(got) != 1 || got[0].did != "p1" || got[0].over {
		t.Fatalf("%+v", got)
	}
	m.sights[1].Connected = true
	if got = m.run(time.Minute); len(got) != 1 || got[0].did != "p1" || !got[0].over {
		t.Fatalf("%+v", got)
	}
	m.sights[1].Connected = false // and a second time
	if got = m.run(2 * time.Minute); len(got) != 1 || got[0].over {
		t.Fatalf("%+v", got)
	}
}

func TestSilenceThatMeansNothing(t *testing.T) {
	for name, f := range map[string]func(*mesh){
		"it took its leave":      func(m *mesh) { m.sights[1].Ended, m.sights[1].Connected = m.now, false },
		"it is no sentinel":      func(m *mesh) { m.sights[1].Sentinel, m.sights[1].Connected = false, false },
		"it is out of the swarm": func(m *mesh) { m.sights = m.sights[:1] },
		"another told of it":     func(m *mesh) { m.sights[1].Connected = false; m.run(time.Second); m.s.hear("p1", false, m.now) },
		"a short break":          func(m *mesh) { m.sights[1].Connected = false; m.run(20 * time.Second); m.sights[1].Connected = true },
		"it came and ended between two looks": func(m *mesh) {
			m.sights = append(m.sights, roles.Sight{DID: "p9", Sentinel: true, Met: true, Ended: 1})
		},
		"nobody ever met it here": func(m *mesh) { m.sights = append(m.sights, roles.Sight{DID: "p9", Sentinel: true}) },
	} {
		m := newMesh(t, "self", 4)
		f(m)
		if got := m.run(5 * time.Minute); len(got) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// What it says now does not count from before it came back.
	m := newMesh(t, "self", 4)
	m.sights[1].Ended, m.sights[1].Connected = m.now, false
	m.run(time.Minute)
	m.sights[1].Connected = true
	m.run(time.Minute)
	m.sights[1].Connected = false
	if got := m.run(2 * time.Minute); len(got) != 1 {
		t.Errorf("killed after it came back: %+v", got)
	}
	// Others still hear it: the last entry counts, not the connection.
	m = newMesh(t, "self", 4)
	m.sights[1].Connected = false
	for range 10 {
		m.sights[1].Entries++
		if got := m.run(20 * time.Second); len(got) != 0 {
			t.Fatalf("its words come, and it is called silent: %+v", got)
		}
	}
}

// TestPartitionIsNoStorm: the smaller half says that of itself, and nothing of the others; the larger one tells of each
// lost host once, whoever tells it.
func TestPartitionIsNoStorm(t *testing.T) {
	m := newMesh(t, "self", 9)
	for i := range 7 {
		m.sights[i].Connected = false
	}
	got := m.run(10 * time.Minute)
	if len(got) != 1 || got[0].did != "" || got[0].over {
		t.Fatalf("the smaller half says %+v", got)
	}
	for i := range 7 {
		m.sights[i].Connected = true
	}
	if got = m.run(time.Minute); len(got) != 1 || got[0].did != "" || !got[0].over {
		t.Fatalf("healed, it says %+v", got)
	}
	// Seven that see each other and lost three: their turns differ, and who hears another does not tell.
	told := map[string]int{}
	var half []*mesh
	for i := range 7 {
		p := newMesh(t, fmt.Sprint("p", i), 10)
		p.sights = append(p.sights[:i:i], p.sights[i+1:]...) // not itself
		half = append(half, p)
	}
	for _, p := range half {
		for j := range p.sights {
			p.sights[j].Connected = p.sights[j].DID < "p7"
		}
	}
	for range 300 {
		for _, p := range half {
			for _, c := range p.run(time.Second) {
				if c.did == "" || c.over {
					t.Fatalf("%s says %+v", p.self, c)
				}
				told[c.did]++
				for _, o := range half {
					if o != p {
						o.s.hear(c.did, false, o.now)
					}
				}
			}
		}
	}
	if len(told) != 3 || told["p7"] != 1 || told["p8"] != 1 || told["p9"] != 1 {
		t.Errorf("told %v", told)
	}
}

// TestASilentAgentIsAFinding: the role itself, in virtual time.
func TestASilentAgentIsAFinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		swarm := rolestest.New()
		p := swarm.Add("n1", "10.0.0.1", roles.NameSentinel)
		sights := []roles.Sight{{DID: "did:omega:n2", Name: "n2", Sentinel: true, Connected: true}, {DID: "did:omega:n3", Name: "n3", Sentinel: true, Connected: true}}
		p.See(func() []roles.Sight { return append([]roles.Sight(nil), sights...) })
		s := New(Options{})
		out := make(chan event.Finding, 16)
		ended := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { defer close(ended); s.watchSilence(ctx, p, out) }()
		step := func(d time.Duration) {
			for range d / time.Second {
				time.Sleep(time.Second)
				swarm.Advance(time.Second)
			}
			synctest.Wait()
		}
		step(10 * time.Second)
		sights[1].Connected = false
		step(2 * time.Minute)
		cancel()
		<-ended
		if len(out) != 1 {
			t.Fatalf("%d findings", len(out))
		}
		if f := <-out; f.RuleID != ruleSilent || f.Subject.Member != "did:omega:n3" || f.Severity != event.SeverityHigh {
			t.Errorf("%+v", f)
		}
	})
}

// An agent that is killed a moment after it came was never seen connected, and is missed all the same.
func TestSilenceOfOneThatCameAndWent(t *testing.T) {
	m := newMesh(t, "self", 4)
	m.sights = append(m.sights, roles.Sight{DID: "p9", Sentinel: true, Met: true})
	if got := m.run(3 * SilentAfter); len(got) != 1 || got[0].did != "p9" || got[0].over {
		t.Fatalf("%+v", got)
	}
}
