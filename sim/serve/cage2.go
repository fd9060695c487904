package serve

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/omega-mesh/omega/sim/cage2"
	"github.com/omega-mesh/omega/sim/rng"
	simv1 "github.com/omega-mesh/omega/sim/serve/v1"
)

// The sides of CAGE-2.
const (
	blue = iota
	red
	green
	sides
)

var sideNames = [sides]string{"blue", "red", "green"}

// cageBatch is many worlds of CAGE Challenge 2.
type cageBatch struct {
	version     cage2.Version
	red         cage2.Red
	green       bool
	endOnImpact bool
	steps       uint32
	played      []agent
	side        []int // of each agent that the client plays
	worlds      []cage2.World
	seen        []cage2.Observation
	script      []cage2.Policy // of blue in each world, where the client does not play it
}

// cageWorldBytes is about what one world takes, for the bound on all of them.
const cageWorldBytes = 512

func newCageBatch(r *simv1.CreateRequest) (*cageBatch, error) {
	c := r.GetCage2()
	b := &cageBatch{green: c.GetGreen(), endOnImpact: c.GetEndOnImpact(), red: cage2.BLine, steps: r.Steps}
	switch v := c.GetVersion(); v {
	case "", cage2.Leaderboard.String():
	case cage2.Later.String():
		b.version = cage2.Later
	default:
		return nil, fmt.Errorf("%w: version %.40q: want leaderboard or later", ErrInvalid, v)
	}
	if b.steps == 0 {
		b.steps = 100
	}
	if b.steps > cage2.MaxSteps {
		return nil, fmt.Errorf("%w: an episode of %d steps: at most %d", ErrInvalid, b.steps, cage2.MaxSteps)
	}
	names := r.Agents
	if len(names) == 0 {
		names = sideNames[blue : blue+1]
	}
	for _, name := range names {
		k := slices.Index(sideNames[:], name)
		if k < 0 || slices.Contains(b.side, k) {
			return nil, fmt.Errorf("%w: agent %.40q: cage2 has blue, red and green, each once", ErrInvalid, name)
		}
		b.side = append(b.side, k)
		b.played = append(b.played, cageAgent(k))
	}
	if name := c.GetRed(); name != "" {
		var err error
		if b.red, err = cage2.RedByName(name); err != nil {
			return nil, fmt.Errorf("%w: red agent %.40q: want sleep, b_line, meander or random", ErrInvalid, name)
		}
	}
	b.worlds = make([]cage2.World, r.Worlds)
	b.seen = make([]cage2.Observation, r.Worlds)
	name := c.GetBlue()
	if name == "" {
		name = "rules"
	}
	if _, err := cage2.PolicyByName(name); err != nil {
		return nil, fmt.Errorf("%w: blue policy %.40q: want sleep, random, react or rules", ErrInvalid, name)
	}
	if !slices.Contains(b.side, blue) {
		b.script = make([]cage2.Policy, r.Worlds)
		for i := range b.script {
			b.script[i], _ = cage2.PolicyByName(name) // known: it was made above
		}
	}
	return b, nil
}

func cageAgent(k int) agent {
	a := agent{name: sideNames[k], observation: &simv1.Space{Kind: multiBinary, High: 1}}
	switch k {
	case blue:
		a.observation.N = uint32(cage2.ObservationBits)
		for i := range cage2.Actions {
			a.actions = append(a.actions, cage2.Action(i).String())
		}
	case red:
		a.observation.N = uint32(cage2.RedObservationBits)
		for i := range cage2.RedActions {
			a.actions = append(a.actions, cage2.RedAction(i).String())
		}
	case green:
		a.observation.N = 1 // users notice whether the service is there
		a.actions = append(a.actions, "Sleep")
		for h := range cage2.Hosts {
			a.actions = append(a.actions, "Scan "+h.String())
		}
	}
	return a
}

func (b *cageBatch) agents() []agent { return b.played }
func (b *cageBatch) length() uint32  { return b.steps }

func (b *cageBatch) restart(i int, source rng.Source) {
	b.worlds[i] = cage2.NewWorld(b.version, b.red, b.green, source)
	b.seen[i] = 0
	if b.script != nil {
		b.script[i].Begin(rng.Derive(source.State(), 1)) // as cage2.Play does
	}
}

func (b *cageBatch) step(i int, actions []int32, rewards []float64) bool {
	choice := [sides]uint8{blue: 0, red: cage2.Scripted, green: cage2.Scripted}
	if b.script != nil {
		choice[blue] = uint8(b.script[i].Act(b.seen[i]))
	}
	for k, side := range b.side {
		choice[side] = uint8(actions[k])
	}
	w := &b.worlds[i]
	r := w.Contest(cage2.Action(choice[blue]), choice[red], choice[green])
	b.seen[i] = r.Observation
	for k, side := range b.side {
		switch side {
		case blue:
			rewards[k] = float64(r.Reward) / 10
		case red:
			rewards[k] = float64(cage2.RedReward(cage2.Action(choice[blue]), r.Reward)) / 10
		}
	}
	return b.endOnImpact && w.ServiceDown()
}

func (b *cageBatch) look(i, k int, dst []byte) {
	switch b.side[k] {
	case blue:
		var o [8]byte
		binary.LittleEndian.PutUint64(o[:], uint64(b.seen[i]))
		copy(dst, o[:])
	case red:
		b.worlds[i].RedObservation(dst)
	case green:
		if b.worlds[i].ServiceDown() {
			dst[0] = 1
		}
	}
}

func (b *cageBatch) mask(i, k int, dst []byte) {
	switch b.side[k] {
	case blue:
		b.worlds[i].BlueMask(dst)
	case red:
		var m [8]byte
		binary.LittleEndian.PutUint64(m[:], b.worlds[i].RedMask())
		copy(dst, m[:])
	case green:
		dst[0], dst[1] = 0xff, 0xff>>(16-cage2.GreenActions)
	}
}
