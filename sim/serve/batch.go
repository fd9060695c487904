package serve

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/omega-mesh/omega/sim/rng"
	simv1 "github.com/omega-mesh/omega/sim/serve/v1"
)

// What a request can be refused for.
var (
	ErrInvalid   = errors.New("invalid request")
	ErrNotFound  = errors.New("no such session")
	ErrExhausted = errors.New("too much is asked")
	ErrOver      = errors.New("the episode is over")
)

// Stream is the random stream of episode number e, from 0, of world i of a session.
func Stream(seed uint64, i int, e uint32) rng.Source {
	return rng.Derive(seed, uint64(i)<<32|uint64(e))
}

// Kinds of Space.
const (
	discrete    = "discrete"
	multiBinary = "multi_binary"
	box         = "box"
)

// agent is one side that the client plays.
type agent struct {
	name        string
	actions     []string
	observation *simv1.Space
}

func (a *agent) observationBytes() int {
	if a.observation.Kind == box {
		return 4 * int(a.observation.N)
	}
	return (int(a.observation.N) + 7) / 8
}

func (a *agent) maskBytes() int { return (len(a.actions) + 7) / 8 }

// batch is many worlds of one environment. Different worlds may be played at once.
type batch interface {
	agents() []agent // those the client plays
	length() uint32  // steps of an episode, at most
	// restart begins world i anew, and look writes what its agents then see.
	restart(i int, source rng.Source)
	// step plays one step in world i, with one action an agent, and says whether the episode has come to its own end
	// and what it was worth to each agent.
	step(i int, actions []int32, rewards []float64) (terminated bool)
	look(i int, k int, observation []byte)
	mask(i int, k int, dst []byte)
}

// frame is what one call shows of all worlds.
type frame struct {
	worlds int
	agents []agent
	simv1.StepResponse
}

func newFrame(agents []agent, worlds int, masks bool) *frame {
	f := &frame{worlds: worlds, agents: agents}
	observations, maskBytes := 0, 0
	for i := range agents {
		observations += agents[i].observationBytes()
		maskBytes += agents[i].maskBytes()
	}
	f.Observations = make([]byte, worlds*observations)
	f.Rewards = make([]byte, 8*worlds*len(agents))
	f.Terminated, f.Truncated = make([]byte, worlds), make([]byte, worlds)
	if masks {
		f.Masks = make([]byte, worlds*maskBytes)
	}
	return f
}

// frameBytes is what a frame with masks takes for each world, at most.
func frameBytes(agents []agent) int64 {
	n := 2
	for i := range agents {
		n += agents[i].observationBytes() + 8 + agents[i].maskBytes()
	}
	return int64(n)
}

// show writes what the agents of world i see.
func (f *frame) show(b batch, i int) {
	observations, masks := f.Observations, f.Masks
	for k := range f.agents {
		n := f.agents[k].observationBytes()
		b.look(i, k, observations[i*n:(i+1)*n])
		observations = observations[f.worlds*n:]
		if masks != nil {
			n := f.agents[k].maskBytes()
			b.mask(i, k, masks[i*n:(i+1)*n])
			masks = masks[f.worlds*n:]
		}
	}
}

func (f *frame) reward(i, k int, r float64) {
	binary.LittleEndian.PutUint64(f.Rewards[8*(k*f.worlds+i):], math.Float64bits(r))
}
