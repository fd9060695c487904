package planner

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/learn"
	"github.com/omega-mesh/omega/sim/rng"
)

// small is an effort that a test can afford.
func small(v cage2.Version) Config {
	c := DefaultConfig(v)
	c.Particles, c.Rollouts, c.Rounds = 200, 8, 3
	return c
}

func evaluate(t *testing.T, v cage2.Version, n int, p func() (cage2.Policy, error)) *cage2.Score {
	t.Helper()
	s, err := cage2.Evaluate(context.Background(), cage2.Evaluation{New: p, Version: v, Episodes: n, Seed: 153})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Even with a fraction of its effort the planner is far better than the base policy that it simulates with.
func TestBeatsItsBasePolicy(t *testing.T) {
	for _, v := range []cage2.Version{cage2.Leaderboard, cage2.Later} {
		planned := evaluate(t, v, 12, func() (cage2.Policy, error) { return New(small(v)) })
		rules := evaluate(t, v, 200, func() (cage2.Policy, error) { return cage2.PolicyByName("rules") })
		t.Logf("%s: planner %.1f±%.1f, rules %.1f±%.1f", v, planned.Total, planned.CI95, rules.Total, rules.CI95)
		if planned.Total-planned.CI95 < rules.Total+rules.CI95+20 {
			t.Errorf("%s: planner %.1f±%.1f, rules %.1f±%.1f", v, planned.Total, planned.CI95, rules.Total, rules.CI95)
		}
		if got := planned.Settings[8]; got.Red != "sleep" || got.Mean != 0 {
			t.Errorf("%s: it loses %v against an attacker that sleeps", v, got.Mean)
		}
	}
}

func TestSameSeedSameDecisions(t *testing.T) {
	play := func() (actions []cage2.Action) {
		p, err := New(small(cage2.Leaderboard))
		if err != nil {
			t.Fatal(err)
		}
		p.Begin(rng.New(3))
		w := cage2.NewWorld(cage2.Leaderboard, cage2.Meander, false, rng.New(4))
		var o cage2.Observation
		for range 40 {
			a := p.Act(o)
			actions = append(actions, a)
			o = w.Step(a).Observation
		}
		return actions
	}
	a, b := play(), play()
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("decision %d: %s, then %s", i, a[i], b[i])
		}
	}
}

// After five steps the traffic tells the attackers apart, and the belief must have followed it.
func TestBeliefFindsTheAttacker(t *testing.T) {
	for _, red := range cage2.LeaderboardReds() {
		sum := 0.0
		const episodes = 8
		for seed := range uint64(episodes) {
			p, err := New(small(cage2.Later))
			if err != nil {
				t.Fatal(err)
			}
			p.Begin(rng.New(seed))
			w := cage2.NewWorld(cage2.Later, red, false, rng.New(100+seed))
			var o cage2.Observation
			for range 6 {
				o = w.Step(p.Act(o)).Observation
			}
			p.Act(o)
			e := p.Explain()
			sum += e.Attacker[red.String()]
			checkExplanation(t, e)
		}
		if mean := sum / episodes; mean < 0.8 {
			t.Errorf("%s: believed with %.2f on average", red, mean)
		}
	}
}

func checkExplanation(t *testing.T, e Explanation) {
	t.Helper()
	total := 0.0
	for _, p := range e.Attacker {
		total += p
	}
	if math.Abs(total-1) > 1e-9 {
		t.Errorf("the belief in the attackers adds up to %v", total)
	}
	if len(e.Alternatives) < 5 || e.Alternatives[0].Action != e.Action {
		t.Fatalf("the chosen action %s is not the first of %d alternatives", e.Action, len(e.Alternatives))
	}
	for _, a := range e.Alternatives {
		if a.Loss < e.Alternatives[0].Loss-1e-9 {
			t.Errorf("%s is expected to lose less than the chosen %s", a.Action, e.Action)
		}
		if a.Simulations == 0 || a.Loss < 0 || math.IsNaN(a.CI95) {
			t.Errorf("alternative %+v", a)
		}
	}
}

// What no hypothesis explains must not stop the planner: it says so and goes on.
func TestLostBelief(t *testing.T) {
	c := small(cage2.Leaderboard)
	c.Reds = []cage2.Red{cage2.SleepRed}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	p.Begin(rng.New(1))
	w := cage2.NewWorld(cage2.Leaderboard, cage2.BLine, false, rng.New(1))
	var o cage2.Observation
	for range 30 {
		o = w.Step(p.Act(o)).Observation
	}
	p.Act(o)
	if e := p.Explain(); e.BeliefLost == 0 {
		t.Error("a sleeping attacker explains B_line's traffic")
	}
}

func TestDeadlineEndsADecision(t *testing.T) {
	c := DefaultConfig(cage2.Leaderboard)
	c.Rounds, c.Rollouts, c.Deadline = 12, 10, time.Nanosecond
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	p.Act(0)
	if e := p.Explain(); e.Alternatives[0].Simulations != c.Rollouts {
		t.Errorf("%d simulations of the best after the deadline, want the first round's %d", e.Alternatives[0].Simulations, c.Rollouts)
	}
}

func TestDecisionAllocatesNothing(t *testing.T) {
	p, err := New(small(cage2.Leaderboard))
	if err != nil {
		t.Fatal(err)
	}
	w := cage2.NewWorld(cage2.Leaderboard, cage2.BLine, false, rng.New(1))
	var o cage2.Observation
	for range 10 { // the list of candidates reaches its size
		o = w.Step(p.Act(o)).Observation
	}
	if n := testing.AllocsPerRun(20, func() { o = w.Step(p.Act(o)).Observation }); n != 0 {
		t.Errorf("%v allocations a decision", n)
	}
}

func TestBadConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no attacker":        func(c *Config) { c.Reds = nil },
		"too few particles":  func(c *Config) { c.Particles = 1 },
		"a billion worlds":   func(c *Config) { c.Particles = 1e9 },
		"no rollouts":        func(c *Config) { c.Rollouts = 0 },
		"no rounds":          func(c *Config) { c.Rounds = 0 },
		"endless depth":      func(c *Config) { c.Depth = 1e6 },
		"a deadline in past": func(c *Config) { c.Deadline = -1 },
	} {
		c := DefaultConfig(cage2.Later)
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func BenchmarkDecision(b *testing.B) { decisionBenchmark(b) }

func TestExplanationInWords(t *testing.T) {
	p, err := New(small(cage2.Later))
	if err != nil {
		t.Fatal(err)
	}
	w := cage2.NewWorld(cage2.Later, cage2.BLine, false, rng.New(2))
	var o cage2.Observation
	for range 9 {
		o = w.Step(p.Act(o)).Observation
	}
	p.Act(o)
	e := p.Explain()
	var b strings.Builder
	if err := e.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Decision: " + e.Action, "b_line", "Expected loss over the next 13 steps", e.Alternatives[len(e.Alternatives)-1].Action} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the explanation lacks %q:\n%s", want, b.String())
		}
	}
}

// With the learned base too a decision allocates nothing and depends on the seed alone.
func TestLearnedBase(t *testing.T) {
	f, err := learn.Trained()
	if err != nil {
		t.Fatal(err)
	}
	c := LearnedConfig(cage2.Later, f)
	c.Particles, c.Rollouts, c.Rounds = 200, 4, 2
	var last []cage2.Action
	for range 2 {
		p, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		p.Begin(rng.New(3))
		w := cage2.NewWorld(cage2.Later, cage2.Meander, false, rng.New(4))
		var o cage2.Observation
		var actions []cage2.Action
		for range 30 {
			a := p.Act(o)
			actions = append(actions, a)
			o = w.Step(a).Observation
		}
		if last != nil && !slices.Equal(last, actions) {
			t.Errorf("%v, then %v", last, actions)
		}
		last = actions
		if n := testing.AllocsPerRun(10, func() { o = w.Step(p.Act(o)).Observation }); n != 0 {
			t.Errorf("%v allocations a decision", n)
		}
		checkExplanation(t, p.Explain())
	}
	// The base alone does what the trained policy does.
	b, err := c.Base(c.Version)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := f.Defender(c.Version)
	if err != nil {
		t.Fatal(err)
	}
	w := cage2.NewWorld(c.Version, cage2.BLine, false, rng.New(4))
	var o cage2.Observation
	for range 30 {
		b.See(o)
		a, want := b.Choose(), policy.Act(o)
		if a != want || b.Propose(nil)[0] != want {
			t.Fatalf("the base chooses %s, the policy %s", a, want)
		}
		b.Follow(a)
		o = w.Step(a).Observation
	}
}
