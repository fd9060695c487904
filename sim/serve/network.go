package serve

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
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

// The sides of a network.
const (
	defender = iota
	attacker
)

// networkBatch is many worlds of a described network. The defender sees what the hosts found out since its last decision,
// and may refuse one source each step; its reward is what was not lost. The attacker, which is the scenario's first, takes
// one step at its next turn within the step; its reward is what was lost.
type networkBatch struct {
	first  *world.World
	stride time.Duration
	steps  uint32
	played []agent
	side   []int // of each agent that the client plays
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
	names := r.Agents
	if len(names) == 0 {
		names = []string{"defender"}
	}
	for _, name := range names {
		k := slices.Index([]string{defender: "defender", attacker: "attacker"}, name)
		if k < 0 || slices.Contains(b.side, k) || k == attacker && len(s.Attackers) == 0 {
			return nil, 0, fmt.Errorf("%w: agent %.40q: a network has a defender and, where the scenario has one, an attacker, each once", ErrInvalid, name)
		}
		b.side = append(b.side, k)
		b.played = append(b.played, networkAgent(k, name, b.first, len(s.Hosts)))
	}
	b.worlds = make([]networkWorld, r.Worlds)
	return b, each * int64(r.Worlds), nil
}

func networkAgent(k int, name string, w *world.World, hosts int) agent {
	a := agent{name: name, observation: &simv1.Space{Kind: box, N: uint32(sourceNumbers*w.Sources() + hosts), High: math.MaxFloat32}}
	if k == attacker {
		a.observation.N, a.observation.High = uint32(w.AttackerNumbers()), 2
		for i := range w.Orders() {
			a.actions = append(a.actions, w.OrderName(i))
		}
		return a
	}
	a.actions = []string{"wait"}
	for i := range w.Sources() {
		a.actions = append(a.actions, "refuse "+w.SourceAddress(i))
	}
	return a
}

func (b *networkBatch) agents() []agent { return b.played }
func (b *networkBatch) length() uint32  { return b.steps }

func (b *networkBatch) restart(i int, source rng.Source) {
	x := &b.worlds[i]
	sources := b.first.Sources()
	*x = networkWorld{w: b.first.Again(source), found: make([]float32, 2*sources+b.first.Hosts())}
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
	for k, side := range b.side {
		switch a := int(actions[k]); {
		case side == attacker:
			x.w.Order(0, a)
		case a > 0 && !x.w.Refused(a-1):
			x.w.Refuse(a - 1)
		}
	}
	r := x.w.Run(x.w.Now() + b.stride)
	for k, side := range b.side {
		if rewards[k] = r.Loss - x.lost; side == defender {
			rewards[k] = -(r.Loss - x.lost) - float64(harm*float64(r.HarmedLogons-x.harm))
		}
	}
	x.lost, x.harm = r.Loss, r.HarmedLogons
	return false // a scenario has no end of its own but that of its time
}

func (b *networkBatch) look(i, k int, dst []byte) {
	x := &b.worlds[i]
	put := func(at int, v float32) { binary.LittleEndian.PutUint32(dst[4*at:], math.Float32bits(v)) }
	if b.side[k] == attacker {
		x.w.AttackerView(0, put)
		return
	}
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

func (b *networkBatch) mask(i, k int, dst []byte) {
	clear(dst)
	if b.side[k] == attacker {
		b.worlds[i].w.OpenOrders(0, func(n int) { dst[n/8] |= 1 << (n % 8) })
		return
	}
	dst[0] = 1
	for s := range b.first.Sources() {
		if !b.worlds[i].w.Refused(s) {
			dst[(s+1)/8] |= 1 << ((s + 1) % 8)
		}
	}
}
