package serve

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/omega-mesh/omega/sim/rng"
	simv1 "github.com/omega-mesh/omega/sim/serve/v1"
	"github.com/omega-mesh/omega/sim/world"
)

// harm is what one refused logon of a user costs the defender, in the units of the scenario's values.
const harm = 0.1

// Bounds of a network's batch, beside those of its memory.
const (
	defaultStep   = 10 * time.Minute
	maxTurns      = 50_000_000 // of all attackers and users of all worlds, in one step
	maxSteps      = 1_000_000  // of an episode
	maxSources    = 4096       // an action each
	sourceNumbers = 3          // of the observation, for each source: refused now; found by sensors, by decoys, in this step
)

// networkBatch is many worlds of a described network, with the swarm's response as the one agent: it sees what the
// hosts found out since its last decision, and may refuse one source each step. The reward is what was not lost.
type networkBatch struct {
	first  *world.World
	stride time.Duration
	steps  uint32
	agent  []agent
	worlds []networkWorld
}

type networkWorld struct {
	w     *world.World
	found []float32 // since the last decision: by source from sensors, by source from decoys, by host
	lost  float64   // until the last decision
	harm  int
}

func newNetworkBatch(r *simv1.CreateRequest) (*networkBatch, int64, error) {
	c := r.GetNetwork()
	if len(r.Agents) > 1 || len(r.Agents) == 1 && r.Agents[0] != "defender" {
		return nil, 0, fmt.Errorf("%w: agents %.80q: network has one, defender", ErrInvalid, r.Agents)
	}
	s, err := world.Read(bytes.NewReader(c.GetScenario()))
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	b := &networkBatch{stride: defaultStep, steps: r.Steps}
	if x := c.GetStepSeconds(); x != 0 {
		if !(x >= 0.001 && x <= 366*24*3600) { // NaN too
			return nil, 0, fmt.Errorf("%w: step_seconds %v: from 0.001 to a year", ErrInvalid, x)
		}
		b.stride = time.Duration(x * float64(time.Second))
	}
	if whole := uint32(min(maxSteps, (time.Duration(s.Duration)+b.stride-1)/b.stride)); b.steps == 0 || b.steps > whole {
		b.steps = whole
	}
	turns, targets := 0.0, 0
	for _, a := range s.Attackers {
		turns += float64(b.stride) / float64(a.Pace)
	}
	for _, u := range s.Users {
		turns += float64(b.stride) / float64(u.Each)
		targets += len(u.To)
	}
	if turns*float64(r.Worlds) > maxTurns {
		return nil, 0, fmt.Errorf("%w: a step of %s in %d worlds has %.3g turns of attackers and users: at most %d; take fewer worlds or a shorter step", ErrExhausted, b.stride, r.Worlds, turns*float64(r.Worlds), maxTurns)
	}
	sources := len(s.Hosts) + len(s.Attackers)
	if sources > maxSources {
		return nil, 0, fmt.Errorf("%w: %d hosts and attackers: at most %d are an agent's actions", ErrExhausted, sources, maxSources)
	}
	// What a world holds: a few bytes for each attacker and host, its tables by source, and the queue.
	each := int64(len(s.Attackers)*(16*len(s.Hosts)+2*sources+len(s.Credentials)+targets) + 64*sources + 64*len(s.Users) + targets + 1024)
	if size := each * int64(r.Worlds); size > MaxMemory {
		return nil, 0, fmt.Errorf("%w: %d worlds of this network take some %d MiB: at most %d", ErrExhausted, r.Worlds, size>>20, MaxMemory>>20)
	}
	if b.first, err = world.New(s, rng.New(0)); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	a := agent{name: "defender", actions: []string{"wait"},
		observation: &simv1.Space{Kind: box, N: uint32(sourceNumbers*sources + len(s.Hosts)), High: math.MaxFloat32}}
	for i := range sources {
		a.actions = append(a.actions, "refuse "+b.first.SourceAddress(i))
	}
	b.agent = []agent{a}
	b.worlds = make([]networkWorld, r.Worlds)
	return b, each * int64(r.Worlds), nil
}

func (b *networkBatch) agents() []agent { return b.agent }
func (b *networkBatch) length() uint32  { return b.steps }

func (b *networkBatch) restart(i int, source rng.Source) {
	x := &b.worlds[i]
	sources := b.first.Sources()
	*x = networkWorld{w: b.first.Again(source), found: make([]float32, int(b.agent[0].observation.N)-sources)}
	x.w.OnFinding = func(source, host int, decoy bool) {
		if decoy {
			x.found[sources+source]++
		} else {
			x.found[source]++
		}
		x.found[2*sources+host]++
	}
}

func (b *networkBatch) step(i int, actions []int32, rewards []float64) bool {
	x := &b.worlds[i]
	clear(x.found)
	if a := int(actions[0]); a > 0 && !x.w.Refused(a-1) {
		x.w.Refuse(a - 1)
	}
	r := x.w.Run(x.w.Now() + b.stride)
	rewards[0] = -(r.Loss - x.lost) - float64(harm*float64(r.HarmedLogons-x.harm))
	x.lost, x.harm = r.Loss, r.HarmedLogons
	return false // a scenario has no end of its own but that of its time
}

func (b *networkBatch) look(i, _ int, dst []byte) {
	x := &b.worlds[i]
	put := func(at int, v float32) { binary.LittleEndian.PutUint32(dst[4*at:], math.Float32bits(v)) }
	sources := b.first.Sources()
	for s := range sources {
		var refused float32
		if x.w.Refused(s) {
			refused = 1
		}
		put(s, refused)
	}
	for j, v := range x.found {
		put(sources+j, v)
	}
}

func (b *networkBatch) mask(i, _ int, dst []byte) {
	clear(dst)
	dst[0] = 1
	for s := range b.first.Sources() {
		if !b.worlds[i].w.Refused(s) {
			dst[(s+1)/8] |= 1 << ((s + 1) % 8)
		}
	}
}
