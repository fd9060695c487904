// Package planner chooses a defender's next action in CAGE-2 by simulating before acting: it keeps a belief about who
// the attacker is and where it sits (particles: whole worlds that would have shown what was seen), tries every sensible
// action in worlds drawn from that belief, lets a simple base policy go on from there, and takes the action with the
// least expected loss. What it found for every alternative is the explanation of its choice.
//
// It needs no training. It knows the attackers' scripts as hypotheses (as the leaderboard's trained agents did), not
// which one plays, what it chose, or how its chances fell. It is not responsible for the rules: those are sim/cage2.
package planner

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
)

// Config sets the planner's effort.
type Config struct {
	Version   cage2.Version
	Reds      []cage2.Red                       // who the attacker may be, each as likely at first
	Green     bool                              // whether users scan
	Particles int                               // worlds in the belief, 50 to 100,000
	Rollouts  int                               // simulations a candidate in the first round; each later round halves the candidates and doubles this
	Rounds    int                               // at most
	Depth     int                               // steps a simulation looks ahead, the candidate's own included
	Base      func(cage2.Version) (Base, error) // nil: the rules
	// Narrow simulates only what the base proposes, Sleep, and restoring where red may sit: for a base that knows better
	// than to try every decoy.
	Narrow   bool
	Deadline time.Duration // a decision begins no further round after this long; 0: no limit, and then a decision depends on the seed alone
}

// DefaultConfig is the effort with which the figures in sim/README.md were measured.
func DefaultConfig(v cage2.Version) Config {
	return Config{Version: v, Reds: cage2.LeaderboardReds(), Particles: 1000, Rollouts: 24, Rounds: 4, Depth: 13}
}

// Validate says what is wrong with c.
func (c Config) Validate() error {
	switch {
	case len(c.Reds) == 0:
		return fmt.Errorf("planner: no attacker as hypothesis")
	case c.Particles < 50 || c.Particles > 100_000:
		return fmt.Errorf("planner: %d particles; from 50 to 100,000", c.Particles)
	case c.Rollouts < 1 || c.Rollouts > 10_000:
		return fmt.Errorf("planner: %d rollouts; from 1 to 10,000", c.Rollouts)
	case c.Rounds < 1 || c.Rounds > maxRounds:
		return fmt.Errorf("planner: %d rounds; from 1 to %d", c.Rounds, maxRounds)
	case c.Depth < 1 || c.Depth > 100:
		return fmt.Errorf("planner: depth %d; from 1 to 100", c.Depth)
	case c.Deadline < 0:
		return fmt.Errorf("planner: negative deadline")
	}
	return nil
}

// Planner is a cage2.Policy. One value serves one goroutine.
type Planner struct {
	config    Config
	particles []cage2.World
	spare     []cage2.World
	base      Base // what it would have done, step by step, had it made the planner's choices
	trial     Base // its copy in a simulation
	proposed  []cage2.Action
	source    rng.Source
	last      cage2.Action
	started   bool
	lost      int // how often the belief held no world that fits, this episode

	candidates []candidate
	took       time.Duration
}

type candidate struct {
	action  cage2.Action
	sum     float64 // of losses
	squares float64
	n       int
	rounds  int                // it took part in
	after   [maxRounds]float64 // the mean of its losses after each of them
}

// maxRounds bounds Config.Rounds: each round doubles the simulations of those that are left.
const maxRounds = 12

func (c *candidate) mean() float64 { return c.sum / float64(c.n) }

// New makes a planner.
func New(c Config) (*Planner, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &Planner{config: c, particles: make([]cage2.World, c.Particles), spare: make([]cage2.World, c.Particles)}
	fresh := c.Base
	if fresh == nil {
		fresh = func(cage2.Version) (Base, error) { return NewRules(), nil }
	}
	var err error
	if p.base, err = fresh(c.Version); err != nil {
		return nil, fmt.Errorf("planner: base policy: %w", err)
	}
	if p.trial, err = fresh(c.Version); err != nil {
		return nil, fmt.Errorf("planner: base policy: %w", err)
	}
	p.Begin(rng.New(0))
	return p, nil
}

// Begin forgets the last episode: every attacker is as likely again.
func (p *Planner) Begin(source rng.Source) {
	p.source = source
	for i := range p.particles {
		p.particles[i] = cage2.NewWorld(p.config.Version, p.config.Reds[i%len(p.config.Reds)], p.config.Green, rng.Source{})
	}
	p.base.Begin(source)
	p.started, p.lost = false, 0
}

// Act takes in what the last step showed and chooses.
func (p *Planner) Act(o cage2.Observation) cage2.Action {
	begin := time.Now()
	if p.started {
		p.update(o)
	}
	p.started = true
	p.base.See(o)
	p.propose(o)
	p.compare(o, begin)
	p.last = p.candidates[0].action
	p.base.Follow(p.last)
	p.took = time.Since(begin)
	return p.last
}

// attemptsPerParticle bounds the search for worlds that fit: an opening that goes unseen has a chance of 1 in 20, so
// that a belief for which that happened still finds half its worlds.
const attemptsPerParticle = 20

// update moves the belief one step on: worlds drawn from it are played with the action that was taken, and those stay
// that show exactly what was seen.
func (p *Planner) update(o cage2.Observation) {
	kept, nearest, distance := 0, 0, cage2.ObservationBits+1
	n := len(p.particles)
	for range attemptsPerParticle * n {
		w := &p.spare[kept]
		*w = p.particles[p.source.Below(uint32(n))]
		w.Rand = rng.New(p.source.Uint64())
		got := w.Step(p.last).Observation
		if got == o {
			kept++
			if kept == n {
				break
			}
			continue
		}
		if kept > 0 {
			continue
		}
		// While nothing fits, gather what fits best at the end of the spare buffer.
		d := bits.OnesCount64(uint64(got ^ o))
		if d < distance {
			nearest, distance = 0, d
		}
		if d == distance && nearest < n-1 {
			nearest++
			p.spare[n-nearest] = *w
		}
	}
	if kept == 0 {
		p.lost++
		for i := range nearest {
			p.spare[i] = p.spare[n-nearest+i]
			p.spare[i].Remember(o)
		}
		kept = nearest
	}
	for i := kept; i < n; i++ {
		p.spare[i] = p.spare[p.source.Below(uint32(kept))]
	}
	p.particles, p.spare = p.spare, p.particles
}

// worthRestoring is the least belief in a session on a host for which restoring or cleaning it is tried.
const worthRestoring = 0.02

// propose lists the actions worth simulating, the base policy's own first: on equal loss the earlier one is taken.
func (p *Planner) propose(o cage2.Observation) {
	p.candidates = p.candidates[:0]
	p.proposed = p.base.Propose(p.proposed[:0])
	for _, a := range p.proposed {
		p.add(a)
	}
	p.add(cage2.Sleep)
	one := &p.particles[0] // blue's own deeds are the same in every world
	least := int(worthRestoring * float64(len(p.particles)))
	for h := range cage2.Hosts {
		if h == cage2.Defender || h == cage2.User0 {
			continue
		}
		any, removable := 0, 0
		for i := range p.particles {
			w := &p.particles[i]
			if w.Privilege(h) > 0 {
				any++
				if w.Sessions(h, cage2.Detected) > 0 && w.Privilege(h) == 1 {
					removable++
				}
			}
		}
		if any > least || o.Compromise(h) >= cage2.CompromiseUser {
			p.add(cage2.Do(cage2.Restore, h))
		}
		if removable > least {
			p.add(cage2.Do(cage2.Remove, h))
		}
		for d := cage2.Apache; d <= cage2.Vsftpd; d++ {
			if !p.config.Narrow && one.CanPlace(d, h) && !one.Running(d, h) {
				p.add(cage2.PlaceDecoy(d, h))
			}
		}
	}
}

func (p *Planner) add(a cage2.Action) {
	for i := range p.candidates {
		if p.candidates[i].action == a {
			return
		}
	}
	p.candidates = append(p.candidates, candidate{action: a})
}

// compare simulates the candidates and leaves them sorted, best first. Each round simulates those that are left in the
// same worlds with the same chances (so that their difference is seen, not their luck), then drops the worse half.
func (p *Planner) compare(o cage2.Observation, begin time.Time) {
	left := len(p.candidates)
	n := p.config.Rollouts
	for round := range p.config.Rounds {
		if round > 0 && (left == 1 || p.config.Deadline > 0 && time.Since(begin) > p.config.Deadline) {
			break
		}
		for range n {
			start := &p.particles[p.source.Below(uint32(len(p.particles)))]
			seed := p.source.Uint64()
			for i := range p.candidates[:left] {
				c := &p.candidates[i]
				l := p.rollout(start, seed, c.action)
				c.sum += l
				c.squares += l * l
				c.n++
			}
		}
		for i := range p.candidates[:left] {
			c := &p.candidates[i]
			c.after[round] = c.mean()
			c.rounds = round + 1
		}
		sortByLoss(p.candidates[:left])
		left = max(1, (left+1)/2)
		n *= 2
	}
}

// sortByLoss is a stable insertion sort: no allocation, and equals keep their order.
func sortByLoss(c []candidate) {
	for i := 1; i < len(c); i++ {
		for j := i; j > 0 && c[j].mean() < c[j-1].mean(); j-- {
			c[j], c[j-1] = c[j-1], c[j]
		}
	}
}

// rollout is the loss of one simulation from start: the candidate, then the base policy.
func (p *Planner) rollout(start *cage2.World, seed uint64, a cage2.Action) float64 {
	w := *start
	w.Rand = rng.New(seed)
	w.Steps = 0
	base := p.trial
	base.CopyFrom(p.base)
	loss := int32(0)
	for i := range p.config.Depth {
		if i > 0 {
			a = base.Choose()
		}
		base.Follow(a)
		r := w.Step(a)
		loss -= int32(r.Reward)
		base.See(r.Observation)
	}
	return float64(loss) / 10
}

// Alternative is one action that was considered.
type Alternative struct {
	Action      string  `json:"action"`
	Loss        float64 `json:"loss"` // expected over the next Depth steps
	CI95        float64 `json:"ci95"` // half the width of the 95 % interval of the mean of its own simulations
	Simulations int     `json:"simulations"`
}

// HostBelief is what the planner believes of one host.
type HostBelief struct {
	Host string  `json:"host"`
	User float64 `json:"user"` // probability that red has a session, and none as root
	Root float64 `json:"root"` // probability that red is root or SYSTEM
}

// Explanation is the last decision with its reasons.
type Explanation struct {
	Action       string             `json:"action"`
	Depth        int                `json:"depth"`
	Attacker     map[string]float64 `json:"attacker"` // probability of each hypothesis
	Hosts        []HostBelief       `json:"hosts"`    // where red may sit (over 1 %), User0 left out
	Alternatives []Alternative      `json:"alternatives"`
	BeliefLost   int                `json:"belief_lost"` // steps of this episode that no world of the belief could explain
	TookMS       float64            `json:"took_ms"`
}

// Explain gives the reasons of the last Act.
func (p *Planner) Explain() Explanation {
	e := Explanation{Action: p.last.String(), Depth: p.config.Depth, Attacker: map[string]float64{}, BeliefLost: p.lost,
		TookMS: float64(p.took.Microseconds()) / 1000}
	n := float64(len(p.particles))
	for i := range p.particles {
		e.Attacker[p.particles[i].Mind.Red().String()] += 1 / n
	}
	for h := range cage2.Hosts {
		var level [3]float64
		for i := range p.particles {
			level[p.particles[i].Privilege(h)]++
		}
		if h != cage2.User0 && (level[1]+level[2])/n > 0.01 {
			e.Hosts = append(e.Hosts, HostBelief{Host: h.String(), User: level[1] / n, Root: level[2] / n})
		}
	}
	best := &p.candidates[0]
	for _, c := range p.candidates {
		k := float64(c.n)
		// One that was dropped early is compared with the best in the worlds they shared, not by the luck of those worlds.
		loss := best.mean() + c.mean() - best.after[c.rounds-1]
		variance := max(0, c.squares/k-c.mean()*c.mean())
		e.Alternatives = append(e.Alternatives, Alternative{Action: c.action.String(), Loss: loss, CI95: 1.96 * math.Sqrt(variance/k), Simulations: c.n})
	}
	slices.SortStableFunc(e.Alternatives[1:], func(a, b Alternative) int { return cmp.Compare(a.Loss, b.Loss) })
	return e
}
